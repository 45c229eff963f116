// Package deploy_test checks the files that administrators copy.
package deploy_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"migproxy/config"
	"migproxy/e2e/servers"
)

// The example is a file that Load takes, once the files that it names are there.
func TestExampleLoads(t *testing.T) {
	dir := t.TempDir()
	servers.WriteCertificate(t, dir)
	program := filepath.Join(dir, "create-account")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("migproxy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.ReplaceAll(text, []byte("/etc/migproxy"), []byte(dir))
	text = bytes.ReplaceAll(text, []byte("/usr/local/bin/create-account"), []byte(program))
	path := filepath.Join(dir, "migproxy.yaml")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Domain("example.com").Wave.Includes("pilot-1@example.com") || c.Domain("example.com").Wave.Includes("anna@example.com") {
		t.Error("the example's wave is not what its comment says")
	}
}

func TestAlertsAreRules(t *testing.T) {
	if out, err := exec.Command("promtool", "check", "rules", "alerts.yml").CombinedOutput(); err != nil {
		t.Fatalf("promtool (make setup installs it): %v\n%s", err, out)
	}
}

// What the rules say of migrations that were forgotten or stand still.
func TestAlertsFire(t *testing.T) {
	cmd := exec.Command("promtool", "test", "rules", "left_active_test.yml", "standstill_test.yml")
	cmd.Dir = "testdata"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("promtool: %v\n%s", err, out)
	}
}

// A rule over a metric that was renamed never fires, and nobody notices.
func TestAlertsUseMetricsThatExist(t *testing.T) {
	registered := map[string]bool{}
	name := regexp.MustCompile(`"(migproxy_[a-z_]+)"`)
	for _, room := range []string{"../admin", "../proxy", "../migrator"} {
		err := filepath.WalkDir(room, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range name.FindAllSubmatch(text, -1) {
				registered[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	rules, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, metric := range regexp.MustCompile(`\bmigproxy_[a-z_]+`).FindAllString(string(rules), -1) {
		if !registered[strings.TrimSuffix(metric, "_bucket")] {
			t.Errorf("no room registers %s", metric)
		}
	}
}

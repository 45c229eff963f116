package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every command that the help shows has a page, which has its flags.
func TestManPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man8")
	if o := runCLI(t, "man", dir); o.status != exitDone {
		t.Fatalf("%+v", o)
	}
	for page, text := range map[string]string{
		"migproxy": "migproxy-check(8)", "migproxy-account-show": `\fB--export\fP`, "migproxy-migrate": `with \\: for a colon`,
		"migproxy-completion-bash": "completion",
	} {
		b, err := os.ReadFile(filepath.Join(dir, page+".8"))
		if err != nil || !strings.Contains(string(b), text) {
			t.Errorf("%s lacks %q: %v\n%s", page, text, err, b)
		}
	}
	if o := runCLI(t, "man", "/dev/null/here"); o.status != exitFailed || !strings.Contains(o.stderr, "name a directory") {
		t.Errorf("%+v", o)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if o := runCLI(t, "completion", shell); o.status != exitDone || !strings.Contains(o.stdout, "migproxy") {
			t.Errorf("%s: %d %s", shell, o.status, o.stderr)
		}
	}
	for flag, want := range map[string]string{
		"accounts --state": "conflict", "migrate --mode": "passwords", "migrate --format": "csv", "account": "adopt",
	} {
		args := append([]string{"__complete"}, append(strings.Fields(flag), "")...)
		if o := runCLI(t, args...); o.status != exitDone || !strings.Contains(o.stdout, want) {
			t.Errorf("%s: %+v", flag, o)
		}
	}
}

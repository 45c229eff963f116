package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// gate is a provision command that waits before it creates an account, so that
// whoever is parked stays so until the test opens it.
type gate struct {
	t   testing.TB
	dir string
}

func newGate(t testing.TB) *gate { return &gate{t: t, dir: t.TempDir()} }

// gateCommand creates accounts in a Dovecot's passwd-file. It answers a lookup
// at once, and waits with the rest until the file "open" is there.
const gateCommand = `#!/usr/bin/env python3
import base64, json, os, sys, time
passwd, gate = %q, %q
r = json.load(sys.stdin)
with open(gate + "/seen", "a") as f:
    f.write(r["op"] + " args " + repr(sys.argv) + " env " + repr(dict(os.environ)) + "\n")
lines = open(passwd).read().splitlines()
rest = [l for l in lines if not l.startswith(r["account"] + ":")]
if r["op"] == "lookup":
    sys.exit(2 if len(rest) < len(lines) else 0)
while not os.path.exists(gate + "/open"):
    time.sleep(0.05)
lines = open(passwd).read().splitlines()
rest = [l for l in lines if not l.startswith(r["account"] + ":")]
with open(passwd + ".new", "w") as f:
    f.write("\n".join(rest + ["%%s:{PLAIN.b64}%%s::::::" %% (r["account"], r["password_base64"])]) + "\n")
os.chmod(passwd + ".new", 0o644)
os.rename(passwd + ".new", passwd)
`

// provision makes the settings use the gate. The target's passwd-file is the
// one that the settings named so far.
func (g *gate) provision(s *settings) {
	g.t.Helper()
	path := regexp.MustCompile(`path: ([^,} ]*)`).FindStringSubmatch(s.provision)
	if path == nil {
		g.t.Fatalf("no passwd-file in %q", s.provision)
	}
	command := filepath.Join(g.dir, "provision.py")
	if err := os.WriteFile(command, fmt.Appendf(nil, gateCommand, path[1], g.dir), 0o755); err != nil {
		g.t.Fatal(err)
	}
	s.provision = fmt.Sprintf("{ driver: exec, command: [%s], timeout: 60s }", command)
}

func (g *gate) open() {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, "open"), nil, 0o644); err != nil {
		g.t.Fatal(err)
	}
}

// await waits until the command was called for this.
func (g *gate) await(op string) {
	g.t.Helper()
	err := eventually(20*time.Second, func() error {
		seen, err := os.ReadFile(filepath.Join(g.dir, "seen"))
		if err == nil && !strings.Contains(string(seen), op+" args ") {
			err = fmt.Errorf("the command was not called to %s", op)
		}
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

// seen is what the command was given besides its standard input.
func (g *gate) seen() string { return readFile(g.t, filepath.Join(g.dir, "seen")) }

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

package config_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"migproxy/config"
	"migproxy/e2e/servers"
)

// write puts a settings file together from minimal.yaml, with its pairs of old
// and new text replaced.
func write(t *testing.T, replace ...string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "migproxy.yaml")
	if err := os.WriteFile(path, []byte(strings.NewReplacer(replace...).Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWaysToWriteValues(t *testing.T) {
	dir := t.TempDir()
	ca := servers.WriteCertificate(t, dir)
	pin := strings.TrimSuffix(strings.Repeat("AB:", 32), ":")
	for _, c := range []struct {
		what    string
		replace []string
		check   func(*config.Config) bool
	}{
		{"true without quotes", []string{"listeners:", "tls: { allow_plaintext_login: true }\nlisteners:"},
			func(c *config.Config) bool { return c.TLS.AllowPlaintextLogin == config.PlaintextAlways }},
		{"false in quotes", []string{"listeners:", "tls: { allow_plaintext_login: \"false\" }\nlisteners:"},
			func(c *config.Config) bool { return c.TLS.AllowPlaintextLogin == config.PlaintextNever }},
		{"loopback", []string{"listeners:", "tls: { allow_plaintext_login: loopback }\nlisteners:"},
			func(c *config.Config) bool { return c.TLS.AllowPlaintextLogin == config.PlaintextLoopback }},
		{"a version without quotes", []string{"listeners:", "tls: { min_version: 1.3 }\nlisteners:"},
			func(c *config.Config) bool { return c.TLS.MinVersion == "1.3" }},
		{"empty values are none", []string{"tls: none }", "tls: none, domain: \"\" }\nlog: { level: \"\", file: }\nlimits:"},
			func(c *config.Config) bool { return c.Log.Level == "info" && c.Limits.PerAccount == 50 }},
		{"a list of addresses", []string{`"new.example.com:143"`, `["a.example.com:143", "[::1]:144"]`},
			func(c *config.Config) bool {
				return slices.Equal(c.Domains[0].Target.IMAP.Address, config.Addresses{{Host: "a.example.com", Port: 143}, {Host: "::1", Port: 144}})
			}},
		{"a fingerprint with colons", []string{`"old.example.com:143"`, `"old.example.com:143", pin_sha256: "` + pin + `"`},
			func(c *config.Config) bool {
				return c.Domains[0].Source.IMAP.PinSHA256 == strings.Repeat("ab", 32)
			}},
		{"an authority", []string{`"old.example.com:143"`, `"old.example.com:143", ca_file: ` + ca},
			func(c *config.Config) bool { return c.Domains[0].Source.IMAP.CAFile == ca }},
		{"a certificate", []string{"tls: none }", "tls: implicit }\ntls: { certificates: [{ cert: " + ca + ", key: " + filepath.Join(dir, "tls.key") + " }] }"},
			func(c *config.Config) bool { return c.Listeners[0].TLS == config.TLSImplicit }},
		{"a passwd-file", []string{"driver: exec, command: [/bin/sh]", "driver: passwd-file, path: " + ca},
			func(c *config.Config) bool { return c.Domains[0].Target.Provision.Lock == ca+".lock" }},
		{"a migration account", []string{"    source:", "    parking: { account: migration@example.com, password_file: " + ca + " }\n    source:"},
			func(c *config.Config) bool { return c.Domains[0].Parking.Mode == config.ParkAccount }},
		{"a wave of nobody", []string{"    source:", "    wave: { include: [] }\n    source:"},
			func(c *config.Config) bool { return !c.Domains[0].Wave.Includes("anna@example.com") }},
		{"the grace may be nothing", []string{"listeners:", "shutdown: { grace: 0s }\nlisteners:"},
			func(c *config.Config) bool { return c.Shutdown.Grace == 0 }},
		{"aliases of YAML", []string{"driver: exec, command: [/bin/sh] }", "driver: exec, command: [/bin/sh] }\n    parking: &p { max: 2h }\n  - name: example.org\n    source: { imap: &s { address: \"old.example.org:143\" } }\n    target: { imap: { <<: *s, tls: implicit }, provision: { driver: exec, command: [/bin/sh] } }\n    parking: *p"},
			func(c *config.Config) bool {
				return len(c.Domains) == 2 && c.Domains[1].Parking == c.Domains[0].Parking && c.Domains[1].Target.IMAP.Address[0].Host == "old.example.org"
			}},
	} {
		t.Run(c.what, func(t *testing.T) {
			got, err := config.Load(write(t, c.replace...), nil)
			if err != nil {
				t.Fatal(err)
			}
			if !c.check(got) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// A key that belongs to another certificate would let no client in.
func TestCertificateNeedsItsOwnKey(t *testing.T) {
	one, other := t.TempDir(), t.TempDir()
	cert := servers.WriteCertificate(t, one)
	servers.WriteCertificate(t, other)
	path := write(t, "tls: none }", "tls: implicit }\ntls: { certificates: [{ cert: "+cert+", key: "+filepath.Join(other, "tls.key")+" }] }")
	_, err := config.Load(path, nil)
	const want = ":6: tls.certificates[0]: cannot be used (private key does not match public key); name a PEM certificate chain and the key that belongs to it"
	if err == nil || err.Error() != path+want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// Whatever a file holds, it is either settings or an error.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	path := filepath.Join(f.TempDir(), "migproxy.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := config.Load(path, nil); (c == nil) == (err == nil) {
			t.Errorf("got %v and %v", c, err)
		}
	})
}

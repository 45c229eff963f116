package config_test

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"migproxy/config"
)

var update = flag.Bool("update", false, "write the testdata/*.err files anew")

// Every bad file in testdata has a file with its exact error beside it.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if filepath.Base(file) == "minimal.yaml" {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			golden := strings.TrimSuffix(file, ".yaml") + ".err"
			_, err := config.Load(file, nil)
			var all *config.Errors
			if !errors.As(err, &all) {
				t.Fatalf("got %v, not an *Errors", err)
			}
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if got := err.Error() + "\n"; got != string(want) {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the error repeats a password")
			}
		})
	}
}

func TestNoFile(t *testing.T) {
	_, err := config.Load("testdata/none.yaml", nil)
	const want = "testdata/none.yaml: cannot be read (no such file or directory); name the settings file with --config"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func load(t *testing.T, environ ...string) *config.Config {
	t.Helper()
	c, err := config.Load("testdata/minimal.yaml", environ)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	got := load(t)
	want := &config.Config{
		Hostname: host,
		State: config.State{
			URL: "sqlite:///var/lib/migproxy/migproxy.db", KeyFile: "/var/lib/migproxy/key",
			CredentialsMaxAge: config.Duration(90 * 24 * time.Hour),
		},
		TLS:       config.TLS{MinVersion: "1.2", AllowPlaintextLogin: config.PlaintextNever},
		Listeners: []config.Listener{{Protocol: config.IMAP, Address: config.Address{Port: 143}, TLS: config.TLSNone}},
		Admin:     config.Admin{Address: config.Address{Host: "127.0.0.1", Port: 8025}, Socket: "/run/migproxy/admin.sock"},
		Limits: config.Limits{
			LoginTimeout: config.Duration(time.Minute), IdleTimeout: config.Duration(35 * time.Minute),
			PerAddress: 100, PerAccount: 50,
			TrustedNetworks: []config.Network{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")}},
		},
		Shutdown: config.Shutdown{Grace: config.Duration(30 * time.Second)},
		Domains: []config.Domain{{
			Name: "example.com",
			Source: config.Source{Protocols: []config.Protocol{config.IMAP},
				IMAP: &config.Server{
					Address: config.Addresses{{Host: "old.example.com", Port: 143}}, TLS: config.TLSStartTLS, Username: "{address}"},
				Master: config.Master{Style: config.MasterAuthzid}},
			Target: config.Target{
				IMAP: &config.Server{
					Address: config.Addresses{{Host: "new.example.com", Port: 143}}, TLS: config.TLSStartTLS, Username: "{address}"},
				Master:    config.Master{Style: config.MasterAuthzid},
				Provision: config.Provision{Driver: config.DriverExec, Command: []string{"/bin/sh"}, Timeout: config.Duration(30 * time.Second)},
			},
			Mode: config.ModeAccounts, AccessMode: config.AccessUsername, Aliases: config.Aliases{Minimum: 3, Approval: true},
			Parking: config.Parking{Mode: config.ParkSource, Flip: config.FlipAt{Messages: 200, Octets: 20_000_000}, Max: config.Duration(time.Hour)},
			Wave:    config.Wave{Include: []string{"*"}, MaxFailed: 10},
		}},
		Migration: config.Migration{Active: true, Concurrency: 4, CatchUp: config.Duration(5 * time.Minute), SettleQuiet: config.Duration(5 * time.Second)},
		Log:       config.Log{Level: "info", Format: "console"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestDomain(t *testing.T) {
	c := load(t)
	if d := c.Domain("EXAMPLE.com"); d != &c.Domains[0] {
		t.Errorf("got %v", d)
	}
	if d := c.Domain("example.net"); d != nil {
		t.Errorf("got %v for a domain that is not there", d)
	}
}

func TestEnvironment(t *testing.T) {
	c := load(t,
		"MIGPROXY_HOSTNAME=mx.example.com", "MIGPROXY_DEFAULT_DOMAIN=Example.com",
		"MIGPROXY_LIMITS__PER_ADDRESS=010", "MIGPROXY_LIMITS__LOGIN_TIMEOUT=1m30s",
		"MIGPROXY_MIGRATION__ACTIVE=false", "MIGPROXY_TLS__ALLOW_PLAINTEXT_LOGIN=true",
		"MIGPROXY_ADMIN__ADDRESS=[::1]:0", "MIGPROXY_LOG__LEVEL=", "PATH=/bin")
	if c.Hostname != "mx.example.com" || c.DefaultDomain != "example.com" || c.Limits.PerAddress != 10 ||
		c.Limits.LoginTimeout.Std() != 90*time.Second || c.Migration.Active ||
		c.TLS.AllowPlaintextLogin != config.PlaintextAlways || c.Admin.Address.String() != "[::1]:0" || c.Log.Level != "info" {
		t.Errorf("got %+v", c)
	}
	if c.State.KeyFile != "/var/lib/migproxy/key" {
		t.Error("what the environment does not name was lost")
	}
}

func TestBadEnvironment(t *testing.T) {
	_, err := config.Load("testdata/minimal.yaml", []string{
		"MIGPROXY_LIMITS__PER_ADRESS=5",
		"MIGPROXY_LIMITS__TRUSTED_NETWORKS=10.0.0.0/8",
		"MIGPROXY_DOMAINS__0__NAME=example.org",
		"MIGPROXY_STATE=here",
		"MIGPROXY_HOSTNAME__NAME=x",
		"MIGPROXY_LOG__LEVEL=loud",
		"MIGPROXY_MIGRATION__ACTIVE=yes",
		"MIGPROXY_MIGRATION__CONCURRENCY=0",
		"MIGPROXY_STATE__URL=postgres://migproxy:hunter2@db/migproxy",
	})
	const want = `MIGPROXY_DOMAINS__0__NAME: domains is a list, and lists cannot be set from the environment; write it in the file
MIGPROXY_HOSTNAME__NAME: hostname has nothing below it; unset this variable
MIGPROXY_LIMITS__PER_ADRESS: there is no setting limits.per_adress; did you mean per_address?
MIGPROXY_LIMITS__TRUSTED_NETWORKS: limits.trusted_networks is a list, and lists cannot be set from the environment; write it in the file
MIGPROXY_LOG__LEVEL: log.level: "loud" is not known; write debug, info, warn or error
MIGPROXY_MIGRATION__ACTIVE: migration.active: write true or false
MIGPROXY_MIGRATION__CONCURRENCY: migration.concurrency: must be more than nothing; write a larger value or leave it out
MIGPROXY_STATE: state is a section; name a setting in it, such as MIGPROXY_STATE__URL
MIGPROXY_STATE__URL: state.url: PostgreSQL is not supported yet; write sqlite:// and an absolute path`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

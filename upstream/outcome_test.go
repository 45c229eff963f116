package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"migproxy/config"
	"migproxy/upstream"
)

func TestOutcomeTexts(t *testing.T) {
	for outcome, want := range map[upstream.Outcome][2]string{
		upstream.Accepted:    {"accepted", "Logged in."},
		upstream.Miss:        {"miss", "Authentication failed."},
		upstream.Refused:     {"refused", "Authentication failed."},
		upstream.Unavailable: {"unavailable", "Temporary failure, please try again later."},
		upstream.Limited:     {"limited", "Too many logins, please try again later."},
		upstream.Held:        {"held", "Your mailbox is being moved, please try again later."},
		upstream.Blocked:     {"blocked", "This account is blocked, please contact your administrator."},
		upstream.TLSRequired: {"tls_required", "TLS is required before login."},
		0:                    {"unavailable", "Temporary failure, please try again later."},
	} {
		if got := outcome.String(); got != want[0] {
			t.Errorf("%d: %q", outcome, got)
		}
		e := &upstream.Error{Outcome: outcome, Server: "mail.example.com:993", Err: errors.New("anna is unknown here")}
		if got := e.ClientText(); got != want[1] {
			t.Errorf("%v: %q", outcome, got)
		}
		if got := e.Error(); got != "mail.example.com:993: "+want[0]+": anna is unknown here" {
			t.Errorf("%v: %q", outcome, got)
		}
	}
	if got := (&upstream.Error{Outcome: upstream.Limited}).Error(); got != "limited" {
		t.Errorf("%q", got)
	}
}

// An error that says nothing about a password is never a miss.
func TestOutcomeOf(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want upstream.Outcome
	}{
		{nil, upstream.Accepted},
		{io.EOF, upstream.Unavailable},
		{context.DeadlineExceeded, upstream.Unavailable},
		{&upstream.Error{Outcome: upstream.Miss}, upstream.Miss},
		{fmt.Errorf("target: %w", &upstream.Error{Outcome: upstream.Held}), upstream.Held},
		{&upstream.Error{}, upstream.Unavailable},
	} {
		if got := upstream.OutcomeOf(tc.err); got != tc.want {
			t.Errorf("%v: %v", tc.err, got)
		}
	}
	if !errors.Is(&upstream.Error{Outcome: upstream.Unavailable, Err: io.EOF}, io.EOF) {
		t.Error("the cause is lost")
	}
}

func TestNewServerRefuses(t *testing.T) {
	here := config.Addresses{{Host: "localhost", Port: 993}}
	empty := filepath.Join(t.TempDir(), "absent.pem")
	for _, tc := range []struct {
		protocol config.Protocol
		cfg      config.Server
		want     string
	}{
		{"smtp", config.Server{Address: here, TLS: config.TLSImplicit}, "protocol"},
		{config.IMAP, config.Server{TLS: config.TLSImplicit}, "address"},
		{config.IMAP, config.Server{Address: config.Addresses{{Host: "x"}}, TLS: config.TLSImplicit}, "address"},
		{config.IMAP, config.Server{Address: config.Addresses{{Port: 1}}, TLS: config.TLSImplicit}, "address"},
		{config.IMAP, config.Server{Address: here}, "tls"},
		{config.IMAP, config.Server{Address: here, TLS: "yes"}, "tls"},
		{config.IMAP, config.Server{Address: here, TLS: config.TLSImplicit, CAFile: empty}, "ca_file"},
		{config.IMAP, config.Server{Address: here, TLS: config.TLSImplicit, CAFile: "outcome_test.go"}, "ca_file"},
		{config.IMAP, config.Server{Address: here, TLS: config.TLSImplicit, PinSHA256: "abcd"}, "pin_sha256"},
		{config.IMAP, config.Server{Address: here, TLS: config.TLSImplicit, PinSHA256: strings.Repeat("xy", 32)}, "pin_sha256"},
	} {
		if _, err := upstream.NewServer(tc.protocol, tc.cfg, nil); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc.cfg, err)
		}
	}
}

func TestDomains(t *testing.T) {
	at := func(port uint16) *config.Server {
		return &config.Server{Address: config.Addresses{{Host: "localhost", Port: port}}, TLS: config.TLSImplicit}
	}
	cfg := &config.Config{Domains: []config.Domain{
		{Name: "Example.COM", Source: config.Source{IMAP: at(1), POP3: at(2)}, Target: config.Target{IMAP: at(3)}},
		{Name: "example.net", Target: config.Target{POP3: at(4)}},
	}}
	domains, err := upstream.Domains(cfg, nil)
	if err != nil || len(domains) != 2 {
		t.Fatal(domains, err)
	}
	d := domains["example.com"]
	if d.Config != &cfg.Domains[0] || d.Source.Over(config.IMAP).Address() != "localhost:1" ||
		d.Source.Over(config.POP3).Address() != "localhost:2" || d.Target.Over(config.IMAP).Address() != "localhost:3" ||
		d.Target.Over(config.POP3) != nil {
		t.Errorf("%+v", d)
	}
	if n := domains["example.net"]; n.Source != (upstream.Side{}) || n.Target.POP3 == nil {
		t.Errorf("%+v", n)
	}

	cfg.Domains[1].Target.POP3.TLS = "maybe"
	if _, err := upstream.Domains(cfg, nil); err == nil || !strings.HasPrefix(err.Error(), "domains: example.net: target.pop3: tls") {
		t.Errorf("%v", err)
	}
	cfg.Domains[1] = cfg.Domains[0]
	if _, err := upstream.Domains(cfg, nil); err == nil {
		t.Error("one domain twice")
	}
}

package upstream_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"migproxy/config"
	"migproxy/e2e/servers"
	"migproxy/upstream"
)

// A real Dovecot is the server that most logins will meet.
func TestDovecot(t *testing.T) {
	t.Parallel()
	d := servers.StartDovecot(t, servers.DovecotOptions{})
	anna := config.Identity{Login: "anna", Local: "anna", Domain: "example.com"}
	passwords := map[string]string{
		"anna":  `a"b\c{d%e:f g `,
		"berta": " pässwörd\xff ",
		"carla": strings.Repeat("long{5}", 40),
	}
	for local, password := range passwords {
		d.AddUser(local+"@example.com", password)
	}
	who := upstream.Client{Local: netip.MustParseAddrPort("198.51.100.1:993"), SessionID: "s3ss10n", TLS: true}

	for i, tc := range []struct {
		name     string
		protocol config.Protocol
		mode     config.TLSMode
		port     int
		loggedIn string
	}{
		{"imap starttls", config.IMAP, config.TLSStartTLS, d.IMAP, "imap-login: Info: Login: "},
		{"imap implicit", config.IMAP, config.TLSImplicit, d.IMAPS, "imap-login: Info: Login: "},
		{"imap none", config.IMAP, config.TLSNone, d.IMAP, "imap-login: Info: Login: "},
		{"pop3 starttls", config.POP3, config.TLSStartTLS, d.POP3, "pop3-login: Info: Login: "},
		{"pop3 implicit", config.POP3, config.TLSImplicit, d.POP3S, "pop3-login: Info: Login: "},
		{"pop3 none", config.POP3, config.TLSNone, d.POP3, "pop3-login: Info: Login: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// Each case is another client: Dovecot delays those with misses behind them.
			rip := fmt.Sprintf("192.0.2.%d", 77+i)
			who.Remote = netip.AddrPortFrom(netip.MustParseAddr(rip), 4711)
			s, err := upstream.NewServer(tc.protocol, config.Server{
				Address: config.Addresses{{Host: "localhost", Port: uint16(tc.port)}},
				TLS:     tc.mode, CAFile: d.CAFile,
			}, zaptest.NewLogger(t))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for local, password := range passwords {
				id := config.Identity{Local: local, Domain: "example.com"}
				session, err := s.Login(ctx, upstream.Credentials{Identity: id, Password: config.NewSecret(password)}, who)
				if err != nil {
					t.Fatalf("%s: %v", local, err)
				}
				if tc.protocol == config.IMAP && !slices.Contains(session.Capabilities, "UIDPLUS") {
					t.Errorf("no UIDPLUS in %v", session.Capabilities)
				}
				session.Conn.Close()
			}
			_, err = s.Login(ctx, upstream.Credentials{Identity: anna, Password: config.NewSecret("wrong")}, who)
			if upstream.OutcomeOf(err) != upstream.Miss {
				t.Errorf("wrong password: %v", err)
			}
			if !strings.Contains(d.Log(), tc.loggedIn+"user=<anna@example.com>, method=PLAIN, rip="+rip+",") {
				t.Errorf("the client's address did not arrive")
			}
			p, err := s.Probe(ctx)
			if err != nil || !p.TakesClientAddress || !strings.Contains(p.Greeting, "Dovecot") ||
				(p.TLSVersion == "") != (tc.mode == config.TLSNone) {
				t.Errorf("%+v %v", p, err)
			}
		})
	}
}

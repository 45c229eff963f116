package e2e

import (
	"fmt"
	"strings"
	"testing"

	"migproxy/e2e/servers"
)

const (
	parking         = "migration@example.com"
	parkingPassword = "shown to all"
)

// check says what a target does to messages, and leaves nothing behind.
func TestCheckFindsATargetThatAlters(t *testing.T) {
	source := servers.StartDovecot(t, servers.DovecotOptions{})
	for name, c := range map[string]struct {
		target    func(t *testing.T) (e endpoint, provision string)
		want, not []string
	}{
		"Dovecot": {func(t *testing.T) (endpoint, string) {
			d := servers.StartDovecot(t, servers.DovecotOptions{Prefix: "INBOX.", Separator: "."})
			d.AddUser(parking, parkingPassword)
			return dovecotEndpoint(d), fmt.Sprintf("{ driver: passwd-file, path: %s }", d.PasswdFile)
		}, []string{"alters messages with bare LF line ends (31 octets became 35)", "alters messages with a NUL (0x00 became 0x80)"},
			[]string{"8-bit", "plain messages", "not keep the internal date", "flags \\"}},
		"Cyrus": {func(t *testing.T) (endpoint, string) {
			s := servers.StartCyrus(t, servers.CyrusOptions{})
			s.AddUser(parking, parkingPassword)
			return cyrusEndpoint(s), cyrusProvision(t, s)
		}, []string{"refuses messages with bare LF line ends: APPEND: NO", "refuses messages with a NUL", "refuses messages without a header", "alters messages with 8-bit octets in a header (0xfc became 0x58)"},
			[]string{"plain messages", "flags \\"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target, provision := c.target(t)
			p := newProxy(t, binary, settings{source: dovecotEndpoint(source), target: target, provision: provision,
				domain: fmt.Sprintf("    parking: { mode: account, account: %s, password_file: %s }\n", parking, writeFile(t, "parking", parkingPassword+"\n"))})
			said, err := p.cli("check")
			if err != nil {
				t.Fatal(err, said)
			}
			for _, w := range c.want {
				if !strings.Contains(said, "- target imap: "+w) {
					t.Errorf("it does not say %q:\n%s", w, said)
				}
			}
			for _, w := range append(c.not, "could not") {
				if strings.Contains(said, w) {
					t.Errorf("it says %q:\n%s", w, said)
				}
			}
			for _, f := range ask(t, request{Op: "dump", Port: target.imap, TLS: "starttls", User: parking, Password: parkingPassword}).Folders {
				if strings.Contains(f.Name, "migproxy") || len(f.Messages) > 0 {
					t.Errorf("it left %s with %d messages", f.Name, len(f.Messages))
				}
			}
		})
	}
}

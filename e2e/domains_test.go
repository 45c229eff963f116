package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"migproxy/e2e/servers"
)

// twoDomains is a migproxy with two domains, each with two servers of its own.
// The sources know their users by the local part alone, and both have the same
// users with the same passwords: nothing but the domain tells them apart.
type twoDomains struct {
	*proxy
	sources, targets map[string]*servers.Dovecot // by domain
	gates            []*gate                     // nobody moves before they are open
}

const (
	domainA = "a.example"
	domainB = "b.example"
	shared  = "the same in both domains"
)

func newTwoDomains(t *testing.T) *twoDomains {
	t.Helper()
	d := &twoDomains{sources: map[string]*servers.Dovecot{}, targets: map[string]*servers.Dovecot{}}
	var domains strings.Builder
	for name, own := range map[string]string{
		domainA: fmt.Sprintf("    parking: { mode: notice, template: %s }\n", writeFile(t, "notice", "This is the notice of A.\n")),
		domainB: "    parking: { mode: hold }\n    wave: { exclude: [\"dora@b.example\"] }\n",
	} {
		source, target := servers.StartDovecot(t, servers.DovecotOptions{}), servers.StartDovecot(t, servers.DovecotOptions{})
		d.sources[name], d.targets[name] = source, target
		for _, local := range []string{"anna", "bert", "carl", "dora"} {
			source.AddUser(local, shared)
		}
		awaitLogin(t, source, "dora", shared)
		for _, local := range []string{"anna", "bert", "carl", "dora"} {
			appendTo(t, login(t, source.IMAP, local, shared), "INBOX", note(local+" of "+name))
		}
		gate, creates := newGate(t), settings{provision: fmt.Sprintf("{ driver: passwd-file, path: %s }", target.PasswdFile)}
		gate.provision(&creates)
		d.gates = append(d.gates, gate)
		asLocal := strings.ReplaceAll(dovecotEndpoint(source).yaml(), "tls:", "username: \"{local}\", tls:")
		fmt.Fprintf(&domains, "  - name: %s\n    source:\n%s    target:\n%s      provision: %s\n%s",
			name, asLocal, dovecotEndpoint(target).yaml(), creates.provision, own)
	}
	d.proxy = newProxy(t, binary, settings{})
	cert := filepath.Join(d.dir, "tls")
	text := fmt.Sprintf(`hostname: proxy.example
state: { url: "sqlite://%[1]s/state.db", key_file: %[1]s/key }
tls: { certificates: [{ cert: %[2]s.crt, key: %[2]s.key }] }
listeners:
  - { protocol: imap, address: "127.0.0.1:%[3]d", tls: starttls, domain: a.example }
  - { protocol: imap, address: "127.0.0.2:%[3]d", tls: starttls, domain: b.example }
  - { protocol: pop3, address: "127.0.0.2:%[4]d", tls: starttls, domain: b.example }
  - { protocol: imap, address: "127.0.0.1:%[5]d", tls: implicit }
admin: { address: "127.0.0.1:%[6]d", socket: %[1]s/admin.sock }
shutdown: { grace: 2s }
migration: { concurrency: 1 } # a gate's command takes no lock
domains:
%[7]slog: { level: debug, format: json, file: %[1]s/migproxy.log }
`, d.dir, cert, d.imap, d.pop3, d.imaps, d.admin, domains.String())
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d.start()
	return d
}

// Two domains with the same local parts on two local addresses: the address
// typed, the TLS server name and the local address say whose mailbox is meant,
// in this order, and no mail crosses.
func TestTwoDomains(t *testing.T) {
	d := newTwoDomains(t)
	logins := []struct {
		what, moves string // the account, which the login moves
		from        request
		shown       string // a part of the answer
	}{
		{"the local address of A", "anna@a.example", request{User: "anna", Host: "127.0.0.1", Port: d.imap, TLS: "starttls"}, "the notice of A"},
		{"the local address of B", "anna@b.example", request{User: "anna", Host: "127.0.0.2", Port: d.imap, TLS: "starttls"}, "[UNAVAILABLE]"},
		{"the TLS server name of A", "bert@a.example", request{User: "bert", Port: d.imaps, TLS: "implicit", ServerName: "imap.a.example"}, "the notice of A"},
		{"the TLS server name of B", "bert@b.example", request{User: "bert", Port: d.imaps, TLS: "implicit", ServerName: "b.example"}, "[UNAVAILABLE]"},
		{"the TLS server name of A at B's address", "carl@a.example", request{User: "carl", Host: "127.0.0.2", Port: d.imap, TLS: "starttls", ServerName: "mail.a.example"}, "the notice of A"},
		{"B's address typed at A's, under A's server name", "carl@b.example", request{User: "Carl@B.example", Host: "127.0.0.1", Port: d.imap, TLS: "starttls", ServerName: "mail.a.example"}, "[UNAVAILABLE]"},
		{"nothing", "", request{User: "dora", Port: d.imaps, TLS: "implicit"}, "[AUTHENTICATIONFAILED]"},
		{"the server name of neither", "", request{User: "dora", Port: d.imaps, TLS: "implicit", ServerName: "imap.c.example"}, "[AUTHENTICATIONFAILED]"},
		{"a domain of nobody's", "", request{User: "dora@c.example", Host: "127.0.0.1", Port: d.imap, TLS: "starttls"}, "[AUTHENTICATIONFAILED]"},
		{"B's address, not in B's wave", "", request{User: "dora", Host: "127.0.0.2", Port: d.imap, TLS: "starttls"}, "dora of b.example"},
	}
	for _, c := range logins {
		c.from.Op, c.from.Password = "commands", shared
		c.from.Commands = [][]any{{"select", "INBOX", true}, {"fetch", "1:*", "(BODY.PEEK[])"}}
		a := ask(t, c.from)
		if text := fmt.Sprint(a.Error, a.Answers); !strings.Contains(text, c.shown) {
			t.Errorf("by %s: %s lacks %q", c.what, text, c.shown)
		}
	}
	for _, g := range d.gates {
		g.open()
	}
	for _, c := range logins {
		if c.moves != "" {
			d.awaitState(c.moves, "active")
		}
	}
	list, err := d.accounts()
	var rows []string
	for _, a := range list {
		rows = append(rows, a.Address+" "+a.State)
	}
	slices.Sort(rows)
	want := []string{"anna@a.example active", "anna@b.example active", "bert@a.example active", "bert@b.example active",
		"carl@a.example active", "carl@b.example active", "dora@b.example at_source"}
	if err != nil || !slices.Equal(rows, want) {
		t.Errorf("%v: %q", err, rows)
	}
	for _, name := range []string{domainA, domainB} {
		for _, local := range []string{"anna", "bert", "carl"} {
			has := viewOf(t, ask(t, request{Op: "dump", Port: d.targets[name].IMAP, User: local + "@" + name, Password: shared}), "", targetSep, nil)
			had := viewOf(t, ask(t, request{Op: "dump", Port: d.sources[name].IMAP, User: local, Password: shared}), "", targetSep, nil)
			if len(has.folders["INBOX"]) != 1 {
				t.Errorf("%s of %s has %v", local, name, has.folders)
			}
			sameMail(t, had, has)
		}
		if text := readFile(t, d.targets[name].PasswdFile); strings.Count(text, "@") != strings.Count(text, "@"+name+":") || strings.Count(text, "\n") != 3 {
			t.Errorf("the accounts of %s:\n%s", name, text)
		}
	}
	// Last, because it marks the message read.
	if a := ask(t, request{Op: "pop3dump", Host: "127.0.0.2", Port: d.pop3, TLS: "starttls", User: "anna", Password: shared}); !a.OK || len(a.Digests) != 1 {
		t.Errorf("over POP3: %+v", a)
	}
}

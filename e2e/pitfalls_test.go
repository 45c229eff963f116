package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"migproxy/e2e/hostile"
	"migproxy/e2e/servers"
)

// newPairOf is newPair with Dovecots that have more in their settings.
func newPairOf(t testing.TB, sourceExtra, targetExtra string) *pair {
	t.Helper()
	source := servers.StartDovecot(t, servers.DovecotOptions{Separator: sourceSep, Prefix: sourcePrefix, SentName: "Gesendet", Extra: sourceExtra})
	target := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep, Extra: targetExtra})
	source.AddUser(user, password)
	return &pair{source: source, target: target, proxy: newProxy(t, binary, settings{
		source: dovecotEndpoint(source), target: dovecotEndpoint(target),
		provision: fmt.Sprintf("{ driver: passwd-file, path: %s }", target.PasswdFile),
	})}
}

// move lets one login of the user move the account.
func (p *pair) move() {
	p.t.Helper()
	p.start()
	if first := ask(p.t, request{Op: "commands", Port: p.imap, TLS: "starttls"}); !first.OK {
		p.t.Fatalf("%+v", first)
	}
}

// quota is a Dovecot's quota that can be raised.
type quota struct {
	t    testing.TB
	path string
}

func newQuota(t testing.TB, storage string) quota {
	q := quota{t, filepath.Join(t.TempDir(), "quota.conf")}
	q.set(storage)
	return q
}

func (q quota) set(storage string) {
	q.t.Helper()
	text := "mail_plugins = quota\nplugin {\n  quota = count:User quota\n  quota_vsizes = yes\n  quota_grace = 0\n  quota_rule = *:storage=" + storage + "\n}\n"
	if err := os.WriteFile(q.path, []byte(text), 0o644); err != nil {
		q.t.Fatal(err)
	}
}

func (q quota) settings() string { return "!include " + q.path }

// An account that outgrows its quota on the target waits with that reason, and
// goes on where it stopped once there is room. That the source numbered its
// messages anew meanwhile doubles nothing.
func TestQuotaAndNewUIDsOnTheSource(t *testing.T) {
	room := newQuota(t, "1500K")
	p := newPairOf(t, "", room.settings())
	fill(t, p.source.IMAP, user, password, sourcePrefix, sourceSep, "Gesendet")
	fillWith(t, login(t, p.source.IMAP, user, password), sourcePrefix, sourceSep, large(), [][]string{{"Gesendet"}, {"zuletzt"}})
	p.move()
	a := p.awaitState(user, "waiting")
	if !strings.Contains(a.Error, "quota") || a.Messages == 0 {
		t.Errorf("%+v", a)
	}
	p.source.Stop()
	forgetUIDs(t, p.source.Maildir(user))
	p.source.Start()
	room.set("100M")
	p.target.Stop()
	p.target.Start()
	p.awaitState(user, "active")
	sameMail(t, p.sourceView(), p.targetView())
}

// forgetUIDs makes a Dovecot number the messages of a Maildir anew.
func forgetUIDs(t testing.TB, maildir string) {
	t.Helper()
	removed := 0
	err := filepath.WalkDir(maildir, func(path string, _ os.DirEntry, err error) error {
		if name := filepath.Base(path); err == nil && (name == "dovecot-uidlist" || strings.HasPrefix(name, "dovecot.index") || strings.HasPrefix(name, "dovecot-uidvalidity")) {
			removed++
			return os.Remove(path)
		}
		return err
	})
	if err != nil || removed == 0 {
		t.Fatalf("%d files, %v", removed, err)
	}
}

// Servers that allow a user one connection at a time from one address, and
// refuse further ones after the login.
func TestServersThatLimitConnections(t *testing.T) {
	const one = "mail_max_userip_connections = 1\n"
	p := newPairOf(t, one, one)
	fillWith(t, login(t, p.source.IMAP, user, password), sourcePrefix, sourceSep, oddities(), folderPaths("Gesendet"))
	p.move()
	p.awaitState(user, "active")
	sameMail(t, p.sourceView(), p.targetView())
}

// A "." or "/" in a name is part of the name, where it does not separate.
func TestTheOtherSeparatorInNames(t *testing.T) {
	const escape = "protocol imap {\n  mail_plugins = $mail_plugins listescape\n}\n"
	p := newPairOf(t, escape, "")
	c := login(t, p.source.IMAP, user, password)
	fillWith(t, c, sourcePrefix, sourceSep, oddities()[:2], [][]string{{"Gesendet"}, {"in/out"}, {"in_out"}, {"a/b", "c/d"}, {"a"}, {" blank "}, {"~tilde*%"}})
	p.move()
	p.awaitState(user, "active")
	// The targets' names follow from the sources', and two never become one.
	want := map[string]string{"in/out": "in_out", "in_out": "in_out_2", "a/b": "a_b", "a/b\x00c/d": "a_b\x00c_d", "~tilde*%": "_tilde__"}
	for from, to := range sentName {
		want[from] = to
	}
	source := viewOf(t, ask(t, request{Op: "dump", Port: p.source.IMAP}), sourcePrefix, sourceSep, want)
	sameMail(t, source, p.targetView())
}

// strange are messages that servers refuse or alter, in a folder of a source
// that gives everything away as it is.
func strange() *hostile.Mailbox {
	box := hostile.Inbox()
	for i, octets := range []string{
		"Subject: nul\r\n\r\na\x00b\r\n", "Subject: bare lf\n\na\nb\n", "Subject: bare cr\r\n\r\na\rb\r\n",
		"Subject: gr\xfc\xdfe\r\n\r\ngr\xfc\xdfe\r\n", "Subject: gr\xc3\xbc\xc3\x9fe\r\n\r\nx\r\n",
		"From anna@example.com Wed Jul 17 02:44:25 1996\r\nSubject: mbox\r\n\r\nx\r\n",
		"Subject: long\r\n\r\n" + strings.Repeat("x", 100_000) + "\r\n", "Subject: " + strings.Repeat("x", 100_000) + "\r\n\r\nlong\r\n",
		"", "\r\n", "no header\r\n", "Subject: no end", "Date: yesterday\r\nMIME-Version: one\r\nContent-Type: multipart/mixed; boundary=\r\n\r\n--\r\n",
		"Subject: plain\r\n\r\nplain\r\n", "Subject: plain, too\r\n\r\nplain\r\n",
	} {
		box.Messages = append(box.Messages, hostile.Message{UID: uint32(i + 1), Octets: octets, Flags: `\Seen`, Date: "17-Jul-1996 02:44:25 -0700"})
	}
	for i, date := range []string{"31-Feb-1996 25:61:61 +9999", "00-Jan-0000 00:00:00 +0000", "yesterday", "01-Jan-1970 00:00:00 +0000", "31-Dec-2099 23:59:60 +0000"} {
		box.Messages = append(box.Messages, hostile.Message{UID: uint32(100 + i), Octets: fmt.Sprintf("Subject: odd date %d\r\n\r\nx\r\n", i), Date: date})
	}
	box.UIDNext = 200
	return box
}

// Whatever a message is, the target has it, or it is set aside with the reason.
func TestStrangeMessages(t *testing.T) {
	for name, target := range map[string]func(t *testing.T) (e endpoint, provision string){
		"Dovecot": func(t *testing.T) (endpoint, string) {
			d := servers.StartDovecot(t, servers.DovecotOptions{})
			return dovecotEndpoint(d), fmt.Sprintf("{ driver: passwd-file, path: %s }", d.PasswdFile)
		},
		"Cyrus": func(t *testing.T) (endpoint, string) {
			c := servers.StartCyrus(t, servers.CyrusOptions{})
			return cyrusEndpoint(c), cyrusProvision(t, c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			box := strange()
			source := hostile.Start(t, func(u, p string) bool { return u == user && p == password }, box)
			to, provision := target(t)
			p := moveBy(t, settings{source: endpoint{imap: source.Port, tls: "none"}, target: to, provision: provision})
			p.awaitState(user, "active")
			out := t.TempDir()
			shown, err := p.cli("account", "show", user, "--export", out)
			if err != nil {
				t.Fatal(err)
			}
			aside, err := filepath.Glob(filepath.Join(out, "*.eml"))
			if err != nil {
				t.Fatal(err)
			}
			got := viewOf(t, ask(t, request{Op: "dump", Port: to.imap}), "", "/", nil).folders["INBOX"]
			if len(got)+len(aside) != len(box.Messages) || len(aside) > 8 {
				t.Errorf("%d on the target, %d set aside, of %d\n%s", len(got), len(aside), len(box.Messages), shown)
			}
		})
	}
}

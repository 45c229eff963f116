// Package e2e holds the end-to-end tests: the built program between real mail
// servers, driven by clients that the project did not write.
package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

// pair is two Dovecots that write names differently, and what stands between.
type pair struct {
	source, target *servers.Dovecot
	*proxy
}

const (
	sourcePrefix = "INBOX."
	sourceSep    = "."
	targetSep    = "/"
)

// atOnce is a second or two, on a machine that does other things as well.
const atOnce = 3 * time.Second

// sentName is what the source calls the folder that is Sent on the target.
var sentName = map[string]string{"Gesendet": "Sent"}

// newPair starts the servers and writes the settings. change may alter them.
func newPair(t testing.TB, bin func() (string, error), change func(*settings)) *pair {
	t.Helper()
	source := servers.StartDovecot(t, servers.DovecotOptions{Separator: sourceSep, Prefix: sourcePrefix, SentName: "Gesendet"})
	target := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
	s := settings{
		source: dovecotEndpoint(source), target: dovecotEndpoint(target),
		provision: fmt.Sprintf("{ driver: passwd-file, path: %s, lock: %s }", target.PasswdFile, filepath.Join(target.Dir, "users", "lock")),
	}
	if change != nil {
		change(&s)
	}
	return &pair{source: source, target: target, proxy: newProxy(t, bin, s)}
}

func (p *pair) sourceView() view {
	p.t.Helper()
	return viewOf(p.t, ask(p.t, request{Op: "dump", Port: p.source.IMAP}), sourcePrefix, sourceSep, sentName)
}

func (p *pair) targetView() view {
	p.t.Helper()
	return viewOf(p.t, ask(p.t, request{Op: "dump", Port: p.target.IMAP}), "", targetSep, nil)
}

func TestOneIMAPLoginMovesAMailbox(t *testing.T) {
	p := newPair(t, binary, nil)
	p.source.AddUser(user, password)
	fill(t, p.source.IMAP, user, password, sourcePrefix, sourceSep, "Gesendet")
	deliver(t, p.source.Maildir(user), "1700000000.M1P1.old", "Subject: recent\n\nNobody has read this.\n")
	before := filesOf(t, p.source.Maildir(user))
	p.start()

	wrong := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Password: "wrong"})
	if wrong.OK || !strings.Contains(wrong.Error, "AUTHENTICATIONFAILED") {
		t.Fatalf("a wrong password: %+v", wrong)
	}
	if list, err := p.accounts(); err != nil || len(list) != 0 {
		t.Fatalf("a wrong password left %v, %v", list, err)
	}

	first := dial(t, p.imaps, true)
	first.until("* OK")
	began := time.Now()
	first.send(fmt.Sprintf("a LOGIN %s {%d+}\r\n%s\r\n", user, len(password), password))
	first.until("a OK")
	if took := time.Since(began); took > atOnce {
		t.Errorf("the first login took %s", took)
	}
	moved := p.awaitState(user, "active")

	sameMail(t, p.sourceView(), p.targetView())
	through := viewOf(t, ask(t, request{Op: "dump", Port: p.imap, TLS: "starttls", SASL: true}), "", targetSep, nil)
	sameMail(t, p.targetView(), through)
	total := 0
	for _, list := range p.sourceView().folders {
		total += len(list)
	}
	if moved.Messages != total {
		t.Errorf("accounts says %d messages, there are %d", moved.Messages, total)
	}
	sameFiles(t, before, filesOf(t, p.source.Maildir(user)))
	checkMetrics(t, p.metrics(), total)

	log, err := p.cli("log", user)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		fmt.Sprintf("Checking '%s' on the remote server '127.0.0.1:%d'...", user, p.source.IMAP),
		fmt.Sprintf("Migrating '%s'...", user),
		fmt.Sprintf("Messages for '%s' migrated, %d messages", user, total),
		fmt.Sprintf("'%s' migrated, %d messages", user, total),
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
}

// checkMetrics holds the metrics after a move against what promtool demands,
// and looks for what an administrator needs. No label has a user in it.
func checkMetrics(t *testing.T, metrics string, messages int) {
	t.Helper()
	promtool := exec.Command("promtool", "check", "metrics")
	promtool.Stdin = strings.NewReader(metrics)
	if out, err := promtool.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v (package prometheus; `make setup` installs it)\n%s", err, out)
	}
	for _, want := range []string{
		`migproxy_logins_total{outcome="accepted",protocol="imap"} `, `migproxy_logins_total{outcome="miss",protocol="imap"} 1`,
		`migproxy_sessions{protocol="imap"} `, `migproxy_relayed_bytes_total{direction="to_client",protocol="imap"} `,
		`migproxy_login_seconds_count{protocol="imap"} `, `migproxy_accounts{state="active"} 1`,
		fmt.Sprintf("migproxy_messages_copied_total %d", messages), "migproxy_bytes_copied_total ", `migproxy_copy_errors_total{`,
	} {
		if !strings.Contains(metrics, "\n"+want) {
			t.Errorf("the metrics lack %q", want)
		}
	}
	if local, _, _ := strings.Cut(user, "@"); strings.Contains(metrics, local) {
		t.Error("the metrics name a user")
	}
	if t.Failed() {
		t.Log(metrics)
	}
}

func TestOnePOP3LoginMovesAMailbox(t *testing.T) {
	p := newPair(t, binary, nil)
	p.source.AddUser(user, password)
	fill(t, p.source.IMAP, user, password, sourcePrefix, sourceSep, "Gesendet")
	p.start()

	wrong := ask(t, request{Op: "pop3dump", Port: p.pop3, TLS: "starttls", Password: "wrong"})
	if wrong.OK || !strings.Contains(wrong.Error, "[AUTH]") {
		t.Fatalf("a wrong password: %+v", wrong)
	}
	held := ask(t, request{Op: "pop3dump", Port: p.pop3s, TLS: "implicit"})
	if held.OK || !strings.Contains(held.Error, "[IN-USE]") {
		t.Fatalf("while copying: %+v", held)
	}
	p.awaitState(user, "active")
	sameMail(t, p.sourceView(), p.targetView())
	through := ask(t, request{Op: "pop3dump", Port: p.pop3, TLS: "starttls"})
	direct := ask(t, request{Op: "pop3dump", Port: p.target.POP3})
	if !through.OK || len(through.Digests) != len(oddities()) || strings.Join(through.Digests, " ") != strings.Join(direct.Digests, " ") {
		t.Fatalf("through the proxy %+v, directly %+v", through, direct)
	}
}

func TestMoveFromCourier(t *testing.T) {
	t.Parallel()
	courier := servers.StartCourier(t, map[string]string{user: password})
	target := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
	fill(t, courier.IMAP, user, password, "INBOX.", ".", "Sent")
	deliver(t, courier.Maildir(user), "1700000000.M1P1.old", "Subject: recent\n\nNobody has read this.\n")
	recent := recentIn(t, courier.IMAP) // from then on all is in cur, and \Recent is kept elsewhere
	before := filesOf(t, courier.Maildir(user))
	p := newProxy(t, binary, settings{
		source:    endpoint{imap: courier.IMAP, pop3: courier.POP3, tls: "none"},
		target:    dovecotEndpoint(target),
		provision: fmt.Sprintf("{ driver: passwd-file, path: %s }", target.PasswdFile),
	}).start()
	if first := ask(t, request{Op: "commands", Port: p.imap, Commands: [][]any{{"noop"}}}); !first.OK {
		t.Fatalf("%+v", first)
	}
	p.awaitState(user, "active")
	sameFiles(t, before, filesOf(t, courier.Maildir(user)))
	if now := recentIn(t, courier.IMAP); now != recent || recent != "* 1 RECENT\r\n" {
		t.Errorf("on the source: %q, before %q", now, recent)
	}
	sourceSide := viewOf(t, ask(t, request{Op: "dump", Port: courier.IMAP}), "INBOX.", ".", nil)
	sameMail(t, sourceSide, viewOf(t, ask(t, request{Op: "dump", Port: target.IMAP}), "", targetSep, nil))
	p.allIsWell()
}

// What a client may do: a SIGTERM ends the process and its sessions in time.
func TestSIGTERMDrains(t *testing.T) {
	p := newPair(t, binary, nil)
	p.target.AddUser(user, password)
	p.start()
	c := dial(t, p.imaps, true)
	c.until("* OK")
	c.send("a LOGIN " + user + " {" + fmt.Sprint(len(password)) + "+}\r\n" + password + "\r\nb NOOP\r\n")
	c.until("b OK")
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	c.until("* BYE")
	p.wait()
}

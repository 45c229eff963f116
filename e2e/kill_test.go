package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

// killWorld is two Dovecots, the target behind a line that delivers late, and
// a mailbox of which every run gets a copy.
type killWorld struct {
	source, target *servers.Dovecot
	latePort       int
	t              testing.TB
}

func newKillWorld(t testing.TB, messages int) *killWorld {
	t.Helper()
	w := &killWorld{t: t,
		source: servers.StartDovecot(t, servers.DovecotOptions{Separator: sourceSep, Prefix: sourcePrefix, SentName: "Gesendet", Extra: "mail_fsync = never"}),
		target: servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep}),
	}
	w.latePort = late(t, w.target.IMAP)
	w.source.AddUser(user, password)
	fillMany(t, w.source, messages)
	return w
}

// runner is one mailbox of the world and a migproxy that is killed over it.
type runner struct {
	*proxy
	w              *killWorld
	user, password string
	refused        int // messages that the target does not take
}

func (w *killWorld) runner(t testing.TB, n int) *runner {
	t.Helper()
	name := fmt.Sprintf("user%d@example.com", n)
	home := filepath.Dir(w.source.Maildir(name))
	if out, err := exec.Command("cp", "-a", filepath.Dir(w.source.Maildir(user)), home).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	w.source.AddUser(name, password)
	awaitLogin(t, w.source, name, password)
	e := dovecotEndpoint(w.target)
	e.imap = w.latePort
	return &runner{w: w, user: name, password: password, proxy: newProxy(t, killable, settings{
		source: dovecotEndpoint(w.source), target: e,
		provision: fmt.Sprintf("{ driver: passwd-file, path: %s, lock: %s }", w.target.PasswdFile, filepath.Join(w.target.Dir, "users", "lock")),
		migration: "concurrency: 1, " + lateQuiet,
	})}
}

// begin logs the user in, which begins the move unless it has begun. The
// process may be killed meanwhile.
func (r *runner) begin() error {
	_, err := tryAsk(request{Op: "commands", Port: r.imap, TLS: "starttls", User: r.user, Password: r.password})
	return err
}

// emptyMessage begins the line of a message without an octet: its digest.
const emptyMessage = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 "

// finish starts migproxy where it is not running, and waits for the end.
func (r *runner) finish() {
	r.t.Helper()
	r.env = nil
	if r.cmd == nil {
		r.start()
	}
	if a, err := r.state(r.user); err != nil || a.State == "" {
		if err := r.begin(); err != nil {
			r.t.Fatal(err)
		}
	}
	r.awaitState(r.user, "active")
	source := viewOf(r.t, ask(r.t, request{Op: "dump", Port: r.w.source.IMAP, User: r.user, Password: r.password}), sourcePrefix, sourceSep, sentName)
	target := viewOf(r.t, ask(r.t, request{Op: "dump", Port: r.w.target.IMAP, User: r.user, Password: r.password}), "", targetSep, nil)
	if refused := slices.DeleteFunc(slices.Clone(source.folders["INBOX"]), func(m string) bool { return !strings.HasPrefix(m, emptyMessage) }); len(refused) != r.refused {
		r.t.Fatalf("%d empty messages on the source, not %d", len(refused), r.refused)
	}
	source.folders["INBOX"] = slices.DeleteFunc(source.folders["INBOX"], func(m string) bool { return strings.HasPrefix(m, emptyMessage) })
	sameMail(r.t, source, target)
	r.stop(syscall.SIGTERM)
}

// kill starts migproxy, lets the move go on or begin, and waits until it dies
// at a step.
func (r *runner) kill(step string) {
	r.t.Helper()
	r.env = []string{"KILLTEST_AT=" + step + ":1"}
	r.start()
	_ = r.begin() // dies with the process, or before it
	r.awaitDeath()
}

// Killed where a crash could do most harm, a move goes on after the restart,
// and nothing is missing, nothing doubled, nobody native by accident. All steps
// are gone through by the long tests.
func TestKilledAtTheWorstSteps(t *testing.T) {
	t.Parallel()
	w := newKillWorld(t, 130)
	for i, step := range []string{"ensure.after", "intent.committed", "batch.sent.half", "batch.sent", "settle.before", "flip.before"} {
		t.Run(step, func(t *testing.T) {
			r := w.runner(t, i)
			r.kill(step)
			r.finish()
		})
	}
}

// awaitDeath waits until the kill point has struck.
func (r *runner) awaitDeath() {
	r.t.Helper()
	select {
	case <-r.done:
		r.cmd = nil
	case <-time.After(30 * time.Second):
		a, err := r.state(r.user)
		r.t.Fatalf("the step was not reached: %+v, %v", a, err)
	}
}

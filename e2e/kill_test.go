package e2e

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"migproxy/e2e/servers"
	"migproxy/migrator"
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
	w    *killWorld
	user string
}

func (w *killWorld) runner(t testing.TB, n int) *runner {
	t.Helper()
	name := fmt.Sprintf("user%d@example.com", n)
	w.source.AddUser(name, password)
	home := filepath.Dir(w.source.Maildir(name))
	if out, err := exec.Command("cp", "-a", filepath.Dir(w.source.Maildir(user)), home).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	e := dovecotEndpoint(w.target)
	e.imap = w.latePort
	return &runner{w: w, user: name, proxy: newProxy(t, killable, settings{
		source: dovecotEndpoint(w.source), target: e,
		provision: fmt.Sprintf("{ driver: passwd-file, path: %s, lock: %s }", w.target.PasswdFile, filepath.Join(w.target.Dir, "users", "lock")),
		migration: "concurrency: 1, settle_quiet: 1s",
	})}
}

// begin logs the user in, which begins the move unless it has begun. The
// process may be killed meanwhile.
func (r *runner) begin() error {
	_, err := tryAsk(request{Op: "commands", Port: r.imap, TLS: "starttls", User: r.user})
	return err
}

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
	source := viewOf(r.t, ask(r.t, request{Op: "dump", Port: r.w.source.IMAP, User: r.user}), sourcePrefix, sourceSep, sentName)
	target := viewOf(r.t, ask(r.t, request{Op: "dump", Port: r.w.target.IMAP, User: r.user}), "", targetSep, nil)
	sameMail(r.t, source, target)
	r.stop(syscall.SIGTERM)
}

// unreached are the steps of moves that this mailbox does not need.
var unreached = []string{}

// Killed at each named step, a move goes on after the restart, and nothing is
// missing, nothing doubled, nobody native by accident.
func TestKilledAtEachStep(t *testing.T) {
	w := newKillWorld(t, 130)
	for i, step := range migrator.Steps() {
		if slices.Contains(unreached, step) {
			continue
		}
		t.Run(step, func(t *testing.T) {
			r := w.runner(t, i)
			r.env = []string{"KILLTEST_AT=" + step + ":1"}
			r.start()
			_ = r.begin() // dies with the process, or before it
			r.awaitDeath()
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

// Killed again and again at random moments of one copy.
func TestKilledAtRandomMoments(t *testing.T) {
	w := newKillWorld(t, 2000)
	r := w.runner(t, 1000)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	r.start()
	if err := r.begin(); err != nil {
		t.Fatal(err)
	}
	kills := 0
	for kills < 20 {
		// Somewhere within the next few batches of a copy that was given the
		// time to settle what the last kill cut.
		pause := time.NewTimer(1500*time.Millisecond + time.Duration(random.Int64N(int64(700*time.Millisecond))))
		select {
		case <-pause.C:
		case <-r.done:
			t.Fatal("migproxy ended by itself")
		}
		if a, err := r.state(r.user); err == nil && a.State == "active" {
			break
		}
		_ = r.cmd.Process.Kill()
		r.wait()
		kills++
		r.start()
	}
	if kills < 20 {
		t.Errorf("the copy ended after %d kills", kills)
	}
	r.finish()
}

package e2e

import (
	"testing"
	"time"
)

// killedAt lets a user work while migproxy is killed at steps of his move, one after
// the other. What he does may not lead there; then another one has his turn.
func killedAt(t *testing.T, seed uint64, steps ...string) {
	t.Helper()
	for range 6 {
		if killedOnce(t, seed, steps) {
			return
		}
		seed += 100
	}
	t.Fatal("a step was not reached")
}

// killedOnce reports whether the steps were reached. The user comes back when
// migproxy is there again; at each return he sees all of his mail, and never the old
// mailbox after the new one.
func killedOnce(t *testing.T, seed uint64, steps []string) bool {
	t.Helper()
	o := dovecotOffice(t)
	s := o.settings()
	s.target.imap = late(t, o.target.IMAP)
	s.migration = "concurrency: 1, rate: { messages: 25 }, " + lateQuiet
	p := newProxy(t, killable, s)
	o.user.Crashes = true
	u := o.user
	u.IMAP, u.IMAPS, u.Seed, u.Messages, u.After, u.Limit = p.imap, p.imaps, seed, 60, 4, 180
	w := startWorker(t, u)
	for i, step := range steps {
		p.env = []string{"KILLTEST_AT=" + step + ":1"}
		p.start()
		if i == 0 {
			w.goOn()
		}
		select {
		case <-p.done:
			p.cmd = nil
		case n := <-w.events:
			if n.Event == "flipped" {
				t.Logf("seed %d does not lead to %s", seed, step)
				return false
			}
			t.Fatalf("%s: %s\n%+v\n%s", n.Event, n.Text, n.Stats, tail(readFile(t, w.transcript), 60))
		case <-time.After(2 * time.Minute):
			a, err := p.state(user)
			t.Fatalf("neither killed at %s nor flipped: %+v, %v", step, a, err)
		}
	}
	p.env = nil
	p.start()
	n := w.await("flipped")
	t.Logf("%d things done before the flip, %d connections lost, logins %v", n.Stats.Before, n.Stats.Cut, n.Stats.Logins)
	source := o.flipped(t, p, n)
	w.goOn()
	o.ended(t, source, w.await("done"))
	return true
}

// Killed while a user works at his source, a move goes on after the restart. All
// steps are gone through by the long tests.
func TestKilledWhileTheUserWorks(t *testing.T) {
	for i, step := range []string{"mirror.deleted", "flip.held", "flip.verified"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			killedAt(t, uint64(i), step)
		})
	}
}

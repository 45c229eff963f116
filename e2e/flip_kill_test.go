package e2e

import (
	"testing"
	"time"
)

// killedAt lets a user work while migproxy is killed at a step of his move. What he
// does may not lead to this step; then another one has his turn.
func killedAt(t *testing.T, step string, seed uint64) {
	t.Helper()
	for range 6 {
		if killedOnce(t, step, seed) {
			return
		}
		seed += 100
	}
	t.Fatal("the step was not reached")
}

// killedOnce reports whether the step was reached. The user comes back when
// migproxy is there again; at each return he sees all of his mail, and never the old
// mailbox after the new one.
func killedOnce(t *testing.T, step string, seed uint64) bool {
	t.Helper()
	o := dovecotOffice(t)
	s := o.settings()
	s.target.imap = late(t, o.target.IMAP)
	s.migration = "concurrency: 1, rate: { messages: 25 }, " + lateQuiet
	p := newProxy(t, killable, s)
	p.env = []string{"KILLTEST_AT=" + step + ":1"}
	o.user.Crashes = true
	u := o.user
	u.IMAP, u.IMAPS, u.Seed, u.Messages, u.After, u.Limit = p.imap, p.imaps, seed, 60, 4, 180
	w := startWorker(t, u)
	p.start()
	w.goOn()
	select {
	case <-p.done:
		p.cmd = nil
	case n := <-w.events:
		if n.Event == "flipped" {
			t.Logf("seed %d does not lead to the step", seed)
			return false
		}
		t.Fatalf("%s: %s\n%+v\n%s", n.Event, n.Text, n.Stats, tail(readFile(t, w.transcript), 60))
	case <-time.After(2 * time.Minute):
		a, err := p.state(user)
		t.Fatalf("neither killed nor flipped: %+v, %v", a, err)
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
			killedAt(t, step, uint64(i))
		})
	}
}

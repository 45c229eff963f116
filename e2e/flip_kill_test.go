package e2e

import (
	"testing"
	"time"
)

// killedAt lets a user work while migproxy is killed at a step of his move. He
// comes back when it is there again; at each return he sees all of his mail, and
// never the old mailbox after the new one.
func killedAt(t *testing.T, step string, seed uint64) {
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
		t.Fatalf("the step was not reached; %s: %s\n%+v\n%s", n.Event, n.Text, n.Stats, tail(readFile(t, w.transcript), 60))
	case <-time.After(2 * time.Minute):
		a, err := p.state(user)
		t.Fatalf("the step was not reached: %+v, %v", a, err)
	}
	p.env = nil
	p.start()
	n := w.await("flipped")
	t.Logf("%d things done before the flip, %d connections lost, logins %v", n.Stats.Before, n.Stats.Cut, n.Stats.Logins)
	source := o.flipped(t, p, n)
	w.goOn()
	o.ended(t, source, w.await("done"))
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

package proxy

import (
	"errors"
	"os"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/store"
)

// ask logs in and holds what the servers were asked, and the result, against what
// is wanted.
func (w *world) ask(when, target, source string, asked [2]int, want string) {
	w.t.Helper()
	w.target.recount()
	w.source.recount()
	w.target.set(target)
	w.source.set(source)
	got := w.login(config.IMAP)
	if n := [2]int{w.target.count(), w.source.count()}; got != want || n != asked {
		w.t.Errorf("%s: %s, with target and source asked %v times; want %s, %v", when, got, n, want, asked)
	}
}

// Who is let in where while an account is taken back, afterwards, and once it
// moves anew.
func TestLoginsAroundARollback(t *testing.T) {
	w := newWorld(t)
	w.put("active", "created", store.NewAccount{Mode: config.ModeAccounts})
	w.target.set("yes")
	session, err := w.broker.Login(w.ctx, w.attempt(config.IMAP))
	w.check(err)
	defer session.Conn.Close()
	_, err = w.store.AskRollback(w.ctx, w.id.Address())
	w.check(err)
	w.ask("asked for", "yes", "yes", [2]int{1, 0}, "target")

	c := w.claim()
	w.check(session.Conn.SetReadDeadline(time.Now().Add(20 * time.Second)))
	w.check(c.BeginRollback(w.ctx))
	if _, err := session.Reader.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the session on the target goes on")
	}
	w.ask("under way", "yes", "yes", [2]int{0, 0}, "held")
	w.check(c.Release(w.ctx, store.Active, "the source is away", time.Now(), true))
	w.ask("until the next try", "yes", "yes", [2]int{1, 0}, "target")

	c = w.claim()
	w.check(c.BeginRollback(w.ctx))
	w.check(c.GiveUpRollback(w.ctx, "the source is away", time.Now()))
	w.ask("given up", "yes", "yes", [2]int{1, 0}, "target")

	_, err = w.store.AskRollback(w.ctx, w.id.Address())
	w.check(err)
	c = w.claim()
	w.check(c.BeginRollback(w.ctx))
	w.check(c.EndRollback(w.ctx))
	w.ask("taken back", "yes", "yes", [2]int{0, 1}, "source")
	w.ask("taken back", "yes", "miss", [2]int{0, 1}, "miss")
	w.ask("taken back", "yes", "unavailable", [2]int{0, 1}, "unavailable")

	_, err = w.store.Retry(w.ctx, w.id.Address())
	w.check(err)
	w.ask("to move anew", "yes", "miss", [2]int{0, 1}, "miss")
	w.ask("to move anew", "yes", "yes", [2]int{0, 1}, "park")
	c = w.claim()
	if c.Account.State != store.Copying || c.Account.Origin != store.OriginCreated {
		t.Fatalf("%+v", c.Account)
	}
	w.ask("moving anew", "yes", "unavailable", [2]int{0, 1}, "unavailable")
	w.check(c.Rebase(w.ctx, nil))
	w.ask("moving anew, rebased", "yes", "unavailable", [2]int{1, 1}, "park")
}

// A rollback that begins between the target's answer and the session is no less
// quiet.
func TestRollbackBeginsDuringALogin(t *testing.T) {
	w := newWorld(t)
	w.put("active", "created", store.NewAccount{Mode: config.ModeAccounts})
	w.target.set("yes")
	_, err := w.store.AskRollback(w.ctx, w.id.Address())
	w.check(err)
	begun := false
	w.broker.now = func() time.Time { // asked once the target has answered
		if !begun && w.target.count() > 0 {
			begun = true
			w.check(w.claim().BeginRollback(w.ctx))
		}
		return time.Now()
	}
	if got := w.login(config.IMAP); got != "held" || !begun {
		t.Error(got, begun)
	}
	w.target.idle()
}

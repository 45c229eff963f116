package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

// passwordWait is how long a login in mode passwords waits for the worker that
// sets its password on the target.
const passwordWait = 30 * time.Second

// flipWait is how long a login waits for the end of a flip. There has to be time
// left to ask a server, within limits.login_timeout and what clients wait.
const flipWait = 40 * time.Second

// act does what was decided. With neither a session nor an error the facts
// have changed, and the login is decided anew.
func (l *login) act(ctx context.Context, v verdict) (*upstream.Session, error) {
	switch v.action {
	case actAskTarget:
		l.facts.target = l.ask(ctx, l.target)
		return nil, nil
	case actAskSource:
		return nil, l.askTheSource(ctx)
	case actRelayTarget:
		l.keepUp(ctx)
		return l.relayToTarget(ctx)
	case actRelaySource:
		// The account may flip while this session goes on.
		if l.facts.account != nil && parked(l.facts.account.State) && !l.facts.delegated {
			if _, err := l.seal(ctx); err != nil {
				return l.again(ctx, err)
			}
		}
		return l.relayToSource(ctx)
	case actNoteNative:
		if ok, err := l.note(ctx, store.Native); !ok {
			return nil, err
		}
		return l.relay(l.target)
	case actNoteAtSource:
		if ok, err := l.note(ctx, store.AtSource); !ok {
			return nil, err
		}
		return l.relayToSource(ctx)
	case actBegin:
		return nil, l.begin(ctx, false)
	case actAdopt:
		if err := l.begin(ctx, true); err != nil || !l.proved {
			return nil, err
		}
		return l.relay(l.target)
	case actPark:
		return l.park(ctx)
	case actRevive:
		return l.revive(ctx)
	case actAwait:
		return nil, l.awaitFlip(ctx)
	}
	return nil, l.rejection(v)
}

var errMoving = errors.New("the account is being moved")

// rejection is the error for a verdict that rejects: what a server said, if
// one said it.
func (l *login) rejection(v verdict) error {
	e := &upstream.Error{Outcome: v.outcome}
	for _, s := range []*side{l.source, l.target} {
		if s.err != nil && s.err.Outcome == v.outcome {
			e.Server, e.Err = s.err.Server, s.err.Err
		}
	}
	if v.outcome == upstream.Unavailable && l.facts.missed() {
		e.Err = errors.Join(errMissed, e.Err)
	}
	if v.outcome == upstream.Held {
		e.Err = errMoving
	}
	return e
}

// askTheSource asks the source, with the events of it where its answer may
// begin a migration.
func (l *login) askTheSource(ctx context.Context) error {
	if l.facts.works {
		l.source.forget()
		place, err := l.b.sources.join(ctx, l.id.Address(), l.source.protocol, l.a.Client.Remote)
		if err != nil {
			return err
		}
		l.source.place = place
		// Whatever was held before is in the store; from now on nothing is.
		if err := l.read(ctx); err != nil || decide(l.facts).action != actAskSource {
			l.source.leave()
			return err
		}
	}
	unknown := l.facts.account == nil && !l.facts.delegated
	if unknown || l.facts.may && !l.facts.delegated {
		l.event(ctx, fmt.Sprintf("Checking '%s' on the remote server '%s'...", l.id.Address(), l.source.address()))
	}
	l.facts.source = l.ask(ctx, l.source)
	l.right = l.right || l.facts.source == upstream.Accepted && !l.facts.delegated
	if unknown && l.facts.source == upstream.Miss {
		l.event(ctx, fmt.Sprintf("'%s' not found on the remote server", l.id.Address()))
	}
	if l.facts.account == nil && l.facts.source != upstream.Accepted {
		return nil
	}
	// The account may have moved while the servers answered.
	return l.read(ctx)
}

// relay hands over the session of a server that let the user in.
func (l *login) relay(s *side) (*upstream.Session, error) {
	if session := s.take(); session != nil {
		return session, nil
	}
	return nil, &upstream.Error{Outcome: upstream.Unavailable, Server: s.address(),
		Err: fmt.Errorf("the %s has no %s server: name one in the settings of %s, or serve this protocol no longer", s.name, l.a.Protocol, l.id.Domain)}
}

// relayToSource is relay, until the account begins to move or lives on the
// target, or its domain is finished: then the connection to the source is closed,
// and the client comes back. One that stayed would write into a mailbox that is
// being copied, or that nobody looks into any more. In parking mode source it stays
// while the account moves, as the copy follows what is done there, until it is
// closed for the flip.
func (l *login) relayToSource(ctx context.Context) (*upstream.Session, error) {
	session, err := l.relay(l.source)
	if err != nil {
		return nil, err
	}
	conn := session.Conn
	until, end := leavesSource, func() { _ = conn.Close() }
	if l.facts.stale {
		until = livesThere // each retry of what does not work would end it
	}
	place := l.source.place
	if place != nil {
		until, end = livesThere, place.end
	}
	w := l.b.watches.add(l.id.Address(), until, end)
	session.Conn = &watchedConn{Conn: conn, watch: w}
	// Whatever was published before the watch began is in the store.
	err = l.read(ctx)
	a := l.facts.account
	if err == nil && !l.facts.finished && (a == nil || !until(written(*a)) && !livesOnTarget(*a) && !held(*a)) {
		if place != nil {
			place.begin()
		}
		return session, nil
	}
	_ = session.Conn.Close()
	return nil, err
}

// written is the change that was published of an account as it is.
func written(a store.Account) store.Change {
	return store.Change{AccountID: a.ID, Address: a.Identity.Address(), State: a.State, Origin: a.Origin, Flipping: a.Flipping}
}

// leavesSource: nobody who logs in to an account in this state gets its old
// mailbox, so sessions there end.
func leavesSource(c store.Change) bool {
	return c.State == store.Provisioning || c.State == store.Copying || livesThere(c)
}

// livesThere: the account lives on the target, or has become a name of one whose
// owner is to log in anew.
func livesThere(c store.Change) bool {
	return c.State == store.Removed || livesOnTarget(store.Account{State: c.State, Origin: c.Origin})
}

// catchUpRest is how long after a catch-up a login does not ask for another:
// clients open several connections at a time.
const catchUpRest = time.Minute

// keepUp has an account that lives on the target caught up at its owner's
// login, with his password if none is known that opens both servers, and gives it
// to the copy into an account that was there. This login has been decided and does
// not depend on it.
func (l *login) keepUp(ctx context.Context) {
	a := l.facts.account
	if a == nil || l.facts.delegated || l.facts.target != upstream.Accepted {
		return
	}
	if a.CopiesIntoOwn() {
		if err := l.b.store.KeepTargetPassword(ctx, a.ID, l.a.Password); err != nil {
			l.log.Warn("the password could not be kept for the copy", zap.Error(err))
		}
		return
	}
	if a.State != store.Active {
		return
	}
	var err error
	rested := l.b.now().Add(-catchUpRest)
	switch {
	case a.NeedsPassword:
		err = l.b.store.KeepPassword(ctx, a.ID, l.a.Password, true)
	case a.Reason == "" && a.CaughtUpAt.Before(rested) && a.Due.After(l.b.now()):
		err = l.b.store.CatchUpNow(ctx, a.ID, rested)
	}
	if err != nil {
		l.log.Warn("the account could not be made due for a catch-up", zap.Error(err))
	}
}

// note writes native or at_source. Not ok without an error: another login was
// first.
func (l *login) note(ctx context.Context, to store.State) (ok bool, err error) {
	a, err := l.b.store.Note(ctx, l.id, to, store.AtSource)
	if errors.Is(err, store.ErrChanged) {
		return false, l.know(ctx, &a)
	}
	return err == nil, err
}

// begin commits the account and its sealed password.
func (l *login) begin(ctx context.Context, adopt bool) error {
	a, begun, err := l.b.store.Begin(ctx, store.NewAccount{Identity: l.id, Password: l.a.Password, Mode: l.facts.mode, Adopt: adopt})
	switch {
	case err != nil:
		return err
	case !begun:
		return l.know(ctx, &a)
	}
	// What the servers answered is what this row was written for.
	l.proved, l.facts.account = true, &a
	return nil
}

// park gives the user what he gets until his account has moved. This login has
// proved his password.
func (l *login) park(ctx context.Context) (*upstream.Session, error) {
	if !l.proved && !l.facts.tried {
		if _, err := l.seal(ctx); err != nil {
			return l.again(ctx, err)
		}
		l.proved = true
		l.event(ctx, "Account already being migrated")
	}
	if l.facts.account.Mode == config.ModePasswords {
		return l.await(ctx)
	}
	return l.parkNow(ctx)
}

// revive begins the work of a stopped account again, if the password is not
// the one with which it stopped. Anything else would only repeat the failure. What
// the administrator is asked stays asked.
func (l *login) revive(ctx context.Context) (*upstream.Session, error) {
	sealed, err := l.seal(ctx)
	if err != nil {
		return l.again(ctx, err)
	}
	if !sealed {
		l.facts.tried = true
		return nil, nil
	}
	a, err := l.b.store.Revive(ctx, l.id.Address())
	if err != nil {
		return l.again(ctx, err)
	}
	l.proved = true
	return nil, l.know(ctx, &a)
}

// again decides anew where the account changed under a write, and passes other
// errors on.
func (l *login) again(ctx context.Context, err error) (*upstream.Session, error) {
	if errors.Is(err, store.ErrChanged) {
		err = l.read(ctx)
	}
	return nil, err
}

// seal keeps the password that the source has just accepted, if it is not the
// one kept already.
func (l *login) seal(ctx context.Context) (sealed bool, err error) {
	if l.facts.source != upstream.Accepted {
		return false, nil
	}
	id := l.facts.account.ID
	switch kept, _, err := l.b.store.Password(ctx, id, store.SideSource); {
	case err == nil && kept.Reveal() == l.a.Password.Reveal():
		return false, nil
	case err != nil && !errors.Is(err, store.ErrNoPassword):
		return false, err
	}
	_, err = l.b.store.SealPassword(ctx, id, l.a.Password)
	return err == nil, err
}

// await waits until a worker has finished with an account of which only the
// password is moved.
func (l *login) await(ctx context.Context) (*upstream.Session, error) {
	if l.facts.tried {
		return nil, l.held() // nobody works on it
	}
	ctx, cancel := context.WithTimeout(ctx, passwordWait)
	defer cancel()
	w := l.b.watches.add(l.id.Address(), func(c store.Change) bool {
		return c.State != store.Provisioning && c.State != store.Copying
	}, nil)
	defer w.cancel()
	before := l.facts.account.State
	if err := l.read(ctx); err != nil || l.facts.account == nil || l.facts.account.State != before || l.facts.finished {
		return nil, err
	}
	select {
	case <-w.done:
		return nil, l.read(ctx)
	case <-ctx.Done():
		return nil, l.held()
	}
}

// held is for a login that has proved its password and gets nothing for it yet.
func (l *login) held() error {
	return &upstream.Error{Outcome: upstream.Held, Err: errors.Join(errMoving, errRightPassword)}
}

// awaitFlip waits until an account that is held has flipped, or its flip was taken
// back. What the servers said before is forgotten, and nothing is kept open on the
// source meanwhile.
func (l *login) awaitFlip(ctx context.Context) error {
	l.source.forget()
	l.target.forget()
	l.facts.source, l.facts.target = 0, 0
	begun := time.Now()
	defer func() {
		waited := time.Since(begun)
		l.a.held += waited
		l.b.metrics.held.Observe(waited.Seconds())
	}()
	waits, cancel := context.WithTimeout(ctx, l.b.awaitFor)
	defer cancel()
	w := l.b.watches.add(l.id.Address(), func(c store.Change) bool {
		return c.Flipping != store.FlipHeld || !parked(c.State)
	}, nil)
	defer w.cancel()
	// Whatever was published before the watch began is in the store.
	if err := l.read(ctx); err != nil || l.facts.account == nil || l.facts.finished || !held(*l.facts.account) {
		return err
	}
	select {
	case <-w.done:
		return l.read(ctx)
	case <-waits.Done():
	}
	if l.right {
		return l.held()
	}
	return &upstream.Error{Outcome: upstream.Held, Err: errMoving}
}

// parkNow opens the parked mailbox.
func (l *login) parkNow(ctx context.Context) (*upstream.Session, error) {
	lot := l.b.lots[l.id.Domain]
	if l.a.Protocol != config.IMAP || lot.mode == config.ParkHold {
		return nil, l.held()
	}
	session, end, err := l.b.parking.open(ctx, lot, *l.facts.account)
	if err != nil {
		return nil, err
	}
	w := l.b.watches.add(l.id.Address(), func(c store.Change) bool { return !parked(c.State) }, end)
	w.markParked()
	session.Conn = &watchedConn{Conn: session.Conn, watch: w}
	if err := l.read(ctx); err != nil || l.facts.account == nil || !parked(l.facts.account.State) || l.facts.finished {
		_ = session.Conn.Close()
		return nil, err
	}
	return session, nil
}

// parked: users of accounts in this state are parked.
func parked(s store.State) bool {
	switch s {
	case store.Provisioning, store.Copying, store.Waiting, store.Failed:
		return true
	}
	return false
}

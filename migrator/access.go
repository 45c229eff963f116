package migrator

import (
	"context"
	"errors"
	"fmt"

	"migproxy/migrator/imapwire"
	"migproxy/store"
	"migproxy/upstream"
)

// needsPassword: nothing that is kept opens the account on one side any more.
// Only its owner's next login helps, or a master user.
type needsPassword struct{ side store.Side }

func (e *needsPassword) Error() string {
	return fmt.Sprintf("the %s takes no password that is kept for this account: it needs a password, which its owner's next login gives, or a master user (domains[].%s.master), or `migproxy account retry --password-file`", e.side, e.side)
}

// loginKept logs an account in on one side, over one of its protocols, with the
// password kept for that side or, without one that is taken, as the master
// user. missed is told that the side took the password no longer. Where
// neither helps, the error is a *needsPassword.
func (m *Migrator) loginKept(ctx context.Context, a store.Account, side store.Side, server *upstream.Server, master *upstream.Master,
	missed func(context.Context) error) (*upstream.Session, error) {
	kept := side
	if a.FlippedAt.IsZero() {
		kept = store.SideSource // one password counts for both
	}
	password, _, err := m.o.Store.Password(ctx, a.ID, kept)
	if err == nil {
		session, err := server.Login(ctx, upstream.Credentials{Identity: a.Identity, Password: password}, upstream.Client{})
		if upstream.OutcomeOf(err) != upstream.Miss {
			return session, err
		}
		if err := missed(ctx); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, store.ErrNoPassword) {
		return nil, err
	}
	if master == nil {
		return nil, &needsPassword{side}
	}
	return server.Login(ctx, upstream.Credentials{Identity: a.Identity, Master: master}, upstream.Client{})
}

// loginFlipped is loginKept for an account that lives on the target, on which
// the job has the claim.
func (j *job) loginFlipped(ctx context.Context, side store.Side, server *upstream.Server, master *upstream.Master) (*upstream.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	return j.m.loginKept(ctx, j.claim.Account, side, server, master, func(ctx context.Context) error {
		return j.claim.RefusePassword(ctx, side)
	})
}

// openFlippedSource logs an account that lives on the target in on the source.
func (j *job) openFlippedSource(ctx context.Context) error {
	server, err := j.sourceServer()
	if err != nil {
		return err
	}
	j.source, err = j.openSource(ctx, server, func(ctx context.Context) (*upstream.Session, error) {
		return j.loginFlipped(ctx, store.SideSource, server, j.domain.Source.Master)
	})
	if err != nil {
		return accessTrouble(err, errorSource, "source")
	}
	return nil
}

// openFlippedTarget logs an account that lives on the target in there. Its
// password there is never set: it is its owner's.
func (j *job) openFlippedTarget(ctx context.Context) error {
	for _, to := range []**imapwire.Conn{&j.dest, &j.eye} {
		session, err := j.loginFlipped(ctx, store.SideTarget, j.domain.Target.IMAP, j.domain.Target.Master)
		switch {
		case err == nil:
			*to = j.wire(session)
		case to == &j.eye && upstream.OutcomeOf(err) == upstream.Unavailable:
			j.eye = j.dest // most likely a limit of connections
		default:
			return accessTrouble(err, errorTarget, "target")
		}
	}
	return nil
}

// accessTrouble is a login of an account that lives on the target that did not
// succeed.
func accessTrouble(err error, reason, which string) error {
	if needs, ok := errors.AsType[*needsPassword](err); ok {
		return &halt{reason: errorPassword, err: needs}
	}
	if _, ok := errors.AsType[*rest](err); ok {
		return again(reason, err)
	}
	e, ok := errors.AsType[*upstream.Error](err)
	switch {
	case !ok:
		return err
	case e.Outcome == upstream.Miss:
		return again(errorPassword, fmt.Errorf("the %s does not take the master user's password: correct domains[].%s.master: %w", which, which, err))
	case e.Outcome == upstream.Refused:
		return again(errorPassword, fmt.Errorf("the %s refuses this user: unlock the account there: %w", which, err))
	}
	return again(reason, fmt.Errorf("the %s cannot be asked: %w", which, err))
}

package migrator

import (
	"context"
	"errors"
	"fmt"

	"migproxy/migrator/verify"
	"migproxy/store"
	"migproxy/upstream"
)

// Verify compares what the source has of an account with what the target has.
// It claims nothing and writes nothing, so a copy may go on meanwhile. progress
// may be nil.
func (m *Migrator) Verify(ctx context.Context, a store.Account, deep bool, progress func(verify.Progress)) verify.Account {
	return verify.Run(ctx, verify.Options{Store: m.o.Store, Account: a, Deep: deep, Timeout: m.ioTimeout, Progress: progress,
		Source: m.verifyLogin(a, "source", func(d *upstream.Domain) *upstream.Server { return d.Source.IMAP }),
		Target: m.verifyLogin(a, "target", func(d *upstream.Domain) *upstream.Server { return d.Target.IMAP })})
}

// verifyLogin is how Verify gets onto a server: with the sealed password.
func (m *Migrator) verifyLogin(a store.Account, which string, pick func(*upstream.Domain) *upstream.Server) verify.Login {
	return func(ctx context.Context) (*upstream.Session, error) {
		domain := m.o.Domains[a.Identity.Domain]
		if domain == nil {
			return nil, fmt.Errorf("the domain %s is not in the settings", a.Identity.Domain)
		}
		server := pick(domain)
		if server == nil {
			return nil, fmt.Errorf("it has no imap in the settings (%s.imap), without which nothing can be compared", which)
		}
		password, _, err := m.o.Store.Password(ctx, a.ID)
		if errors.Is(err, store.ErrNoPassword) {
			return nil, errors.New("no password is kept any more, so nobody can log in there: verify while the account is being moved or caught up")
		}
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, loginTimeout)
		defer cancel()
		session, err := server.Login(ctx, upstream.Credentials{Identity: a.Identity, Password: password}, upstream.Client{})
		switch outcome(err) {
		case upstream.Accepted:
			return session, nil
		case upstream.Miss:
			return nil, fmt.Errorf("it does not take the password kept; the owner's next login brings the new one: %w", err)
		default:
			return nil, err
		}
	}
}

package migrator

import (
	"context"
	"fmt"

	"migproxy/config"
	"migproxy/migrator/verify"
	"migproxy/store"
	"migproxy/upstream"
)

// Verify compares what the source has of an account with what the target has.
// It claims nothing and writes nothing, so a copy may go on meanwhile. progress
// may be nil.
func (m *Migrator) Verify(ctx context.Context, a store.Account, deep bool, progress func(verify.Progress)) verify.Account {
	return verify.Run(ctx, verify.Options{Store: m.o.Store, Account: a, Deep: deep, Timeout: m.ioTimeout, Progress: progress,
		Source: m.verifyLogin(a, store.SideSource, config.IMAP), SourceDrop: m.verifySource(a),
		Target: m.verifyLogin(a, store.SideTarget, config.IMAP)})
}

// verifyLogin is how Verify gets onto a server. That a password is taken no
// longer is noted by whoever has the claim, not here.
func (m *Migrator) verifyLogin(a store.Account, which store.Side, protocol config.Protocol) verify.Login {
	return func(ctx context.Context) (*upstream.Session, error) {
		domain := m.o.Domains[a.Identity.Domain]
		if domain == nil {
			return nil, fmt.Errorf("the domain %s is not in the settings", a.Identity.Domain)
		}
		side := domain.Source
		if which == store.SideTarget {
			side = domain.Target
		}
		server := side.Over(protocol)
		if server == nil {
			return nil, fmt.Errorf("it has no %s in the settings (domains[].%s.%s), without which nothing can be compared", protocol, which, protocol)
		}
		ctx, cancel := context.WithTimeout(ctx, loginTimeout)
		defer cancel()
		return m.loginKept(ctx, a, which, server, side.Master, func(context.Context) error { return nil })
	}
}

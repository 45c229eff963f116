package migrator

import (
	"context"
	"errors"
	"io"
	"time"

	"migproxy/config"
	"migproxy/migrator/imapwire"
	"migproxy/migrator/verify"
	"migproxy/store"
	"migproxy/upstream"
)

// verifyDrop shows Verify a source that is read over POP3, without a claim on
// the account: UIDs are those that the copy has given. What it gave none has free
// ones, which are not kept.
type verifyDrop struct {
	*popSource
	server string
}

var _ verify.Drop = (*verifyDrop)(nil)

// verifySource is how Verify reads a maildrop; nil where the copy reads over
// IMAP.
func (m *Migrator) verifySource(a store.Account) func(context.Context) (verify.Drop, error) {
	domain := m.o.Domains[a.Identity.Domain]
	if domain == nil || copyProtocol(domain) != config.POP3 {
		return nil
	}
	login := m.verifyLogin(a, store.SideSource, config.POP3)
	var uids *assignment // of all sessions, so that free ones stay the same
	assign := func(ctx context.Context, d *maildrop, names []string) (next uint32, byDigest bool, err error) {
		if uids == nil {
			list, err := m.o.Store.UIDLs(ctx, a.ID, popValidity)
			if err != nil {
				return 0, false, err
			}
			uids = newAssignment(list)
		}
		if byDigest, err = uids.name(ctx, d, names); err != nil {
			return 0, false, err
		}
		uids.number()
		return uids.next, byDigest, nil
	}
	return func(ctx context.Context) (verify.Drop, error) {
		session, err := m.enterMaildrop(ctx, login)
		if err != nil {
			return nil, err
		}
		p := &popSource{login: login, assign: assign, session: session, times: m.pop, pause: m.pause, log: m.o.Log,
			drop: m.maildrop(a.ID, domain)}
		p.idle = time.AfterFunc(p.times.idle, p.letGo)
		return &verifyDrop{p, session.Server}, nil
	}
}

// enterMaildrop logs in, and waits a little for a server that is not to be
// reached, or whose maildrop is locked: the copy may have it.
func (m *Migrator) enterMaildrop(ctx context.Context, login verify.Login) (*upstream.Session, error) {
	for try := 0; ; try++ {
		session, err := login(ctx)
		if e, ok := errors.AsType[*upstream.Error](err); !ok || e.Outcome != upstream.Unavailable || try+1 >= popTries || ctx.Err() != nil {
			return session, err
		}
		if err := wait(ctx, m.pause(try)); err != nil {
			return nil, err
		}
	}
}

// Server is where the maildrop is.
func (d *verifyDrop) Server() string { return d.server }

// List lists the maildrop as it is now.
func (d *verifyDrop) List(ctx context.Context) (list []verify.DropMessage, err error) {
	if _, err := d.Status(ctx, popInbox); err != nil {
		return nil, err
	}
	err = d.FetchMeta(ctx, 1, 0, func(m imapwire.Meta) error {
		list = append(list, verify.DropMessage{UID: m.UID, Size: m.Size})
		return nil
	})
	return list, err
}

// Read passes on the octets of a message.
func (d *verifyDrop) Read(ctx context.Context, uid uint32, fn func(io.Reader) error) error {
	return d.FetchBodies(ctx, []uint32{uid}, func(_ uint32, _ int64, r io.Reader) error { return fn(r) })
}

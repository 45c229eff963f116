package migrator

import (
	"context"
	"io"

	"migproxy/migrator/imapwire"
)

// sourceConn reads one user's mail on the source, in the terms of IMAP: folders
// with a UIDVALIDITY, messages with UIDs. Nothing in it writes. Its methods keep
// to what *imapwire.Conn says of them: after any error but ErrName and a
// *StatusError of type NO or BAD the connection is over; the end of a context
// ends it too; FetchBodies passes on what came, and nothing else.
type sourceConn interface {
	lister
	Subscriptions(ctx context.Context, pattern string) ([]string, error)
	Status(ctx context.Context, mailbox string) (imapwire.Status, error)
	Examine(ctx context.Context, mailbox string) (imapwire.Selected, error)
	FetchMeta(ctx context.Context, first, last uint32, fn func(imapwire.Meta) error) error
	FetchBodies(ctx context.Context, uids []uint32, fn func(uid uint32, size int64, r io.Reader) error) error
	FetchHeader(ctx context.Context, uid uint32, fields ...string) ([]byte, error)
	Close() error
}

var _ sourceConn = (*imapwire.Conn)(nil)

// Package imapwire is the small lenient IMAP client of the copy. It streams
// messages, reports what a server really sent, and lets the caller reconcile
// what was asked for with what came; it never invents, pads or drops octets.
package imapwire

import (
	"context"
	"errors"
	"io"
	"time"

	"migproxy/upstream"
)

// Options bound a Conn.
type Options struct {
	// Timeout is how long the server may stay silent, and how long one write may
	// take, before the connection is given up.
	Timeout time.Duration
}

// Conn is an IMAP connection on which a user is logged in. Its methods may be
// called by one goroutine at a time. After any error but a *StatusError the
// connection is closed and every later call fails.
type Conn struct{}

// StatusError is a tagged NO or BAD, or an untagged BYE.
type StatusError struct {
	Command string // the command's name, without arguments
	Type    string // NO, BAD or BYE
	Code    string // response code, upper case, without its arguments; may be empty
	Text    string // for the log only
}

func (e *StatusError) Error() string {
	return e.Command + ": " + e.Type + " [" + e.Code + "] " + e.Text
}

// Mailbox is one LIST response. Names here and below are as on the wire
// (modified UTF-7, not decoded), without their quoting.
type Mailbox struct {
	Name  string
	Delim byte // 0 is NIL
	Attrs []string
}

// Status is what STATUS said; what it left out is zero.
type Status struct {
	Messages, UIDNext, UIDValidity uint32
	HighestModSeq                  uint64
}

// Selected is what EXAMINE or SELECT said; UIDNext is zero where it did not.
type Selected struct {
	Exists, UIDValidity, UIDNext uint32
	Flags, PermanentFlags        []string
	ReadOnly                     bool
}

// Meta is what is known of a message before its octets.
type Meta struct {
	UID   uint32
	Size  int64 // RFC822.SIZE, which some servers get wrong
	Flags []string
	// Date is INTERNALDATE with its own zone; zero where it was missing or invalid.
	Date time.Time
}

// New starts on a session that upstream has logged in.
func New(s *upstream.Session, o Options) *Conn { return &Conn{} }

// Has reports whether a capability (upper case) was announced after login.
func (c *Conn) Has(capability string) bool { return false }

// Close cuts the connection.
func (c *Conn) Close() error { return nil }

// Logout ends the session politely, then closes.
func (c *Conn) Logout(ctx context.Context) error { return errors.ErrUnsupported }

// Noop sends NOOP.
func (c *Conn) Noop(ctx context.Context) error { return errors.ErrUnsupported }

// Namespace returns the prefix and separator of the personal namespace (RFC
// 2342); without the capability, what LIST "" "" tells.
func (c *Conn) Namespace(ctx context.Context) (prefix string, delim byte, err error) {
	return "", 0, errors.ErrUnsupported
}

// List sends LIST "" pattern, with RETURN (SPECIAL-USE) where that is offered.
func (c *Conn) List(ctx context.Context, pattern string) ([]Mailbox, error) {
	return nil, errors.ErrUnsupported
}

// Subscriptions lists subscribed names, by LSUB.
func (c *Conn) Subscriptions(ctx context.Context, pattern string) ([]string, error) {
	return nil, errors.ErrUnsupported
}

// Status asks MESSAGES, UIDNEXT, UIDVALIDITY, and HIGHESTMODSEQ with CONDSTORE.
func (c *Conn) Status(ctx context.Context, mailbox string) (Status, error) {
	return Status{}, errors.ErrUnsupported
}

// Examine opens a mailbox for reading only.
func (c *Conn) Examine(ctx context.Context, mailbox string) (Selected, error) {
	return Selected{}, errors.ErrUnsupported
}

// Select opens a mailbox of the target, to learn its PERMANENTFLAGS.
func (c *Conn) Select(ctx context.Context, mailbox string) (Selected, error) {
	return Selected{}, errors.ErrUnsupported
}

// FetchMeta fetches UID, FLAGS, INTERNALDATE and RFC822.SIZE of first..last
// (last 0 is *), in the order in which the server sends them. A response
// without UID or RFC822.SIZE is an unsolicited one and not passed on.
func (c *Conn) FetchMeta(ctx context.Context, first, last uint32, fn func(Meta) error) error {
	return errors.ErrUnsupported
}

// FetchBodies fetches BODY.PEEK[] of these UIDs and passes each body on while
// it comes: size is the length of the literal, r gives exactly that many octets
// or io.ErrUnexpectedEOF. What fn leaves unread is discarded. A UID is passed
// on at most once and only if it was asked for; those never passed on did not
// come. Where a server sends bodies before UIDs, they are fetched one by one.
func (c *Conn) FetchBodies(ctx context.Context, uids []uint32, fn func(uid uint32, size int64, r io.Reader) error) error {
	return errors.ErrUnsupported
}

// FetchHeader fetches the header fields named (RFC 9051 BODY.PEEK[HEADER.FIELDS]).
func (c *Conn) FetchHeader(ctx context.Context, uid uint32, fields ...string) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

// Create creates a mailbox, with USE (RFC 6154) where specialUse is not empty
// and CREATE-SPECIAL-USE is offered.
func (c *Conn) Create(ctx context.Context, mailbox, specialUse string) error {
	return errors.ErrUnsupported
}

// Subscribe subscribes a mailbox.
func (c *Conn) Subscribe(ctx context.Context, mailbox string) error { return errors.ErrUnsupported }

// Append starts an APPEND (RFC 9051), to which more messages may be added where
// MULTIAPPEND (RFC 3502) is offered. With LITERAL+ nothing is waited for, so
// that the next Append may start before the Wait of this one; the results come
// in order.
func (c *Conn) Append(ctx context.Context, mailbox string) (*Append, error) {
	return nil, errors.ErrUnsupported
}

// Append is one APPEND command under way.
type Append struct{}

// Add sends one message: exactly size octets of r. If r ends before or fails,
// the connection is cut, so that nothing short or padded is ever stored, and
// the error says so. A *StatusError here is the refusal of a synchronising
// literal: the command is over, nothing of it was stored.
func (a *Append) Add(flags []string, date time.Time, size int64, r io.Reader) error {
	return errors.ErrUnsupported
}

// End ends the command's line.
func (a *Append) End() error { return errors.ErrUnsupported }

// Wait waits for the tagged answer. uids are those of APPENDUID (RFC 4315), in
// the order of the messages, and nil where the server did not send it;
// validity is the UIDVALIDITY that came with them.
func (a *Append) Wait(ctx context.Context) (validity uint32, uids []uint32, err error) {
	return 0, nil, errors.ErrUnsupported
}

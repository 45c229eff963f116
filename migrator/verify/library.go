package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"migproxy/migrator/imapwire"
	"migproxy/upstream"
)

// library reads by go-imap. It drops, without an error, a body that comes before
// its UID and a response that comes second for the same message, and ends the
// connection at what it cannot parse.
type library struct {
	conn      *conn
	client    *imapclient.Client
	namespace bool
	buf       []byte
}

var _ reader = (*library)(nil)

func newLibrary(s *upstream.Session, timeout time.Duration) *library {
	c := newConn(s, timeout)
	return &library{conn: c, client: imapclient.New(c, nil), buf: make([]byte, 32<<10),
		namespace: slices.Contains(s.Capabilities, "NAMESPACE") || slices.Contains(s.Capabilities, "IMAP4REV2")}
}

func (l *library) close() { _ = l.client.Close() }

// do gives one command and awaits its end.
func (l *library) do(ctx context.Context, command string, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.conn.Close() })
	defer stop()
	l.conn.await(true)
	defer l.conn.await(false)
	err := f()
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*imap.Error](err); ok && (e.Type == imap.StatusResponseTypeNo || e.Type == imap.StatusResponseTypeBad) {
		return &refusal{fmt.Errorf("%s: %w", command, e)}
	}
	if _, ok := errors.AsType[incomplete](err); ok {
		return err
	}
	l.close()
	switch ended := l.conn.ended(); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case ended != nil && !errors.Is(ended, net.ErrClosed):
		err = ended
	}
	return fmt.Errorf("%s: %w", command, err)
}

func (l *library) namespaces(ctx context.Context) (prefix string, delim rune, others []string, err error) {
	var data *imap.NamespaceData
	if l.namespace {
		err = l.do(ctx, "NAMESPACE", func() (err error) {
			data, err = l.client.Namespace().Wait()
			return err
		})
		if err != nil && !isRefusal(err) {
			return "", 0, nil, err
		}
	}
	if err == nil && data != nil && len(data.Personal) > 0 {
		for _, n := range slices.Concat(data.Other, data.Shared) {
			others = append(others, n.Prefix)
		}
		return data.Personal[0].Prefix, data.Personal[0].Delim, others, nil
	}
	err = l.do(ctx, "LIST", func() error {
		roots, err := l.client.List("", "", nil).Collect()
		if len(roots) > 0 {
			delim = roots[0].Delim
		}
		return err
	})
	return "", delim, nil, err
}

func (l *library) list(ctx context.Context, pattern string) (boxes []mailbox, err error) {
	pattern, _ = imapwire.DecodeName(pattern)
	err = l.do(ctx, "LIST", func() error {
		found, err := l.client.List("", pattern, nil).Collect()
		for _, f := range found {
			boxes = append(boxes, mailbox{name: imapwire.EncodeName(f.Mailbox),
				selectable: !slices.Contains(f.Attrs, imap.MailboxAttrNoSelect) && !slices.Contains(f.Attrs, imap.MailboxAttrNonExistent)})
		}
		return err
	})
	return boxes, err
}

// canName reports whether go-imap can send a name as it is on the wire.
func canName(wire string) bool {
	name, ok := imapwire.DecodeName(wire)
	return ok && imapwire.EncodeName(name) == wire
}

func (l *library) examine(ctx context.Context, name string) (o opened, err error) {
	name, _ = imapwire.DecodeName(name)
	err = l.do(ctx, "EXAMINE", func() error {
		data, err := l.client.Select(name, &imap.SelectOptions{ReadOnly: true}).Wait()
		if err == nil {
			o = opened{exists: data.NumMessages, uidValidity: data.UIDValidity, flags: flagNames(data.Flags), permanent: flagNames(data.PermanentFlags)}
		}
		return err
	})
	return o, err
}

func flagNames(flags []imap.Flag) []string {
	names := make([]string, len(flags))
	for i, f := range flags {
		names[i] = string(f)
	}
	return names
}

func (l *library) messages(ctx context.Context, exists uint32, v *view) error {
	all := imap.SeqSet{{Start: 1, Stop: exists}}
	items := &imap.FetchOptions{UID: true, Flags: true, InternalDate: true, RFC822Size: true}
	return l.do(ctx, "FETCH", func() error {
		cmd := l.client.Fetch(all, items)
		var lacking error
		for m := cmd.Next(); m != nil; m = cmd.Next() {
			if err := addMessage(m, v); err != nil {
				lacking = err
			}
		}
		if err := cmd.Close(); err != nil {
			return err
		}
		return lacking
	})
}

// addMessage adds one message, of which every item must have come.
func addMessage(m *imapclient.FetchMessageData, v *view) error {
	var uid imap.UID
	var date time.Time
	var flags []string
	octets, listed := int64(-1), false
	for item := m.Next(); item != nil; item = m.Next() {
		switch item := item.(type) {
		case imapclient.FetchItemDataUID:
			uid = item.UID
		case imapclient.FetchItemDataFlags:
			flags, listed = flagNames(item.Flags), true
		case imapclient.FetchItemDataInternalDate:
			date = item.Time
		case imapclient.FetchItemDataRFC822Size:
			octets = item.Size
		}
	}
	if uid == 0 || octets < 0 || !listed || date.IsZero() {
		return incomplete{fmt.Sprintf("message %d came without its UID, size, flags or date", m.SeqNum)}
	}
	v.add(uint32(uid), octets, date, flags)
	return nil
}

func (l *library) digests(ctx context.Context, uids []uint32, fn func(uid uint32, sum [32]byte)) error {
	var set imap.UIDSet
	wanted := make(map[imap.UID]bool, len(uids))
	for _, uid := range uids {
		set.AddNum(imap.UID(uid))
		wanted[imap.UID(uid)] = true
	}
	items := &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{{Peek: true}}}
	return l.do(ctx, "UID FETCH", func() error {
		cmd := l.client.Fetch(set, items)
		for m := cmd.Next(); m != nil; m = cmd.Next() {
			if uid, sum, ok := l.digest(m); ok && wanted[uid] {
				delete(wanted, uid)
				fn(uint32(uid), sum)
			}
		}
		return cmd.Close()
	})
}

// digest reads one message; ok is false where its octets did not come, or not
// all of them.
func (l *library) digest(m *imapclient.FetchMessageData) (uid imap.UID, sum [32]byte, ok bool) {
	for item := m.Next(); item != nil; item = m.Next() {
		switch item := item.(type) {
		case imapclient.FetchItemDataUID:
			uid = item.UID
		case imapclient.FetchItemDataBodySection:
			whole := item.MatchCommand(&imap.FetchItemBodySection{})
			if ok || !whole || item.Literal == nil {
				continue
			}
			h := sha256.New()
			n, err := io.CopyBuffer(h, item.Literal, l.buf)
			if err != nil || n != item.Literal.Size() {
				// go-imap's own goroutine goes on reading by now. Next would read the
				// rest of the literal beside it.
				_ = l.conn.Close()
				<-l.client.Closed()
				continue
			}
			ok = true
			h.Sum(sum[:0])
		}
	}
	return uid, sum, ok
}

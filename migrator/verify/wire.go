package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"migproxy/migrator/imapwire"
	"migproxy/upstream"
)

// wire reads by the copier's reader, which takes whatever a server sends.
type wire struct {
	conn *imapwire.Conn
	buf  []byte
}

var _ reader = (*wire)(nil)

func newWire(s *upstream.Session, timeout time.Duration) *wire {
	return &wire{conn: imapwire.New(s, imapwire.Options{Timeout: timeout}), buf: make([]byte, 32<<10)}
}

func (w *wire) close() { _ = w.conn.Close() }

// answered makes a refusal of a server's NO or BAD, and of a name that cannot
// be sent.
func answered(err error) error {
	if e, ok := errors.AsType[*imapwire.StatusError](err); ok && e.Type != "BYE" || errors.Is(err, imapwire.ErrName) {
		return &refusal{err}
	}
	return err
}

func (w *wire) namespaces(ctx context.Context) (string, rune, []string, error) {
	prefix, delim, err := w.conn.Namespace(ctx)
	if err != nil {
		return "", 0, nil, answered(err)
	}
	others, err := w.conn.OtherNamespaces(ctx)
	return prefix, rune(delim), others, answered(err)
}

func (w *wire) list(ctx context.Context, pattern string) (boxes []mailbox, err error) {
	found, err := w.conn.List(ctx, pattern)
	for _, f := range found {
		none := slices.ContainsFunc(f.Attrs, func(a string) bool {
			return strings.EqualFold(a, `\Noselect`) || strings.EqualFold(a, `\NonExistent`)
		})
		boxes = append(boxes, mailbox{name: f.Name, selectable: !none})
	}
	return boxes, answered(err)
}

func (w *wire) examine(ctx context.Context, name string) (opened, error) {
	box, err := w.conn.Examine(ctx, name)
	return opened{exists: box.Exists, uidValidity: box.UIDValidity, flags: box.Flags, permanent: box.PermanentFlags}, answered(err)
}

func (w *wire) messages(ctx context.Context, _ uint32, v *view) error {
	return answered(w.conn.FetchMeta(ctx, 1, 0, func(m imapwire.Meta) error {
		v.add(m.UID, m.Size, m.Date, m.Flags)
		return nil
	}))
}

func (w *wire) digests(ctx context.Context, uids []uint32, fn func(uid uint32, sum [32]byte)) error {
	return answered(w.conn.FetchBodies(ctx, uids, func(uid uint32, _ int64, r io.Reader) error {
		h := sha256.New()
		if _, err := io.CopyBuffer(h, r, w.buf); err != nil {
			return err
		}
		fn(uid, [32]byte(h.Sum(nil)))
		return nil
	}))
}

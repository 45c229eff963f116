package imapwire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Meta is what is known of a message before its octets.
type Meta struct {
	UID   uint32
	Size  int64 // RFC822.SIZE, which some servers get wrong
	Flags []string
	// Date is INTERNALDATE with its own zone; zero where it was missing or invalid.
	Date time.Time
	// GmailID is X-GM-MSGID, which is the same wherever a message shows; zero
	// where the server does not offer X-GM-EXT-1.
	GmailID uint64
}

// maxHeld is the largest body, in octets, that is kept in memory until the UID
// behind it tells whose it is.
const maxHeld = 64 << 10

// fetched is one FETCH response.
type fetched struct {
	seq     uint32
	meta    Meta
	hasSize bool
}

// body is the value of one BODY item. Its octets are gone once the handler has
// returned.
type body struct {
	size int64
	r    io.Reader
}

// fetchResponse reads one FETCH response. onBody gets every BODY[...] item that
// has octets, while they come; a nil onBody skips them.
func (c *Conn) fetchResponse(r *response, onBody func(f *fetched, item string, b body) error) (fetched, error) {
	f := fetched{seq: r.num}
	b, err := c.p.next()
	if err != nil || b != '(' {
		return f, err
	}
	if err := c.p.take(); err != nil {
		return f, err
	}
	for {
		b, err := c.p.next()
		if err != nil || isEnd(b) || b == ')' {
			return f, err
		}
		name, err := c.p.item()
		if err != nil {
			return f, err
		}
		if err := c.fetchItem(&f, name, onBody); err != nil {
			return f, err
		}
	}
}

func (c *Conn) fetchItem(f *fetched, name []byte, onBody func(*fetched, string, body) error) (err error) {
	switch string(name) {
	case "UID":
		n, ok, err := c.p.number(32)
		if ok {
			f.meta.UID = uint32(n)
		}
		return err
	case "RFC822.SIZE":
		n, ok, err := c.p.number(63)
		f.meta.Size, f.hasSize = int64(n), ok
		return err
	case "X-GM-MSGID":
		f.meta.GmailID, _, err = c.p.number(64)
		return err
	case "FLAGS":
		var flags [16]string // most messages have fewer
		list := flags[:0]
		err := c.p.list(func(flag []byte) { list = append(list, c.intern(flag)) })
		f.meta.Flags = slices.Clone(list)
		return err
	case "INTERNALDATE":
		v, kind, err := c.p.value()
		if kind != absent {
			f.meta.Date = c.zones.parse(v)
		}
		return err
	}
	if onBody == nil || !bytes.HasPrefix(name, []byte("BODY[")) {
		return c.p.skipValue()
	}
	return c.fetchBody(f, string(name), onBody)
}

// maxWords bounds the flags that a connection remembers.
const maxWords = 256

// intern returns a flag as a string, the same one for the same flag.
func (c *Conn) intern(flag []byte) string {
	if s, ok := c.words[string(flag)]; ok {
		return s
	}
	s := string(flag)
	if len(c.words) < maxWords {
		c.words[s] = s
	}
	return s
}

// fetchBody reads the value of a BODY item: a literal, a quoted string, or NIL,
// which is no body at all and not an empty one.
func (c *Conn) fetchBody(f *fetched, item string, onBody func(*fetched, string, body) error) error {
	b, err := c.p.next()
	if err != nil {
		return err
	}
	switch b {
	case '"':
		v, err := c.p.quoted()
		if err != nil {
			return err
		}
		return onBody(f, item, body{int64(len(v)), bytes.NewReader(v)})
	case '{', '~':
	default:
		return c.p.skipValue()
	}
	size, ok, err := c.p.literal()
	if err != nil || !ok {
		return err
	}
	r := &literalReader{br: c.p.br, left: size}
	err = onBody(f, item, body{size, r})
	left := r.left
	r.left = 0
	switch {
	case r.err != nil: // and not what it made of the reader's error
		return r.err
	case err != nil:
		return err
	}
	return c.p.discard(left)
}

// literalReader gives the octets of one literal.
type literalReader struct {
	br   io.Reader
	left int64
	err  error // what ended the connection inside the literal
}

func (r *literalReader) Read(p []byte) (int, error) {
	switch {
	case r.err != nil:
		return 0, io.ErrUnexpectedEOF
	case r.left == 0:
		return 0, io.EOF
	case int64(len(p)) > r.left:
		p = p[:r.left]
	}
	n, err := r.br.Read(p)
	r.left -= int64(n)
	if err != nil {
		r.err = err
		return n, io.ErrUnexpectedEOF
	}
	return n, nil
}

// FetchMeta fetches UID, FLAGS, INTERNALDATE, RFC822.SIZE and, where the server
// has it, X-GM-MSGID of first..last
// (last 0 is *), in the order in which the server sends them, each UID once. A
// response without UID or RFC822.SIZE is an unsolicited one and not passed on.
// An error of fn is returned as it is, and closes the connection.
func (c *Conn) FetchMeta(ctx context.Context, first, last uint32, fn func(Meta) error) error {
	first = max(first, 1)
	set := strconv.FormatUint(uint64(first), 10) + ":*"
	if last != 0 {
		set = strconv.FormatUint(uint64(first), 10) + ":" + strconv.FormatUint(uint64(last), 10)
	}
	items := "(UID FLAGS INTERNALDATE RFC822.SIZE)"
	if c.caps["X-GM-EXT-1"] {
		items = "(UID FLAGS INTERNALDATE RFC822.SIZE X-GM-MSGID)"
	}
	var seen seenSet
	_, err := c.do(ctx, "UID FETCH", []any{set, items}, func(r *response) error {
		if r.name != "FETCH" {
			return nil
		}
		f, err := c.fetchResponse(r, nil)
		if err != nil {
			return err
		}
		uid := f.meta.UID
		// n:* holds the last message even where its UID is below n.
		if !f.hasSize || uid < first || last != 0 && uid > last || !seen.add(uid) {
			return nil
		}
		if err := fn(f.meta); err != nil {
			return callbackError{err}
		}
		return nil
	})
	return err
}

// FetchNewMeta is FetchMeta of a mailbox that is open already, with a NOOP before
// it in the same round trip: the server shows what has arrived since.
func (c *Conn) FetchNewMeta(ctx context.Context, first, last uint32, fn func(Meta) error) error {
	if err := c.enter(ctx, "NOOP"); err != nil {
		return err
	}
	c.write(c.nextTag(), " NOOP\r\n") // leaves with the FETCH; its answer says nothing
	return c.FetchMeta(ctx, first, last, fn)
}

// FetchBodies fetches BODY.PEEK[] of these UIDs and passes each body on while
// it comes: size is the length of the literal, r gives exactly that many octets
// or io.ErrUnexpectedEOF. What fn leaves unread is discarded. A UID is passed
// on at most once and only if it was asked for; those never passed on did not
// come. Where a server sends bodies before UIDs, they are fetched one by one.
// An error of fn is returned as it is, and closes the connection.
func (c *Conn) FetchBodies(ctx context.Context, uids []uint32, fn func(uid uint32, size int64, r io.Reader) error) error {
	b := &bodies{c: c, fn: fn, open: map[uint32]bool{}}
	sorted := slices.Compact(slices.Sorted(slices.Values(uids)))
	for len(sorted) > 0 && sorted[0] == 0 {
		sorted = sorted[1:]
	}
	for _, uid := range sorted {
		b.open[uid] = true
	}
	for rest := sorted; len(rest) > 0 && !c.bodiesFirst; {
		set, n := appendSet(nil, rest)
		rest = rest[n:]
		if err := b.fetch(ctx, string(set)); err != nil {
			return err
		}
	}
	if !c.bodiesFirst || len(b.open) == 0 {
		return nil
	}
	return b.fetchSingly(ctx, sorted)
}

// bodies is one call of FetchBodies.
type bodies struct {
	c    *Conn
	fn   func(uid uint32, size int64, r io.Reader) error
	open map[uint32]bool // asked for and not yet passed on
}

// pass passes a body on, if it is wanted.
func (b *bodies) pass(uid uint32, v body) error {
	if !b.open[uid] {
		return nil
	}
	delete(b.open, uid)
	if err := b.fn(uid, v.size, v.r); err != nil {
		return callbackError{err}
	}
	return nil
}

// fetch fetches many bodies. One that comes before its UID is held if it is
// small, and left open otherwise.
func (b *bodies) fetch(ctx context.Context, set string) error {
	c := b.c
	_, err := c.do(ctx, "UID FETCH", []any{set, "(UID BODY.PEEK[])"}, func(r *response) error {
		if r.name != "FETCH" {
			return nil
		}
		holding := false
		f, err := c.fetchResponse(r, func(f *fetched, item string, v body) (err error) {
			if item != "BODY[]" || holding {
				return nil
			}
			if f.meta.UID != 0 {
				return b.pass(f.meta.UID, v)
			}
			if v.size > maxHeld {
				c.bodiesFirst = true
				return nil
			}
			holding = true
			c.held = slices.Grow(c.held[:0], int(v.size))[:v.size]
			_, err = io.ReadFull(v.r, c.held)
			return err
		})
		if err != nil || !holding {
			return err
		}
		return b.pass(f.meta.UID, body{int64(len(c.held)), bytes.NewReader(c.held)})
	})
	return err
}

// errOtherMessage ends a connection on which nothing can be trusted any more.
var errOtherMessage = errors.New("the server sent another message than the one that was asked for")

// fetchSingly fetches what is still open, message by message. Since the UID
// comes too late, a body is recognised by its sequence number.
func (b *bodies) fetchSingly(ctx context.Context, sorted []uint32) error {
	rest := slices.DeleteFunc(sorted, func(uid uint32) bool { return !b.open[uid] })
	var queue []fetched // with sequence numbers kept up to date
	expunge := func(seq uint32) {
		queue = slices.DeleteFunc(queue, func(f fetched) bool { return f.seq == seq })
		for i := range queue {
			if queue[i].seq > seq {
				queue[i].seq--
			}
		}
	}
	for len(rest) > 0 {
		set, n := appendSet(nil, rest)
		rest = rest[n:]
		queue = queue[:0]
		listed := map[uint32]bool{}
		_, err := b.c.do(ctx, "UID FETCH", []any{string(set), "(UID)"}, func(r *response) error {
			switch r.name {
			case "EXPUNGE":
				expunge(r.num)
			case "FETCH":
				f, err := b.c.fetchResponse(r, nil)
				if err != nil {
					return err
				}
				if uid := f.meta.UID; b.open[uid] && !listed[uid] {
					listed[uid] = true
					queue = append(queue, f)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for len(queue) > 0 {
			next := queue[0]
			queue = queue[1:]
			if err := b.fetchOne(ctx, next, expunge); err != nil {
				return err
			}
		}
	}
	return nil
}

// fetchOne fetches the body of one message whose sequence number is known.
func (b *bodies) fetchOne(ctx context.Context, want fetched, expunge func(uint32)) error {
	uid, seq := want.meta.UID, want.seq
	args := []any{strconv.FormatUint(uint64(uid), 10), "(UID BODY.PEEK[])"}
	_, err := b.c.do(ctx, "UID FETCH", args, func(r *response) error {
		if r.name == "EXPUNGE" {
			if expunge(r.num); r.num == seq {
				seq = 0
			} else if r.num < seq {
				seq--
			}
		}
		if r.name != "FETCH" {
			return nil
		}
		passed := false
		f, err := b.c.fetchResponse(r, func(f *fetched, item string, v body) error {
			known := f.meta.UID
			if item != "BODY[]" || known != 0 && known != uid || known == 0 && f.seq != seq {
				return nil
			}
			passed = passed || b.open[uid]
			return b.pass(uid, v)
		})
		if err == nil && passed && f.meta.UID != 0 && f.meta.UID != uid {
			err = fmt.Errorf("%w: UID %d for %d", errOtherMessage, f.meta.UID, uid)
		}
		return err
	})
	return err
}

// FetchHeader fetches the header fields named (RFC 9051 BODY.PEEK[HEADER.FIELDS]),
// at most 1 MiB of them. It returns nil where the message is gone.
func (c *Conn) FetchHeader(ctx context.Context, uid uint32, fields ...string) ([]byte, error) {
	const item = "BODY.PEEK[HEADER.FIELDS ("
	args := []any{strconv.FormatUint(uint64(uid), 10), "(UID " + item + strings.Join(fields, " ") + ")])"}
	var header []byte
	_, err := c.do(ctx, "UID FETCH", args, func(r *response) error {
		if r.name != "FETCH" {
			return nil
		}
		var octets []byte
		f, err := c.fetchResponse(r, func(_ *fetched, item string, v body) (err error) {
			if !strings.HasPrefix(item, "BODY[HEADER.FIELDS") {
				return nil
			}
			if v.size > maxLine {
				return errTooLong
			}
			octets = make([]byte, v.size)
			_, err = io.ReadFull(v.r, octets)
			return err
		})
		if f.meta.UID == uid && header == nil {
			header = octets
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return header, nil
}

package migrator

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"migproxy/migrator/pop3wire"
	"migproxy/store"
	"migproxy/upstream"
)

const (
	// maxPopHeld is the largest message, in octets, that is read into memory
	// before it is passed on. One that breaks off is then asked for again, and
	// nobody has seen a part of it.
	maxPopHeld = 1 << 20
	// maxPopHeader bounds what is read of a header, in octets.
	maxPopHeader = 1 << 20
	// quitTimeout bounds the wait for the answer to QUIT.
	quitTimeout = 2 * time.Second
	// topTries is how many messages TOP must have failed to give, and given none,
	// before it is left alone.
	topTries = 3
)

// maildrop reads one user's mail over POP3. Its numbers count within one
// session. It marks nothing for deletion, and reads by TOP as long as LIST's
// sizes show that this gives messages whole: RETR marks a message as read on
// some servers, and expires it on others.
type maildrop struct {
	timeout  time.Duration
	expireOK bool // the administrator agrees to a server with EXPIRE 0

	conn     *pop3wire.Conn // nil between sessions
	ended    time.Time      // the last session
	retrieve bool           // RETR was used in this session
	messages []popMessage   // as listed by this session, by number

	topGiven, topMissed int // messages that TOP gave whole, and that it did not
	sizes               sizeCounting
	doubtful            bool   // a large message had another size than was listed
	doubt               func() // is told of such a one
	held                []byte // the message last read, if it has no more than maxPopHeld octets
	chunk               []byte
}

// popMessage is one message of a maildrop.
type popMessage struct {
	n    int   // in this session
	size int64 // by LIST
	uid  uint32
}

// errExpires: the server may delete what is read.
var errExpires = &halt{state: store.Waiting, retry: true, reason: errorSource,
	err: errors.New("the source announces EXPIRE 0 over POP3: it may delete messages once they are read. Have it keep them, read it over IMAP, or, if it is known to keep them, write pop3_expire_ok: true under domains[].source")}

// open lists the maildrop on a session that has just been logged in. names are
// the UIDLs, in the order of the messages; nil where the server has none.
func (d *maildrop) open(ctx context.Context, session *upstream.Session) (names []string, err error) {
	d.conn, d.retrieve = pop3wire.New(session, pop3wire.Options{Timeout: d.timeout}), false
	caps, err := d.conn.Capabilities(ctx)
	if err != nil {
		return nil, err
	}
	if !d.expireOK && slices.ContainsFunc(caps, expiresAtOnce) {
		return nil, errExpires
	}
	d.messages = d.messages[:0]
	err = d.conn.List(ctx, func(n int, size int64) error {
		d.messages = append(d.messages, popMessage{n: n, size: size})
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(d.messages, func(a, b popMessage) int { return cmp.Compare(a.n, b.n) })
	d.messages = slices.CompactFunc(d.messages, func(a, b popMessage) bool { return a.n == b.n })
	return d.uidls(ctx, slices.Contains(caps, "UIDL"))
}

// expiresAtOnce recognises EXPIRE 0 among capabilities (RFC 2449 section 6.7).
func expiresAtOnce(capability string) bool {
	words := strings.Fields(capability)
	return len(words) > 1 && words[0] == "EXPIRE" && words[1] == "0"
}

func (d *maildrop) uidls(ctx context.Context, offered bool) ([]string, error) {
	names := make([]string, len(d.messages))
	missing := len(names)
	err := d.conn.UIDL(ctx, func(n int, uidl string) error {
		at, listed := slices.BinarySearchFunc(d.messages, n, func(m popMessage, n int) int { return cmp.Compare(m.n, n) })
		if listed && names[at] == "" {
			names[at] = uidl
			missing--
		}
		return nil
	})
	if refused, ok := errors.AsType[*pop3wire.StatusError](err); ok && !offered && !refused.Temporary() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if missing > 0 {
		return nil, fmt.Errorf("the source's POP3 lists %d messages and gives %d of them no unique-id (UIDL): see its log", len(names), missing)
	}
	return names, nil
}

// end ends the session, if there is one. What RETR has marked takes effect at
// QUIT: then the connection is just closed.
func (d *maildrop) end() {
	if d.conn == nil {
		return
	}
	if !d.retrieve {
		ctx, cancel := context.WithTimeout(context.Background(), quitTimeout)
		_ = d.conn.Quit(ctx) // the server ends the session by itself, if it must
		cancel()
	}
	d.cut()
}

// cut closes the connection as it is.
func (d *maildrop) cut() {
	if d.conn == nil {
		return
	}
	_ = d.conn.Close()
	d.conn, d.ended = nil, time.Now()
}

// fetch has the server send a whole message.
func (d *maildrop) fetch(ctx context.Context, m popMessage, top bool, fn func(io.Reader) error) error {
	if top {
		return d.conn.Top(ctx, m.n, pop3wire.Whole, fn)
	}
	d.retrieve = true
	return d.conn.Retr(ctx, m.n, fn)
}

// topWorks reports whether TOP is worth a try.
func (d *maildrop) topWorks() bool { return d.topGiven > 0 || d.topMissed < topTries }

// message passes one message on, with the number of its octets, in the same form
// whichever command gives it. APPEND needs that number beforehand, and LIST is
// wrong on many servers: a small message is held until its end has come; a large
// one is read twice, unless the sizes of the others were right. The last octets
// of a message are not passed on before its number has proved right. An error of
// fn is returned as it is, and ends the session.
func (d *maildrop) message(ctx context.Context, m popMessage, fn func(size int64, r io.Reader) error) error {
	if m.size > maxPopHeld && d.sizes == countsCRLF && !d.doubtful {
		top := d.topWorks()
		err := d.stream(ctx, m, top, m.size, fn)
		if !top || !isRefused(err) {
			return err
		}
	}
	octets, top, err := d.measure(ctx, m)
	switch {
	case err != nil:
		return err
	case octets <= maxPopHeld:
		return fn(octets, bytes.NewReader(d.held))
	}
	return d.stream(ctx, m, top, octets, fn)
}

// isRefused reports whether the answer was -ERR for this message alone.
func isRefused(err error) bool {
	refused, ok := errors.AsType[*pop3wire.StatusError](err)
	return ok && !refused.Temporary()
}

// measure reads a message and counts its octets, which are held if they are no
// more than maxPopHeld. top says that TOP gives it whole.
func (d *maildrop) measure(ctx context.Context, m popMessage) (octets int64, top bool, err error) {
	if d.topWorks() {
		c, err := d.count(ctx, m, true)
		switch {
		case err != nil && !isRefused(err):
			return 0, false, err
		case err == nil && d.sizes.confirm(c, m.size):
			d.topGiven++
			return c.octets, true, nil
		}
		d.topMissed++
	}
	c, err := d.count(ctx, m, false)
	if err == nil {
		d.sizes.confirm(c, m.size)
	}
	return c.octets, false, err
}

// count reads a message once.
func (d *maildrop) count(ctx context.Context, m popMessage, top bool) (c octetCount, err error) {
	if d.chunk == nil {
		d.chunk = make([]byte, 32<<10)
	}
	d.held = d.held[:0]
	err = d.fetch(ctx, m, top, func(r io.Reader) error {
		for {
			n, err := r.Read(d.chunk)
			c.octets += int64(n)
			c.lines += int64(bytes.Count(d.chunk[:n], []byte{'\n'}))
			if c.octets <= maxPopHeld {
				d.held = append(d.held, d.chunk[:n]...)
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	return c, err
}

// stream passes a message on while it comes.
func (d *maildrop) stream(ctx context.Context, m popMessage, top bool, octets int64, fn func(size int64, r io.Reader) error) error {
	var s *sizedReader
	err := d.fetch(ctx, m, top, func(r io.Reader) error {
		s = newSizedReader(r, octets)
		return fn(octets, s)
	})
	if s != nil && errors.Is(s.err, errOtherSize) {
		d.doubtful = true
		d.doubt()
		return s.err
	}
	return err
}

// header reads those fields of a header that are asked for, with their octets,
// and an empty line; nil where the server does not give the message.
func (d *maildrop) header(ctx context.Context, m popMessage, fields []string) ([]byte, error) {
	var header []byte
	read := func(r io.Reader) (err error) {
		header, err = pickFields(r, fields)
		return err
	}
	err := d.conn.Top(ctx, m.n, 0, read)
	if isRefused(err) {
		err = d.fetch(ctx, m, false, read)
	}
	if isRefused(err) {
		return nil, nil
	}
	return header, err
}

// pickFields picks header fields out of a message.
func pickFields(r io.Reader, fields []string) ([]byte, error) {
	var picked []byte
	br := bufio.NewReader(io.LimitReader(r, maxPopHeader))
	wanted, lineStart := false, true
	for {
		part, err := br.ReadSlice('\n')
		if lineStart {
			if len(bytes.TrimRight(part, "\r\n")) == 0 && err == nil {
				break
			}
			if len(part) > 0 && part[0] != ' ' && part[0] != '\t' {
				name, _, _ := bytes.Cut(part, []byte(":"))
				wanted = slices.ContainsFunc(fields, func(f string) bool { return strings.EqualFold(f, strings.TrimSpace(string(name))) })
			}
		}
		if wanted {
			picked = append(picked, part...)
		}
		lineStart = err == nil
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
	return append(picked, "\r\n"...), nil
}

// Package imapwire is the small lenient IMAP client of the copy. It streams
// messages, reports what a server really sent, and lets the caller reconcile
// what was asked for with what came; it never invents, pads or drops octets.
package imapwire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"migproxy/migrator/wire"
	"migproxy/upstream"
)

// Options bound a Conn.
type Options struct {
	// Timeout is how long the server may stay silent, and how long one write may
	// take, before the connection is given up. Zero is one minute.
	Timeout time.Duration
}

// bufferSize is that of each direction's buffer, in octets.
const bufferSize = 64 << 10

// Conn is an IMAP connection on which a user is logged in. Its methods may be
// called by one goroutine at a time. After any error but ErrName and a
// *StatusError of type NO or BAD the connection is closed and every later call
// fails. The end of a context closes it at once.
type Conn struct {
	caps map[string]bool

	wire *wire.Conn
	w    *bufio.Writer
	tags int

	// p belongs to the goroutine of readAnswers while reading is true, and to
	// the caller otherwise.
	p           parser
	zones       zones
	words       map[string]string // flags seen, see intern
	held        []byte            // a small body whose UID is not known yet
	bodiesFirst bool              // this server sends bodies before their UIDs
	personal    *personal         // once known: it stays as it is while connected
	others      *[]string         // prefixes of the other namespaces, once known

	mu      sync.Mutex
	err     error     // why the connection is closed
	reading bool      // readAnswers is running
	pending []*Append // unanswered, in the order in which they were begun
	readers sync.WaitGroup
}

// StatusError is a tagged NO or BAD, or an untagged BYE. After a BYE the
// connection is closed.
type StatusError struct {
	Command string // the command's name, without arguments
	Type    string // NO, BAD or BYE
	Code    string // response code, upper case, without its arguments; may be empty
	Text    string // for the log only
}

func (e *StatusError) Error() string {
	if e.Code == "" {
		return e.Command + ": " + e.Type + " " + e.Text
	}
	return e.Command + ": " + e.Type + " [" + e.Code + "] " + e.Text
}

func (s *status) err(command string) error {
	return &StatusError{Command: command, Type: s.typ, Code: s.code, Text: s.text}
}

// New starts on a session that upstream has logged in. The connection is the
// Conn's from now on.
func New(s *upstream.Session, o Options) *Conn {
	c := &Conn{
		caps: make(map[string]bool, len(s.Capabilities)), wire: wire.New(s, o.Timeout),
		zones: zones{}, words: map[string]string{},
	}
	for _, name := range s.Capabilities {
		c.caps[name] = true
	}
	c.p.br = bufio.NewReaderSize(c.wire, bufferSize)
	c.w = bufio.NewWriterSize(c.wire, bufferSize)
	return c
}

// Has reports whether a capability (upper case) was announced after login.
func (c *Conn) Has(capability string) bool { return c.caps[capability] }

// AppendLimit is how many octets a message may have on this server, if it has
// announced that for all mailboxes (RFC 7889, section 2), and otherwise 0.
func (c *Conn) AppendLimit() int64 {
	for name := range c.caps {
		if text, found := strings.CutPrefix(name, "APPENDLIMIT="); found {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
				return n
			}
		}
	}
	return 0
}

// Close cuts the connection. It may be called at any time, by any goroutine.
func (c *Conn) Close() error {
	c.fail(net.ErrClosed)
	c.readers.Wait()
	return nil
}

// Logout ends the session politely, then closes.
func (c *Conn) Logout(ctx context.Context) error {
	_, err := c.do(ctx, "LOGOUT", nil, nil)
	_ = c.Close()
	if errors.Is(err, io.ErrUnexpectedEOF) { // some servers leave without the tagged answer
		return nil
	}
	return err
}

// Noop sends NOOP.
func (c *Conn) Noop(ctx context.Context) error {
	_, err := c.do(ctx, "NOOP", nil, nil)
	return err
}

// fail closes the connection, unless it is closed, and returns the reason why
// it is.
func (c *Conn) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		for _, a := range c.pending {
			a.finish(err)
		}
		c.pending = nil
	}
	c.wire.Cut()
	return c.err
}

func (c *Conn) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// explain says what an error of the connection means and what it happened to.
func (c *Conn) explain(ctx context.Context, command string, err error) error {
	var bye *StatusError
	if errors.As(err, &bye) {
		return err
	}
	return c.wire.Explain(ctx, command, err)
}

// callbackError carries an error of the caller's own through do, which closes
// the connection on it, since the rest of the answer is still on its way.
type callbackError struct{ error }

// str is an argument that is sent as a quoted string or a literal.
type str string

// do sends one command and reads its answer. args are strings, sent as they
// are, and strs. on gets every untagged response and may leave any part of it
// unread.
func (c *Conn) do(ctx context.Context, command string, args []any, on func(*response) error) (status, error) {
	for _, arg := range args {
		if s, ok := arg.(str); ok && !nameable(string(s)) {
			return status{}, ErrName
		}
	}
	if err := c.enter(ctx, command); err != nil {
		return status{}, err
	}
	stop := context.AfterFunc(ctx, c.wire.Cut)
	defer stop()
	tag := c.nextTag()
	st, err := c.send(tag, command, args)
	if err == nil && st.typ == "" {
		st, err = c.await(tag, command, on, false)
	}
	var callback callbackError
	switch {
	case errors.As(err, &callback):
		_ = c.fail(net.ErrClosed)
		return status{}, callback.error
	case err != nil:
		return status{}, c.fail(c.explain(ctx, command, err))
	case st.typ != "OK":
		return status{}, st.err(command)
	}
	return st, nil
}

// errBusy is a mistake of the caller's.
var errBusy = errors.New("an APPEND is still unanswered; wait for it first")

// enter makes sure that a command can be sent.
func (c *Conn) enter(ctx context.Context, command string) error {
	c.mu.Lock()
	err, busy := c.err, c.reading
	c.mu.Unlock()
	switch {
	case err != nil:
		return err
	case busy:
		return c.fail(fmt.Errorf("%s: %w", command, errBusy))
	case ctx.Err() != nil:
		return c.fail(c.explain(ctx, command, ctx.Err()))
	}
	c.wire.Expect(true)
	return nil
}

func (c *Conn) nextTag() string {
	c.tags++
	return "M" + strconv.Itoa(c.tags)
}

// errNotGranted keeps a literal from being sent that the server does not want.
var errNotGranted = errors.New("the server refused a literal")

// send writes one command. The status is that of a command which ended before
// its time because a synchronising literal was refused.
func (c *Conn) send(tag, command string, args []any) (status, error) {
	var refused status
	c.write(tag, " ", command)
	for _, arg := range args {
		c.write(" ")
		s, ok := arg.(str)
		if !ok {
			c.write(arg.(string))
			continue
		}
		err := c.writeString(string(s), func(size int64) (err error) {
			mark, wait := c.literalMark(size)
			c.write(mark)
			if !wait {
				return nil
			}
			if err := c.w.Flush(); err != nil {
				return err
			}
			refused, err = c.await(tag, command, nil, true)
			if err == nil && refused.typ != "" {
				err = errNotGranted
			}
			return err
		})
		if errors.Is(err, errNotGranted) {
			return refused, nil
		}
		if err != nil {
			return status{}, err
		}
	}
	c.write("\r\n")
	return status{}, c.w.Flush()
}

// write buffers parts of a command. The writer keeps its error until Flush.
func (c *Conn) write(parts ...string) {
	for _, s := range parts {
		_, _ = c.w.WriteString(s)
	}
}

// writeString writes a quoted string, or a literal where eight-bit octets make
// that necessary. announce writes a literal's mark and waits for the server's
// leave to send it.
func (c *Conn) writeString(s string, announce func(size int64) error) error {
	plain := true
	for i := range len(s) {
		plain = plain && s[i] < 0x80
	}
	if plain {
		b := append(c.w.AvailableBuffer(), '"')
		for i := range len(s) {
			if s[i] == '"' || s[i] == '\\' {
				b = append(b, '\\')
			}
			b = append(b, s[i])
		}
		_, err := c.w.Write(append(b, '"'))
		return err
	}
	if err := announce(int64(len(s))); err != nil {
		return err
	}
	c.write(s)
	return nil
}

// nonSyncLimit is what LITERAL- allows (RFC 7888 section 5), in octets.
const nonSyncLimit = 4096

// literalMark is the announcement of a literal; wait says whether the server
// must grant it first.
func (c *Conn) literalMark(size int64) (mark string, wait bool) {
	mark = "{" + strconv.FormatInt(size, 10)
	if c.caps["LITERAL+"] || size <= nonSyncLimit && (c.caps["LITERAL-"] || c.caps["IMAP4REV2"]) {
		return mark + "+}\r\n", false
	}
	return mark + "}\r\n", true
}

// await reads responses until the tagged one, or, if grant is set, until the
// server grants a literal, which returns a zero status.
func (c *Conn) await(tag, command string, on func(*response) error, grant bool) (status, error) {
	for {
		r, err := c.p.response()
		if err != nil {
			return status{}, err
		}
		switch {
		case r.kind == tagged && r.tag == tag:
			return r.status, nil
		case r.kind == untagged && r.typ == "BYE" && command != "LOGOUT":
			return status{}, r.err(command)
		case r.kind == untagged && on != nil:
			if err := on(&r); err != nil {
				return status{}, err
			}
		}
		if err := c.p.finish(); err != nil {
			return status{}, err
		}
		if r.kind == continuation && grant {
			return status{}, nil
		}
	}
}

package imapwire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Append is one APPEND command under way. Add, End and Wait are called in this
// order; a refusal by Add ends the command, and End and Wait then only repeat it.
type Append struct {
	c    *Conn
	ctx  context.Context
	stop func() bool // ends the watch on ctx
	tag  string
	n    int // messages added

	// granted gets a value when the server grants a synchronising literal.
	granted chan struct{}
	// done is closed when the command is over and the result is known.
	done chan struct{}

	// These are guarded by the Conn's mu.
	waiting  bool   // for a grant
	ended    bool   // nothing more is sent; the answer ends the command
	answered bool   // before its end: what was announced is still to be sent
	drain    string // tag of the NOOP behind a command that was answered early
	result   status
	err      error
}

// SourceError says that the octets of a message could not be read, or were
// fewer than announced. The connection to the target was cut because of it.
type SourceError struct {
	Got, Want int64 // octets
	Err       error
}

func (e *SourceError) Error() string {
	return fmt.Sprintf("the message ended after %d of %d octets, so its APPEND was cut off: %v", e.Got, e.Want, e.Err)
}

func (e *SourceError) Unwrap() error { return e.Err }

const appendCommand = "APPEND"

// Append starts an APPEND (RFC 9051), to which more messages may be added where
// MULTIAPPEND (RFC 3502) is offered. With LITERAL+ nothing is waited for, so
// that the next Append may start before the Wait of this one; the results come
// in order. The context holds until End.
func (c *Conn) Append(ctx context.Context, mailbox string) (*Append, error) {
	if !nameable(mailbox) {
		return nil, ErrName
	}
	a := &Append{c: c, ctx: ctx, tag: c.nextTag(), granted: make(chan struct{}, 1), done: make(chan struct{})}
	if err := c.begin(a); err != nil {
		return nil, err
	}
	c.wire.expect(false)
	a.stop = context.AfterFunc(ctx, c.wire.cut)
	c.write(a.tag, " ", appendCommand, " ")
	if err := c.writeString(mailbox, a.announce); err != nil {
		return nil, err
	}
	return a, nil
}

// begin puts a command among the unanswered ones, and has their answers read
// from now on: a server that sends much while it takes much would otherwise
// block on us and we on it.
func (c *Conn) begin(a *Append) error {
	if a.ctx.Err() != nil {
		return c.fail(c.explain(a.ctx, appendCommand, a.ctx.Err()))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.pending = append(c.pending, a)
	if !c.reading {
		c.reading = true
		c.readers.Go(c.readAnswers)
	}
	return nil
}

// readAnswers reads while there are unanswered APPENDs.
func (c *Conn) readAnswers() {
	for {
		r, err := c.p.response()
		if err == nil && r.kind == untagged && r.typ == "BYE" {
			err = r.err(appendCommand)
		}
		if err == nil {
			err = c.p.finish()
		}
		if err != nil {
			_ = c.fail(c.explain(context.Background(), appendCommand, err))
			return
		}
		if c.deliver(&r) {
			return
		}
	}
}

// deliver hands a response to the command that it belongs to, and reports
// whether none is left.
func (c *Conn) deliver(r *response) (last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, a := range c.pending {
		switch {
		case r.kind == continuation && a.waiting:
			a.waiting = false
			a.granted <- struct{}{}
		case r.kind == tagged && a.drain != "" && r.tag == a.drain:
			a.finish(nil)
		case r.kind == tagged && r.tag == a.tag:
			a.result = r.status
			if !a.ended && !a.waiting {
				a.answered = true
				continue
			}
			a.finish(nil)
		default:
			continue
		}
		if a.over() {
			c.pending = append(c.pending[:i], c.pending[i+1:]...)
		}
		break
	}
	c.reading = len(c.pending) > 0 && c.err == nil
	return !c.reading
}

// finish settles the command. The Conn's mu is held.
func (a *Append) finish(err error) {
	a.waiting, a.ended = false, true
	switch {
	case err != nil:
		a.err = err
	case a.result.typ != "OK":
		a.err = a.result.err(appendCommand)
	}
	close(a.done)
}

func (a *Append) over() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// await waits until the server grants a synchronising literal.
func (a *Append) await() error {
	a.c.wire.expect(true)
	defer a.c.wire.expect(false)
	select {
	case <-a.granted:
		return nil
	case <-a.done:
	}
	if a.err == nil { // OK for a message that was not sent yet
		return errors.New("the server answered OK before it had the message")
	}
	return a.err
}

// abort ends the command on an error while it was being sent. A refusal leaves
// the connection usable.
func (a *Append) abort(err error) error {
	defer a.stop()
	var refused *StatusError
	if a.over() && errors.As(a.err, &refused) {
		return a.err
	}
	err = a.c.explain(a.ctx, appendCommand, err)
	if first := a.c.fail(err); a.ctx.Err() == nil {
		return first
	}
	return err
}

// writeError ends the command on an error of a write. What the server said
// before it stopped taking octets explains more than the error does.
func (a *Append) writeError(err error) error {
	grace := time.NewTimer(min(a.c.timeout, time.Second))
	defer grace.Stop()
	select {
	case <-a.done:
	case <-grace.C:
	}
	return a.abort(err)
}

// Add sends one message: exactly size octets of r. If r ends before or fails,
// the connection is cut, so that nothing short or padded is ever stored, and
// the error is a *SourceError. A *StatusError here is the refusal of a
// synchronising literal: the command is over, nothing of it was stored.
// \Recent, and what is no flag by its syntax, is left out; a zero date is not sent.
func (a *Append) Add(flags []string, date time.Time, size int64, r io.Reader) error {
	c := a.c
	switch {
	case a.over():
		return a.overError("Add")
	case size < 0:
		return a.abort(fmt.Errorf("a message of %d octets", size))
	}
	if a.n > 0 && !c.caps["MULTIAPPEND"] {
		return a.abort(errors.New("a second message in one APPEND needs MULTIAPPEND, which the server does not offer"))
	}
	c.wire.expect(false)
	a.n++
	c.write(" ")
	if list := flagList(flags); list != "" {
		c.write("(", list, ") ")
	}
	if sendable(date) {
		c.write(`"`, date.Format(dateLayout), `" `)
	}
	if err := a.announce(size); err != nil {
		return err
	}
	src := &source{r: r}
	n, err := io.CopyN(c.w, src, size)
	switch {
	case src.err != nil || errors.Is(err, io.EOF):
		if src.err == nil {
			src.err = io.ErrUnexpectedEOF
		}
		failure := &SourceError{n, size, src.err}
		_ = c.fail(failure)
		a.stop()
		return failure
	case err != nil:
		return a.writeError(err)
	}
	return nil
}

// announce writes the literal's mark, and waits for the grant where it must. The
// command is over after an error.
func (a *Append) announce(size int64) error {
	c := a.c
	mark, wait := c.literalMark(size)
	if !wait {
		c.write(mark)
		return nil
	}
	c.mu.Lock()
	refused := a.answered
	a.waiting = !refused // before the mark, which may leave with what is buffered
	c.mu.Unlock()
	if refused { // meanwhile, by the answer to a literal that did not wait
		if err := a.End(); err != nil {
			return err
		}
		c.wire.expect(true)
		<-a.done
		return a.overError("Add")
	}
	c.write(mark)
	if err := c.w.Flush(); err != nil {
		return a.writeError(err)
	}
	if err := a.await(); err != nil {
		return a.abort(err)
	}
	return nil
}

// source remembers what its reader failed with.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// flagList writes those flags that can be sent.
func flagList(flags []string) string {
	var b strings.Builder
	for _, flag := range flags {
		if !IsFlag(flag) || strings.EqualFold(flag, `\Recent`) {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(flag)
	}
	return b.String()
}

// IsFlag reports whether a flag can be sent: an atom, perhaps behind a
// backslash (RFC 9051 section 9). Some servers show keywords with a ], which is
// none, and others refuse the whole message for it.
func IsFlag(flag string) bool {
	name := strings.TrimPrefix(flag, `\`)
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\]`, r)
	})
}

// End ends the command's line.
func (a *Append) End() error {
	c := a.c
	if a.over() {
		return a.overError("End")
	}
	c.mu.Lock()
	a.ended = true
	if a.answered {
		// The server gave its answer early and took the rest without a word.
		// When the NOOP is answered, it has taken it all.
		a.drain = c.nextTag()
	}
	drain := a.drain
	c.mu.Unlock()
	c.write("\r\n")
	if drain != "" {
		c.write(drain, " NOOP\r\n")
	}
	if err := c.w.Flush(); err != nil {
		return a.writeError(err)
	}
	a.stop()
	return nil
}

// overError is the answer to a call for a command that is over: its own error.
func (a *Append) overError(call string) error {
	if a.err != nil {
		return a.err
	}
	return a.c.fail(fmt.Errorf("%s on an APPEND that is over", call))
}

// Wait waits for the tagged answer. uids are those of APPENDUID (RFC 4315), in
// the order of the messages, and nil where the server did not send one for each
// message; validity is the UIDVALIDITY that came with them.
func (a *Append) Wait(ctx context.Context) (validity uint32, uids []uint32, err error) {
	stop := context.AfterFunc(ctx, a.c.wire.cut)
	defer stop()
	a.c.wire.expect(true)
	<-a.done // the read deadline and the context bound it
	if a.err != nil {
		var said *StatusError
		if ctx.Err() != nil && !errors.As(a.err, &said) {
			return 0, nil, a.c.explain(ctx, appendCommand, a.err)
		}
		return 0, nil, a.err
	}
	if a.result.code != "APPENDUID" {
		return 0, nil, nil
	}
	v, set, _ := strings.Cut(strings.TrimSpace(a.result.arg), " ")
	n, err := strconv.ParseUint(v, 10, 32)
	uids, ok := parseUIDSet(strings.TrimSpace(set), a.n)
	if err != nil || n == 0 || !ok {
		return 0, nil, nil
	}
	return uint32(n), uids, nil
}

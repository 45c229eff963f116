package pop3wire

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"strconv"
)

// Whole is the number of lines that has TOP give all of a message.
const Whole = math.MaxInt32

// Retr passes the octets of a message on while they come, by RETR. Some servers
// mark a message as read for it, or expire it. r gives every octet that the
// server sends, and then io.EOF, or io.ErrUnexpectedEOF where the connection
// ends before. What fn leaves unread is discarded. An error of fn is returned as
// it is, and closes the connection.
func (c *Conn) Retr(ctx context.Context, n int, fn func(r io.Reader) error) error {
	return c.message(ctx, "RETR", strconv.Itoa(n), fn)
}

// Top passes the header of a message and this many lines of its text on, by TOP
// (RFC 1939 section 7), like Retr.
func (c *Conn) Top(ctx context.Context, n, lines int, fn func(r io.Reader) error) error {
	return c.message(ctx, "TOP", strconv.Itoa(n)+" "+strconv.Itoa(lines), fn)
}

func (c *Conn) message(ctx context.Context, command, args string, fn func(io.Reader) error) error {
	return c.do(ctx, command, args, func(bareLF bool) error {
		b := &body{br: c.br, bareLF: bareLF, lineStart: true}
		err := fn(b)
		switch {
		case b.err != nil: // and not what fn made of the reader's error
			return b.err
		case err != nil:
			return callbackError{err}
		}
		return b.discard()
	})
}

// body gives the octets of one multi-line answer (RFC 1939 section 3), without
// the dots that stand before others at the beginning of a line. A line ends with
// CRLF: a LF alone belongs to the message, unless the server ends its own lines
// with it as well.
type body struct {
	br        *bufio.Reader
	bareLF    bool   // the server ends its lines with LF alone
	lineStart bool   // the next octet begins a line
	afterCR   bool   // the last octet was a CR
	left      []byte // read and not yet passed on; br's own
	ended     bool
	err       error // what ended the connection inside the message
}

func (b *body) Read(p []byte) (int, error) {
	for len(b.left) == 0 {
		switch {
		case b.err != nil:
			return 0, io.ErrUnexpectedEOF
		case b.ended:
			return 0, io.EOF
		}
		b.next()
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}

// next reads the rest of a line, or as much of it as the buffer holds.
func (b *body) next() {
	part, err := b.br.ReadSlice('\n')
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		b.err = err // what came of the line is not passed on: it may have been the end
		return
	}
	if b.lineStart && part[0] == '.' {
		if text := string(part[1:min(len(part), 4)]); text == "\r\n" || b.bareLF && text == "\n" {
			b.ended = true
			return
		}
		part = part[1:]
	}
	whole := part[len(part)-1] == '\n'
	crlf := whole && (len(part) > 1 && part[len(part)-2] == '\r' || len(part) == 1 && b.afterCR)
	b.lineStart = crlf || whole && b.bareLF
	b.afterCR = part[len(part)-1] == '\r'
	b.left = part
}

// discard reads on to the end of the message.
func (b *body) discard() error {
	for !b.ended && b.err == nil {
		b.next()
	}
	b.left = nil
	return b.err
}

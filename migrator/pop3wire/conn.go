// Package pop3wire is the small lenient POP3 client of the copy. It streams
// messages octet by octet as the server sends them, and has no command that
// could change a maildrop: no DELE.
package pop3wire

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

const (
	// bufferSize is that of the buffer for what is read, in octets.
	bufferSize = 64 << 10
	// maxLine bounds a line that is no line of a message, in octets. RFC 2449
	// section 4 allows 512.
	maxLine = 8 << 10
	// maxCapabilities bounds the lines of CAPA.
	maxCapabilities = 1000
	// MaxMessages bounds the messages of one maildrop.
	MaxMessages = 4 << 20
)

// Conn is a POP3 connection on which a user is logged in. Its methods may be
// called by one goroutine at a time. After any error but a *StatusError the
// connection is closed and every later call fails. The end of a context closes
// it at once.
type Conn struct {
	wire *wire.Conn
	br   *bufio.Reader

	mu  sync.Mutex
	err error // why the connection is closed
}

// StatusError is an -ERR.
type StatusError struct {
	Command string // the command's name, without arguments
	Code    string // response code (RFC 2449 section 8), upper case; may be empty
	Text    string // for the log only
}

func (e *StatusError) Error() string { return e.Command + ": -ERR " + e.Text }

// Temporary reports whether the code says that this may work later (RFC 3206,
// RFC 2449): nothing is known then of what the command asked for.
func (e *StatusError) Temporary() bool {
	return e.Code == "SYS/TEMP" || e.Code == "IN-USE" || e.Code == "LOGIN-DELAY"
}

// New starts on a session that upstream has logged in. The connection is the
// Conn's from now on.
func New(s *upstream.Session, o Options) *Conn {
	c := &Conn{wire: wire.New(s, o.Timeout)}
	c.br = bufio.NewReaderSize(c.wire, bufferSize)
	return c
}

// Close cuts the connection without QUIT, so that the server does not enter the
// UPDATE state (RFC 1939 section 6). It may be called at any time, by any
// goroutine.
func (c *Conn) Close() error {
	_ = c.fail(net.ErrClosed)
	return nil
}

// Quit ends the session with QUIT, then closes.
func (c *Conn) Quit(ctx context.Context) error {
	err := c.do(ctx, "QUIT", "", nil)
	_ = c.Close()
	if errors.Is(err, io.ErrUnexpectedEOF) { // some servers leave without an answer
		return nil
	}
	return err
}

// fail closes the connection, unless it is closed, and returns the reason why
// it is.
func (c *Conn) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.wire.Cut()
	return c.err
}

func (c *Conn) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// callbackError carries an error of the caller's own through do, which closes
// the connection on it, since the rest of the answer is still on its way.
type callbackError struct{ error }

// do sends one command and reads its answer. rest, if it is not nil, reads all
// that follows a +OK.
func (c *Conn) do(ctx context.Context, command, args string, rest func(bareLF bool) error) error {
	if err := c.failed(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return c.fail(c.wire.Explain(ctx, command, ctx.Err()))
	}
	stop := context.AfterFunc(ctx, c.wire.Cut)
	defer stop()
	line := command
	if args != "" {
		line += " " + args
	}
	_, err := io.WriteString(c.wire, line+"\r\n")
	if err == nil {
		err = c.answer(command, rest)
	}
	var refused *StatusError
	var callback callbackError
	switch {
	case errors.As(err, &callback):
		_ = c.fail(net.ErrClosed)
		return callback.error
	case err == nil || errors.As(err, &refused):
		return err
	}
	return c.fail(c.wire.Explain(ctx, command, err))
}

// answer reads the status line and what follows it.
func (c *Conn) answer(command string, rest func(bareLF bool) error) error {
	line, bareLF, err := c.line()
	if err != nil {
		return err
	}
	status, text, _ := strings.Cut(line, " ")
	switch strings.ToUpper(status) {
	case "+OK":
		if rest == nil {
			return nil
		}
		return rest(bareLF)
	case "-ERR":
		return &StatusError{Command: command, Code: code(text), Text: strings.ToValidUTF8(text, "?")}
	}
	return fmt.Errorf("the server answered %q, which is not POP3", line[:min(len(line), 80)])
}

// code is the response code in front of a text.
func code(text string) string {
	inner, ok := strings.CutPrefix(text, "[")
	if !ok {
		return ""
	}
	code, _, closed := strings.Cut(inner, "]")
	if !closed {
		return ""
	}
	return strings.ToUpper(code)
}

var errLongLine = fmt.Errorf("the server sent a line of more than %d octets", maxLine)

// line reads one line without its end. bareLF is set where that is a LF alone.
func (c *Conn) line() (text string, bareLF bool, err error) {
	line, err := c.br.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull) || len(line) > maxLine:
		return "", false, errLongLine
	case err != nil:
		return "", false, err
	}
	text, crlf := strings.CutSuffix(string(line[:len(line)-1]), "\r")
	return text, !crlf, nil
}

// lines reads the lines of a list up to its end.
func (c *Conn) lines(fn func(line string) error) error {
	for {
		line, _, err := c.line()
		if err != nil || line == "." {
			return err
		}
		if len(line) > 1 && line[0] == '.' {
			line = line[1:]
		}
		if err := fn(line); err != nil {
			return err
		}
	}
}

// Capabilities asks with CAPA (RFC 2449). Its lines come in upper case; nil
// where the server does not know the command.
func (c *Conn) Capabilities(ctx context.Context) ([]string, error) {
	var caps []string
	err := c.do(ctx, "CAPA", "", func(bool) error {
		return c.lines(func(line string) error {
			if len(caps) == maxCapabilities {
				return errors.New("the server sends capabilities without end")
			}
			caps = append(caps, strings.ToUpper(line))
			return nil
		})
	})
	var refused *StatusError
	if errors.As(err, &refused) {
		return nil, nil
	}
	return caps, err
}

var errTooMany = fmt.Errorf("the server lists more than %d messages", MaxMessages)

// List asks with LIST for each message's size in octets, which some servers get
// wrong, and passes them on in the server's order. A line that says nothing is
// left out.
func (c *Conn) List(ctx context.Context, fn func(n int, size int64) error) error {
	return c.list(ctx, "LIST", func(n int, rest string) error {
		size, _, _ := strings.Cut(rest, " ")
		octets, err := strconv.ParseInt(size, 10, 64)
		if err != nil || octets < 0 {
			return nil
		}
		return fn(n, octets)
	})
}

// UIDL asks for each message's unique-id (RFC 1939 section 7), and passes them
// on in the server's order. It has neither spaces nor NUL; a line with another
// one is left out.
func (c *Conn) UIDL(ctx context.Context, fn func(n int, uidl string) error) error {
	return c.list(ctx, "UIDL", func(n int, rest string) error {
		uidl := strings.TrimRight(rest, " \t")
		if uidl == "" || strings.ContainsAny(uidl, " \t\x00") {
			return nil
		}
		return fn(n, uidl)
	})
}

// list sends a command whose answer has a line for each message.
func (c *Conn) list(ctx context.Context, command string, fn func(n int, rest string) error) error {
	count := 0
	return c.do(ctx, command, "", func(bool) error {
		return c.lines(func(line string) error {
			if count++; count > MaxMessages {
				return errTooMany
			}
			number, rest, _ := strings.Cut(strings.TrimLeft(line, " "), " ")
			n, err := strconv.Atoi(number)
			if err != nil || n < 1 || n > MaxMessages {
				return nil
			}
			if err := fn(n, strings.TrimLeft(rest, " ")); err != nil {
				return callbackError{err}
			}
			return nil
		})
	})
}

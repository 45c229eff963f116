package verify

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"migproxy/upstream"
)

// greeting tells go-imap that the login is done (RFC 9051 7.1.4). Of what the
// server can do it needs to know no more.
const greeting = "* PREAUTH [CAPABILITY IMAP4rev1] logged in\r\n"

// conn is a session's connection as go-imap gets it. go-imap knows no context,
// gives a large message five minutes in all and an answer no limit: here silence
// ends the connection, and nothing else, while an answer is awaited.
type conn struct {
	net.Conn
	r       io.Reader
	timeout time.Duration

	mu       sync.Mutex
	awaiting bool
	err      error // what ended the connection
}

func newConn(s *upstream.Session, timeout time.Duration) *conn {
	return &conn{Conn: s.Conn, r: io.MultiReader(strings.NewReader(greeting), s.Reader), timeout: timeout}
}

func (c *conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	c.arm()
	c.mu.Unlock()
	n, err := c.r.Read(p)
	if err != nil {
		c.note(err)
	}
	return n, err
}

// arm sets the deadline of the next read, and of one under way. A connection
// that is closed already tells so at its next read.
func (c *conn) arm() {
	var deadline time.Time
	if c.awaiting {
		deadline = time.Now().Add(c.timeout)
	}
	_ = c.Conn.SetReadDeadline(deadline)
}

// await says whether the server owes an answer from now on.
func (c *conn) await(answer bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.awaiting = answer
	c.arm()
}

func (c *conn) Write(p []byte) (int, error) {
	_ = c.Conn.SetWriteDeadline(time.Now().Add(c.timeout))
	n, err := c.Conn.Write(p)
	if err != nil {
		c.note(err)
	}
	return n, err
}

func (c *conn) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// ended says what ended the connection; nil if it is not known to have ended.
func (c *conn) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.Is(c.err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the server was silent for %v; see whether it is overloaded or cut off: %w", c.timeout, c.err)
	case errors.Is(c.err, io.EOF):
		return fmt.Errorf("the server closed the connection: %w", io.ErrUnexpectedEOF)
	default:
		return c.err
	}
}

// SetDeadline, SetReadDeadline and SetWriteDeadline are go-imap's: see conn.
func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// Close closes the transport first, because closing TLS politely may wait for
// seconds on a server that does not read.
func (c *conn) Close() error {
	inner := c.Conn
	for {
		wrapped, ok := inner.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		inner = wrapped.NetConn()
	}
	err := inner.Close()
	if inner != c.Conn {
		_ = c.Conn.Close()
	}
	return err
}

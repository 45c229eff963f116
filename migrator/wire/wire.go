// Package wire is what the copy's IMAP and POP3 have in common: a connection on
// which silence has a deadline, and what its errors mean.
package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"migproxy/upstream"
)

// DefaultTimeout is how long a server may stay silent where nothing else is said.
const DefaultTimeout = time.Minute

// Conn gives each read and each write its own deadline, so that a transfer may
// take as long as it needs while silence ends it. What the login has read ahead
// is read first.
type Conn struct {
	server  string
	conn    net.Conn
	in      io.Reader
	timeout time.Duration
	close   sync.Once

	mu sync.Mutex
	// armed is false while a command is being sent: the server then owes no
	// answer yet, however long the message takes to come from elsewhere.
	armed bool
}

// New starts on a session that upstream has logged in. A timeout of zero is
// DefaultTimeout. The connection is the Conn's from now on.
func New(s *upstream.Session, timeout time.Duration) *Conn {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	c := &Conn{server: s.Server, conn: s.Conn, timeout: timeout, armed: true}
	c.in = deadlineReader{c}
	if s.Reader != nil && s.Reader.Buffered() > 0 {
		ahead, _ := s.Reader.Peek(s.Reader.Buffered()) // cannot fail: they are there
		c.in = io.MultiReader(bytes.NewReader(bytes.Clone(ahead)), c.in)
	}
	return c
}

// Timeout is how long the server may stay silent.
func (c *Conn) Timeout() time.Duration { return c.timeout }

func (c *Conn) Read(p []byte) (int, error) { return c.in.Read(p) }

type deadlineReader struct{ c *Conn }

func (r deadlineReader) Read(p []byte) (int, error) {
	r.c.mu.Lock()
	err := r.c.setRead()
	r.c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return r.c.conn.Read(p)
}

func (c *Conn) setRead() error {
	if !c.armed {
		return c.conn.SetReadDeadline(time.Time{})
	}
	return c.conn.SetReadDeadline(time.Now().Add(c.timeout))
}

// Expect says whether the server owes an answer from now on. It holds for a
// read under way as well. A connection that is closed already tells so at its
// next read.
func (c *Conn) Expect(answer bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = answer
	_ = c.setRead()
}

func (c *Conn) Write(p []byte) (int, error) {
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.conn.Write(p)
}

// Cut closes the connection at once. The transport goes first, because closing
// TLS politely may wait for seconds on a server that does not read. It may be
// called at any time, by any goroutine.
func (c *Conn) Cut() {
	c.close.Do(func() {
		inner := c.conn
		for {
			wrapped, ok := inner.(interface{ NetConn() net.Conn })
			if !ok {
				break
			}
			inner = wrapped.NetConn()
		}
		_ = inner.Close()
		if inner != c.conn {
			_ = c.conn.Close()
		}
	})
}

// Explain says what an error of the connection means and which command it
// happened to.
func (c *Conn) Explain(ctx context.Context, command string, err error) error {
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("the server was silent for %v; see whether it is overloaded or cut off: %w", c.timeout, err)
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("the server closed the connection: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%s: %s: %w", c.server, command, err)
}

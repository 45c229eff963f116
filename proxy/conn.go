package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

const (
	// maxLine bounds a command line, RFC 7162 section 4 (8 KiB without the line end).
	maxLine = 8 << 10
	// maxLiteral bounds one literal before login; what LITERAL- allows, RFC 7888 section 5.
	maxLiteral = 4 << 10
	// maxBadCommands ends a dialogue that leads nowhere.
	maxBadCommands = 10
	// writeTimeout bounds one answer to a client before login.
	writeTimeout = 10 * time.Second
)

// Errors that end a dialogue. The client has been told.
var (
	errLineTooLong    = errors.New("the client sent a line of more than 8 KiB")
	errLiteralTooLong = errors.New("the client sent a literal of more than 4 KiB before login")
	errTooManyBad     = errors.New("the client sent too many bad commands")
)

// Conn is a client's connection before login.
type Conn struct {
	socket net.Conn // where deadlines are set
	stream net.Conn // socket, or the TLS connection over it
	r      *bufio.Reader
	// offered is the TLS configuration for STARTTLS and STLS; nil where the
	// listener does not offer it or TLS is on already.
	offered        *tls.Config
	secure         bool
	serverName     string // from the TLS handshake
	plaintextLogin bool   // passwords are taken without TLS
	hostname       string
	readBy         time.Time // until when a dialogue reads
}

func newConn(socket net.Conn, hostname string) *Conn {
	return &Conn{socket: socket, stream: socket, r: bufio.NewReader(socket), hostname: hostname}
}

// mayLogin reports whether the client may send a password here.
func (c *Conn) mayLogin() bool { return c.secure || c.plaintextLogin }

// offersTLS reports whether STARTTLS is possible now.
func (c *Conn) offersTLS() bool { return c.offered != nil }

// handshake puts TLS over the socket. What was read in plaintext and not yet
// used is thrown away: whoever sits between could have put it there (RFC 9051
// section 6.2.1, RFC 2595 section 4).
func (c *Conn) handshake(ctx context.Context, cfg *tls.Config) error {
	c.offered = nil
	t := tls.Server(c.socket, cfg)
	if err := c.socket.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	c.stream, c.r = t, bufio.NewReader(t)
	c.secure, c.serverName = true, t.ConnectionState().ServerName
	return nil
}

// startTLS is handshake for STARTTLS and STLS. The read deadline of the
// dialogue bounds it.
func (c *Conn) startTLS() error { return c.handshake(context.Background(), c.offered) }

// readLine reads to the next LF and returns the line without its CRLF or LF.
// Exactly one CR is taken off, so that a password ending in CR is noticed.
func (c *Conn) readLine() ([]byte, error) {
	var line []byte
	for {
		part, err := c.r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxLine+2 {
			return nil, errLineTooLong
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return nil, err
		}
		line = line[:len(line)-1]
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		}
		return line, nil
	}
}

// readExact reads n octets.
func (c *Conn) readExact(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(c.r, b)
	return b, err
}

// write sends text at once.
func (c *Conn) write(text string) error {
	if err := c.socket.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := io.WriteString(c.stream, text)
	return err
}

// buffered returns what was read past the login and not yet used.
func (c *Conn) buffered() []byte {
	b, _ := c.r.Peek(c.r.Buffered())
	return b
}

// limitReading bounds all reading of the dialogue.
func (c *Conn) limitReading(deadline time.Time) error {
	c.readBy = deadline
	return c.socket.SetReadDeadline(deadline)
}

// watch calls left when the client goes away while nobody reads, until stop.
// What it sends meanwhile stays unread.
func (c *Conn) watch(left func()) (stop func()) {
	c.socket.SetReadDeadline(time.Time{}) // fails only on a closed connection, which the Peek sees
	done := make(chan struct{})
	timer := time.AfterFunc(linger, left)
	timer.Stop()
	go func() {
		defer close(done)
		for c.r.Buffered() < c.r.Size() {
			_, err := c.r.Peek(c.r.Buffered() + 1)
			switch {
			case err == nil:
				continue
			case errors.Is(err, os.ErrDeadlineExceeded):
			case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
				left()
			case c.r.Buffered() == 0:
				// Gone, or it ended its direction behind its last command and waits.
				timer.Reset(linger)
			}
			return
		}
	}()
	return func() {
		c.socket.SetReadDeadline(time.Unix(1, 0))
		<-done
		timer.Stop()
		c.socket.SetReadDeadline(c.readBy)
	}
}

// discard reads away what a client goes on sending after its last answer, for a
// moment: closing at once would reset the connection, and the answer could be
// lost with it.
func (c *Conn) discard() {
	halfClose(c.stream)
	if c.socket.SetReadDeadline(time.Now().Add(time.Second)) == nil {
		io.CopyN(io.Discard, c.stream, 1<<20)
	}
}

package pop3wire

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"migproxy/upstream"
)

// tape is a connection on which a server's octets are played back; what it was
// sent is kept.
type tape struct {
	io.Reader
	sent bytes.Buffer
}

func (t *tape) Write(b []byte) (int, error)    { return t.sent.Write(b) }
func (*tape) Close() error                     { return nil }
func (*tape) LocalAddr() net.Addr              { return nil }
func (*tape) RemoteAddr() net.Addr             { return nil }
func (*tape) SetDeadline(time.Time) error      { return nil }
func (*tape) SetReadDeadline(time.Time) error  { return nil }
func (*tape) SetWriteDeadline(time.Time) error { return nil }

// play makes a Conn that hears these octets. A part of them was read by the
// login already.
func play(octets string, ahead int) (*Conn, *tape) {
	conn := &tape{Reader: strings.NewReader(octets)}
	br := bufio.NewReaderSize(conn, 16)
	_, _ = br.Peek(ahead)
	return New(&upstream.Session{Conn: conn, Reader: br, Server: "old.example:110"}, Options{}), conn
}

// listen connects a Conn to a script over TCP, which gets the server's side and
// must have ended before the test.
func listen(t *testing.T, timeout time.Duration, script func(net.Conn, *bufio.Reader)) *Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := New(&upstream.Session{Conn: client, Server: "old.example:110"}, Options{Timeout: timeout})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer server.Close()
		script(server, bufio.NewReader(server))
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-ended
	})
	return c
}

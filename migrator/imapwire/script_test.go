package imapwire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"migproxy/upstream"
)

// server is the server's side of a scripted dialogue.
type server struct {
	net.Conn
	br  *bufio.Reader
	tag string // of the command last read
}

// errScript ends a script that was answered otherwise than it expects.
type errScript struct{ error }

// command reads one line, which must be the command wanted, without its tag.
func (s *server) command(want string) {
	line := s.line()
	tag, command, _ := strings.Cut(line, " ")
	if command != want {
		panic(errScript{fmt.Errorf("got command %q, want %q", command, want)})
	}
	s.tag = tag
}

func (s *server) line() string {
	line, err := s.br.ReadString('\n')
	if err != nil {
		panic(errScript{fmt.Errorf("reading a line: %w", err)})
	}
	return strings.TrimSuffix(line, "\r\n")
}

// octets reads the octets of a literal.
func (s *server) octets(n int) string {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.br, b); err != nil {
		panic(errScript{fmt.Errorf("reading a literal: %w", err)})
	}
	return string(b)
}

// send sends lines, each with a line end; TAG stands for the command's tag.
func (s *server) send(lines ...string) {
	s.raw(strings.ReplaceAll(strings.Join(lines, "\r\n")+"\r\n", "TAG", s.tag))
}

func (s *server) raw(text string) {
	if _, err := io.WriteString(s, text); err != nil {
		panic(errScript{fmt.Errorf("writing: %w", err)})
	}
}

// run runs a script to its end, then closes the connection.
func (s *server) run(script func(*server)) (err error) {
	defer s.Close()
	defer func() {
		if e, ok := recover().(errScript); ok {
			err = e
		}
	}()
	script(s)
	return nil
}

// dial connects a Conn to a script over TCP. The script must run to its end
// before the test does.
func dial(t testing.TB, caps string, o Options, script func(*server)) *Conn {
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
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return start(t, client, conn, caps, o, script)
}

func start(t testing.TB, client, conn net.Conn, caps string, o Options, script func(*server)) *Conn {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	c := New(&upstream.Session{Conn: client, Capabilities: strings.Fields(caps), Server: "old.example:143"}, o)
	s := &server{Conn: conn, br: bufio.NewReader(conn)}
	ended := make(chan error, 1)
	go func() { ended <- s.run(script) }()
	t.Cleanup(func() {
		_ = c.Close()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return c
}

// usable fails the test unless the connection still takes commands; the script
// ends with s.noop().
func usable(t *testing.T, c *Conn) {
	t.Helper()
	if err := c.Noop(t.Context()); err != nil {
		t.Errorf("the connection is no longer usable: %v", err)
	}
}

func (s *server) noop() {
	s.command("NOOP")
	s.send("TAG OK done")
}

// closed fails the test unless the connection refuses commands.
func closed(t *testing.T, c *Conn) {
	t.Helper()
	if err := c.Noop(context.WithoutCancel(t.Context())); err == nil {
		t.Error("the connection is still usable")
	}
}

// gone waits for the end of a connection that the client cuts, and returns what
// still came.
func (s *server) gone() string {
	rest, err := io.ReadAll(s.br)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		panic(errScript{err})
	}
	return string(rest)
}

// pattern gives any number of octets that repeat themselves, without holding them.
type pattern struct{ off int64 }

var patternBlock = bytes.Repeat([]byte("From the octets of a long message.\r\n"), 2048)

func (p *pattern) Read(b []byte) (int, error) {
	n := copy(b, patternBlock[p.off%int64(len(patternBlock)):])
	p.off += int64(n)
	return n, nil
}

func literal(s string) string { return "{" + strconv.Itoa(len(s)) + "}\r\n" + s }

// lineEnd ends a command whose line the script has read: only its line
// end is left.
func (s *server) lineEnd() {
	if line := s.line(); line != "" {
		panic(errScript{fmt.Errorf("after the literal came %q", line)})
	}
}

package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// After the login the session is the target's: a client that ends its direction
// during a FETCH gets all of it, and one whose server dies is told.
func TestSessionsOnARealServer(t *testing.T) {
	t.Parallel()
	p := newPair(t, binary, nil)
	p.target.AddUser(user, password)
	large := mail{octets: []byte("Subject: large\r\n\r\n" + strings.Repeat("0123456789abcdef0123456789abcdef\r\n", 200_000))}
	appendTo(t, login(t, p.target.IMAP, user, password), "INBOX", note("small"), large)
	p.start()
	enter := func() *line {
		c := dial(t, p.imap, false)
		c.until("* OK")
		c.send(fmt.Sprintf("a LOGIN %s {%d}\r\n", user, len(password)))
		c.until("+ ")
		c.send(password + "\r\n")
		c.until("a OK")
		c.send("b SELECT INBOX\r\n")
		c.until("b OK")
		return c
	}

	c := enter()
	c.send("c FETCH 1:* BODY.PEEK[]\r\n")
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if text := string(got); err != nil || !strings.Contains(text, "About small.") || !strings.Contains(text, string(large.octets)+")\r\n") || !strings.Contains(text, "\r\nc OK ") {
		t.Errorf("after a half-close the client got %d octets, %v: ... %.200q", len(got), err, text[max(0, len(text)-200):])
	}

	c = enter()
	p.target.Kill()
	if got := c.until("* "); !strings.HasPrefix(got, "* BYE [UNAVAILABLE] ") {
		t.Errorf("when its server died the client got %q", got)
	}
}

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// atSource parks the users of a pair at their source.
func atSource(s *settings) { s.domain = "    parking: { mode: source, flip: { messages: 50 } }\n" }

// enter logs the user in on a connection, and says where he is.
func enter(t testing.TB, port int) (c *line, onTarget bool) {
	t.Helper()
	c = dial(t, port, true)
	c.until("* OK")
	c.send(fmt.Sprintf("a LOGIN %s {%d+}\r\n%s\r\n", user, len(password), password))
	if got := c.until("a "); !strings.Contains(got, "a OK") {
		t.Fatalf("the login was answered with %q", got)
	}
	c.send("n NAMESPACE\r\n")
	return c, !strings.Contains(c.until("n OK"), `"`+sourcePrefix+`"`)
}

// silent fails if anything comes within this time.
func (l *line) silent(d time.Duration) {
	l.t.Helper()
	_ = l.SetReadDeadline(time.Now().Add(d))
	n, err := l.Read(make([]byte, 100))
	var timeout net.Error
	if n > 0 || !errors.As(err, &timeout) || !timeout.Timeout() {
		l.t.Fatalf("%d octets came, %v", n, err)
	}
}

// A client that is in the middle of an APPEND when the flip begins is not cut: the
// flip waits for it, and the message is there once.
func TestFlipWaitsForAnAppend(t *testing.T) {
	t.Parallel()
	p := newPair(t, killable, atSource)
	steps := filepath.Join(t.TempDir(), "steps")
	p.env = []string{"KILLTEST_LOG=" + steps}
	p.source.AddUser(user, password)
	fill(t, p.source.IMAP, user, password, sourcePrefix, sourceSep, "Gesendet")
	p.start()
	idle, _ := enter(t, p.imaps)
	c, onTarget := enter(t, p.imaps)
	if onTarget {
		t.Fatal("the second login was on the target already")
	}
	idle.send("b SELECT INBOX\r\nc IDLE\r\n")
	idle.until("+ ")
	m := note("while-closing")
	m.octets = append(m.octets, strings.Repeat("All work and no play.\r\n", 4000)...)
	c.send(fmt.Sprintf("b APPEND INBOX (\\Seen) {%d}\r\n", len(m.octets)))
	c.until("+ ")
	c.send(string(m.octets[:len(m.octets)/2]))
	err := eventually(copyDeadline, func() error {
		if got, err := os.ReadFile(steps); err != nil || !strings.Contains(string(got), "flip.closing\n") {
			return fmt.Errorf("no flip began: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c.silent(4 * time.Second) // twice the time after which a silent session is closed
	if a, err := p.state(user); err != nil || a.State != "copying" {
		t.Fatalf("%+v, %v", a, err)
	}
	c.send(string(m.octets[len(m.octets)/2:]) + "\r\n")
	c.until("b OK")
	c.until("* BYE")
	idle.until("* BYE")
	if _, onTarget := enter(t, p.imaps); !onTarget {
		t.Error("the login after the BYE is on the source")
	}
	p.awaitState(user, "active")
	sameMail(t, p.sourceView(), p.targetView())
	if n := strings.Count(fmt.Sprint(p.targetView().folders["INBOX"]), fmt.Sprintf(" %d [", len(m.octets))); n != 1 {
		t.Errorf("the message is there %d times", n)
	}
}

// A user fetches his mail over POP3 at the source while he is moved, and then at
// the target, where nothing is lost and nothing that he deleted comes back.
func TestPOP3UntilTheFlip(t *testing.T) {
	p := newPair(t, binary, func(s *settings) {
		atSource(s)
		s.source.protocols = "[imap, pop3]"
		s.migration = "settle_quiet: 500ms, rate: { messages: 10 }"
	})
	p.source.AddUser(user, password)
	c := login(t, p.source.IMAP, user, password)
	for i := range 30 {
		appendTo(t, c, "INBOX", note(fmt.Sprintf("mail-%d", i)))
	}
	p.start()
	take := func(n int) answer {
		t.Helper()
		a := ask(t, request{Op: "pop3take", Port: p.pop3s, TLS: "implicit", Commands: [][]any{{n}}})
		if !a.OK {
			t.Fatalf("%+v", a)
		}
		return a
	}
	first := take(3)
	if len(first.UIDL) != 30 || len(first.Digests) != 30 {
		t.Fatalf("at the source: %+v", first)
	}
	silent := dial(t, p.pop3s, true)
	silent.until("+OK")
	silent.send("USER " + user + "\r\n")
	silent.until("+OK")
	silent.send("PASS " + password + "\r\nSTAT\r\n")
	silent.until("+OK 27 ")
	if a, err := p.state(user); err != nil || a.State == "active" {
		t.Fatalf("it has flipped already: %+v, %v", a, err)
	}
	_ = silent.SetReadDeadline(time.Now().Add(copyDeadline))
	if n, err := silent.Read(make([]byte, 100)); n > 0 || err == nil || os.IsTimeout(err) {
		t.Fatalf("a silent session ended with %d octets, %v", n, err)
	}
	second := take(2)
	p.awaitState(user, "active")
	slices.Sort(first.Digests[3:]) // the order may be another
	if !slices.Equal(slices.Sorted(slices.Values(second.Digests)), first.Digests[3:]) {
		t.Errorf("at the target: %+v\nat the source: %+v", second, first)
	}
	if direct := ask(t, request{Op: "pop3dump", Port: p.source.POP3}); len(direct.Digests) != 27 {
		t.Errorf("the source has %d messages after the flip", len(direct.Digests))
	}
	third := take(0)
	if !slices.Equal(third.Digests, second.Digests[2:]) || !slices.Equal(third.UIDL, second.UIDL[2:]) {
		t.Errorf("at the target: %+v\nbefore: %+v", third, second)
	}
}

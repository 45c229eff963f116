package pop3wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// read gives a message as it comes by RETR.
func read(c *Conn) (string, error) {
	var got []byte
	err := c.Retr(context.Background(), 1, func(r io.Reader) (err error) {
		got, err = io.ReadAll(r)
		return err
	})
	return string(got), err
}

func TestMessagesOctetByOctet(t *testing.T) {
	long := strings.Repeat("x", 200_000)
	for sent, want := range map[string]string{
		"+OK\r\n.\r\n":                                  "",
		"+ok 5 octets\r\na\r\nb\r\n.\r\n":               "a\r\nb\r\n",
		"+OK\r\n..\r\n...\r\n.a\r\n.\r\n":               ".\r\n..\r\na\r\n",
		"+OK\r\na\nb\n.\r\n..\r\n.\r\n":                 "a\nb\n.\r\n.\r\n", // a line ends with CRLF
		"+OK\r\na\n.\nb\r\n.\r\n":                       "a\n.\nb\r\n",
		"+OK\r\na\x00b\x00\r\n\r\n.\r\n":                "a\x00b\x00\r\n\r\n",
		"+OK\r\na\r.\r\r\n..b\r\n.\r\n":                 "a\r.\r\r\n.b\r\n",
		"+OK\r\n" + long + "\r\n." + long + "\r\n.\r\n": long + "\r\n" + long + "\r\n",
		"+OK\r\n.." + long + "\r\n.\r\n":                "." + long + "\r\n",
		"+OK\na\n..b\n.\n":                              "a\n.b\n", // this server ends all lines so
		"+OK\na\r\n.\r\n":                               "a\r\n",
		"+OK\r\nno end":                                 "error",
		"+OK\r\nno end\r\n":                             "error",
		"+OK\r\nno end\r\n.":                            "error",
		"+OK\r\nno end\r\n.\r":                          "error",
		"+OK\r\nbare\n.\n":                              "error",
		"-ERR [SYS/PERM] no\r\n":                        "error",
		"* OK imap\r\n":                                 "error",
		"":                                              "error",
		"\r\n":                                          "error",
		"+OK " + long + "\r\n.\r\n":                     "error",
	} {
		for _, ahead := range []int{0, 7, 16} {
			c, _ := play(sent, ahead)
			got, err := read(c)
			switch {
			case want == "error" && err == nil:
				t.Errorf("%.60q: no error", sent)
			case want != "error" && (err != nil || got != want):
				t.Errorf("%.60q: got %.60q, %v", sent, got, err)
			}
		}
	}
}

// At the edges of the buffer, too, a line end is one and a dot is one.
func TestMessagesAcrossTheBuffer(t *testing.T) {
	for n := bufferSize - 12; n < bufferSize+12; n++ {
		line := strings.Repeat("x", n)
		c, _ := play("+OK\r\n"+line+"\r\n..\r\n..\n.\r\n\r\n.\r\n", 0)
		if got, err := read(c); err != nil || got != line+"\r\n.\r\n.\n.\r\n\r\n" {
			t.Errorf("%d: %d octets, %v", n, len(got), err)
		}
		c, _ = play("+OK\r\n."+line+".\r\n.\r\n", 0)
		if got, err := read(c); err != nil || got != line+".\r\n" {
			t.Errorf("%d: %d octets, %v", n, len(got), err)
		}
	}
}

// What is left unread is skipped, an -ERR ends nothing, an error of the caller
// ends the connection.
func TestConnectionAfterMessages(t *testing.T) {
	c, conn := play("+OK\r\na\r\nb\r\n.\r\n-ERR no such message\r\n+OK\r\nc\r\n.\r\n+OK\r\nd\r\n.\r\n", 0)
	part := make([]byte, 2)
	if err := c.Top(t.Context(), 3, Whole, func(r io.Reader) error { _, err := io.ReadFull(r, part); return err }); err != nil {
		t.Fatal(err)
	}
	refused, ok := errors.AsType[*StatusError](c.Top(t.Context(), 4, 0, nil))
	if !ok || refused.Command != "TOP" || refused.Temporary() {
		t.Fatalf("got %v", refused)
	}
	if got, err := read(c); got != "c\r\n" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	own := errors.New("own")
	if err := c.Retr(t.Context(), 1, func(io.Reader) error { return own }); !errors.Is(err, own) {
		t.Fatalf("got %v", err)
	}
	if _, err := read(c); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if got := conn.sent.String(); got != "TOP 3 2147483647\r\nTOP 4 0\r\nRETR 1\r\nRETR 1\r\n" {
		t.Errorf("sent %q", got)
	}
}

func TestStatusErrors(t *testing.T) {
	for line, want := range map[string]StatusError{
		"-ERR":                      {"RETR", "", ""},
		"-err [in-use] busy":        {"RETR", "IN-USE", "[in-use] busy"},
		"-ERR [SYS/TEMP later":      {"RETR", "", "[SYS/TEMP later"},
		"-ERR [SYS/TEMP] \xff":      {"RETR", "SYS/TEMP", "[SYS/TEMP] ?"},
		"-ERR [LOGIN-DELAY] x":      {"RETR", "LOGIN-DELAY", "[LOGIN-DELAY] x"},
		"-ERR [AUTH] no":            {"RETR", "AUTH", "[AUTH] no"},
		"-ERR [SYS/PERM] for ever ": {"RETR", "SYS/PERM", "[SYS/PERM] for ever "},
	} {
		c, _ := play(line+"\r\n", 0)
		_, err := read(c)
		got, ok := errors.AsType[*StatusError](err)
		if !ok || *got != want || got.Temporary() != slices.Contains([]string{"IN-USE", "SYS/TEMP", "LOGIN-DELAY"}, want.Code) {
			t.Errorf("%q: got %v, %v", line, err, ok && got.Temporary())
		}
	}
}

func TestLists(t *testing.T) {
	for sent, want := range map[string]string{
		"+OK\r\n1 10\r\n2 20\r\n.\r\n":                                    "[1 10 2 20] <nil>",
		"+OK\r\n2 20 x\r\n 3  30\r\n1 -1\r\n0 5\r\nx\r\n..\r\n4\r\n.\r\n": "[2 20 3 30] <nil>",
		"+OK\n1 9223372036854775807\n2 9223372036854775808\n.\n":          "[1 9223372036854775807] <nil>",
		"+OK\r\n.\r\n": "[] <nil>",
		"-ERR\r\n":     "[] LIST: -ERR ",
	} {
		c, _ := play(sent, 0)
		got := []int64{}
		err := c.List(t.Context(), func(n int, size int64) error { got = append(got, int64(n), size); return nil })
		if have := fmt.Sprint(got, " ", err); have != want {
			t.Errorf("%q: got %s", sent, have)
		}
	}
	c, _ := play("+OK\r\n1 a!\"~\r\n2 \xfe \r\n3 two words\r\n4 \r\n5 nul\x00\r\n.\r\n", 0)
	var names []string
	if err := c.UIDL(t.Context(), func(n int, uidl string) error { names = append(names, fmt.Sprint(n, uidl)); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(names, []string{"1a!\"~", "2\xfe"}) {
		t.Errorf("got %q", names)
	}
}

func TestCapabilities(t *testing.T) {
	c, _ := play("+OK\r\nTop\r\nexpire 0\r\n.\r\n-ERR what\r\n+OK\r\n"+strings.Repeat("X\r\n", maxCapabilities+1), 0)
	if caps, err := c.Capabilities(t.Context()); !slices.Equal(caps, []string{"TOP", "EXPIRE 0"}) || err != nil {
		t.Errorf("got %q, %v", caps, err)
	}
	if caps, err := c.Capabilities(t.Context()); caps != nil || err != nil {
		t.Errorf("got %q, %v", caps, err)
	}
	if _, err := c.Capabilities(t.Context()); err == nil {
		t.Error("a list without end was taken")
	}
}

// endless gives the same line for ever.
type endless struct{ text string }

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for n+len(e.text) <= len(p) {
		n += copy(p[n:], e.text)
	}
	return n, nil
}

func TestListsWithoutEnd(t *testing.T) {
	c, conn := play("", 0)
	conn.Reader = io.MultiReader(strings.NewReader("+OK\r\n"), endless{"1 1\r\n"})
	if err := c.List(t.Context(), func(int, int64) error { return nil }); !errors.Is(err, errTooMany) {
		t.Errorf("got %v", err)
	}
}

// Silence ends the connection, slowness does not, and so does the context.
func TestSilence(t *testing.T) {
	c := listen(t, 300*time.Millisecond, func(s net.Conn, r *bufio.Reader) {
		_, _ = r.ReadString('\n')
		for _, octet := range "+OK\r\nslow\r\n.\r\n" {
			<-time.After(30 * time.Millisecond)
			_, _ = s.Write([]byte(string(octet)))
		}
		_, _ = io.Copy(io.Discard, r)
	})
	if got, err := read(c); got != "slow\r\n" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := read(c); !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "old.example:110: RETR: the server was silent") {
		t.Errorf("got %v", err)
	}
	c = listen(t, time.Minute, func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.List(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := c.List(t.Context(), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestQuit(t *testing.T) {
	for _, sent := range []string{"+OK bye\r\n", ""} {
		c, conn := play(sent, 0)
		if err := c.Quit(t.Context()); err != nil || conn.sent.String() != "QUIT\r\n" {
			t.Errorf("%q: %v, sent %q", sent, err, conn.sent.String())
		}
		if _, err := read(c); err == nil {
			t.Error("usable after QUIT")
		}
	}
}

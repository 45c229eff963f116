package imapwire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// add sends messages in one APPEND and ends it.
func add(t *testing.T, c *Conn, messages ...string) *Append {
	t.Helper()
	a, err := c.Append(t.Context(), "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if err := a.Add(nil, time.Time{}, int64(len(m)), strings.NewReader(m)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.End(); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAppendOnTheWire(t *testing.T) {
	date := time.Date(2003, 2, 1, 4, 5, 6, 0, time.FixedZone("", -7*3600-1800))
	for name, tt := range map[string]struct {
		caps, mailbox string
		flags         []string
		date          time.Time
		script        func(*server)
	}{
		"nothing but octets": {"LITERAL+", "a b", nil, time.Time{}, func(s *server) {
			s.command(`APPEND "a b" {5+}`)
		}},
		"flags and date": {"LITERAL+", `q"\`, []string{`\Seen`, `\recent`, "$MDNSent", "a b", "a)", "{1}", "a]", "", `\`, "x\r\ny", "ü"}, date, func(s *server) {
			s.command(`APPEND "q\"\\" (\Seen $MDNSent) " 1-Feb-2003 04:05:06 -0730" {5+}`)
		}},
		"a year that no date-time has": {"LITERAL+", "INBOX", []string{`\Recent`}, time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), func(s *server) {
			s.command(`APPEND "INBOX" {5+}`)
		}},
		"small with LITERAL-": {"LITERAL-", "INBOX", nil, time.Time{}, func(s *server) {
			s.command(`APPEND "INBOX" {5+}`)
		}},
		"synchronising": {"", "INBOX", nil, time.Time{}, func(s *server) {
			s.command(`APPEND "INBOX" {5}`)
			s.send("* OK wait", "+ go on")
		}},
		"name with eight bits, synchronising": {"", "Grüße", nil, time.Time{}, func(s *server) {
			s.command(`APPEND {7}`)
			s.send("+")
			if got := s.octets(7) + s.line(); got != "Grüße {5}" {
				panic(errScript{fmt.Errorf("got %q", got)})
			}
			s.send("+ OK")
		}},
		"name with eight bits": {"LITERAL+", "Grüße", []string{"x"}, time.Time{}, func(s *server) {
			s.command(`APPEND {7+}`)
			if got := s.octets(7) + s.line(); got != "Grüße (x) {5+}" {
				panic(errScript{fmt.Errorf("got %q", got)})
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, tt.caps, Options{}, func(s *server) {
				tt.script(s)
				if got := s.octets(5); got != "a\r\nb\n" {
					panic(errScript{fmt.Errorf("got %q", got)})
				}
				s.lineEnd()
				s.send("* 1 EXISTS", "TAG OK [APPENDUID 7 5] done")
				s.noop()
			})
			a, err := c.Append(t.Context(), tt.mailbox)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Add(tt.flags, tt.date, 5, strings.NewReader("a\r\nb\nand more")); err != nil {
				t.Fatal(err)
			}
			if err := a.End(); err != nil {
				t.Fatal(err)
			}
			validity, uids, err := a.Wait(t.Context())
			if validity != 7 || !slices.Equal(uids, []uint32{5}) || err != nil {
				t.Errorf("got %d %v %v", validity, uids, err)
			}
			usable(t, c)
		})
	}
}

func TestAppendUID(t *testing.T) {
	for answer, want := range map[string][]uint32{
		"OK [APPENDUID 7 5:7] done":                 {5, 6, 7},
		"OK [appenduid 7 9,3:4] done":               {9, 3, 4},
		"OK [APPENDUID 7 7:5] done":                 {5, 6, 7},
		"OK [APPENDUID 7 1,2,4294967295] done":      {1, 2, 4294967295},
		"OK [APPENDUID 7 5:6] too few":              nil,
		"OK [APPENDUID 7 1:4294967295] too many":    nil,
		"OK [APPENDUID 7 5,5,6] one twice":          nil,
		"OK [APPENDUID 7 0:2] no UID":               nil,
		"OK [APPENDUID 7 1:*] no number":            nil,
		"OK [APPENDUID 0 1:3] no validity":          nil,
		"OK [APPENDUID] nothing":                    nil,
		"OK [UIDNEXT 4] another code":               nil,
		"OK done":                                   nil,
		"OK [APPENDUID 7 99999999999999999999] big": nil,
	} {
		c := dial(t, "LITERAL+ MULTIAPPEND", Options{}, func(s *server) {
			s.command(`APPEND "INBOX" {1+}`)
			s.octets(1)
			s.line()
			s.octets(1)
			s.line()
			s.octets(1)
			s.lineEnd()
			s.send("TAG " + answer)
		})
		validity, uids, err := add(t, c, "a", "b", "c").Wait(t.Context())
		if err != nil || !slices.Equal(uids, want) || (validity == 7) != (want != nil) {
			t.Errorf("%s: got %d %v %v", answer, validity, uids, err)
		}
	}
}

// Several commands are under way, and one of them is refused.
func TestPipelinedAppends(t *testing.T) {
	const n = 20
	c := dial(t, "LITERAL+", Options{}, func(s *server) {
		var tags []string
		for range n {
			s.command(`APPEND "INBOX" {7+}`)
			tags = append(tags, s.tag)
			s.octets(7)
			s.lineEnd()
		}
		for i, tag := range tags {
			if i == 3 {
				s.send("* NO [ALERT] it is nearly full", tag+" NO [overquota] full")
			} else {
				s.send(fmt.Sprintf("* %d EXISTS", i), fmt.Sprintf("%s OK [APPENDUID 1 %d]", tag, 100+i), "* VANISHED 1")
			}
		}
		s.noop()
	})
	var under []*Append
	for range n {
		under = append(under, add(t, c, "message"))
	}
	for i, a := range under {
		_, uids, err := a.Wait(t.Context())
		var refused *StatusError
		switch {
		case i == 3:
			if !errors.As(err, &refused) || refused.Code != "OVERQUOTA" || refused.Command != "APPEND" {
				t.Errorf("got %v", err)
			}
		case err != nil || !slices.Equal(uids, []uint32{uint32(100 + i)}):
			t.Errorf("%d: got %v %v", i, uids, err)
		}
	}
	usable(t, c)
}

// A refused synchronising literal ends the command and leaves the connection.
func TestRefusedLiteral(t *testing.T) {
	c := dial(t, "MULTIAPPEND", Options{}, func(s *server) {
		s.command(`APPEND "INBOX" {3}`)
		s.send("+")
		s.octets(3)
		if got := s.line(); got != " {3}" {
			panic(errScript{fmt.Errorf("got %q", got)})
		}
		s.send("TAG NO [LIMIT] too much")
		s.noop()
		s.command(`APPEND {1}`)
		s.send("TAG NO no such name")
		s.command(`STATUS {1}`)
		s.send("TAG BAD no such name")
		s.noop()
	})
	a, err := c.Append(t.Context(), "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Add(nil, time.Time{}, 3, strings.NewReader("abc")); err != nil {
		t.Fatal(err)
	}
	refusal := a.Add(nil, time.Time{}, 3, strings.NewReader("abc"))
	_, _, waited := a.Wait(t.Context())
	for _, err := range []error{refusal, a.End(), waited} {
		var refused *StatusError
		if !errors.As(err, &refused) || refused.Code != "LIMIT" {
			t.Errorf("got %v", err)
		}
	}
	usable(t, c)
	var refused *StatusError
	if _, err := c.Append(t.Context(), "\xfc"); !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Status(t.Context(), "\xfc"); !errors.As(err, &refused) || refused.Type != "BAD" {
		t.Errorf("got %v", err)
	}
	usable(t, c)
}

// A server that refuses before it has everything still gets what was announced,
// or it would take the next command for the message.
func TestEarlyRefusal(t *testing.T) {
	told := make(chan struct{})
	c := dial(t, "LITERAL+ MULTIAPPEND", Options{}, func(s *server) {
		s.command(`APPEND "INBOX" {5+}`)
		s.send("* 1 EXISTS", "TAG NO [OVERQUOTA] full", "* 2 EXISTS")
		close(told)
		if got := s.octets(5) + s.line() + s.octets(4); got != "first {4+}next" {
			panic(errScript{fmt.Errorf("got %q", got)})
		}
		s.lineEnd()
		s.noop()
		s.noop()
	})
	a, err := c.Append(t.Context(), "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Add(nil, time.Time{}, 5, io.MultiReader(strings.NewReader("fir"), strings.NewReader("st"))); err != nil {
		t.Fatal(err)
	}
	untilRefused(t, a, told)
	if err := a.Add(nil, time.Time{}, 4, strings.NewReader("next")); err != nil {
		t.Fatal(err)
	}
	if err := a.End(); err != nil {
		t.Fatal(err)
	}
	var refused *StatusError
	if _, _, err := a.Wait(t.Context()); !errors.As(err, &refused) || refused.Code != "OVERQUOTA" {
		t.Errorf("got %v", err)
	}
	usable(t, c)
}

// untilRefused waits until the server's early answer was read.
func untilRefused(t *testing.T, a *Append, told <-chan struct{}) {
	t.Helper()
	if err := a.c.w.Flush(); err != nil {
		t.Fatal(err)
	}
	<-told
	for answered := false; !answered; runtime.Gosched() {
		a.c.mu.Lock()
		answered = a.answered
		a.c.mu.Unlock()
	}
}

// With LITERAL- a large message must wait for its grant, which will not come
// once a small one before it was refused.
func TestEarlyRefusalBeforeSynchronisingLiteral(t *testing.T) {
	told := make(chan struct{})
	c := dial(t, "LITERAL- MULTIAPPEND", Options{}, func(s *server) {
		s.command(`APPEND "INBOX" {5+}`)
		s.octets(5)
		s.send("TAG NO [OVERQUOTA] full")
		close(told)
		if got := s.line(); got != " " {
			panic(errScript{fmt.Errorf("got %q", got)})
		}
		s.noop()
		s.noop()
	})
	a, err := c.Append(t.Context(), "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Add(nil, time.Time{}, 5, strings.NewReader("first")); err != nil {
		t.Fatal(err)
	}
	untilRefused(t, a, told)
	var refused *StatusError
	if err := a.Add(nil, time.Time{}, nonSyncLimit+1, &pattern{}); !errors.As(err, &refused) || refused.Code != "OVERQUOTA" {
		t.Errorf("got %v", err)
	}
	usable(t, c)
}

// What fails at the source must never look like a message at the target.
func TestSourceThatEndsEarly(t *testing.T) {
	mine := errors.New("mine")
	for name, tt := range map[string]struct {
		r    io.Reader
		want error
	}{
		"ends":  {strings.NewReader("abc"), io.ErrUnexpectedEOF},
		"fails": {io.MultiReader(strings.NewReader("abc"), errReader{mine}), mine},
	} {
		t.Run(name, func(t *testing.T) {
			rest := make(chan string, 1)
			c := dial(t, "LITERAL+", Options{}, func(s *server) { rest <- s.gone() })
			a, err := c.Append(t.Context(), "INBOX")
			if err != nil {
				t.Fatal(err)
			}
			err = a.Add(nil, time.Time{}, 5, tt.r)
			var failure *SourceError
			if !errors.As(err, &failure) || failure.Got != 3 || failure.Want != 5 || !errors.Is(err, tt.want) {
				t.Errorf("got %v", err)
			}
			if got := <-rest; strings.Contains(got, "{5+}\r\nabc") && len(got) >= len("M1 APPEND \"INBOX\" {5+}\r\nabcde") {
				t.Errorf("the server got %q", got)
			}
			if err := a.End(); err == nil {
				t.Error("the command could be ended")
			}
			if _, _, err := a.Wait(t.Context()); err == nil {
				t.Error("the command succeeded")
			}
			closed(t, c)
		})
	}
}

type errReader struct{ error }

func (e errReader) Read([]byte) (int, error) { return 0, e.error }

// Both sides send more than the buffers between them hold, and neither reads
// before it has sent.
func TestNeitherSideBlocksTheOther(t *testing.T) {
	const size = 32 << 20
	c := dial(t, "LITERAL+", Options{}, func(s *server) {
		s.command(fmt.Sprintf(`APPEND "INBOX" {%d+}`, size))
		line := "* 1 EXISTS\r\n* 2 FETCH (FLAGS (\\Seen) BODY[] " + literal(big) + ")\r\n"
		for sent := 0; sent < size; sent += len(line) {
			s.raw(line)
		}
		_, _ = io.CopyN(io.Discard, s.br, size)
		s.lineEnd()
		s.send("TAG OK")
		s.noop()
	})
	a, err := c.Append(t.Context(), "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Add(nil, time.Time{}, size, &pattern{}); err != nil {
		t.Fatal(err)
	}
	if err := a.End(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	usable(t, c)
}

// What the server says before it goes is the reason, whichever call hears it.
func TestByeDuringAppend(t *testing.T) {
	c := dial(t, "LITERAL+", Options{}, func(s *server) {
		s.command(`APPEND "INBOX" {100000000+}`)
		s.send("* BYE [UNAVAILABLE] Suggested Backoff Time: 5 s")
		s.gone()
	})
	a, err := c.Append(t.Context(), "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	var bye *StatusError
	if err := a.Add(nil, time.Time{}, 100_000_000, &pattern{}); !errors.As(err, &bye) || bye.Type != "BYE" || bye.Code != "UNAVAILABLE" {
		t.Errorf("got %v", err)
	}
	if _, _, err := a.Wait(t.Context()); !errors.As(err, &bye) {
		t.Errorf("got %v", err)
	}
	closed(t, c)
}

// After the last octet the server may take its time, but not for ever.
func TestSilenceAfterAppend(t *testing.T) {
	c := dial(t, "LITERAL+", Options{Timeout: 50 * time.Millisecond}, func(s *server) { s.gone() })
	a := add(t, c, "message")
	if _, _, err := a.Wait(t.Context()); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	closed(t, c)
}

func TestCancelDuringAppend(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	read := make(chan struct{})
	c := dial(t, "LITERAL+", Options{Timeout: time.Hour}, func(s *server) {
		s.command(`APPEND "INBOX" {7+}`)
		close(read)
		s.gone()
	})
	a := add(t, c, "message")
	<-read
	cancel()
	if _, _, err := a.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}

	ctx, cancel = context.WithCancel(t.Context())
	c = dial(t, "", Options{Timeout: time.Hour}, func(s *server) {
		s.command(`APPEND "INBOX" {7}`)
		cancel()
		s.gone()
	})
	a, err := c.Append(ctx, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Add(nil, time.Time{}, 7, strings.NewReader("message")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Mistakes of the caller never reach the server as half a command.
func TestAppendMisused(t *testing.T) {
	for name, misuse := range map[string]func(*Conn, *Append) error{
		"two messages without MULTIAPPEND": func(_ *Conn, a *Append) error {
			_ = a.Add(nil, time.Time{}, 1, strings.NewReader("a"))
			return a.Add(nil, time.Time{}, 1, strings.NewReader("b"))
		},
		"less than nothing": func(_ *Conn, a *Append) error {
			return a.Add(nil, time.Time{}, -1, strings.NewReader("a"))
		},
		"a command in between": func(c *Conn, _ *Append) error { return c.Noop(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			rest := make(chan string, 1)
			c := dial(t, "LITERAL+", Options{}, func(s *server) { rest <- s.gone() })
			a, err := c.Append(t.Context(), "INBOX")
			if err != nil {
				t.Fatal(err)
			}
			if err := misuse(c, a); err == nil {
				t.Error("no error")
			}
			if got := <-rest; bytes.HasSuffix([]byte(got), []byte("\r\n")) {
				t.Errorf("the server got %q", got)
			}
			closed(t, c)
		})
	}
}

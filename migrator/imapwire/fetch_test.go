package imapwire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// collect keeps what FetchBodies passes on, and fails at a UID that comes twice.
func collect(t *testing.T) (map[uint32]string, func(uint32, int64, io.Reader) error) {
	got := map[uint32]string{}
	return got, func(uid uint32, size int64, r io.Reader) error {
		b, err := io.ReadAll(r)
		if _, again := got[uid]; again {
			t.Errorf("UID %d came twice", uid)
		}
		if int64(len(b)) != size {
			t.Errorf("UID %d: %d octets, announced %d", uid, len(b), size)
		}
		got[uid] = string(b)
		return err
	}
}

// Everything that servers were seen to mix into the answer to a FETCH.
func TestFetchBodiesTakesWhatServersSend(t *testing.T) {
	const one, two = "Subject: 1\r\n\r\n* 9 FETCH (UID 2)\r\n", "Subject: 2\r\n\r\n)"
	want := map[uint32]string{1: one, 2: two}
	plain := []string{
		"* 11 FETCH (UID 1 BODY[] " + literal(one) + ")",
		"* 12 FETCH (UID 2 BODY[] " + literal(two) + ")",
	}
	around := func(extra ...string) []string {
		return slices.Concat(extra, plain[:1], extra, plain[1:], extra)
	}
	for name, tt := range map[string]struct {
		lines []string
		want  map[uint32]string
	}{
		"plain":                   {plain, want},
		"out of order":            {[]string{plain[1], plain[0]}, want},
		"body before UID":         {[]string{"* 11 FETCH (BODY[] " + literal(one) + " UID 1)", "* 12 FETCH (BODY[] " + literal(two) + " FLAGS () UID 2)"}, want},
		"unilateral with UID":     {around(`* 11 FETCH (UID 1 FLAGS (\Seen))`, `* 12 FETCH (FLAGS (\Seen) UID 2)`), want},
		"unilateral without UID":  {around(`* 11 FETCH (FLAGS (\Seen))`), want},
		"VANISHED":                {around("* VANISHED 1:5", "* VANISHED (EARLIER) 300:310"), want},
		"unknown response":        {around("* X-WHAT (a \"b\" "+literal("* 11 FETCH (UID 1 BODY[] \"no\")\r\n")+") c", "* 5 X"), want},
		"status texts":            {around("* OK Still here {5}", "* NO [ALERT] mind {3}", "* BAD [X-Y \"]\"] hm", "* OK"), want},
		"numbers":                 {around("* 7 EXISTS", "* 3 RECENT", "* 99 EXPUNGE", "* 0 FETCH (UID 1)"), want},
		"empty lines":             {around("", " "), want},
		"a continuation":          {around("+ go on", "+"), want},
		"lines of no protocol":    {around("Hello there", "(", ")", "*", "* FETCH", "* 5 FETCH", "* 5 FETCH (", "* 5 FETCH )(", `* 5 FETCH (UID "`), want},
		"late tagged answer":      {around("M999 OK late", "x NO [ALERT] other"), want},
		"repeated":                {append(plain, plain...), want},
		"not asked for":           {append(plain, "* 13 FETCH (UID 3 BODY[] "+literal(one)+")", "* 14 FETCH (UID 0 BODY[] \"\")"), want},
		"another part":            {append([]string{"* 11 FETCH (UID 1 BODY[HEADER] " + literal("no") + " BODY[]<0> " + literal("no") + ")"}, plain...), want},
		"twice in one":            {[]string{"* 11 FETCH (UID 1 BODY[] " + literal(one) + " BODY[] " + literal("no") + ")", plain[1]}, want},
		"never a UID":             {[]string{"* 11 FETCH (BODY[] " + literal(one) + ")", plain[1]}, map[uint32]string{2: two}},
		"one has vanished":        {plain[1:], map[uint32]string{2: two}},
		"NIL is no message":       {[]string{"* 11 FETCH (UID 1 BODY[] NIL)", plain[1]}, map[uint32]string{2: two}},
		"empty is one":            {[]string{"* 11 FETCH (UID 1 BODY[] \"\")", "* 12 FETCH (UID 2 BODY[] {0}\r\n)"}, map[uint32]string{1: "", 2: ""}},
		"quoted":                  {[]string{`* 11 FETCH (UID 1 BODY[] "a \"b\" \\")`, plain[1]}, map[uint32]string{1: `a "b" \`, 2: two}},
		"literal8, lower case":    {[]string{"* 11 fetch (uid 1 body[] ~" + literal(one) + ")", plain[1]}, want},
		"non-synchronising":       {[]string{"* 11 FETCH (UID 1 BODY[] {3+}\r\nabc)", plain[1]}, map[uint32]string{1: "abc", 2: two}},
		"no space before literal": {[]string{"* 11 FETCH (UID 1 BODY[]" + literal(one) + ")", plain[1]}, want},
		"line feeds only":         {[]string{"* 11 FETCH (UID 1 BODY[] {3}\nabc)\n* 12 FETCH (UID 2 BODY[] {1}\n2)"}, map[uint32]string{1: "abc", 2: "2"}},
		"strange items": {[]string{
			"* 11 FETCH (X-GM-MSGID 1278455344230334865 X-GM-LABELS (\"\\\\Inbox\" (a " + literal("x)") + ")) INTERNALDATE \"00-Jan-0000 00:00:00 +0000\" MODSEQ (5) " +
				"FLAGS (a]b \\Seen \"q d\" {3}\r\nlit {x (nest)) ENVELOPE (NIL \"s\" ((NIL NIL \"a\" \"b\"))) UID 1 BODY[] " + literal(one) + ")", plain[1]}, want},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, "", Options{}, func(s *server) {
				s.command("UID FETCH 1:2 (UID BODY.PEEK[])")
				s.send(append(slices.Clone(tt.lines), "TAG OK done")...)
				s.noop()
			})
			got, fn := collect(t)
			if err := c.FetchBodies(t.Context(), []uint32{2, 1, 2, 0}, fn); err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			usable(t, c)
		})
	}
}

var big = strings.Repeat("x", maxHeld+1)

// A large body that comes before its UID is nobody's until the message is
// fetched alone, and even then only if its number says that it is the one.
func TestLargeBodiesBeforeUIDs(t *testing.T) {
	bodyFirst := func(seq, uid int, body string) string {
		return fmt.Sprintf("* %d FETCH (BODY[] %s UID %d)", seq, literal(body), uid)
	}
	for name, tt := range map[string]struct {
		singly  func(*server)
		want    []uint32
		wantErr error
	}{
		"fetched singly": {func(s *server) {
			s.send("* 11 FETCH (UID 1)", "* 13 FETCH (UID 3)", "* 12 FETCH (UID 2)", "* 12 FETCH (UID 2 FLAGS ())", "TAG OK")
			for i, uid := range []int{1, 3, 2} {
				s.command(fmt.Sprintf("UID FETCH %d (UID BODY.PEEK[])", uid))
				s.send(fmt.Sprintf("* %d FETCH (FLAGS (a))", 11+i), bodyFirst(10+uid, uid, big), "TAG OK")
			}
		}, []uint32{1, 2, 3}, nil},
		"numbers move": {func(s *server) {
			s.send("* 11 FETCH (UID 1)", "* 12 FETCH (UID 2)", "* 13 FETCH (UID 3)", "* 5 EXPUNGE", "TAG OK")
			s.command("UID FETCH 1 (UID BODY.PEEK[])")
			s.send("* 4 EXPUNGE", "* 10 EXPUNGE", bodyFirst(9, 1, big), "TAG OK") // UID 2 has gone
			s.command("UID FETCH 3 (UID BODY.PEEK[])")
			s.send(bodyFirst(10, 3, big), "TAG OK")
		}, []uint32{1, 3}, nil},
		"another message": {func(s *server) {
			s.send("* 11 FETCH (UID 1)", "TAG OK")
			s.command("UID FETCH 1 (UID BODY.PEEK[])")
			s.send(bodyFirst(12, 1, big), "TAG OK")
		}, nil, nil},
		"another message under this number": {func(s *server) {
			s.send("* 11 FETCH (UID 1)", "TAG OK")
			s.command("UID FETCH 1 (UID BODY.PEEK[])")
			s.send(bodyFirst(11, 2, big), "TAG OK")
			s.gone()
		}, []uint32{1}, errOtherMessage},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, "", Options{}, func(s *server) {
				s.command("UID FETCH 1:3 (UID BODY.PEEK[])")
				s.send(bodyFirst(11, 1, big), bodyFirst(12, 2, big), bodyFirst(13, 3, big), "TAG OK")
				s.command("UID FETCH 1:3 (UID)")
				tt.singly(s)
			})
			got, fn := collect(t)
			err := c.FetchBodies(t.Context(), []uint32{1, 2, 3}, fn)
			if !errors.Is(err, tt.wantErr) {
				t.Fatalf("got %v, want %v", err, tt.wantErr)
			}
			if uids := slices.Sorted(maps.Keys(got)); !slices.Equal(uids, tt.want) {
				t.Errorf("got UIDs %v, want %v", uids, tt.want)
			}
			for _, body := range got {
				if body != big {
					t.Errorf("a body of %d octets", len(body))
				}
			}
		})
	}
}

// A connection that ends inside a literal must never look like a whole message.
func TestCutLiteral(t *testing.T) {
	c := dial(t, "", Options{}, func(s *server) {
		s.command("UID FETCH 1 (UID BODY.PEEK[])")
		s.raw("* 1 FETCH (UID 1 BODY[] {1000}\r\nSubject: 1\r\n")
	})
	err := c.FetchBodies(t.Context(), []uint32{1}, func(_ uint32, size int64, r io.Reader) error {
		b, err := io.ReadAll(r)
		if size != 1000 || string(b) != "Subject: 1\r\n" || err != io.ErrUnexpectedEOF {
			t.Errorf("%d octets, %q, %v", size, b, err)
		}
		return nil // even where the caller overlooks it
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	closed(t, c)
}

// What a callback leaves unread is no part of the next response.
func TestUnreadBodyIsDiscarded(t *testing.T) {
	c := dial(t, "", Options{}, func(s *server) {
		s.command("UID FETCH 1:2 (UID BODY.PEEK[])")
		const trap = ")\r\n* 2 FETCH (UID 2 BODY[] \"no\")\r\nM1 OK\r\n"
		s.send("* 1 FETCH (UID 1 BODY[] "+literal(trap+big+trap)+")", "* 2 FETCH (UID 2 BODY[] "+literal("two")+")", "TAG OK")
		s.noop()
	})
	var uids []uint32
	var first io.Reader
	err := c.FetchBodies(t.Context(), []uint32{1, 2}, func(uid uint32, size int64, r io.Reader) error {
		if uids = append(uids, uid); first == nil {
			first = r
		} else if size != 3 {
			t.Errorf("a body of %d octets", size)
		}
		_, err := r.Read(make([]byte, 1))
		return err
	})
	if err != nil || !slices.Equal(uids, []uint32{1, 2}) {
		t.Fatal(uids, err)
	}
	if n, err := first.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("a reader that outlived its call gave %d, %v", n, err)
	}
	usable(t, c)
}

func TestCallbackErrorIsReturnedAsItIs(t *testing.T) {
	mine := errors.New("mine")
	c := dial(t, "", Options{}, func(s *server) {
		s.command("UID FETCH 1 (UID BODY.PEEK[])")
		s.send("* 1 FETCH (UID 1 BODY[] " + literal("one") + ")")
		s.gone()
	})
	err := c.FetchBodies(t.Context(), []uint32{1}, func(uint32, int64, io.Reader) error { return mine })
	if err != mine {
		t.Errorf("got %v", err)
	}
	closed(t, c)
}

// Servers limit the length of a command's line.
func TestLongSetsAreSplit(t *testing.T) {
	var uids []uint32
	for i := range uint32(5000) {
		uids = append(uids, 1_000_000+3*i)
	}
	uids = append(uids, 4_000_000_000, 4_000_000_001, 4_000_000_002)
	c := dial(t, "", Options{}, func(s *server) {
		for left := len(uids); left > 0; {
			line := s.line()
			if len(line) > 8000 {
				panic(errScript{fmt.Errorf("a line of %d octets", len(line))})
			}
			words := strings.Fields(line)
			s.tag = words[0]
			var answer bytes.Buffer
			for part := range strings.SplitSeq(words[3], ",") {
				if part == "4000000000:4000000002" {
					left -= 2
				}
				left--
				first, _, _ := strings.Cut(part, ":")
				fmt.Fprintf(&answer, "* 1 FETCH (UID %s BODY[] \"\")\r\n", first)
			}
			s.raw(answer.String())
			s.send("TAG OK")
		}
	})
	got, fn := collect(t)
	if err := c.FetchBodies(t.Context(), uids, fn); err != nil {
		t.Fatal(err)
	}
	if len(got) != 5001 {
		t.Errorf("%d messages", len(got))
	}
}

func TestFetchMeta(t *testing.T) {
	c := dial(t, "", Options{}, func(s *server) {
		s.command("UID FETCH 5:* (UID FLAGS INTERNALDATE RFC822.SIZE)")
		s.send(`* 1 FETCH (FLAGS (\Seen a]b) UID 5 RFC822.SIZE 100 INTERNALDATE " 1-Feb-2003 04:05:06 -0730")`,
			`* 9 FETCH (UID 9 FLAGS (\Seen))`,
			`* 3 FETCH (UID 7 FLAGS () RFC822.SIZE 9223372036854775807 INTERNALDATE "00-Jan-0000 00:00:00 +0000")`,
			`* 2 FETCH (UID 6 FLAGS NIL RFC822.SIZE 0 INTERNALDATE "1-jan-2001 00:00:00 +0000")`,
			`* 3 FETCH (UID 7 FLAGS (x) RFC822.SIZE 3)`,
			`* 4 FETCH (UID 8 RFC822.SIZE 5 INTERNALDATE NIL FLAGS (\Recent))`,
			`* 4 FETCH (UID 10 RFC822.SIZE many INTERNALDATE "31-Feb-2001 00:00:00 +0000")`,
			`* 1 FETCH (UID 4 RFC822.SIZE 3)`,
			"TAG OK")
		s.noop()
	})
	var got []string
	err := c.FetchMeta(t.Context(), 5, 0, func(m Meta) error {
		got = append(got, fmt.Sprintln(m.UID, m.Size, m.Flags, m.Date.Format(time.RFC3339)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `5 100 [\Seen a]b] 2003-02-01T04:05:06-07:30
7 9223372036854775807 [] 0001-01-01T00:00:00Z
6 0 [] 2001-01-01T00:00:00Z
8 5 [\Recent] 0001-01-01T00:00:00Z
`
	if strings.Join(got, "") != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	usable(t, c)
}

// Gmail's number of a message is asked for where it is offered, and one that is
// none is no error.
func TestFetchMetaOfGmail(t *testing.T) {
	c := dial(t, "X-GM-EXT-1", Options{}, func(s *server) {
		s.command("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE X-GM-MSGID)")
		s.send(`* 1 FETCH (X-GM-MSGID 18446744073709551615 UID 5 RFC822.SIZE 100 FLAGS ())`,
			`* 2 FETCH (UID 6 RFC822.SIZE 100 FLAGS () X-GM-MSGID none)`, "TAG OK")
		s.noop()
	})
	var got []uint64
	err := c.FetchMeta(t.Context(), 1, 0, func(m Meta) error { got = append(got, m.GmailID); return nil })
	if err != nil || !slices.Equal(got, []uint64{1<<64 - 1, 0}) {
		t.Fatal(got, err)
	}
	usable(t, c)
}

// A folder of 200,000 messages is listed without holding it in memory.
func TestFetchMetaStreams(t *testing.T) {
	const messages = 200_000
	c := dial(t, "", Options{}, func(s *server) {
		s.command("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)")
		for uid := 1; uid <= messages; {
			var b bytes.Buffer
			for range 1000 {
				fmt.Fprintf(&b, "* %d FETCH (UID %d FLAGS (\\Seen) RFC822.SIZE 1 INTERNALDATE \"01-Jan-2001 00:00:00 +0100\")\r\n", uid, 2*uid)
				uid++
			}
			s.raw(b.String())
		}
		s.send("TAG OK")
	})
	var n int
	var before, during runtime.MemStats
	err := c.FetchMeta(t.Context(), 1, 0, func(m Meta) error {
		if n++; n == 1 {
			runtime.GC()
			runtime.ReadMemStats(&before)
		}
		return nil
	})
	runtime.GC()
	runtime.ReadMemStats(&during)
	if err != nil || n != messages {
		t.Fatal(n, err)
	}
	if grown := int64(during.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("the heap grew by %d octets", grown)
	}
}

// A message of 100 MB goes from one connection to the other through buffers of
// a fixed size.
func TestLargeMessageIsNotHeld(t *testing.T) {
	const size = 100_000_000
	old := dial(t, "", Options{}, func(s *server) {
		s.command("UID FETCH 1 (UID BODY.PEEK[])")
		s.raw(fmt.Sprintf("* 1 FETCH (UID 1 BODY[] {%d}\r\n", size))
		_, _ = io.CopyN(s, &pattern{}, size)
		s.send(")", "TAG OK")
	})
	target := dial(t, "LITERAL+", Options{}, func(s *server) {
		s.command(fmt.Sprintf(`APPEND "INBOX" {%d+}`, size))
		want, got, p := make([]byte, 32<<10), make([]byte, 32<<10), &pattern{}
		for left := size; left > 0; {
			n, err := s.br.Read(got[:min(left, len(got))])
			if err != nil {
				panic(errScript{err})
			}
			_, _ = io.ReadFull(p, want[:n])
			if !bytes.Equal(want[:n], got[:n]) {
				panic(errScript{fmt.Errorf("other octets, %d before the end", left)})
			}
			left -= n
		}
		s.lineEnd()
		s.send("TAG OK")
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	a, err := target.Append(t.Context(), "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	err = old.FetchBodies(t.Context(), []uint32{1}, func(_ uint32, size int64, r io.Reader) error {
		return a.Add(nil, time.Time{}, size, r)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.End(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
		t.Errorf("%d octets were allocated on the way", used)
	}
}

func TestFetchHeader(t *testing.T) {
	c := dial(t, "", Options{}, func(s *server) {
		s.command("UID FETCH 7 (UID BODY.PEEK[HEADER.FIELDS (From Delivered-To)])")
		s.send(`* 3 FETCH (UID 8 BODY[HEADER.FIELDS (From Delivered-To)] "no")`,
			"* 2 FETCH (BODY[HEADER.FIELDS (\"FROM\" \"DELIVERED-TO\")] "+literal("From: a\r\n\r\n")+" UID 7)", "TAG OK")
		s.command("UID FETCH 9 (UID BODY.PEEK[HEADER.FIELDS (From)])")
		s.send("TAG OK")
		s.noop()
	})
	header, err := c.FetchHeader(t.Context(), 7, "From", "Delivered-To")
	if err != nil || string(header) != "From: a\r\n\r\n" {
		t.Errorf("%q %v", header, err)
	}
	if header, err := c.FetchHeader(t.Context(), 9, "From"); header != nil || err != nil {
		t.Errorf("%q %v", header, err)
	}
	usable(t, c)
}

// A tagged NO says what it says and leaves the connection usable; a BYE, an end
// and an endless line do not.
func TestHowAFetchEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string
		want   error
		usable bool
	}{
		"NO":   {"TAG NO [serverbug] it broke", &StatusError{"UID FETCH", "NO", "SERVERBUG", "it broke"}, true},
		"BAD":  {"TAG BAD what", &StatusError{"UID FETCH", "BAD", "", "what"}, true},
		"BYE":  {"* BYE [UNAVAILABLE] see you", &StatusError{"UID FETCH", "BYE", "UNAVAILABLE", "see you"}, false},
		"end":  {"* 1 FETCH (UID", io.ErrUnexpectedEOF, false},
		"long": {"* OK " + strings.Repeat("x", maxLine), errTooLong, false},
		"flag": {"* 1 FETCH (FLAGS (" + strings.Repeat("x ", maxLine/2), errTooLong, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, "", Options{}, func(s *server) {
				s.command("UID FETCH 1 (UID BODY.PEEK[])")
				s.send(tt.answer)
				if tt.usable {
					s.noop()
				}
			})
			_, fn := collect(t)
			err := c.FetchBodies(t.Context(), []uint32{1}, fn)
			var got *StatusError
			if want, ok := tt.want.(*StatusError); ok {
				if !errors.As(err, &got) || *got != *want {
					t.Errorf("got %v, want %v", err, want)
				}
			} else if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if tt.usable {
				usable(t, c)
			} else {
				closed(t, c)
			}
		})
	}
}

// The end of the context ends the wait at once.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := dial(t, "", Options{Timeout: time.Hour}, func(s *server) {
		s.command("UID FETCH 1 (UID BODY.PEEK[])")
		cancel()
		s.gone()
	})
	_, fn := collect(t)
	if err := c.FetchBodies(ctx, []uint32{1}, fn); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	closed(t, c)
}

func TestSilence(t *testing.T) {
	c := dial(t, "", Options{Timeout: 50 * time.Millisecond}, func(s *server) {
		s.command("NOOP")
		s.gone()
	})
	if err := c.Noop(t.Context()); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	closed(t, c)
}

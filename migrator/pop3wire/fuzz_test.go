package pop3wire

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

var fuzzSeeds = []string{
	"+OK\r\na\r\n..b\r\n.\r\n", "+OK\na\n.\n", "+OK\r\nbare\n.\r\n\r\n.\r\n", "+OK\r\n.", "-ERR [SYS/TEMP] x\r\n", "+OK\r\n.\r\r\n.\r\n",
	"+OK\r\n1 10\r\n2 20\r\n.\r\n", "+OK\r\n1 00000001\r\n2 x\x00\r\n3 a b\r\n.\r\n", "+OK\r\nEXPIRE 0\r\nUIDL\r\n.\r\n", "+", "\r\n\r\n",
	"+OK\r\n" + strings.Repeat("x", bufferSize) + "\r\n.\r\n",
}

// Whatever a server sends: every call ends, a message without its end is none,
// and one that came is the server's octets with no dot lost but those that
// stand before others.
func FuzzAnswers(f *testing.F) {
	for _, seed := range fuzzSeeds {
		f.Add(seed, 0)
		f.Add(seed, 7)
	}
	f.Fuzz(func(t *testing.T, octets string, ahead int) {
		ahead = max(0, ahead%16)
		ctx := context.Background()
		c, _ := play(octets, ahead)
		got, err := read(c)
		if refused := (*StatusError)(nil); err != nil && !errors.As(err, &refused) && c.failed() == nil {
			t.Errorf("%v, and the connection was left open", err)
		}
		if err == nil {
			same(t, octets, got)
		}
		c, _ = play(octets, ahead)
		_ = c.Top(ctx, 1, 0, func(r io.Reader) error { _, err := io.CopyN(io.Discard, r, 3); return err })
		c, _ = play(octets, ahead)
		_ = c.List(ctx, func(n int, size int64) error {
			if n < 1 || n > MaxMessages || size < 0 {
				t.Errorf("message %d of %d octets", n, size)
			}
			return nil
		})
		c, _ = play(octets, ahead)
		_ = c.UIDL(ctx, func(n int, uidl string) error {
			if n < 1 || n > MaxMessages || uidl == "" || strings.ContainsAny(uidl, " \t\n\x00") {
				t.Errorf("message %d is %q", n, uidl)
			}
			return nil
		})
		c, _ = play(octets, ahead)
		_, _ = c.Capabilities(ctx)
		c, _ = play(octets, ahead)
		_ = c.Quit(ctx)
	})
}

// same stuffs a message again and looks for it in the server's octets. A dot
// that a server should have stuffed and did not is lost.
func same(t *testing.T, octets, got string) {
	t.Helper()
	status, rest, _ := strings.Cut(octets, "\n")
	end := "\r\n"
	if !strings.HasSuffix(status, "\r") {
		end = "\n"
	}
	var want strings.Builder
	for {
		line, after, found := strings.Cut(rest, end)
		if !found {
			t.Errorf("no end in %q", rest)
			return
		}
		if line == "." || end == "\n" && line == ".\r" {
			break
		}
		want.WriteString(strings.TrimPrefix(line, ".") + end)
		rest = after
	}
	if got != want.String() {
		t.Errorf("got %q, want %q", got, want.String())
	}
}

package imapwire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"migproxy/upstream"
)

// tape is a connection on which a server's octets are played back.
type tape struct{ io.Reader }

func (tape) Write(b []byte) (int, error)      { return len(b), nil }
func (tape) Close() error                     { return nil }
func (tape) LocalAddr() net.Addr              { return nil }
func (tape) RemoteAddr() net.Addr             { return nil }
func (tape) SetDeadline(time.Time) error      { return nil }
func (tape) SetReadDeadline(time.Time) error  { return nil }
func (tape) SetWriteDeadline(time.Time) error { return nil }

// play makes a Conn that hears these octets. A part of them was read by the
// login already.
func play(octets []byte, ahead int) *Conn {
	conn := tape{bytes.NewReader(octets)}
	br := bufio.NewReaderSize(conn, 16)
	_, _ = br.Peek(ahead)
	return New(&upstream.Session{Conn: conn, Reader: br, Capabilities: []string{"LITERAL+", "MULTIAPPEND", "NAMESPACE"}}, Options{})
}

// What was read past the login comes first.
func TestReadAheadOfLogin(t *testing.T) {
	c := play([]byte("* OK hello\r\nM1 OK\r\n"), 10)
	if err := c.Noop(t.Context()); err != nil {
		t.Error(err)
	}
}

var fuzzSeeds = []string{
	"* 1 FETCH (UID 1 BODY[] {3}\r\nabc)\r\n* 2 FETCH (BODY[] ~{4+}\r\nabcd FLAGS (\\Seen a]b {1}\r\nx) UID 2)\r\nM1 OK done\r\n",
	"* 1 FETCH (UID 1 BODY[] {10}\r\nabc",
	"* 1 FETCH (BODY[] \"a\\\"b\" UID 1 RFC822.SIZE 5 INTERNALDATE \" 1-Jan-2001 00:00:00 +0000\")\r\nM1 NO [SERVERBUG] x\r\n",
	"* 1 FETCH (UID 1 X-GM-LABELS (a (b \"c\" {2}\r\n)))) BODY[HEADER.FIELDS (\"a]\")] NIL)\r\nM1 OK\r\n",
	"* 5 EXPUNGE\r\n* VANISHED 1:3\r\n+ go\r\n* BYE\r\n",
	"* LIST (\\Noselect) \"/\" {3}\r\nR&D (\"CHILDINFO\" (\"SUBSCRIBED\"))\r\nM1 OK\r\n",
	"* STATUS a b (MESSAGES 1 UIDNEXT x HIGHESTMODSEQ 3)\r\nM1 OK\r\n",
	"* OK [PERMANENTFLAGS (a]b \\*)] x\r\n* FLAGS (a {1}\r\nb)\r\n* 3 EXISTS\r\nM1 OK [READ-ONLY]\r\n",
	"* NAMESPACE ((\"INBOX.\" \".\")) NIL NIL\r\nM1 OK\r\n",
	"M1 OK [APPENDUID 1 2:3] done\r\n",
	"* 1 FETCH {99999999999999999999}\r\nM1 OK\r\n{\r\n~{\r\n\"\r\n(\r\n",
}

// Whatever a server sends: every call ends, bodies have the octets announced or
// say that they have not, no UID comes twice or unasked.
func FuzzResponses(f *testing.F) {
	for _, seed := range fuzzSeeds {
		f.Add([]byte(seed), 0)
		f.Add([]byte(seed), 7)
	}
	f.Fuzz(func(t *testing.T, octets []byte, ahead int) {
		ctx := context.Background()
		ahead = max(0, ahead%16)
		seen := map[uint32]bool{}
		err := play(octets, ahead).FetchBodies(ctx, []uint32{1, 2, 3}, func(uid uint32, size int64, r io.Reader) error {
			if seen[uid] || uid == 0 || uid > 3 {
				t.Errorf("UID %d came twice or unasked", uid)
			}
			seen[uid] = true
			n, err := io.Copy(io.Discard, r)
			if (n != size || err != nil) && err != io.ErrUnexpectedEOF {
				t.Errorf("%d octets of %d, %v", n, size, err)
			}
			return nil
		})
		if !tagged1(octets) && err == nil {
			t.Error("an answer without its end was taken for whole")
		}
		_ = play(octets, ahead).FetchMeta(ctx, 1, 9, func(m Meta) error {
			if m.UID == 0 || m.UID > 9 || m.Size < 0 {
				t.Errorf("%+v", m)
			}
			return nil
		})
		_, _ = play(octets, ahead).FetchHeader(ctx, 1, "From")
		_, _ = play(octets, ahead).List(ctx, "*")
		_, _ = play(octets, ahead).Subscriptions(ctx, "*")
		_, _ = play(octets, ahead).Status(ctx, "a")
		_, _ = play(octets, ahead).Examine(ctx, "a")
		_, _, _ = play(octets, ahead).Namespace(ctx)
		_, _ = play(octets, ahead).OtherNamespaces(ctx)
		fuzzAppend(t, play(octets, ahead))
	})
}

// tagged1 reports whether there may be an answer to the first command.
func tagged1(octets []byte) bool { return bytes.Contains(octets, []byte("M1")) }

func fuzzAppend(t *testing.T, c *Conn) {
	a, err := c.Append(context.Background(), "INBOX")
	if err == nil {
		for range 2 {
			if err = a.Add(nil, time.Time{}, 3, strings.NewReader("abc")); err != nil {
				break
			}
		}
		_ = a.End()
		var uids []uint32
		_, uids, err = a.Wait(context.Background())
		if uids != nil && (len(uids) != 2 || uids[0] == uids[1] || err != nil) {
			t.Errorf("UIDs %v, %v", uids, err)
		}
	}
	var said *StatusError
	if err != nil && !errors.As(err, &said) && c.failed() == nil {
		t.Errorf("%v, and the connection was left open", err)
	}
	_ = c.Close()
}

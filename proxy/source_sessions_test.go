package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

var clientAddr = netip.MustParseAddrPort("192.0.2.7:1234")

// quay is a sourceSessions without a store, in a synctest bubble.
type quay struct {
	*sourceSessions
	t     *testing.T
	begun time.Time
	holds chan time.Duration // when the account was held, since begun
	// answer is what Hold says; nil: held.
	answer func(context.Context) (bool, error)
}

func newQuay(t *testing.T) *quay {
	q := &quay{t: t, begun: time.Now(), holds: make(chan time.Duration, 10)}
	ctx, cancel := context.WithCancel(context.Background())
	q.sourceSessions = newSourceSessions(ctx, func(ctx context.Context, id int64) (bool, error) {
		if id != 7 {
			t.Errorf("account %d is held", id)
		}
		q.holds <- time.Since(q.begun)
		if q.answer == nil {
			return true, nil
		}
		return q.answer(ctx)
	}, zap.NewNop())
	t.Cleanup(func() {
		cancel()
		q.wait()
	})
	return q
}

// write publishes a change of anna's account.
func (q *quay) write(f store.Flipping) {
	q.changed(store.Change{AccountID: 7, Address: anna, State: store.Copying, Flipping: f})
}

// at checks when the account was held.
func (q *quay) at(want time.Duration) {
	q.t.Helper()
	if got := <-q.holds; got != want {
		q.t.Errorf("held after %v, want %v", got, want)
	}
}

// free checks that the account is not held.
func (q *quay) free() {
	q.t.Helper()
	synctest.Wait()
	select {
	case at := <-q.holds:
		q.t.Errorf("held after %v", at)
	default:
	}
}

// left checks that nothing of any account is kept.
func (q *quay) left() {
	q.t.Helper()
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.byAddress) != 0 {
		q.t.Errorf("left: %v", q.byAddress)
	}
}

// login joins and logs in; the session is not relayed yet.
func (q *quay) login(p config.Protocol) (ours, theirs net.Conn, c *sourceSession) {
	q.t.Helper()
	c, err := q.join(context.Background(), anna, p, clientAddr)
	if err != nil {
		q.t.Fatal(err)
	}
	ours, theirs = newDuplex()
	c.attach(&upstream.Session{Conn: ours, Reader: bufio.NewReader(ours)})
	return ours, theirs, c
}

// session is a session of anna's on the source.
func (q *quay) session(p config.Protocol) *bridge {
	q.t.Helper()
	_, theirs, c := q.login(p)
	c.begin()
	c1, c2 := newDuplex()
	return relayBetween(q.t, p, time.Hour, c2, c, &peer{q.t, c1, bufio.NewReader(c1)}, &peer{q.t, theirs, bufio.NewReader(theirs)})
}

// do sends a command and takes the server's answer to the client.
func (b *bridge) do(command, answer string) {
	b.client.t.Helper()
	b.client.send(command)
	b.server.exactly(command)
	b.server.send(answer)
	b.client.exactly(answer)
}

// moved checks that a session was closed for the flip.
func (b *bridge) moved(bye string) {
	b.client.t.Helper()
	if got := b.client.rest(); got != bye {
		b.client.t.Errorf("the client got %q", got)
	}
	if got := b.server.rest(); got != "" {
		b.client.t.Errorf("the server got %q", got)
	}
	b.client.Close()
}

func TestFlipWithoutSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuay(t)
		q.write(store.FlipClosing)
		q.at(0)
		q.write(store.FlipHeld)
		q.write(store.NotFlipping)
		q.left()
	})
}

// All sessions end together once all of them are silent, and those that opened
// meanwhile too.
func TestFlipClosesSilentSessionsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuay(t)
		idling, pop, busy := q.session(config.IMAP), q.session(config.POP3), q.session(config.IMAP)
		idling.do("i IDLE\r\n", "+ idling\r\n")
		pop.do("RETR 1\r\n", "+OK\r\nmail\r\n.\r\n")
		q.write(store.FlipClosing)
		for range 10 {
			busy.do("a NOOP\r\n", "a OK\r\n")
			time.Sleep(time.Second)
		}
		q.free()
		idling.do("DONE\r\n", "i OK\r\n")
		idling.do("j IDLE\r\n", "+ idling\r\n")
		time.Sleep(time.Second)
		late := q.session(config.IMAP)
		late.do("a SELECT INBOX\r\n", "* 1 EXISTS\r\na OK\r\n")
		time.Sleep(1900 * time.Millisecond)
		idling.server.send("* 2 EXISTS\r\n") // what the server says counts too
		idling.client.exactly("* 2 EXISTS\r\n")
		time.Sleep(1900 * time.Millisecond)
		q.free()
		q.at(14900 * time.Millisecond)
		idling.moved(byeMoved)
		busy.moved(byeMoved)
		late.moved(byeMoved)
		pop.moved("")
		q.left()
	})
}

// A session is never closed while a command is under way: in the middle of what
// the client sends, or while the server takes its time to answer.
func TestFlipNeverCutsACommand(t *testing.T) {
	for _, tt := range []struct {
		name     string
		protocol config.Protocol
		sent     [][2]string // by the client, and what the server says to it
		bye      string
	}{
		{"APPEND", config.IMAP, [][2]string{{"a APPEND Sent {10}\r\n", "+ go\r\n"}, {"hello", ""}, {"hello", ""}, {"\r\n", ""}, {"", "* 1 EXISTS\r\n"}, {"", "a OK done\r\n"}}, byeMoved},
		{"a line", config.IMAP, [][2]string{{"a NOO", ""}, {"P\r\n", ""}, {"", "a OK\r\n"}}, byeMoved},
		{"the end of an IDLE", config.IMAP, [][2]string{{"a IDLE\r\n", ""}, {"", "+ idling\r\n"}, {"DONE\r\n", ""}, {"", "a OK\r\n"}}, byeMoved},
		{"RETR", config.POP3, [][2]string{{"RETR 1\r\n", ""}, {"", "+OK\r\n"}, {"", "Subject: x\r\n"}, {"", ".\r\n"}}, ""},
		{"pipelined DELE", config.POP3, [][2]string{{"DELE 1\r\nDELE 2\r\n", ""}, {"", "+OK\r\n"}, {"", "+OK\r\n"}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQuay(t)
				s, other := q.session(tt.protocol), q.session(config.IMAP)
				last := time.Duration(0)
				for i, step := range tt.sent {
					if step[0] != "" {
						s.client.send(step[0])
						s.server.exactly(step[0])
					}
					if step[1] != "" {
						s.server.send(step[1])
						s.client.exactly(step[1])
					}
					if i == 0 {
						q.write(store.FlipClosing)
					}
					if tt.name == "the end of an IDLE" && i == 1 {
						continue // there it stands still
					}
					if last = time.Since(q.begun); i < len(tt.sent)-1 {
						time.Sleep(9 * time.Second)
						q.free()
					}
				}
				q.at(last + flipQuiet)
				s.moved(tt.bye)
				other.moved(byeMoved)
			})
		})
	}
}

// A session that does not come to a stand goes on, and the flip may be tried again.
func TestFlipGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuay(t)
		core, logged := observer.New(zap.InfoLevel)
		q.log = zap.New(core)
		s := q.session(config.IMAP)
		_, _, still := q.login(config.IMAP)
		still.begin()
		s.client.send("a FETCH 1:* BODY[]\r\n")
		s.server.exactly("a FETCH 1:* BODY[]\r\n")
		q.write(store.FlipClosing)
		time.Sleep(flipPatience + time.Second)
		synctest.Wait()
		if all := logged.All(); len(all) != 1 || !reflect.DeepEqual(all[0].ContextMap()["busy"], []any{clientAddr.String()}) {
			t.Errorf("%+v", all)
		}
		s.server.send("a OK\r\n")
		s.client.exactly("a OK\r\n")
		time.Sleep(time.Minute)
		q.free()
		s.do("b NOOP\r\n", "b OK\r\n")
		q.write(store.NotFlipping)
		q.write(store.FlipClosing)
		q.at(2*time.Minute + time.Second + flipQuiet)
		s.moved(byeMoved)
	})
}

// A flip that is taken back, or an account that becomes something else, leaves the
// sessions alone.
func TestFlipIsTakenBack(t *testing.T) {
	for _, c := range []store.Change{{State: store.Copying}, {State: store.Excluded, Flipping: store.FlipClosing}} {
		synctest.Test(t, func(t *testing.T) {
			q := newQuay(t)
			s := q.session(config.IMAP)
			q.write(store.FlipClosing)
			time.Sleep(time.Second)
			c.AccountID, c.Address = 7, anna
			q.changed(c)
			time.Sleep(time.Hour / 2)
			q.free()
			s.do("b NOOP\r\n", "b OK\r\n")
		})
	}
}

// A command that comes when the sessions have been frozen is carried out and
// answered if the flip was taken back, and otherwise never reaches the server.
func TestCommandWhileFrozen(t *testing.T) {
	for _, tt := range []struct {
		name string
		held bool
		err  error
		ends bool
	}{
		{"held", true, nil, true},
		{"taken back", false, nil, false},
		{"nobody knows", false, errors.New("the database is gone"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQuay(t)
				q.answer = func(ctx context.Context) (bool, error) {
					time.Sleep(holdTimeout / 2)
					return tt.held, tt.err
				}
				s, other := q.session(config.IMAP), q.session(config.IMAP)
				q.write(store.FlipClosing)
				q.at(flipQuiet)
				s.client.send("a APPEND x {5+}\r\nhello\r\n")
				other.server.send("* 1 EXISTS\r\n") // this direction is open
				other.client.exactly("* 1 EXISTS\r\n")
				if tt.ends {
					s.moved(byeMoved)
					other.moved(byeMoved)
					return
				}
				s.server.exactly("a APPEND x {5+}\r\nhello\r\n")
				s.server.send("a OK\r\n")
				s.client.exactly("a OK\r\n")
				other.do("a NOOP\r\n", "a OK\r\n")
				if at := time.Since(q.begun); at != flipQuiet+holdTimeout/2 {
					t.Errorf("answered after %v", at)
				}
			})
		})
	}
}

// The answer to a flip is bounded, as commands wait for it.
func TestHoldIsBoundedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuay(t)
		q.answer = func(ctx context.Context) (bool, error) {
			<-ctx.Done()
			return false, ctx.Err()
		}
		s := q.session(config.IMAP)
		q.write(store.FlipClosing)
		q.at(flipQuiet)
		s.client.send("a NOOP\r\n")
		s.moved(byeMoved)
		if at := time.Since(q.begun); at != flipQuiet+holdTimeout {
			t.Errorf("ended after %v", at)
		}
	})
}

// A login on the source holds the flip up from before it is there, and none begins
// while the account is being held.
func TestLoginsAndTheFlip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuay(t)
		q.answer = func(context.Context) (bool, error) {
			time.Sleep(time.Second)
			return true, nil
		}
		asking, err := q.join(t.Context(), anna, config.IMAP, netip.AddrPort{})
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs, in := q.login(config.POP3)
		q.write(store.FlipClosing)
		time.Sleep(20 * time.Second)
		q.free()
		q.leave(asking) // the source said no
		time.Sleep(20 * time.Second)
		q.free()
		in.Close() // it was asked over another protocol
		if _, err := theirs.Read(make([]byte, 1)); err == nil {
			t.Error("still open")
		}
		_ = ours
		q.at(40 * time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := q.join(ctx, anna, config.IMAP, netip.AddrPort{})
			gone <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		late, err := q.join(t.Context(), anna, config.IMAP, netip.AddrPort{})
		if at := time.Since(q.begun); err != nil || at != 41*time.Second {
			t.Errorf("a login began after %v, %v", at, err)
		}
		q.leave(late)
		q.left()
	})
}

// What a client sent before it was gone may still be carried out.
func TestFlipWaitsForWhatWasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuay(t)
		s, other := q.session(config.IMAP), q.session(config.POP3)
		other.do("NOOP\r\n", "+OK\r\n")
		s.client.send("a APPEND x {5+}\r\nhello\r\n")
		s.server.exactly("a APPEND x {5+}\r\nhello\r\n")
		time.Sleep(time.Second)
		s.server.Close()
		s.client.exactly(byeServerGone)
		s.client.Close()
		other.server.Close() // it has answered everything
		q.write(store.FlipClosing)
		q.at(flipQuietLost)
		q.left()
	})
}

// A stream that cannot be followed is closed after a longer silence, and nothing is
// added to it. A command in it may be under way.
func TestFlipOfACompressedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuay(t)
		s := q.session(config.IMAP)
		s.do("a COMPRESS DEFLATE\r\n", "a OK\r\n")
		q.write(store.FlipClosing)
		time.Sleep(flipQuietLost - time.Second)
		s.do("\x00\x01\n\x02", "\x03\x04\r\n")
		s.client.send("\x05") // the server is slow to take it
		time.Sleep(20 * time.Second)
		q.free()
		s.server.exactly("\x05")
		q.at(20*time.Second + 2*flipQuietLost - time.Second)
		s.moved("")
	})
}

// slowConn takes its time to close.
type slowConn struct {
	net.Conn
	close time.Duration
}

func (c *slowConn) Close() error {
	time.Sleep(c.close)
	return c.Conn.Close()
}

// A session counts until its connection is closed.
func TestFlipWaitsForConnectionsToClose(t *testing.T) {
	for _, relayed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			q := newQuay(t)
			c, err := q.join(t.Context(), anna, config.IMAP, netip.AddrPort{})
			if err != nil {
				t.Fatal(err)
			}
			ours, _ := newDuplex()
			c.attach(&upstream.Session{Conn: &slowConn{ours, 9 * time.Second}})
			if relayed {
				c.begin()
			}
			q.write(store.FlipClosing)
			go c.Close()
			q.at(9 * time.Second)
			q.left()
		})
	}
}

// The last words of a session can be read whatever its reader was about to do.
func TestSourceSessionHasLastWords(t *testing.T) {
	for _, tt := range []struct {
		protocol config.Protocol
		want     string
	}{{config.IMAP, byeMoved}, {config.POP3, ""}} {
		synctest.Test(t, func(t *testing.T) {
			_, _, c := newQuay(t).login(tt.protocol)
			c.begin()
			c.end()
			if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Error(err)
			}
			if got, err := io.ReadAll(c); string(got) != tt.want || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			if _, err := c.Write([]byte("a NOOP\r\n")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("a command: %v", err)
			}
		})
	}
}

// A flip that is asked for anew while the last one is being answered is answered
// too, after it.
func TestFlipAfterFlip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuay(t)
		first := true
		q.answer = func(context.Context) (bool, error) {
			time.Sleep(time.Second)
			defer func() { first = false }()
			return !first, nil
		}
		s := q.session(config.IMAP)
		q.write(store.FlipClosing)
		q.at(flipQuiet)
		q.write(store.NotFlipping)
		q.write(store.FlipClosing)
		q.write(store.FlipClosing) // the row was written again
		q.at(flipQuiet + time.Second)
		s.moved(byeMoved)
		q.left()
	})
}

// What the source had sent ahead of its session comes first, and once.
func TestSourceSessionReadsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuay(t)
		c, err := q.join(t.Context(), anna, config.IMAP, netip.AddrPort{})
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := newDuplex()
		r := bufio.NewReader(ours)
		go theirs.Write([]byte("* 1 EXISTS\r\n* 2 "))
		if _, err := r.Peek(16); err != nil {
			t.Fatal(err)
		}
		up := &upstream.Session{Conn: ours, Reader: r}
		c.attach(up)
		c.begin()
		client, front := newDuplex()
		b := relayBetween(t, config.IMAP, time.Hour, front, up.Conn, &peer{t, client, bufio.NewReader(client)}, &peer{t, theirs, bufio.NewReader(theirs)})
		b.client.exactly("* 1 EXISTS\r\n* 2 ")
		q.write(store.FlipClosing)
		time.Sleep(5 * time.Second)
		q.free() // in the middle of a response
		b.server.send("EXISTS\r\n")
		b.client.exactly("EXISTS\r\n")
		q.at(7 * time.Second)
		b.moved(byeMoved)
	})
}

// The end of the process ends a flip that waits.
func TestFlipEndsWithTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuay(t)
		s := q.session(config.IMAP)
		s.client.send("a NOOP\r\n")
		s.server.exactly("a NOOP\r\n")
		ctx, cancel := context.WithCancel(q.ctx)
		q.ctx = ctx
		q.write(store.FlipClosing)
		synctest.Wait()
		cancel()
		q.wait()
		if at := time.Since(q.begun); at != 0 {
			t.Errorf("ended after %v", at)
		}
	})
}

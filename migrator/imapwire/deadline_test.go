package imapwire

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// slow gives its octets one at a time, each after a pause.
type slow struct {
	octets string
	pause  time.Duration
}

func (s *slow) Read(b []byte) (int, error) {
	if s.octets == "" {
		return 0, io.EOF
	}
	<-time.After(s.pause)
	b[0], s.octets = s.octets[0], s.octets[1:]
	return 1, nil
}

// The time-out is one of silence: what comes slowly may take hours.
func TestSlowServerIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		c := start(t, client, conn, "", Options{Timeout: time.Minute}, func(s *server) {
			s.command("UID FETCH 1 (UID BODY.PEEK[])")
			_, _ = io.Copy(s, &slow{"* 1 FETCH (UID 1 BODY[] {9}\r\nmessage\r\n)\r\n" + s.tag + " OK\r\n", time.Minute - 1})
			s.command("NOOP")
			s.gone()
		})
		got, fn := collect(t)
		if err := c.FetchBodies(t.Context(), []uint32{1}, fn); err != nil || got[1] != "message\r\n" {
			t.Errorf("%v %v", got, err)
		}
		began := time.Now()
		if err := c.Noop(t.Context()); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if waited := time.Since(began); waited != time.Minute {
			t.Errorf("gave up after %v", waited)
		}
	})
}

// A server owes no answer while its message is still on the way from elsewhere,
// even if the answer to another command was waited for meanwhile.
func TestSlowSourceIsNotTheTargetsSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		c := start(t, client, conn, "LITERAL+", Options{Timeout: time.Minute}, func(s *server) {
			s.command(`APPEND "INBOX" {1+}`)
			s.octets(1)
			s.lineEnd()
			s.send("TAG OK")
			s.command(`APPEND "INBOX" {7+}`)
			s.octets(7)
			s.lineEnd()
			for range 5 { // and then it asks for patience
				<-time.After(time.Minute - 1)
				s.send("* OK Hang in there..")
			}
			<-time.After(time.Minute - 1)
			s.send("TAG OK")
		})
		first := add(t, c, "a")
		second, err := c.Append(t.Context(), "INBOX")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := first.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := second.Add(nil, time.Time{}, 7, &slow{"message", 10 * time.Minute}); err != nil {
			t.Fatal(err)
		}
		if err := second.End(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := second.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A server that takes nothing more is given up as well.
func TestServerThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		done := make(chan struct{})
		c := start(t, client, conn, "LITERAL+", Options{Timeout: time.Minute}, func(s *server) { <-done })
		a, err := c.Append(t.Context(), "INBOX")
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Add(nil, time.Time{}, 1<<20, &pattern{}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		close(done)
		closed(t, c)
	})
}

// Close ends the goroutine that reads the answers; synctest fails if it stays.
func TestCloseWithUnansweredAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		c := start(t, client, conn, "LITERAL+", Options{Timeout: time.Minute}, func(s *server) { s.gone() })
		a := add(t, c, "message")
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if _, _, err := a.Wait(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

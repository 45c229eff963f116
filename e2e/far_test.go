//go:build benchcopy

package e2e

import (
	"net"
	"sync"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

// far stands before a server as if it were a round trip away: each octet takes
// half of it, and however many there are they take no longer. It returns the
// port to use.
func far(t testing.TB, port int, roundTrip time.Duration) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				time.Sleep(roundTrip) // to connect takes one
				server, err := net.Dial("tcp", servers.Address(port))
				if err != nil {
					_ = client.Close()
					return
				}
				wg.Go(func() { carry(server, client, roundTrip/2) })
				carry(client, server, roundTrip/2)
			})
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}

// piece is what was read at once, and when it is there.
type piece struct {
	octets []byte
	at     time.Time
}

// carry copies one direction of a connection until its end.
func carry(to, from net.Conn, delay time.Duration) {
	pieces := make(chan piece, 4096) // more than is under way in that time
	go func() {
		defer close(pieces)
		for {
			buf := make([]byte, 32<<10)
			n, err := from.Read(buf)
			if n > 0 {
				pieces <- piece{buf[:n], time.Now().Add(delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	var broken error
	for p := range pieces {
		time.Sleep(time.Until(p.at))
		if broken == nil {
			_, broken = to.Write(p.octets)
		}
		if broken != nil {
			_ = from.Close()
		}
	}
	_ = to.Close()
}

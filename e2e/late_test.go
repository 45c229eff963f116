package e2e

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

// lateness is how long after a cut a late server still gets what was sent.
const lateness = 300 * time.Millisecond

// bulk is the size from which a piece is no command but mail, and lateRate how
// many octets a second of it pass: slow enough to be killed in the middle.
const (
	bulk     = 1000
	lateRate = 250_000
)

// late stands before a server and delivers the mail that a client sends only
// after a while, also when the client is gone by then: the server commits what
// nobody waits for any more. It returns the port to use.
func late(t testing.TB, port int) int {
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
			server, err := net.Dial("tcp", servers.Address(port))
			if err != nil {
				_ = client.Close()
				continue
			}
			wg.Go(func() { delay(server, client) })
			wg.Go(func() {
				_, _ = io.Copy(client, server)
				_ = client.Close()
			})
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}

// delay copies what the client sends to the server, mail and what is behind it
// a while after it came. It holds at most some megabytes, then the client has
// to wait.
func delay(server, client net.Conn) {
	type piece struct {
		due   time.Time
		bytes []byte
	}
	pieces := make(chan piece, 256)
	go func() {
		defer close(pieces)
		for {
			buf := make([]byte, 16<<10)
			n, err := client.Read(buf)
			if n > 0 {
				due := time.Now()
				if n >= bulk {
					due = due.Add(lateness)
				}
				pieces <- piece{due, buf[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	var free time.Time // when the line can carry the next piece
	for p := range pieces {
		if free.After(p.due) {
			p.due = free
		}
		time.Sleep(time.Until(p.due)) // this is the lateness itself
		free = time.Now().Add(time.Duration(len(p.bytes)) * time.Second / lateRate)
		if _, err := server.Write(p.bytes); err != nil {
			_ = client.Close()
		}
	}
	_ = server.Close()
}

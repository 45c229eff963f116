package e2e

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

// lateness is how long after a cut a late server still gets what was sent. It
// is longer than migproxy takes to start again and to look.
const lateness = 1500 * time.Millisecond

// lateQuiet is the settings' settle_quiet for such a server.
const lateQuiet = "settle_quiet: 2500ms"

// lateRate is how many octets a second pass: slow enough that a kill strikes
// while mail is on its way.
const lateRate = 250_000

// late stands before a server and delivers what a client sent before it went
// only a while afterwards: the server commits what nobody waits for any more.
// It returns the port to use.
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

// delay copies what the client sends to the server. It holds at most some
// megabytes, then the client has to wait.
func delay(server, client net.Conn) {
	pieces, gone := make(chan []byte, 256), make(chan struct{})
	go func() {
		defer close(pieces)
		defer close(gone)
		for {
			buf := make([]byte, 16<<10)
			n, err := client.Read(buf)
			if n > 0 {
				pieces <- buf[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	once := sync.OnceFunc(func() { time.Sleep(lateness) }) // this is the lateness itself
	for p := range pieces {
		select {
		case <-gone:
			once()
		case <-time.After(time.Duration(len(p)) * time.Second / lateRate):
			select {
			case <-gone:
				once()
			default:
			}
		}
		if _, err := server.Write(p); err != nil {
			_ = client.Close()
		}
	}
	_ = server.Close()
}

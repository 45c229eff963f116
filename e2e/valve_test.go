package e2e

import (
	"net"
	"sync"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

// valve stands before a server. What passes is slowed down, so that the last pass of
// a flip takes a while; while it is shut nothing passes, and no connection ends
// either.
type valve struct {
	port int
	mu   sync.Mutex
	open chan struct{} // closed while it is open
}

const valveDelay = 10 * time.Millisecond

func newValve(t testing.TB, port int) *valve {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{port: l.Addr().(*net.TCPAddr).Port, open: make(chan struct{})}
	close(v.open)
	over := make(chan struct{})
	var wg sync.WaitGroup
	t.Cleanup(func() { close(over); _ = l.Close(); wg.Wait() })
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
			ended := make(chan struct{})
			end := sync.OnceFunc(func() { close(ended); _ = client.Close(); _ = server.Close() })
			wg.Go(func() { defer end(); v.pass(server, client, over) })
			wg.Go(func() { defer end(); v.pass(client, server, over) })
			wg.Go(func() {
				select {
				case <-over:
					end()
				case <-ended:
				}
			})
		}
	})
	return v
}

func (v *valve) pass(to, from net.Conn, over <-chan struct{}) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		time.Sleep(valveDelay) // this is the way to the server
		v.mu.Lock()
		open := v.open
		v.mu.Unlock()
		select {
		case <-open:
		case <-over:
			return
		}
		if _, bad := to.Write(buf[:n]); bad != nil || err != nil {
			return
		}
	}
}

//go:build long

package e2e

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

// valve stands before a server. While it is shut nothing passes, and no connection
// ends either. What passes is slowed down, so that a last pass takes a while.
type valve struct {
	port int
	mu   sync.Mutex
	open chan struct{} // closed while it is open
}

const valveDelay = 20 * time.Millisecond

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

func (v *valve) shut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.open = make(chan struct{})
}

func (v *valve) release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.open)
}

// A flip that cannot end, because the target does not answer any more, is taken
// back: the user works at his source again, and a later try succeeds.
func TestFlipThatCannotEndIsTakenBack(t *testing.T) {
	var v *valve
	p := newPair(t, binary, func(s *settings) {
		atSource(s)
		v = newValve(t, s.target.imap)
		s.target.imap = v.port
	})
	p.source.AddUser(user, password)
	fill(t, p.source.IMAP, user, password, sourcePrefix, sourceSep, "Gesendet")
	p.start()
	first, _ := enter(t, p.imaps)
	first.until("* BYE") // from here on logins are held
	v.shut()
	began := time.Now()
	again, onTarget := enter(t, p.imaps)
	took := time.Since(began)
	if onTarget {
		t.Fatal("the flip was over before the target was cut off")
	}
	t.Logf("the login was held for %s", took)
	m := note("after-the-flip-was-taken-back")
	again.send(fmt.Sprintf("b APPEND INBOX {%d+}\r\n%s\r\n", len(m.octets), m.octets))
	again.until("b OK")
	again.send("c LOGOUT\r\n")
	again.until("c OK")
	if said, err := p.cli("account", "show", user); err != nil || !strings.Contains(said, "taken back") {
		t.Errorf("nothing tells that the flip was taken back: %v\n%s", err, said)
	}
	v.release()
	if _, err := p.cli("account", "retry", user); err != nil {
		t.Log(err) // it may have been tried already
	}
	p.awaitState(user, "active")
	if _, onTarget := enter(t, p.imaps); !onTarget {
		t.Error("after the flip the login is on the source")
	}
	sameMail(t, p.sourceView(), p.targetView())
	p.allIsWell()
}

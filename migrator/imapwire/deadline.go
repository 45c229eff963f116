package imapwire

import (
	"net"
	"sync"
	"time"
)

// deadlineConn gives each read and each write its own deadline, so that a
// transfer may take as long as it needs while silence ends it.
type deadlineConn struct {
	conn    net.Conn
	timeout time.Duration
	close   sync.Once

	mu sync.Mutex
	// armed is false while a command is being sent: the server then owes no
	// answer yet, however long the message takes to come from elsewhere.
	armed bool
}

func (d *deadlineConn) Read(p []byte) (int, error) {
	d.mu.Lock()
	err := d.setRead()
	d.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return d.conn.Read(p)
}

func (d *deadlineConn) setRead() error {
	if !d.armed {
		return d.conn.SetReadDeadline(time.Time{})
	}
	return d.conn.SetReadDeadline(time.Now().Add(d.timeout))
}

// expect says whether the server owes an answer from now on. It holds for a
// read under way as well. A connection that is closed already tells so at its
// next read.
func (d *deadlineConn) expect(answer bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = answer
	_ = d.setRead()
}

func (d *deadlineConn) Write(p []byte) (int, error) {
	if err := d.conn.SetWriteDeadline(time.Now().Add(d.timeout)); err != nil {
		return 0, err
	}
	return d.conn.Write(p)
}

// cut closes the connection at once. The transport goes first, because closing
// TLS politely may wait for seconds on a server that does not read.
func (d *deadlineConn) cut() {
	d.close.Do(func() {
		inner := d.conn
		for {
			wrapped, ok := inner.(interface{ NetConn() net.Conn })
			if !ok {
				break
			}
			inner = wrapped.NetConn()
		}
		_ = inner.Close()
		if inner != d.conn {
			_ = d.conn.Close()
		}
	})
}

package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"migproxy/config"
	"migproxy/upstream"
)

// byeMoved tells a client to come back, in the words of a parked mailbox.
const byeMoved = "* BYE Your mailbox has moved, please connect again\r\n"

// sourceSession is a session on the source of an account that goes on there until
// its flip, or a login that is about to become one. As the Conn of the session it
// sees all that passes, and stops passing on to the source what comes from the
// client while the session is frozen.
type sourceSession struct {
	net.Conn // nil until a login on the source has succeeded
	owner    *sourceSessions
	group    *sourceGroup
	client   netip.AddrPort // for the log

	mu      sync.Mutex
	thawed  sync.Cond // frozen is false, or the session has ended
	tracker sessionTracker
	ahead   []byte // was read before
	relayed bool   // not only a login any more
	writing bool   // the source has not taken all of it yet
	stood   bool   // stands still, or cannot be followed
	moved   time.Time
	frozen  bool
	ended   bool   // by the proxy
	closed  bool   // by the relay
	last    string // what the client gets before the end
}

func newSourceSession(owner *sourceSessions, g *sourceGroup, p config.Protocol, client netip.AddrPort) *sourceSession {
	c := &sourceSession{owner: owner, group: g, client: client, tracker: newSessionTracker(p)}
	c.thawed.L = &c.mu
	return c
}

// attach takes the place of the session's connection.
func (c *sourceSession) attach(s *upstream.Session) {
	c.Conn, c.ahead = s.Conn, readAhead(s.Reader)
	s.Conn, s.Reader = c, bufio.NewReader(c)
}

// begin says that the session is relayed from now on. Until then it is never
// silent.
func (c *sourceSession) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.relayed = true
	c.moves()
}

// moves notes that something happened. mu is held.
func (c *sourceSession) moves() {
	c.moved = time.Now()
	before := c.stood
	c.stood = c.relayed && !c.writing && (c.tracker.lost() || c.tracker.standsStill())
	if c.stood && !before {
		c.group.tell()
	}
}

// freeze stops the session if it stands still and has been silent for long enough.
// Otherwise it says how much longer it has to be silent; untilTold: nobody knows,
// and the group is told when something changes.
func (c *sourceSession) freeze(now time.Time) (frozen bool, again time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if again = c.restless(now); again != 0 {
		return false, again
	}
	c.frozen = true
	return true, 0
}

// still reports whether the session could be frozen.
func (c *sourceSession) still(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.restless(now) == 0
}

// restless is how much longer the session has to be silent to be frozen. mu is held.
func (c *sourceSession) restless(now time.Time) time.Duration {
	if !c.stood || c.closed { // one that is being closed is about to leave
		return untilTold
	}
	quiet := c.owner.quiet
	if c.tracker.lost() {
		quiet = c.owner.quietLost
	}
	return max(0, c.moved.Add(quiet).Sub(now))
}

// rest is how long the server may still be at something after the session has
// been closed.
func (c *sourceSession) rest() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.relayed || !c.tracker.lost() && c.tracker.standsStill() {
		return 0
	}
	return time.Until(c.moved.Add(c.owner.quietLost))
}

// thaw lets a frozen session go on.
func (c *sourceSession) thaw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = false
	c.thawed.Broadcast()
}

// end closes the connection to the source. The client gets a BYE where it can have
// one. What it still sends goes nowhere.
func (c *sourceSession) end() {
	c.mu.Lock()
	if c.ended || c.closed {
		c.mu.Unlock()
		return
	}
	c.ended = true
	c.thawed.Broadcast()
	c.mu.Unlock()
	_ = c.Conn.Close()
	c.owner.leave(c)
}

// Write passes on what the client sent, once the session is not frozen.
func (c *sourceSession) Write(b []byte) (int, error) {
	c.mu.Lock()
	for c.frozen && !c.ended && !c.closed { // no longer than a flip takes to be answered
		c.thawed.Wait()
	}
	if c.ended || c.closed {
		c.mu.Unlock()
		return 0, net.ErrClosed
	}
	c.tracker.sent(b)
	c.writing = true
	c.moves()
	c.mu.Unlock()

	n, err := c.Conn.Write(b)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing = false
	c.moves()
	return n, err
}

// Read gives what the source sent, and the last words of a session that has ended.
func (c *sourceSession) Read(b []byte) (int, error) {
	n, err := c.readAhead(b)
	if n == 0 {
		n, err = c.Conn.Read(b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > 0 {
		c.tracker.came(b[:n])
		c.moves()
		return n, err
	}
	if !c.ended {
		return n, err
	}
	if c.tracker.mayBye() {
		c.last = byeMoved
		c.tracker.came([]byte(byeMoved)) // so that there is only one
	}
	if c.last == "" {
		return 0, io.EOF
	}
	n = copy(b, c.last)
	c.last = c.last[n:]
	return n, nil
}

func (c *sourceSession) readAhead(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := copy(b, c.ahead)
	if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
		c.ahead = nil // and the buffer that it was read into
	}
	return n, nil
}

// SetReadDeadline succeeds on a session that has ended: its last words are still
// to be read.
func (c *sourceSession) SetReadDeadline(t time.Time) error {
	err := c.Conn.SetReadDeadline(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil
	}
	return err
}

// CloseWrite passes a half-close on to connections that know it.
func (c *sourceSession) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close closes the connection, and only then leaves the group: until it is closed
// it counts.
func (c *sourceSession) Close() error {
	c.mu.Lock()
	c.closed = true
	c.thawed.Broadcast()
	c.mu.Unlock()
	err := c.Conn.Close()
	c.owner.leave(c)
	return err
}

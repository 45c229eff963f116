package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/upstream"
)

const (
	// linger is how long one direction goes on after the other has ended where
	// nothing else would end it.
	linger = 5 * time.Second
	// drainQuiet is how long a stream has to be quiet before a drain ends it: a
	// command whose answer is under way is not cut off between two responses.
	drainQuiet = time.Second
)

// Why a session ended, for the log.
const (
	whyClient  = "the client left"
	whyServer  = "the server closed"
	whyIdle    = "idle for too long"
	whyDrained = "shutdown"
)

// The untagged BYEs that the relay adds (RFC 9051 section 7.1.5).
const (
	byeServerGone = "* BYE [UNAVAILABLE] The mail server closed the connection; connect again in a moment.\r\n"
	byeIdle       = "* BYE Idle for too long.\r\n"
)

type relayOptions struct {
	protocol           config.Protocol
	idle               time.Duration
	drain              context.Context // ends when sessions shall leave
	log                *zap.Logger
	toServer, toClient prometheus.Counter
}

// relay is a session after login: two pipes, and what they know of each other.
// Bytes pass untouched; a BYE is added only between two responses.
type relay struct {
	relayOptions
	up, down pipe // from the client to the server, and back
	tracker  *responseTracker
	compress compressWatch
	opaque   atomic.Bool  // the server's stream cannot be followed any more
	moved    atomic.Int64 // when a byte was last relayed, Unix nanoseconds

	// mu orders changes of what follows with the read deadlines made from it.
	mu       sync.Mutex
	draining bool
	upOver   bool      // nothing more comes from the client
	upTold   bool      // and the server was told
	upEnd    time.Time // the server takes no more: until when it may answer
}

// pipe is one direction of a relay.
type pipe struct {
	from, to net.Conn
	ahead    []byte // was read before the relay began; delivered first
	chunks   chunkReader
	bytes    atomic.Int64
}

// newRelay takes over both connections with what was read ahead on them.
func newRelay(c *Conn, s *upstream.Session, o relayOptions) *relay {
	r := &relay{relayOptions: o}
	r.up = pipe{from: c.stream, to: s.Conn, ahead: c.buffered()}
	r.down = pipe{from: s.Conn, to: c.stream, ahead: readAhead(s.Reader)}
	c.r, s.Reader = nil, nil // memory that an idle session does not need
	if o.protocol == config.IMAP {
		r.tracker = &responseTracker{}
	}
	r.moved.Store(time.Now().UnixNano())
	return r
}

func readAhead(b *bufio.Reader) []byte {
	if b == nil {
		return nil
	}
	ahead, _ := b.Peek(b.Buffered())
	return ahead
}

// run relays until both directions have ended and returns why. It closes both
// connections.
func (r *relay) run() string {
	undrain := context.AfterFunc(r.drain, func() { r.tellDown(func() { r.draining = true }) })
	defer undrain()
	var upward sync.WaitGroup
	upward.Go(func() {
		defer r.closeAfterPanic()
		r.runUp()
	})
	// Waits even if this direction panics: its goroutine must not outlive us.
	defer upward.Wait()
	defer r.closeAfterPanic()

	why := r.runDown()
	giveUp := time.AfterFunc(linger, r.close)
	defer giveUp.Stop()
	upward.Wait()
	r.close()
	return why
}

// closeAfterPanic ends both directions when one of them panicked.
func (r *relay) closeAfterPanic() {
	if p := recover(); p != nil {
		logPanic(r.log, p)
		r.close()
	}
}

func (r *relay) close() {
	r.down.to.Close()
	r.down.from.Close()
}

// tellDown alters the shared state and wakes the downward pipe to notice.
func (r *relay) tellDown(alter func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	alter()
	r.down.from.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection, which wakes it too
}

// setDeadline sets a pipe's read deadline. The upward pipe has none of its own:
// the downward one knows the stream, so it alone ends a session for being idle,
// and when it has ended the connections are closed after linger.
func (r *relay) setDeadline(p *pipe) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var deadline time.Time
	if p == &r.down {
		deadline, _ = r.deadline()
	}
	return p.from.SetReadDeadline(p.chunks.impatient(deadline))
}

// deadline is until when the downward pipe waits for bytes, and why it ends
// then. mu is held.
func (r *relay) deadline() (time.Time, string) {
	quiet := time.Unix(0, r.moved.Load())
	switch {
	case !r.upEnd.IsZero():
		if later := quiet.Add(linger); later.After(r.upEnd) {
			return later, whyClient
		}
		return r.upEnd, whyClient
	case r.draining && (r.mayBye() || !r.follows()):
		return quiet.Add(drainQuiet), whyDrained
	case r.upOver && !r.upTold:
		return quiet.Add(linger), whyClient
	}
	return quiet.Add(r.idle), whyIdle
}

// follows reports whether there can be a moment for a BYE. Only the downward
// pipe asks.
func (r *relay) follows() bool {
	return r.tracker != nil && !r.tracker.lost && !r.tracker.bye && !r.opaque.Load()
}

// mayBye reports whether a BYE may be added now.
func (r *relay) mayBye() bool { return r.follows() && r.tracker.between() }

// runUp carries the client's bytes to the server. Once the server takes no
// more, it goes on reading, so that closing does not reset a connection on
// which a BYE is still under way.
func (r *relay) runUp() {
	defer r.up.chunks.release()
	deliver := true
	for {
		b, err := r.up.next(r)
		if len(b) > 0 && deliver {
			if r.tracker != nil && r.compress.feed(b) {
				r.opaque.Store(true)
			}
			if r.send(&r.up, b, r.toServer) != nil {
				deliver = false
				r.tellDown(func() { r.upEnd = time.Now().Add(linger) })
			}
		}
		switch {
		case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // the latter without TLS's goodbye
			r.clientEnded()
			return
		default: // the client is gone: nobody wants the rest
			r.tellDown(func() { r.upOver = true })
			r.close()
			return
		}
	}
}

// clientEnded notes that the client has ended its direction. The server is not
// told before it has been quiet for linger: many servers, Dovecot among them,
// take the end for the client's leaving and drop what they have not answered.
func (r *relay) clientEnded() {
	r.moved.Store(time.Now().UnixNano())
	r.tellDown(func() { r.upOver = true })
}

// tellServer passes the client's half-close on and reports whether that was
// possible. The server may then answer for as long as it likes.
func (r *relay) tellServer() bool {
	r.mu.Lock()
	r.upTold = true
	r.mu.Unlock()
	return halfClose(r.up.to)
}

// runDown carries the server's bytes to the client and returns why it ended.
func (r *relay) runDown() string {
	defer r.down.chunks.release()
	for {
		b, err := r.down.next(r)
		if len(b) > 0 {
			if r.tracker != nil {
				r.tracker.feed(b)
			}
			if r.send(&r.down, b, r.toClient) != nil {
				r.close()
				return whyClient
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			why, tell := r.expired()
			switch {
			case tell && r.tellServer():
			case why != "":
				r.leave(why)
				return why
			}
		default:
			return r.serverEnded()
		}
	}
}

// serverEnded adds the BYE that a server which died did not send, and passes
// the end on. A client that ended first asked for it and needs none.
func (r *relay) serverEnded() string {
	r.mu.Lock()
	asked, draining := r.upOver, r.draining
	r.mu.Unlock()
	if !asked && r.mayBye() {
		r.bye(byeServerGone)
	} else {
		halfClose(r.down.to)
	}
	switch {
	case draining:
		return whyDrained
	case asked:
		return whyClient
	}
	return whyServer
}

// leave ends a session that the proxy does not want to go on.
func (r *relay) leave(why string) {
	switch {
	case why == whyDrained && r.mayBye():
		r.bye(byeDraining)
	case why == whyIdle && r.mayBye():
		r.bye(byeIdle)
	default:
		r.close()
	}
}

// bye sends a last line, closes the server's connection, so that no command
// that comes after it is carried out unanswered, and half-closes the client's.
func (r *relay) bye(line string) {
	r.down.from.Close()
	if err := r.down.to.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return
	}
	if _, err := io.WriteString(r.down.to, line); err == nil {
		halfClose(r.down.to)
	}
}

// expired returns why the downward pipe has to end, or "" where its deadline
// has moved since the read began. tell: first the server is to be told that the
// client has ended.
func (r *relay) expired() (why string, tell bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	deadline, why := r.deadline()
	if time.Now().Before(deadline) {
		return "", false
	}
	return why, why == whyClient && !r.upTold && r.upEnd.IsZero()
}

// send writes b, within the idle limit.
func (r *relay) send(p *pipe, b []byte, count prometheus.Counter) error {
	if err := p.to.SetWriteDeadline(time.Now().Add(r.idle)); err != nil {
		return err
	}
	n, err := p.to.Write(b)
	p.bytes.Add(int64(n))
	count.Add(float64(n))
	r.moved.Store(time.Now().UnixNano())
	return err
}

// next gives what was read ahead, and after that what comes from the
// connection. The bytes are valid until the next call.
func (p *pipe) next(r *relay) ([]byte, error) {
	if len(p.ahead) > 0 {
		b := p.ahead
		p.ahead = nil
		return b, nil
	}
	if err := r.setDeadline(p); err != nil {
		return nil, err
	}
	return p.chunks.read(p.from)
}

// halfClose ends the writing side of a TCP or TLS connection and reports
// whether the other end will notice.
func halfClose(c net.Conn) bool {
	w, ok := c.(interface{ CloseWrite() error })
	return ok && w.CloseWrite() == nil
}

package proxy

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// smallChunk is all the buffer that an idle direction holds.
	smallChunk = 512
	bigChunk   = 32 << 10
	// burstPause is how long a big buffer is kept without more bytes.
	burstPause = time.Second
)

var bigChunks = sync.Pool{New: func() any { b := make([]byte, bigChunk); return &b }}

// chunkReader reads with a small buffer while little comes, which is nearly
// always, and borrows a big one for as long as a burst lasts. Waiting for the
// socket to become readable without any buffer would not do: under TLS, bytes
// may be waiting above the socket.
type chunkReader struct {
	small [smallChunk]byte
	big   *[]byte // nil outside of a burst
}

// impatient shortens a deadline during a burst, to give the big buffer back.
func (c *chunkReader) impatient(deadline time.Time) time.Time {
	if c.big == nil {
		return deadline
	}
	pause := time.Now().Add(burstPause)
	if deadline.IsZero() || pause.Before(deadline) {
		return pause
	}
	return deadline
}

// read returns what comes next, valid until the next call. A deadline that
// passes ends a burst.
func (c *chunkReader) read(from net.Conn) ([]byte, error) {
	if c.big != nil {
		n, err := from.Read(*c.big)
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			c.release()
		}
		if c.big == nil {
			return nil, err
		}
		return (*c.big)[:n], err
	}
	n, err := from.Read(c.small[:])
	if n == len(c.small) {
		c.big = bigChunks.Get().(*[]byte)
	}
	return c.small[:n], err
}

// release gives the big buffer back.
func (c *chunkReader) release() {
	if c.big != nil {
		bigChunks.Put(c.big)
		c.big = nil
	}
}

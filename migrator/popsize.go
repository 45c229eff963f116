package migrator

import (
	"errors"
	"io"
)

// octetCount counts a message as it came over POP3.
type octetCount struct{ octets, lines int64 }

// sizeCounting is how a server counts the octets of messages in LIST.
type sizeCounting int

const (
	countsUnknown sizeCounting = iota
	countsCRLF                 // as they are sent (RFC 1939 section 11)
	countsLF                   // as they lie in files, with one octet for a line end
)

// confirm reports whether a message that came is one of the size listed, as far
// as it is known how the server counts, and learns that. A line end that the
// server had to add at the end, because POP3 cannot do without, is in no size.
func (k *sizeCounting) confirm(c octetCount, listed int64) bool {
	asCRLF, asLF := c.octets, c.octets-c.lines
	if *k == countsUnknown && c.lines > 0 {
		switch listed {
		case asCRLF:
			*k = countsCRLF
		case asLF:
			*k = countsLF
		}
	}
	fits := func(counted, added int64) bool { return listed == counted || listed+added == counted }
	switch *k {
	case countsCRLF:
		return fits(asCRLF, 2)
	case countsLF:
		return fits(asLF, 1)
	}
	return fits(asCRLF, 2) || fits(asLF, 1)
}

// errOtherSize ends a message of which another number of octets was announced.
var errOtherSize = errors.New("the message has another number of octets than the source had said")

// sizedReader passes on a message of which a number of octets was announced. The
// last ones wait until the message has ended with exactly that number.
type sizedReader struct {
	r          io.Reader
	want, got  int64
	now, later []byte // read; now is passed on, later waits for what follows it
	spare      []byte
	ended      bool
	err        error
}

func newSizedReader(r io.Reader, want int64) *sizedReader {
	const size = 16 << 10
	return &sizedReader{r: r, want: want, later: make([]byte, 0, size), spare: make([]byte, size)}
}

func (s *sizedReader) Read(p []byte) (int, error) {
	for len(s.now) == 0 {
		switch {
		case s.err != nil:
			return 0, s.err
		case s.ended:
			return 0, io.EOF
		}
		s.next()
	}
	n := copy(p, s.now)
	s.now = s.now[n:]
	return n, nil
}

// next reads on by one part.
func (s *sizedReader) next() {
	part := s.spare[:cap(s.spare)]
	n, err := s.r.Read(part)
	s.got += int64(n)
	switch {
	case s.got > s.want, errors.Is(err, io.EOF) && s.got != s.want:
		s.err = errOtherSize
		return
	case err != nil && !errors.Is(err, io.EOF):
		s.err = err
		return
	}
	s.ended = err != nil
	if n > 0 {
		s.now, s.later, s.spare = s.later, part[:n], s.later[:0]
	}
	if s.ended {
		s.now, s.later = append(s.now, s.later...), nil
	}
}

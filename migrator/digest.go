package migrator

import (
	"crypto/sha256"
	"hash"

	"migproxy/store"
)

// digests are what is kept of a message's octets.
type digests struct {
	full      [32]byte // SHA-256 of the octets as they came
	canonical store.Digest
	octets    int64
	// fragile messages hold what servers are known to alter: NUL, line ends
	// other than CRLF, or octets above 127 in the header.
	fragile bool
}

// digester computes digests of what is written to it, in one go and without
// keeping it. The canonical form has each of CRLF, LF and CR as one LF, also
// where several CR stand together (a Dovecot makes CRLF of CR CR LF), NUL as 0x80, and each octet above 127 in the header as X, because targets turn the
// ones into the others.
type digester struct {
	full, canonical hash.Hash
	octets          int64
	fragile         bool
	afterCR         bool // the last octet was a CR, its line end is written
	text            bool // the header has ended
	inLine          bool // the header's present line has begun
	buf             []byte
}

func newDigester() *digester {
	return &digester{full: sha256.New(), canonical: sha256.New(), buf: make([]byte, 0, 32<<10)}
}

// Write never fails.
func (d *digester) Write(p []byte) (int, error) {
	d.full.Write(p)
	d.octets += int64(len(p))
	for _, b := range p {
		switch {
		case b == '\n' && d.afterCR:
			d.afterCR = false
			continue
		case b == '\r' && d.afterCR:
			d.fragile = true
			continue
		case d.afterCR: // a CR alone
			d.fragile, d.afterCR = true, false
		case b == '\n':
			d.fragile = true
		}
		switch b {
		case '\r':
			d.afterCR, b = true, '\n'
		case 0:
			d.fragile, b = true, 0x80
		}
		if !d.text {
			b = d.header(b)
		}
		if len(d.buf) == cap(d.buf) {
			d.flush()
		}
		d.buf = append(d.buf, b)
	}
	return len(p), nil
}

// header gives the canonical form of an octet of the header, which an empty
// line ends.
func (d *digester) header(b byte) byte {
	switch {
	case b == '\n':
		d.text, d.inLine = !d.inLine, false
		return b
	case b > 127:
		d.fragile, b = true, 'X'
	}
	d.inLine = true
	return b
}

func (d *digester) flush() {
	d.canonical.Write(d.buf)
	d.buf = d.buf[:0]
}

// sum ends the message and makes the digester ready for the next one.
func (d *digester) sum() digests {
	d.flush()
	s := digests{octets: d.octets, fragile: d.fragile || d.afterCR}
	d.full.Sum(s.full[:0])
	copy(s.canonical[:], d.canonical.Sum(nil))
	d.full.Reset()
	d.canonical.Reset()
	d.octets, d.fragile, d.afterCR, d.text, d.inLine = 0, false, false, false, false
	return s
}

package proxy

import "bytes"

// responseHead is how much of the beginning of a response is kept.
const responseHead = 12

// responseTracker follows what an IMAP server sends and knows whether the
// stream stands between two responses, which is where a BYE may be added. It
// never changes the stream, keeps a few bytes of a line at most, and once it
// does not understand, it says "not between" for ever.
type responseTracker struct {
	skip int64 // octets of a literal still to come
	// head is the beginning of the response, line the end of the current line.
	head   [12]byte
	nHead  int
	line   lineEnd
	inside bool // a response has begun
	lost   bool
	bye    bool // the server said BYE itself
	// responded is called at the end of each response with its head; may be nil.
	responded func(head []byte)
}

// between reports whether the stream stands between two responses.
func (t *responseTracker) between() bool { return !t.lost && !t.inside }

// feed follows the next bytes of the stream.
func (t *responseTracker) feed(b []byte) {
	for pos := 0; pos < len(b) && !t.lost; {
		if t.skip > 0 {
			n := min(t.skip, int64(len(b)-pos))
			t.skip -= n
			pos += int(n)
			continue
		}
		line := b[pos:]
		i := bytes.IndexByte(line, '\n')
		if i < 0 {
			t.keep(line)
			break
		}
		t.keep(line[:i])
		pos += i + 1
		if !t.lost {
			t.endLine()
		}
	}
}

// keep remembers the parts of a line that matter.
func (t *responseTracker) keep(part []byte) {
	if len(part) == 0 {
		return
	}
	t.inside = true
	// A response begins in plain text. Anything else is not IMAP in the clear;
	// DEFLATE (RFC 4978), most likely.
	begin := t.nHead
	t.nHead += copy(t.head[begin:], part)
	for i, c := range t.head[begin:t.nHead] {
		if c < ' ' && c != '\r' || c >= 0x7f || c == ' ' && begin+i == 0 {
			t.lost = true
			return
		}
	}
	t.line.keep(part)
}

// endLine is called at each LF outside of literals: the response ends with it,
// unless a literal follows.
func (t *responseTracker) endLine() {
	l, clear := t.line.literal()
	t.line.n = 0
	if !t.isText() {
		switch {
		case !clear: // or a text of a response that we do not know
			t.lost = true
			return
		case l.found:
			t.skip = l.octets
			return
		}
	}
	if bytes.EqualFold(t.head[:min(t.nHead, 6)], []byte("* BYE ")) {
		t.bye = true
	}
	if t.responded != nil {
		t.responded(t.head[:t.nHead])
	}
	t.inside, t.nHead = false, 0
}

// isText reports whether the response ends in text for humans, which may look
// like anything: continuations, tagged responses and the untagged OK, NO, BAD,
// PREAUTH and BYE (RFC 9051 section 7.1).
func (t *responseTracker) isText() bool {
	h := t.head[:t.nHead]
	if len(h) < 2 || h[0] != '*' || h[1] != ' ' {
		return true
	}
	word, _, _ := bytes.Cut(h[2:], []byte{' '})
	for _, status := range []string{"OK", "NO", "BAD", "BYE", "PREAUTH"} {
		if bytes.EqualFold(word, []byte(status)) {
			return true
		}
	}
	return false
}

// lineEnd keeps the end of a line, in which a literal may be announced.
type lineEnd struct {
	b [24]byte
	n int
}

// announced is the literal that follows a line, if found.
type announced struct {
	found  bool
	octets int64
	waits  bool // for the server to ask for it: {n}, not {n+}
}

// keep adds a part of the line.
func (e *lineEnd) keep(part []byte) {
	if len(part) >= len(e.b) {
		e.n = copy(e.b[:], part[len(part)-len(e.b):])
		return
	}
	if over := e.n + len(part) - len(e.b); over > 0 {
		e.n = copy(e.b[:], e.b[over:e.n])
	}
	e.n += copy(e.b[e.n:], part)
}

// literal is asked at the end of a line. Not clear: its last character is that of
// an announcement, which would be longer than any size.
func (e *lineEnd) literal() (l announced, clear bool) {
	line, ends := bytes.CutSuffix(bytes.TrimSuffix(e.b[:e.n], []byte{'\r'}), []byte{'}'})
	if !ends {
		return l, true
	}
	open := bytes.LastIndexByte(line, '{')
	if open < 0 {
		return l, false
	}
	size := line[open+1:]
	l.octets, l.found = literalSize(size)
	l.waits = !bytes.HasSuffix(size, []byte{'+'})
	return l, true
}

// literalSize parses the inside of {n} or {n+}.
func literalSize(b []byte) (int64, bool) {
	b = bytes.TrimSuffix(b, []byte{'+'})
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	var n int64
	for _, d := range b {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = 10*n + int64(d-'0')
	}
	return n, true
}

// compressWatch follows what an IMAP client sends and notices COMPRESS
// (RFC 4978), after which the server's stream cannot be followed. A line of a
// message that looks like the command counts as well: then a BYE is missing
// at worst.
type compressWatch struct {
	line [128]byte
	n    int
	seen bool
}

// feed follows the next bytes and reports whether the command has been seen.
func (w *compressWatch) feed(b []byte) bool {
	for len(b) > 0 && !w.seen {
		line, rest, ended := bytes.Cut(b, []byte{'\n'})
		w.n += copy(w.line[w.n:], line)
		b = rest
		_, command, _ := bytes.Cut(w.line[:w.n], []byte{' '})
		const name = "COMPRESS "
		w.seen = len(command) >= len(name) && bytes.EqualFold(command[:len(name)], []byte(name))
		if ended {
			w.n = 0
		}
	}
	return w.seen
}

package proxy

import "bytes"

// responseTracker follows what an IMAP server sends and knows whether the
// stream stands between two responses, which is where a BYE may be added. It
// never changes the stream, keeps a few bytes of a line at most, and once it
// does not understand, it says "not between" for ever.
type responseTracker struct {
	skip int64 // octets of a literal still to come
	// head is the beginning of the response, tail the end of the current line.
	head   [12]byte
	nHead  int
	tail   [24]byte
	nTail  int
	inside bool // a response has begun
	lost   bool
	bye    bool // the server said BYE itself
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
	if len(part) >= len(t.tail) {
		t.nTail = copy(t.tail[:], part[len(part)-len(t.tail):])
		return
	}
	if over := t.nTail + len(part) - len(t.tail); over > 0 {
		t.nTail = copy(t.tail[:], t.tail[over:t.nTail])
	}
	t.nTail += copy(t.tail[t.nTail:], part)
}

// endLine is called at each LF outside of literals: the response ends with it,
// unless a literal follows.
func (t *responseTracker) endLine() {
	tail := bytes.TrimSuffix(t.tail[:t.nTail], []byte{'\r'})
	t.nTail = 0
	if !t.isText() && len(tail) > 0 && tail[len(tail)-1] == '}' {
		open := bytes.LastIndexByte(tail, '{')
		if open < 0 {
			// Longer than any size, or a text of a response that we do not know.
			t.lost = true
			return
		}
		if n, ok := literalSize(tail[open+1 : len(tail)-1]); ok {
			t.skip = n
			return
		}
	}
	if bytes.EqualFold(t.head[:min(t.nHead, 6)], []byte("* BYE ")) {
		t.bye = true
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

package aliasresolve

import "bytes"

// addressParser reads the mailboxes of an address list (RFC 5322 section 3.4)
// one after the other, and forgives what real mail has: empty elements,
// semicolons for commas, groups, display names with raw 8-bit octets, comments
// and white space anywhere, source routes. What it cannot read it leaves out.
//
// Encoded words (RFC 2047) need no decoding: they are allowed in display names
// and comments only, and an address in a display name is none.
type addressParser struct {
	in  []byte
	buf []byte // the addr-spec being read, freed from quotes and comments
	// mailboxes counts what was read as a mailbox, with an address or not, and
	// groups what was read as the name of a group.
	mailboxes, groups int
}

// spec is an addr-spec being read into buf.
type spec struct {
	at    int  // where its @ is in buf, -1 without
	last  byte // what was read last: '.', '@', '"' for a quoted string, 'a' for an atom, 0 for nothing
	space bool // white space or a comment came after it
	wrong bool // it is no addr-spec
}

// single reports, at the end, whether there was nothing but one mailbox.
func (p *addressParser) single() bool { return p.mailboxes == 1 && p.groups == 0 }

// next gives the next mailbox's local part and domain, valid until the next
// call. ok is false at the end.
func (p *addressParser) next() (local, domain []byte, ok bool) {
	for len(p.in) > 0 {
		if local, domain, ok = p.mailbox(); ok {
			return local, domain, true
		}
	}
	return nil, nil, false
}

// mailbox reads up to the end of one element of the list.
func (p *addressParser) mailbox() (local, domain []byte, ok bool) {
	p.buf = p.buf[:0]
	s := spec{at: -1}
	for len(p.in) > 0 {
		switch c := p.in[0]; c {
		case ',', ';':
			p.in = p.in[1:]
			return p.finish(s)
		case ':': // what stood here was the name of a group
			p.in, p.groups = p.in[1:], p.groups+1
			p.buf, s = p.buf[:0], spec{at: -1}
		case '<': // what stood here was a display name
			p.in = p.in[1:]
			return p.angle()
		default:
			p.octets(&s)
		}
	}
	return p.finish(s)
}

// angle reads an address in angle brackets, and what follows up to the end of
// the element or the next angle bracket.
func (p *addressParser) angle() (local, domain []byte, ok bool) {
	p.buf = p.buf[:0]
	s, closed := spec{at: -1}, false
	for len(p.in) > 0 && !closed {
		switch c := p.in[0]; c {
		case '>':
			p.in, closed = p.in[1:], true
		case ':': // the end of a source route (RFC 5322 section 4.4)
			p.in = p.in[1:]
			p.buf, s = p.buf[:0], spec{at: -1}
		case ',': // within a source route, otherwise wrong
			p.in, s.wrong = p.in[1:], true
		case '<':
			p.in, s = p.in[1:], spec{at: -1}
			p.buf = p.buf[:0]
		default:
			p.octets(&s)
		}
	}
	for len(p.in) > 0 {
		c := p.in[0]
		if c == '<' {
			break
		}
		p.skip()
		if c == ',' || c == ';' {
			break
		}
	}
	s.wrong = s.wrong || !closed
	return p.finish(s)
}

// finish splits an addr-spec.
func (p *addressParser) finish(s spec) (local, domain []byte, ok bool) {
	if s.last != 0 {
		p.mailboxes++
	}
	if s.wrong || s.at < 0 {
		return nil, nil, false
	}
	return p.buf[:s.at], p.buf[s.at+1:], true
}

// octets takes one octet, quoted string or comment into an addr-spec. White
// space and comments may stand around its dots and its @ only (RFC 5322 section
// 4.4), as after a display name's first word nothing of it is an address.
func (p *addressParser) octets(s *spec) {
	c := p.in[0]
	switch c {
	case ' ', '\t', '\r', '\n', '(':
		p.skip()
		s.space = true
		return
	case '"':
		s.wrong = s.wrong || s.at >= 0 || s.last != 0 && s.last != '.'
		p.quoted()
	case '.', '@':
		if c == '@' { // the last one; another before it is in no plain local part
			s.at = len(p.buf)
		}
		p.buf, p.in = append(p.buf, c), p.in[1:]
	default:
		s.wrong = s.wrong || s.last == '"' || s.last == 'a' && s.space
		p.buf, p.in = append(p.buf, c), p.in[1:]
		c = 'a'
	}
	s.last, s.space = c, false
}

// quoted reads a quoted string, and takes what is in it.
func (p *addressParser) quoted() {
	for p.in = p.in[1:]; len(p.in) > 0; p.in = p.in[1:] {
		switch c := p.in[0]; {
		case c == '"':
			p.in = p.in[1:]
			return
		case c == '\\' && len(p.in) > 1:
			p.in = p.in[1:]
		}
		p.buf = append(p.buf, p.in[0])
	}
}

// skip passes one octet, quoted string or comment.
func (p *addressParser) skip() { p.in = skipToken(p.in) }

// skipToken gives what follows one octet, quoted string or comment. Comments
// may stand in comments (RFC 5322 section 3.2.2).
func skipToken(in []byte) []byte {
	closing := byte('"')
	switch in[0] {
	case '(':
		closing = ')'
	case '"':
	default:
		return in[1:]
	}
	depth := 1
	for i := 1; i < len(in); i++ {
		switch c := in[i]; {
		case c == '\\':
			i++
		case c == closing:
			if depth--; depth == 0 {
				return in[i+1:]
			}
		case c == '(' && closing == ')':
			depth++
		}
	}
	return nil
}

// receivedFor finds what the for clause of a Received field names (RFC 5321
// section 4.4), or nothing. Exim and Courier write it without angle brackets.
// A clause with several addresses gives nothing: the message went to several
// mailboxes then.
func receivedFor(in []byte) []byte {
	var word, before []byte
	for len(in) > 0 && in[0] != ';' {
		switch in[0] {
		case ' ', '\t', '\r', '\n', '(', '"', '<', '>':
			in = skipToken(in)
			continue
		}
		before = word
		word, in = cutWord(in)
		// A host may be called for: from for (for.example.com [192.0.2.1]).
		if !bytes.EqualFold(word, []byte("for")) || bytes.EqualFold(before, []byte("from")) || bytes.EqualFold(before, []byte("by")) {
			continue
		}
		in = skipSpace(in)
		if len(in) > 0 && in[0] == '<' {
			end := bytes.IndexByte(in, '>')
			if end < 0 {
				return nil
			}
			word, in = in[:end+1], in[end+1:]
		} else {
			word, in = cutWord(in)
		}
		if in = skipSpace(in); len(in) > 0 && (in[0] == '<' || in[0] == ',') {
			return nil
		}
		if next, _ := cutWord(in); bytes.IndexByte(next, '@') >= 0 {
			return nil
		}
		return word
	}
	return nil
}

// cutWord cuts before white space, a comment, an angle bracket or a semicolon.
func cutWord(in []byte) (word, rest []byte) {
	if i := bytes.IndexAny(in, " \t\r\n(<;"); i >= 0 {
		return in[:i], in[i:]
	}
	return in, nil
}

// skipSpace passes white space and comments.
func skipSpace(in []byte) []byte {
	for len(in) > 0 && bytes.IndexByte([]byte(" \t\r\n("), in[0]) >= 0 {
		in = skipToken(in)
	}
	return in
}

package imapwire

import (
	"bufio"
	"errors"
	"io"
	"math"
	"strconv"
)

// maxLine bounds what one response may hold besides streamed bodies, in octets.
const maxLine = 1 << 20

// errTooLong ends the connection: there is no telling where such a response ends.
var errTooLong = errors.New("a response of the server is longer than 1 MiB")

// parser reads the tokens of one response after the other. It takes whatever a
// server sends: what it does not understand it skips, literals included, and
// its only errors are those of the connection and errTooLong.
type parser struct {
	br   *bufio.Reader
	left int    // octets that this response may still have
	done bool   // the response's last line end was read
	buf  []byte // the token last read; valid until the next one
}

func (p *parser) begin() {
	p.left, p.done = maxLine, false
}

// peek returns the next octet without taking it.
func (p *parser) peek() (byte, error) {
	b, err := p.br.Peek(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// take takes the octet that was peeked at.
func (p *parser) take() error {
	if p.left--; p.left < 0 {
		return errTooLong
	}
	_, err := p.br.Discard(1)
	return err
}

func isEnd(b byte) bool { return b == '\r' || b == '\n' }

// next skips spaces and peeks.
func (p *parser) next() (byte, error) {
	for {
		b, err := p.peek()
		if err != nil || b != ' ' {
			return b, err
		}
		if err := p.take(); err != nil {
			return 0, err
		}
	}
}

// readWhile appends to the token what is acceptable to ok.
func (p *parser) readWhile(ok func(byte) bool) error {
	for {
		if _, err := p.peek(); err != nil {
			return err
		}
		ahead, _ := p.br.Peek(p.br.Buffered()) // cannot fail: they are there
		n := 0
		for n < len(ahead) && ok(ahead[n]) {
			n++
		}
		if p.left -= n; p.left < 0 {
			return errTooLong
		}
		p.buf = append(p.buf, ahead[:n]...)
		_, _ = p.br.Discard(n)
		if n < len(ahead) {
			return nil
		}
	}
}

func isAtom(b byte) bool { return b != ' ' && b != '(' && b != ')' && !isEnd(b) }

// atom reads up to a space, a parenthesis or the line's end; it may be empty.
func (p *parser) atom() ([]byte, error) {
	p.buf = p.buf[:0]
	err := p.readWhile(isAtom)
	return p.buf, err
}

// item reads the name of a FETCH item in upper case, with its section: BODY[],
// BODY[HEADER.FIELDS (FROM)]<0>.
func (p *parser) item() ([]byte, error) {
	p.buf = p.buf[:0]
	inside := false
	err := p.readWhile(func(b byte) bool {
		switch {
		case isEnd(b):
			return false
		case b == '[':
			inside = true
		case b == ']':
			inside = false
		}
		return inside || isAtom(b) && b != '{' && b != '"'
	})
	upper(p.buf)
	return p.buf, err
}

func upper(b []byte) {
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
}

// quoted reads a quoted string whose opening quote is next. One that does not
// end before its line does ends there.
func (p *parser) quoted() ([]byte, error) {
	p.buf = p.buf[:0]
	if err := p.take(); err != nil {
		return nil, err
	}
	for {
		if err := p.readWhile(func(b byte) bool { return b != '"' && b != '\\' && !isEnd(b) }); err != nil {
			return nil, err
		}
		b, err := p.peek()
		if err != nil || isEnd(b) {
			return p.buf, err
		}
		if err := p.take(); err != nil || b == '"' {
			return p.buf, err
		}
		if b, err = p.peek(); err != nil || isEnd(b) {
			return p.buf, err
		}
		if err := p.take(); err != nil {
			return nil, err
		}
		p.buf = append(p.buf, b)
	}
}

// literal takes the announcement of a literal, {n}, {n+} or ~{n}, with its line
// end. Where the text only looks like one, ok is false and the text that was
// taken is the beginning of an atom, in p.buf.
func (p *parser) literal() (size int64, ok bool, err error) {
	p.buf = p.buf[:0]
	var digits int
	state := byte('~')
	err = p.readWhile(func(b byte) bool {
		switch {
		case state == '~' && b == '~' && len(p.buf) == 0:
		case state == '~' && b == '{':
			state = '0'
		case state == '0' && '0' <= b && b <= '9' && size <= (math.MaxInt64-9)/10:
			size = size*10 + int64(b-'0')
			digits++
		case state == '0' && digits > 0 && b == '+':
			state = '+'
		case (state == '0' && digits > 0 || state == '+') && b == '}':
			state = '}'
		default:
			return false
		}
		return true
	})
	if err != nil || state != '}' {
		return 0, false, err
	}
	b, err := p.peek()
	if err != nil || !isEnd(b) {
		return 0, false, err
	}
	if b == '\r' { // a line feed follows, or this is no line's end at all
		two, err := p.br.Peek(2)
		if err != nil || two[1] != '\n' {
			return 0, false, err
		}
		if err := p.take(); err != nil {
			return 0, false, err
		}
	}
	return size, true, p.take()
}

// valueKind is the form in which a string came.
type valueKind int

const (
	absent valueKind = iota // nothing before the list's or the line's end
	word                    // an atom, NIL among them
	text                    // a quoted string or a literal
)

// value reads one string in whatever form it comes, into memory. A list in its
// place is skipped, and absent.
func (p *parser) value() ([]byte, valueKind, error) {
	b, err := p.next()
	switch {
	case err != nil:
		return nil, absent, err
	case isEnd(b) || b == ')':
		return nil, absent, nil
	case b == '(':
		return nil, absent, p.skipValue()
	case b == '"':
		s, err := p.quoted()
		return s, text, err
	case b != '{' && b != '~':
		s, err := p.atom()
		return s, word, err
	}
	size, ok, err := p.literal()
	if err != nil {
		return nil, absent, err
	}
	if !ok {
		err := p.readWhile(isAtom)
		return p.buf, word, err
	}
	if size > int64(p.left) {
		return nil, absent, errTooLong
	}
	p.left -= int(size)
	if int64(cap(p.buf)) < size {
		p.buf = make([]byte, size)
	}
	p.buf = p.buf[:size]
	_, err = io.ReadFull(p.br, p.buf)
	return p.buf, text, err
}

// number reads an unsigned number of at most bits bits; anything else is ok false.
func (p *parser) number(bits int) (n uint64, ok bool, err error) {
	b, kind, err := p.value()
	if err != nil || kind == absent {
		return 0, false, err
	}
	n, perr := strconv.ParseUint(string(b), 10, bits)
	return n, perr == nil, nil
}

// list reads a flat list of strings; what is nested in it is skipped.
func (p *parser) list(each func([]byte)) error {
	b, err := p.next()
	if err != nil {
		return err
	}
	if b != '(' {
		return p.skipValue()
	}
	if err := p.take(); err != nil {
		return err
	}
	for {
		b, err := p.next()
		switch {
		case err != nil || isEnd(b):
			return err
		case b == ')':
			return p.take()
		}
		v, kind, err := p.value()
		if err != nil {
			return err
		}
		if kind != absent {
			each(v)
		}
	}
}

// skipValue skips one value of any kind, holding none of it.
func (p *parser) skipValue() error {
	for depth := 0; ; {
		b, err := p.next()
		switch {
		case err != nil || isEnd(b) || b == ')' && depth == 0:
			return err
		case b == '(':
			depth++
			err = p.take()
		case b == ')':
			depth--
			err = p.take()
		case b == '"':
			_, err = p.quoted()
		case b == '{' || b == '~':
			var size int64
			var ok bool
			if size, ok, err = p.literal(); err == nil && ok {
				err = p.discard(size)
			} else if err == nil {
				err = p.readWhile(isAtom)
			}
		default:
			_, err = p.atom()
		}
		if err != nil || depth == 0 {
			return err
		}
	}
}

// discard drops the octets of a literal.
func (p *parser) discard(n int64) error {
	for n > 0 {
		step := min(n, 1<<30)
		if _, err := p.br.Discard(int(step)); err != nil {
			return err
		}
		n -= step
	}
	return nil
}

// line reads the rest of a response that has no literals, without its line end.
func (p *parser) line() ([]byte, error) {
	p.buf = p.buf[:0]
	for {
		part, err := p.br.ReadSlice('\n')
		if p.left -= len(part); p.left < 0 {
			return nil, errTooLong
		}
		p.buf = append(p.buf, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return nil, err
		}
		break
	}
	p.done = true
	end := len(p.buf) - 1
	if end > 0 && p.buf[end-1] == '\r' {
		end--
	}
	return p.buf[:end], nil
}

// finish skips what is left of the response, with the literals in it.
func (p *parser) finish() error {
	for !p.done {
		line, err := p.line()
		if err != nil {
			return err
		}
		if size, ok := trailingLiteral(line); ok {
			p.done = false
			if err := p.discard(size); err != nil {
				return err
			}
		}
	}
	return nil
}

// trailingLiteral finds the announcement of a literal at the end of a line.
func trailingLiteral(line []byte) (int64, bool) {
	end := len(line) - 1
	if end < 2 || line[end] != '}' {
		return 0, false
	}
	if line[end-1] == '+' {
		end--
	}
	start := end
	for start > 0 && '0' <= line[start-1] && line[start-1] <= '9' {
		start--
	}
	if start == 0 || start == end || line[start-1] != '{' {
		return 0, false
	}
	n, err := strconv.ParseInt(string(line[start:end]), 10, 64)
	return n, err == nil
}

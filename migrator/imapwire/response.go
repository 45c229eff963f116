package imapwire

import (
	"bytes"
	"strconv"
	"strings"
)

// The kinds of a response.
const (
	untagged     = '*'
	continuation = '+'
	tagged       = 't'
	garbage      = 0 // none of these; skipped
)

// response is the beginning of one response. For a status response it is the
// whole of it; of others the parser stands behind the name.
type response struct {
	kind byte
	tag  string
	num  uint32 // of "* 12 FETCH"
	name string // upper case: FETCH, LIST, OK
	status
}

// status is a status response (RFC 9051 7.1).
type status struct {
	typ  string // OK, NO, BAD, BYE, PREAUTH; empty if the response is none of them
	code string // upper case
	arg  string // what the code has after its name
	text string
}

// maxText bounds what is kept of a server's text, in octets.
const maxText = 1024

// response reads the beginning of the next response.
func (p *parser) response() (response, error) {
	p.begin()
	for { // empty lines between responses are harmless
		b, err := p.next()
		if err != nil {
			return response{}, err
		}
		if !isEnd(b) {
			break
		}
		if err := p.take(); err != nil {
			return response{}, err
		}
	}
	first, err := p.atom()
	if err != nil {
		return response{}, err
	}
	var r response
	switch string(first) {
	case "*":
		r.kind = untagged
	case "+":
		return response{kind: continuation}, nil
	default:
		r.kind, r.tag = tagged, string(first)
	}
	if err := p.name(&r); err != nil {
		return response{}, err
	}
	switch r.name {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
		r.typ = r.name
		line, err := p.line()
		if err != nil {
			return response{}, err
		}
		r.parse(bytes.TrimLeft(line, " "))
	}
	if r.kind == tagged && r.typ != "OK" && r.typ != "NO" && r.typ != "BAD" {
		r.kind = garbage
	}
	return r, nil
}

// name reads the response's name and the number before it.
func (p *parser) name(r *response) error {
	for {
		if _, err := p.next(); err != nil {
			return err
		}
		word, err := p.atom()
		if err != nil {
			return err
		}
		if n, perr := strconv.ParseUint(string(word), 10, 32); perr == nil && r.num == 0 && n > 0 {
			r.num = uint32(n)
			continue
		}
		upper(word)
		switch string(word) { // without an allocation for what comes in thousands
		case "FETCH":
			r.name = "FETCH"
		case "LIST":
			r.name = "LIST"
		default:
			r.name = string(word)
		}
		return nil
	}
}

// parse reads what follows the type of a status response.
func (s *status) parse(line []byte) {
	if len(line) > 0 && line[0] == '[' {
		if end := codeEnd(line); end > 0 {
			code, arg, _ := strings.Cut(string(line[1:end]), " ")
			s.code, s.arg = strings.ToUpper(code), arg
			line = bytes.TrimLeft(line[end+1:], " ")
		}
	}
	s.text = strings.ToValidUTF8(string(line[:min(len(line), maxText)]), "?")
}

// codeEnd finds the bracket that closes a response code. Flags may hold
// brackets too, within the parentheses of PERMANENTFLAGS.
func codeEnd(line []byte) int {
	depth, inQuotes := 0, false
	for i := 1; i < len(line); i++ {
		switch b := line[i]; {
		case inQuotes && b == '\\':
			i++
		case b == '"':
			inQuotes = !inQuotes
		case inQuotes:
		case b == '(':
			depth++
		case b == ')':
			depth--
		case b == ']' && depth <= 0:
			return i
		}
	}
	return bytes.LastIndexByte(line, ']')
}

// number is the code's argument as a number; 0 where it is none.
func (s *status) number() uint32 {
	n, err := strconv.ParseUint(strings.TrimSpace(s.arg), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// words is the code's argument as a list of atoms.
func (s *status) words() []string {
	arg := strings.TrimSpace(s.arg)
	return strings.Fields(strings.TrimSuffix(strings.TrimPrefix(arg, "("), ")"))
}

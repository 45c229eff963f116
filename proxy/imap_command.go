package proxy

import (
	"bytes"
	"strconv"
	"strings"

	"migproxy/upstream"
)

// imapCommand is one command of a client before login.
type imapCommand struct {
	tag  string
	name string // upper case
	// rest is what follows the name, with literals in place: {n} CRLF octets.
	rest []byte
}

// imapFault is a bad command that is answered and survived.
type imapFault struct{ answer string }

var (
	faultSyntax  = &imapFault{"BAD Syntax error in the command."}
	faultLiteral = &imapFault{"BAD No literal is taken here."}
	faultTooBig  = &imapFault{"NO [TOOBIG] Literals before login are limited to 4096 octets."} // RFC 7889
	faultPrivacy = &imapFault{imapAnswer(upstream.TLSRequired)}
)

// readIMAPCommand reads one command with its literals. The octets of
// non-synchronising literals (RFC 7888) are consumed even after a fault, so
// that a password never becomes a command.
func readIMAPCommand(c *Conn) (imapCommand, *imapFault, error) {
	line, err := c.readLine()
	if err != nil {
		return imapCommand{}, nil, err
	}
	cmd, fault := splitIMAPCommand(line)
	total := len(line)
	for {
		lit := cmd.pendingLiteral(line)
		if lit == nil {
			return cmd, fault, nil
		}
		if lit.sync {
			if fault == nil {
				fault = c.literalFault(cmd, lit)
			}
			if fault != nil {
				return cmd, fault, nil
			}
			if err := c.write("+ Ready for the literal.\r\n"); err != nil {
				return cmd, nil, err
			}
		}
		total += lit.size
		if lit.size > maxLiteral || total > 2*maxLine {
			return cmd, nil, errLiteralTooLong
		}
		octets, err := c.readExact(lit.size)
		if err != nil {
			return cmd, nil, err
		}
		if line, err = c.readLine(); err != nil {
			return cmd, nil, err
		}
		total += len(line)
		cmd.rest = append(append(append(cmd.rest, '\r', '\n'), octets...), line...)
	}
}

// literalFault says why a synchronising literal is not invited, or nil. A
// password is not invited where it must not be sent.
func (c *Conn) literalFault(cmd imapCommand, lit *imapLiteral) *imapFault {
	switch {
	case cmd.name != "LOGIN":
		return faultLiteral
	case !c.mayLogin():
		return faultPrivacy
	case lit.size > maxLiteral:
		return faultTooBig
	}
	return nil
}

// splitIMAPCommand splits off tag and name (RFC 9051 section 2.2.1).
func splitIMAPCommand(line []byte) (imapCommand, *imapFault) {
	tag, after, _ := bytes.Cut(line, []byte{' '})
	name, rest, _ := bytes.Cut(after, []byte{' '})
	cmd := imapCommand{name: strings.ToUpper(string(name)), rest: bytes.Clone(rest)}
	if !validTag(tag) {
		return cmd, faultSyntax
	}
	cmd.tag = string(tag)
	if len(name) == 0 {
		return cmd, faultSyntax
	}
	return cmd, nil
}

// validTag reports whether b is a tag: 1*<any ASTRING-CHAR except "+">.
func validTag(b []byte) bool {
	for _, x := range b {
		if x <= ' ' || x >= 0x7f || strings.IndexByte(`(){%*"\+`, x) >= 0 {
			return false
		}
	}
	return len(b) > 0
}

// imapLiteral is a literal that is announced at the end of a line.
type imapLiteral struct {
	size int
	sync bool // the client waits for our go-ahead
}

// pendingLiteral says which literal the client sends next, or nil; line is the
// last line of the command. A LOGIN is parsed to know, since an atom may end in
// what looks like a literal; everywhere else the end of the line decides.
func (cmd imapCommand) pendingLiteral(line []byte) *imapLiteral {
	if cmd.name == "LOGIN" {
		if _, pending, ok := parseAStrings(cmd.rest); ok {
			return pending
		}
	}
	i := bytes.LastIndexByte(line, '{')
	if i < 0 {
		return nil
	}
	return parseLiteral(line[i:])
}

// parseLiteral parses exactly {n} or {n+}; anything else is nil. A size beyond
// 32 bits is given as a gigabyte, which every limit refuses.
func parseLiteral(b []byte) *imapLiteral {
	if len(b) < 3 || b[0] != '{' || b[len(b)-1] != '}' {
		return nil
	}
	digits, plus := bytes.CutSuffix(b[1:len(b)-1], []byte{'+'})
	for _, d := range digits {
		if d < '0' || d > '9' {
			return nil
		}
	}
	if len(digits) == 0 {
		return nil
	}
	n, err := strconv.ParseInt(string(digits), 10, 32)
	if err != nil {
		n = 1 << 30
	}
	return &imapLiteral{size: int(n), sync: !plus}
}

// parseAStrings parses arguments separated by single spaces: quoted strings,
// literals and atoms (RFC 9051 section 9). Atoms may hold any octet but space
// and controls: clients that do not quote mean the octets they sent. pending is
// the literal whose octets are still to come.
func parseAStrings(b []byte) (args []string, pending *imapLiteral, ok bool) {
	for {
		var arg []byte
		switch {
		case len(b) == 0 || b[0] == ' ' || b[0] == '(':
			return nil, nil, false
		case b[0] == '"':
			if arg, b, ok = parseQuoted(b[1:]); !ok {
				return nil, nil, false
			}
		case b[0] == '{':
			head, after, found := bytes.Cut(b, []byte("\r\n"))
			lit := parseLiteral(head)
			if lit == nil {
				return nil, nil, false
			}
			if !found {
				return args, lit, true
			}
			if lit.size > len(after) {
				return nil, nil, false
			}
			arg, b = after[:lit.size], after[lit.size:]
		default:
			n := bytes.IndexFunc(b, func(r rune) bool { return r <= ' ' || r == 0x7f })
			if n < 0 {
				n = len(b)
			}
			arg, b = b[:n], b[n:]
		}
		args = append(args, string(arg))
		if len(b) == 0 {
			return args, nil, true
		}
		if b[0] != ' ' {
			return nil, nil, false
		}
		b = b[1:]
	}
}

// parseQuoted parses a quoted string from behind its first quote. Only \" and
// \\ are escapes: with anything else it would be a guess which octets the
// client meant.
func parseQuoted(b []byte) (arg, rest []byte, ok bool) {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			return arg, b[i+1:], true
		case '\\':
			if i++; i == len(b) || b[i] != '"' && b[i] != '\\' {
				return nil, nil, false
			}
		case '\r', '\n':
			return nil, nil, false
		}
		arg = append(arg, b[i])
	}
	return nil, nil, false
}

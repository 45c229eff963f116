package aliasresolve

import (
	"bytes"
	"io"
	"slices"
)

// Bounds on what is read of one message, in octets.
const (
	// maxHeader is where a header without an end is given up. Nothing of it
	// counts then: what would take evidence back may stand further below.
	maxHeader = 256 << 10
	// maxField is the longest field that is looked at, folded as it came.
	maxField = 8 << 10
	// maxInterned is how many addresses are kept so that seeing one again
	// costs no memory.
	maxInterned = 1024
)

// field is what a header field is read as.
type field int

const (
	fieldNone field = iota
	fieldDeliveredTo
	fieldOriginalTo
	fieldEnvelopeTo
	fieldXEnvelopeTo
	fieldReceived
	fieldFrom
	fieldTo
	fieldCc
	fieldSender
	fieldListPost
	fieldListID
	fieldBeenThere
	fieldMailingList
	fieldForwardedFor
	fieldResent
)

var fields = map[string]field{
	"delivered-to":            fieldDeliveredTo,
	"x-original-to":           fieldOriginalTo,
	"envelope-to":             fieldEnvelopeTo,
	"x-envelope-to":           fieldXEnvelopeTo,
	"received":                fieldReceived,
	"from":                    fieldFrom,
	"to":                      fieldTo,
	"cc":                      fieldCc,
	"sender":                  fieldSender,
	"list-post":               fieldListPost,     // RFC 2369
	"list-id":                 fieldListID,       // RFC 2919
	"x-beenthere":             fieldBeenThere,    // Mailman, Google Groups
	"mailing-list":            fieldMailingList,  // ezmlm, Google Groups
	"x-forwarded-for":         fieldForwardedFor, // Gmail; elsewhere an HTTP client's address
	"x-sieve-redirected-from": fieldResent,       // Pigeonhole
	"resent-from":             fieldResent,       // RFC 5322 section 3.6.6
	"resent-sender":           fieldResent,
	"resent-to":               fieldResent,
	"resent-date":             fieldResent,
	"resent-message-id":       fieldResent,
}

// maxName is the length of the longest name in fields, with room for the white
// space that may stand before the colon (RFC 5322 section 4.5).
const maxName = 32

// Scanner reads the addresses out of the headers of messages that are written
// to it, one message after the other. Its memory is bounded, it looks at no
// octet after the header, and it never fails: a header that it cannot read says
// nothing. It is not safe for concurrent use.
type Scanner struct {
	domains Domains
	message message
	octets  int    // of the header so far
	done    bool   // the header has ended
	inLine  bool   // the present line has begun
	cr      bool   // it has, with a CR alone
	skip    bool   // the present field is not looked at
	kind    field  // what it is, once its colon has come
	field   []byte // its name, then its value up to now
	length  int    // its octets up to now, with the name
	parser  addressParser
	normal  []byte
	known   map[string]string
}

var _ io.Writer = (*Scanner)(nil)

// NewScanner makes a scanner for mailboxes of a domain with these own domains.
// From, To, Cc and lists are noted in the own domains only.
func NewScanner(domains Domains) *Scanner {
	return &Scanner{domains: domains, skip: true, known: map[string]string{}}
}

// Write takes the next octets of the present message, and never fails.
func (s *Scanner) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && !s.done {
		line := p
		end := bytes.IndexByte(p, '\n')
		if end >= 0 {
			line = p[:end+1]
		}
		p = p[len(line):]
		if s.octets += len(line); s.octets > maxHeader {
			s.message.lost, s.done = true, true
			break
		}
		s.line(line, end >= 0)
	}
	return n, nil
}

// line takes a line, or the next part of one.
func (s *Scanner) line(part []byte, ended bool) {
	if !s.inLine {
		hadCR := s.cr
		switch {
		case part[0] == '\n', !hadCR && string(part) == "\r\n":
			s.finishField()
			s.done = true
			return
		case !hadCR && string(part) == "\r": // of an empty line, perhaps
			s.cr = true
			return
		case hadCR, part[0] == '\r': // no field begins with a CR
			s.finishField()
		case part[0] != ' ' && part[0] != '\t':
			s.finishField()
			s.skip = false
		}
		s.cr = false
	}
	s.inLine = !ended
	if s.skip {
		return
	}
	if s.length += len(part); s.length > maxField {
		s.skipField()
		return
	}
	s.field = append(s.field, part...)
	if s.kind == fieldNone {
		s.name()
	}
}

// skipField looks no further at the present field.
func (s *Scanner) skipField() {
	s.skip, s.kind, s.length, s.field = true, fieldNone, 0, s.field[:0]
}

// name finds out what the present field is, once its name is there.
func (s *Scanner) name() {
	colon := bytes.IndexByte(s.field[:min(len(s.field), maxName)], ':')
	if colon < 0 {
		if len(s.field) >= maxName || bytes.IndexByte(s.field, '\n') >= 0 {
			s.skipField()
		}
		return
	}
	var lower [maxName]byte
	name, _ := appendLower(lower[:0], bytes.TrimRight(s.field[:colon], " \t"))
	if s.kind = fields[string(name)]; s.kind == fieldNone {
		s.skipField()
		return
	}
	s.field = append(s.field[:0], s.field[colon+1:]...)
}

// Evidence ends the present message, says which addresses it showed, and makes
// the scanner ready for the next one. sent says that the message lies in a
// folder for what its user has sent. The result is valid until the next Write.
func (s *Scanner) Evidence(sent bool) []Sighting {
	if !s.done {
		s.finishField()
	}
	seen := s.message.evidence(sent)
	s.message.reset()
	s.octets, s.done, s.inLine, s.cr = 0, false, false, false
	s.skipField()
	return seen
}

// finishField takes what the present field says into the message.
func (s *Scanner) finishField() {
	kind, value := s.kind, s.field
	s.skipField()
	m := &s.message
	switch kind {
	case fieldNone:
	case fieldDeliveredTo:
		s.delivered(DeliveredTo, value)
	case fieldOriginalTo:
		s.delivered(XOriginalTo, value)
	case fieldEnvelopeTo:
		s.delivered(EnvelopeTo, value)
	case fieldXEnvelopeTo:
		s.delivered(XEnvelopeTo, value)
	case fieldReceived:
		s.delivered(Received, receivedFor(value))
	case fieldFrom:
		m.from = s.own(m.from, value)
		m.authors += s.parser.mailboxes
	case fieldTo:
		m.to = s.own(m.to, value)
	case fieldCc:
		m.cc = s.own(m.cc, value)
	case fieldForwardedFor:
		if bytes.IndexByte(value, '@') >= 0 {
			s.station(resent, "")
		}
	case fieldResent:
		s.station(resent, "")
	default:
		s.list(kind, value)
	}
}

// delivered notes a trace header, unless it names several addresses.
func (s *Scanner) delivered(h Headers, value []byte) {
	value = bytes.TrimLeft(value, " \t\r\n")
	const ezmlm = "mailing list "
	if h == DeliveredTo && len(value) > len(ezmlm) && bytes.EqualFold(value[:len(ezmlm)], []byte(ezmlm)) {
		s.list(fieldBeenThere, value[len(ezmlm):])
		value = value[len(ezmlm):]
	}
	s.parse(value)
	local, domain, ok := s.parser.next()
	if !ok {
		return
	}
	if h == DeliveredTo {
		local = withoutPrepend(local, domain)
	}
	address := s.normalise(local, domain)
	if _, _, more := s.parser.next(); !more && s.parser.single() && address != "" {
		s.station(h, address)
	}
}

// withoutPrepend takes away what qmail puts before the local part of an address
// in a virtual domain (qmail-send(8), virtualdomains), where it is the domain,
// as vpopmail has it: example.com-anna@example.com.
func withoutPrepend(local, domain []byte) []byte {
	if n := len(domain); n > 0 && len(local) > n+1 && local[n] == '-' && bytes.EqualFold(local[:n], domain) {
		return local[n+1:]
	}
	return local
}

func (s *Scanner) station(h Headers, address string) {
	if m := &s.message; len(m.route) < maxRoute {
		m.route = append(m.route, station{h, address})
	}
}

// own appends the addresses of a list that are in the own domains.
func (s *Scanner) own(dst []string, value []byte) []string {
	s.parse(value)
	for {
		local, domain, ok := s.parser.next()
		if !ok {
			return dst
		}
		a := s.normalise(local, domain)
		if a != "" && s.domains.Own(a) && len(dst) < maxNamed && !slices.Contains(dst, a) {
			dst = append(dst, a)
		}
	}
}

// parse begins to read an address list.
func (s *Scanner) parse(value []byte) {
	s.parser = addressParser{in: value, buf: s.parser.buf[:0]}
}

// normalise gives an address's normal form, or nothing. An address that was
// seen before costs no memory.
func (s *Scanner) normalise(local, domain []byte) string {
	var ok bool
	if s.normal, ok = appendNormal(s.normal[:0], local, domain); !ok {
		return ""
	}
	if a, ok := s.known[string(s.normal)]; ok {
		return a
	}
	if len(s.known) >= maxInterned {
		clear(s.known)
	}
	a := string(s.normal)
	s.known[a] = a
	return a
}

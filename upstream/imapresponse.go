package upstream

import (
	"errors"
	"strconv"
	"strings"
)

// imapResponse is one response of an IMAP server, as far as a login needs it.
type imapResponse struct {
	Tag  string // "*", "+", or the tag of a command
	Name string // upper case: OK, NO, BAD, BYE, PREAUTH, CAPABILITY, ...; empty for "+"
	// HasCode is set when the text begins with "[", even if what follows is no
	// proper code: then Code is empty.
	HasCode bool
	Code    string // upper case, without its arguments
	Args    string // the code's arguments
	Text    string // all that follows the name, the code included
}

// isStatus reports whether the response is one of RFC 9051 7.1. Their text is
// for people: a {5} at its end announces no literal.
func (r imapResponse) isStatus() bool {
	switch r.Name {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
		return true
	}
	return false
}

// parseIMAP reads one line of a server (RFC 9051 section 7), leniently.
func parseIMAP(line string) (imapResponse, error) {
	tag, rest, _ := strings.Cut(line, " ")
	if tag == "+" {
		return imapResponse{Tag: "+", Text: rest}, nil
	}
	name, text, _ := strings.Cut(rest, " ")
	if tag == "" || name == "" {
		return imapResponse{}, errors.New("this is not IMAP")
	}
	r := imapResponse{Tag: tag, Name: strings.ToUpper(name), Text: text}
	if !r.isStatus() || !strings.HasPrefix(text, "[") {
		return r, nil
	}
	r.HasCode = true
	inner, _, closed := strings.Cut(text[1:], "]")
	if !closed {
		return r, nil
	}
	code, args, _ := strings.Cut(inner, " ")
	r.Code, r.Args = strings.ToUpper(code), args
	return r, nil
}

// capabilityList returns the capabilities that a response carries, in upper
// case, from a CAPABILITY response or a CAPABILITY code; nil for none.
func (r imapResponse) capabilityList() []string {
	switch {
	case r.Name == "CAPABILITY" && r.Tag == "*":
		return strings.Fields(strings.ToUpper(r.Text))
	case r.Code == "CAPABILITY":
		return strings.Fields(strings.ToUpper(r.Args))
	}
	return nil
}

// literalSize returns the size of a literal that the line announces at its
// end (RFC 9051 4.3).
func literalSize(line string) (int, bool) {
	open := strings.LastIndexByte(line, '{')
	if open < 0 || !strings.HasSuffix(line, "}") {
		return 0, false
	}
	digits := strings.TrimSuffix(line[open+1:len(line)-1], "+")
	n, err := strconv.ParseUint(digits, 10, 31)
	return int(n), err == nil
}

// imapOutcome is what a tagged NO or BAD to the credentials means (RFC 5530).
func imapOutcome(r imapResponse) Outcome {
	if r.Name != "NO" {
		return Unavailable
	}
	if !r.HasCode {
		return Miss
	}
	switch r.Code {
	case "AUTHENTICATIONFAILED":
		return Miss
	case "AUTHORIZATIONFAILED", "EXPIRED", "CONTACTADMIN":
		return Refused
	}
	return Unavailable
}

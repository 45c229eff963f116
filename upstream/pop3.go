package upstream

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"migproxy/config"
)

// pop3 is the client's side of POP3 before and during login.
type pop3 struct {
	*link
	caps    []string // nil: not known
	welcome string
}

// pop3Reply is one line of a POP3 server (RFC 1939 section 3).
type pop3Reply struct {
	Status string // "+OK", "-ERR", or "+" for a continuation (RFC 5034)
	// HasCode is set when the text begins with "[" (RFC 2449 section 8), even if
	// what follows is no proper code: then Code is empty.
	HasCode bool
	Code    string // upper case
	Text    string // with the code
}

// parsePOP3 reads one line of a server.
func parsePOP3(line string) (pop3Reply, error) {
	status, text, _ := strings.Cut(line, " ")
	r := pop3Reply{Status: strings.ToUpper(status), Text: text}
	switch r.Status {
	case "+OK", "-ERR":
	case "+":
		return r, nil
	default:
		return pop3Reply{}, errors.New("this is not POP3")
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		r.HasCode = true
		if code, _, closed := strings.Cut(inner, "]"); closed {
			r.Code = strings.ToUpper(code)
		}
	}
	return r, nil
}

// temporarySigns are what servers without response codes write when the
// fault is not the password's: the maildrop is locked by another session, or
// something works only later.
var temporarySigns = []string{
	"lock", "busy", "in use", "in-use", "temporar", "later", "unavailable", "not available",
	"timeout", "timed out", "time out", "too many", "overload", "maintenance", "internal",
	"system error", "server error", "another session", "already",
}

// pop3Outcome is what an answer to PASS or AUTH other than +OK means.
func pop3Outcome(r pop3Reply) Outcome {
	if r.Status != "-ERR" {
		return Unavailable
	}
	if r.HasCode {
		if r.Code == "AUTH" {
			return Miss
		}
		return Unavailable
	}
	text := strings.ToLower(r.Text)
	for _, sign := range temporarySigns {
		if strings.Contains(text, sign) {
			return Unavailable
		}
	}
	return Miss
}

func (d *pop3) greet() error {
	r, err := d.reply()
	if err != nil {
		return err
	}
	if r.Status != "+OK" {
		return fmt.Errorf("the server turns connections away: %s", d.said(r))
	}
	d.welcome = r.Text
	return nil
}

func (d *pop3) greeting() string { return d.welcome }

func (d *pop3) reply() (pop3Reply, error) {
	line, err := d.line()
	if err != nil {
		return pop3Reply{}, err
	}
	r, err := parsePOP3(line)
	if err != nil {
		return r, fmt.Errorf("%w; see whether address and tls are right: %s", err, d.quote(line))
	}
	return r, nil
}

func (d *pop3) do(command string) (pop3Reply, error) {
	d.send(command + "\r\n")
	return d.reply()
}

// capabilities asks with CAPA (RFC 2449). A server that does not know the
// command has none.
func (d *pop3) capabilities() ([]string, error) {
	if d.caps != nil {
		return d.caps, nil
	}
	r, err := d.do("CAPA")
	if err != nil {
		return nil, err
	}
	d.caps = []string{}
	if r.Status != "+OK" {
		return d.caps, nil
	}
	for {
		line, err := d.line()
		if err != nil {
			return nil, err
		}
		if line == "." {
			return d.caps, nil
		}
		d.caps = append(d.caps, strings.ToUpper(line))
	}
}

func (d *pop3) startTLS() error {
	r, err := d.do("STLS")
	if err != nil {
		return err
	}
	if r.Status != "+OK" {
		return fmt.Errorf("the server offers STLS and then refuses it, so no password was sent: %s", d.said(r))
	}
	return nil
}

func (d *pop3) forget() { d.caps = nil }

// tellable: a Dovecot says [XCLIENT] in the greeting to those it trusts.
func (d *pop3) tellable() bool {
	return strings.Contains(strings.ToUpper(d.welcome), "[XCLIENT]")
}

// tell sends Dovecot's XCLIENT. The answer changes nothing.
func (d *pop3) tell(c Client) error {
	if !d.tellable() {
		return nil
	}
	command := "XCLIENT"
	if c.Remote.IsValid() {
		command += " ADDR=" + c.Remote.Addr().Unmap().WithZone("").String() + " PORT=" + strconv.Itoa(int(c.Remote.Port()))
	}
	if id := headerSafe(c.SessionID); id != "" {
		command += " SESSION=" + id
	}
	_, err := d.do(command + " TTL=" + c.ttl())
	return err
}

// unaltered sends UTF8 where CAPA lists it (RFC 6856 section 2.1): without it a
// Courier wraps messages with eight bits in their headers into others. The
// answer changes nothing: a server that refuses is one without it.
func (d *pop3) unaltered() error {
	for _, line := range d.caps {
		if words := strings.Fields(line); len(words) > 0 && words[0] == "UTF8" {
			_, err := d.do("UTF8")
			return err
		}
	}
	return nil
}

// authenticate uses SASL PLAIN where CAPA lists it, else USER and PASS.
func (d *pop3) authenticate(user, authzid string, password config.Secret) ([]string, error) {
	secret := password.Reveal()
	initial, err := saslPlain(user, authzid, secret)
	if err != nil {
		return nil, err
	}
	d.secrets = []string{secret, initial}
	var r pop3Reply
	switch {
	case d.offersPlain():
		r, err = d.plain(initial)
	case authzid != "":
		return nil, errAuthzid
	default:
		r, err = d.userPass(user, secret)
	}
	if err != nil {
		return nil, err
	}
	if r.Status != "+OK" {
		return nil, fail(pop3Outcome(r), "the server answered %s", d.said(r))
	}
	return nil, nil
}

func (d *pop3) offersPlain() bool {
	for _, line := range d.caps {
		if words := strings.Fields(line); len(words) > 0 && words[0] == "SASL" && slices.Contains(words, "PLAIN") {
			return true
		}
	}
	return false
}

// plain gives AUTH PLAIN (RFC 5034). CAPA cannot say whether a server takes an
// initial response, and a long one would not fit the line: the message always
// follows the server's invitation.
func (d *pop3) plain(initial string) (pop3Reply, error) {
	r, err := d.do("AUTH PLAIN")
	if err != nil {
		return r, err
	}
	if r.Status != "+" {
		return r, fmt.Errorf("the server refused AUTH PLAIN before it saw the password: %s", d.said(r))
	}
	return d.do(initial)
}

// userPass gives USER and PASS (RFC 1939 section 7). Only the answer to PASS
// is one about the credentials: USER is also refused for want of TLS.
func (d *pop3) userPass(user, secret string) (pop3Reply, error) {
	if strings.ContainsAny(user+secret, "\r\n") {
		return pop3Reply{}, fail(Miss, "USER and PASS cannot carry CR or LF, so these credentials cannot be right; the server was not asked")
	}
	r, err := d.do("USER " + user)
	if err != nil {
		return r, err
	}
	if r.Status != "+OK" {
		return r, fmt.Errorf("the server refused USER before it saw the password (does it want TLS?): %s", d.said(r))
	}
	return d.do("PASS " + secret)
}

func (d *pop3) goodbye() {
	d.send("QUIT\r\n")
	_ = d.flush()
}

// said is a reply for an error.
func (d *pop3) said(r pop3Reply) string { return r.Status + " " + d.quote(r.Text) }

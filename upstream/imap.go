package upstream

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"migproxy/config"
)

// literalMinusMax is the largest non-synchronising literal under LITERAL-
// (RFC 7888 section 5).
const literalMinusMax = 4096

// imap is the client's side of IMAP before and during login.
type imap struct {
	*link
	caps    []string // nil: not known
	welcome string
	tags    int
}

// greet reads the greeting (RFC 9051 7.1). While its authentication process
// starts, a Dovecot sends an OK that is not yet the greeting: only the next
// one says what the server can do.
func (d *imap) greet() error {
	for {
		r, err := d.response()
		if err != nil {
			return err
		}
		switch {
		case r.Tag != "*":
			return errors.New("the server does not greet as IMAP does; see whether address and tls are right")
		case r.Name == "OK" && !r.HasCode && strings.HasPrefix(r.Text, "Waiting for authentication "):
			continue
		case r.Name == "OK":
			d.caps, d.welcome = r.capabilityList(), r.Text
			if r.Code != "" {
				_, d.welcome, _ = strings.Cut(r.Text, "] ")
			}
			return nil
		case r.Name == "PREAUTH":
			return errors.New("the server greets with PREAUTH: whoever connects is somebody already, so no password can be tried; " +
				"let it ask for a login")
		case r.Name == "BYE":
			return fmt.Errorf("the server turns connections away: BYE %s", d.quote(r.Text))
		default:
			return fmt.Errorf("the server greets with %s", d.quote(r.Name))
		}
	}
}

func (d *imap) greeting() string { return d.welcome }

// response reads one response and its literals, which nothing in a login needs.
func (d *imap) response() (imapResponse, error) {
	line, err := d.line()
	if err != nil {
		return imapResponse{}, err
	}
	r, err := parseIMAP(line)
	if err != nil {
		return r, fmt.Errorf("%w: %s", err, d.quote(line))
	}
	if r.Tag == "+" || r.isStatus() {
		return r, nil
	}
	for {
		n, ok := literalSize(line)
		if !ok {
			return r, nil
		}
		if err := d.skip(n); err != nil {
			return r, err
		}
		if line, err = d.line(); err != nil {
			return r, err
		}
	}
}

// begin writes the start of a command.
func (d *imap) begin(command string) (tag string) {
	d.tags++
	tag = "m" + strconv.Itoa(d.tags)
	d.send(tag + " " + command)
	return tag
}

// answer reads up to the tagged response of a command, or to a continuation
// request. Capabilities that pass by are noted.
func (d *imap) answer(tag string) (imapResponse, error) {
	for {
		r, err := d.response()
		if err != nil {
			return r, err
		}
		if caps := r.capabilityList(); caps != nil {
			d.caps = caps
		}
		switch {
		case r.Tag == "+" || r.Tag == tag:
			return r, nil
		case r.Tag != "*":
			return r, fmt.Errorf("the server answers a command that was not given: %s", d.quote(r.Tag))
		case r.Name == "BYE":
			return r, fmt.Errorf("the server ended the session during login: BYE %s", d.quote(r.Text))
		}
	}
}

// do gives a command that takes no continuation.
func (d *imap) do(command string) (imapResponse, error) {
	return d.finish(d.begin(command))
}

// finish ends a command's line and reads its answer.
func (d *imap) finish(tag string) (imapResponse, error) {
	d.send("\r\n")
	r, err := d.answer(tag)
	if err == nil && r.Tag == "+" {
		err = errors.New("the server wants more of a command that was complete")
	}
	return r, err
}

func (d *imap) capabilities() ([]string, error) {
	if d.caps != nil {
		return d.caps, nil
	}
	r, err := d.do("CAPABILITY")
	if err != nil {
		return nil, err
	}
	if r.Name != "OK" || d.caps == nil {
		return nil, fmt.Errorf("the server does not tell its capabilities: %s", d.said(r))
	}
	return d.caps, nil
}

func (d *imap) has(capability string) bool { return slices.Contains(d.caps, capability) }

func (d *imap) startTLS() error {
	r, err := d.do("STARTTLS")
	if err != nil {
		return err
	}
	if r.Name != "OK" {
		return fmt.Errorf("the server offers STARTTLS and then refuses it, so no password was sent: %s", d.said(r))
	}
	return nil
}

func (d *imap) forget() { d.caps = nil }

func (d *imap) tellable() bool { return d.has("ID") }

// tell sends Dovecot's fields of the ID command (RFC 2971). A server that does
// not trust this proxy ignores them; its answer changes nothing.
func (d *imap) tell(c Client) error {
	if !d.tellable() {
		return nil
	}
	var fields []string
	add := func(name, value string) {
		if value != "" {
			fields = append(fields, `"`+name+`" "`+value+`"`)
		}
	}
	addPair := func(name string, a netip.AddrPort) {
		if a.IsValid() {
			add(name+"-ip", a.Addr().Unmap().WithZone("").String())
			add(name+"-port", strconv.Itoa(int(a.Port())))
		}
	}
	addPair("x-originating", c.Remote)
	addPair("x-connected", c.Local)
	add("x-session-id", headerSafe(c.SessionID))
	add("x-proxy-ttl", c.ttl())
	transport := "insecure"
	if c.TLS {
		transport = "TLS"
	}
	add("x-client-transport", transport)
	_, err := d.do("ID (" + strings.Join(fields, " ") + ")")
	return err
}

// unaltered has nothing to do: IMAP alters nothing.
func (d *imap) unaltered() error { return nil }

// authenticate uses SASL PLAIN where it is announced, else LOGIN.
func (d *imap) authenticate(user, authzid string, password config.Secret) ([]string, error) {
	secret := password.Reveal()
	initial, err := saslPlain(user, authzid, secret)
	if err != nil {
		return nil, err
	}
	d.secrets = []string{secret, initial}
	var r imapResponse
	switch {
	case d.has("AUTH=PLAIN"):
		r, err = d.plain(initial)
	case authzid != "":
		return nil, errAuthzid
	case d.has("LOGINDISABLED"):
		return nil, errors.New("the server takes no password on this connection (LOGINDISABLED): set tls to starttls or implicit")
	default:
		r, err = d.login(user, secret)
	}
	if err != nil {
		return nil, err
	}
	if r.Name != "OK" {
		if pause, ok := Throttling(r.Code, r.Text); ok {
			return nil, &Error{Outcome: Unavailable, Err: &Throttled{Pause: pause, Said: d.said(r)}}
		}
		return nil, fail(imapOutcome(r), "the server answered %s", d.said(r))
	}
	return d.capabilities()
}

// plain gives AUTHENTICATE PLAIN (RFC 9051 6.2.2), with the initial response
// where the server takes one (SASL-IR, RFC 4959).
func (d *imap) plain(initial string) (imapResponse, error) {
	if d.has("SASL-IR") {
		d.forget()
		return d.do("AUTHENTICATE PLAIN " + initial)
	}
	tag := d.begin("AUTHENTICATE PLAIN\r\n")
	if err := d.invited(tag); err != nil {
		return imapResponse{}, err
	}
	d.forget()
	d.send(initial)
	return d.finish(tag)
}

// login gives LOGIN (RFC 9051 6.2.3) with both arguments as literals, the only
// form that carries any byte of them but NUL.
func (d *imap) login(user, secret string) (imapResponse, error) {
	tag := d.begin("LOGIN ")
	if err := d.literal(tag, user); err != nil {
		return imapResponse{}, err
	}
	d.send(" ")
	if err := d.literal(tag, secret); err != nil {
		return imapResponse{}, err
	}
	d.forget()
	return d.finish(tag)
}

// literal writes a literal, which follows its size at once where the server
// takes that (RFC 7888) and otherwise when it asks for it.
func (d *imap) literal(tag, value string) error {
	if d.has("LITERAL+") || d.has("LITERAL-") && len(value) <= literalMinusMax {
		d.send("{" + strconv.Itoa(len(value)) + "+}\r\n" + value)
		return nil
	}
	d.send("{" + strconv.Itoa(len(value)) + "}\r\n")
	if err := d.invited(tag); err != nil {
		return err
	}
	d.send(value)
	return nil
}

// invited waits for the continuation request. Any other answer comes before
// the password was sent, so it is none about the credentials.
func (d *imap) invited(tag string) error {
	r, err := d.answer(tag)
	if err == nil && r.Tag != "+" {
		err = fmt.Errorf("the server refused the login command before it saw the password: %s", d.said(r))
	}
	return err
}

func (d *imap) goodbye() {
	d.send("m0 LOGOUT\r\n")
	_ = d.flush()
}

// said is a tagged response for an error.
func (d *imap) said(r imapResponse) string { return d.quote(r.Name + " " + r.Text) }

// errAuthzid says that a login in another's name has no way to be told.
var errAuthzid = errors.New("the server does not offer SASL PLAIN, without which no authorisation identity can be told")

// saslPlain is the message of SASL PLAIN (RFC 4616), in base64. It cannot carry
// NUL, nor an empty name or password: no server can have such credentials, and
// some take an empty password for an anonymous bind.
func saslPlain(user, authzid, password string) (string, error) {
	if user == "" || password == "" || strings.ContainsRune(authzid+user+password, 0) {
		return "", fail(Miss, "a name or password that is empty or contains NUL cannot be right; the server was not asked")
	}
	return base64.StdEncoding.EncodeToString([]byte(authzid + "\x00" + user + "\x00" + password)), nil
}

package proxy

import (
	"errors"
	"io"
	"strings"

	"migproxy/config"
	"migproxy/upstream"
)

// imapDialogue is IMAP before login (RFC 9051 section 6.1 and 6.2).
type imapDialogue struct {
	tag string // of the command whose credentials are being decided
	bad int
}

var _ Dialogue = (*imapDialogue)(nil)

// imapCapabilities lists what the proxy itself does before login. Nothing is in
// it whose lack in a server behind would break a client that keeps what it read
// here: LITERAL+ is understood and not announced, as Courier knows none.
func imapCapabilities(c *Conn) string {
	caps := "IMAP4rev1 SASL-IR ID"
	if c.offersTLS() {
		caps += " STARTTLS"
	}
	if !c.mayLogin() {
		return caps + " LOGINDISABLED"
	}
	return caps + " AUTH=PLAIN AUTH=LOGIN"
}

// imapAnswer renders an outcome (RFC 5530).
func imapAnswer(o upstream.Outcome) string {
	code := "UNAVAILABLE"
	switch o {
	case upstream.Miss, upstream.Refused:
		code = "AUTHENTICATIONFAILED"
	case upstream.Limited:
		code = "LIMIT"
	case upstream.Blocked:
		code = "CONTACTADMIN"
	case upstream.TLSRequired:
		code = "PRIVACYREQUIRED"
	}
	return "NO [" + code + "] " + o.ClientText()
}

func (d *imapDialogue) Greet(c *Conn) error {
	return c.write("* OK [CAPABILITY " + imapCapabilities(c) + "] " + c.hostname + " ready.\r\n")
}

func (d *imapDialogue) Next(c *Conn) (*Attempt, error) {
	for {
		cmd, fault, err := readIMAPCommand(c)
		if err != nil {
			return nil, d.end(c, err)
		}
		d.tag = cmd.tag
		a := (*Attempt)(nil)
		if fault == nil {
			a, fault, err = d.run(c, cmd)
		}
		if err != nil {
			return nil, d.end(c, err)
		}
		if fault != nil {
			if err := d.fail(c, fault); err != nil {
				return nil, err
			}
			continue
		}
		if a == nil {
			continue
		}
		if a.sendable() {
			return a, nil
		}
		if err := d.fail(c, &imapFault{imapAnswer(upstream.Miss)}); err != nil {
			return nil, err
		}
	}
}

// run answers one command, or takes the credentials out of it.
func (d *imapDialogue) run(c *Conn, cmd imapCommand) (*Attempt, *imapFault, error) {
	switch cmd.name {
	case "CAPABILITY":
		return nil, nil, d.ok(c, "* CAPABILITY "+imapCapabilities(c)+"\r\n", "Capabilities listed.")
	case "NOOP":
		return nil, nil, d.ok(c, "", "Nothing done.")
	case "ID": // RFC 2971; the client's own is not passed on
		return nil, nil, d.ok(c, "* ID (\"name\" \"migproxy\")\r\n", "ID completed.")
	case "LOGOUT":
		if err := d.ok(c, "* BYE Logging out.\r\n", "Logged out."); err != nil {
			return nil, nil, err
		}
		return nil, nil, io.EOF
	case "STARTTLS":
		if !c.offersTLS() {
			return nil, &imapFault{"BAD TLS is not available here."}, nil
		}
		if err := d.ok(c, "", "Begin TLS negotiation now."); err != nil {
			return nil, nil, err
		}
		return nil, nil, c.startTLS()
	case "LOGIN", "AUTHENTICATE":
		if !c.mayLogin() {
			return nil, faultPrivacy, nil
		}
		if cmd.name == "LOGIN" {
			return imapLogin(cmd)
		}
		return imapAuthenticate(c, cmd)
	}
	return nil, &imapFault{"BAD Unknown command, or not before login."}, nil
}

func imapLogin(cmd imapCommand) (*Attempt, *imapFault, error) {
	args, pending, ok := parseAStrings(cmd.rest)
	if !ok || pending != nil || len(args) != 2 {
		return nil, faultSyntax, nil
	}
	return &Attempt{Login: args[0], Password: config.NewSecret(args[1])}, nil, nil
}

func imapAuthenticate(c *Conn, cmd imapCommand) (*Attempt, *imapFault, error) {
	mechanism, initial, _ := strings.Cut(string(cmd.rest), " ")
	a, err := saslExchange(c, mechanism, initial)
	switch {
	case errors.Is(err, errCancelled):
		return nil, &imapFault{"BAD Authentication cancelled."}, nil // RFC 9051 section 6.2.2
	case errors.Is(err, errBadSASL):
		return nil, &imapFault{"BAD Invalid authentication response."}, nil
	case errors.Is(err, errMechanism):
		return nil, &imapFault{"NO Unsupported authentication mechanism."}, nil
	}
	return a, nil, err
}

// ok answers a command that was done.
func (d *imapDialogue) ok(c *Conn, untagged, text string) error {
	return c.write(untagged + d.tag + " OK " + text + "\r\n")
}

// fail answers a bad command, and ends the dialogue after too many.
func (d *imapDialogue) fail(c *Conn, f *imapFault) error {
	tag := d.tag
	if tag == "" {
		tag = "*" // the tag was not one
	}
	if err := c.write(tag + " " + f.answer + "\r\n"); err != nil {
		return err
	}
	if d.bad++; d.bad >= maxBadCommands {
		return d.end(c, errTooManyBad)
	}
	return nil
}

// end says BYE where the client broke a limit, and gives err back.
func (d *imapDialogue) end(c *Conn, err error) error {
	text := ""
	switch {
	case errors.Is(err, errLineTooLong):
		text = "Line too long."
	case errors.Is(err, errLiteralTooLong):
		text = "Literal too large."
	case errors.Is(err, errTooManyBad):
		text = "Too many bad commands."
	default:
		return err
	}
	if werr := c.write("* BYE " + text + "\r\n"); werr != nil {
		return werr
	}
	return err
}

func (d *imapDialogue) Accept(c *Conn, _ *Attempt, s *upstream.Session) error {
	caps := ""
	if len(s.Capabilities) > 0 {
		// Not every client compares without regard to case.
		list := strings.ReplaceAll(strings.Join(s.Capabilities, " "), "IMAP4REV", "IMAP4rev")
		caps = "[CAPABILITY " + list + "] "
	}
	return c.write(d.tag + " OK " + caps + "Logged in.\r\n")
}

func (d *imapDialogue) Reject(c *Conn, _ *Attempt, o upstream.Outcome) error {
	return c.write(d.tag + " " + imapAnswer(o) + "\r\n")
}

func (d *imapDialogue) Bye(c *Conn, r Reason) error {
	switch r {
	case TimedOut:
		return c.write("* BYE No login for too long.\r\n")
	case Crowded:
		return c.write("* BYE [LIMIT] Too many connections from your address.\r\n")
	}
	return c.write(byeDraining)
}

// byeDraining is sent before and after login.
const byeDraining = "* BYE [UNAVAILABLE] The server is shutting down; connect again in a moment.\r\n"

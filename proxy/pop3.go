package proxy

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"migproxy/config"
	"migproxy/upstream"
)

// pop3Dialogue is POP3 before login: the AUTHORIZATION state of RFC 1939, with
// CAPA (RFC 2449), STLS (RFC 2595) and AUTH (RFC 5034).
type pop3Dialogue struct {
	user string // from USER; empty where none was given
	bad  int
}

var _ Dialogue = (*pop3Dialogue)(nil)

// pop3Answer renders an outcome (RFC 2449, RFC 3206).
func pop3Answer(o upstream.Outcome) string {
	code := "SYS/TEMP"
	switch o {
	case upstream.Miss, upstream.Refused, upstream.TLSRequired:
		code = "AUTH"
	case upstream.Limited:
		code = "LOGIN-DELAY"
	case upstream.Held:
		code = "IN-USE"
	case upstream.Blocked:
		code = "SYS/PERM"
	}
	return "-ERR [" + code + "] " + o.ClientText()
}

// pop3Capabilities lists what the proxy does before login and every server
// after it. UTF8 is not in it: a client that was offered it sends it, and some
// give up at the server's -ERR.
func pop3Capabilities(c *Conn) string {
	caps := "UIDL\r\nTOP\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\n"
	if c.offersTLS() {
		caps += "STLS\r\n"
	}
	if c.mayLogin() {
		caps += "USER\r\nSASL PLAIN LOGIN\r\n"
	}
	return caps
}

// pop3Command is one command line: the keyword in upper case, and all that
// follows its space, trailing spaces included: a password may end in them.
type pop3Command struct {
	name string
	arg  string
	// hasArg is false where the line is the bare keyword.
	hasArg bool
}

func parsePOP3Command(line []byte) pop3Command {
	name, arg, found := bytes.Cut(line, []byte{' '})
	return pop3Command{name: strings.ToUpper(string(name)), arg: string(arg), hasArg: found}
}

func (d *pop3Dialogue) Greet(c *Conn) error {
	return c.write("+OK " + c.hostname + " ready.\r\n")
}

func (d *pop3Dialogue) Next(c *Conn) (*Attempt, error) {
	for {
		line, err := c.readLine()
		if err != nil {
			return nil, d.end(c, err)
		}
		a, fault, err := d.run(c, parsePOP3Command(line))
		if err != nil {
			return nil, d.end(c, err)
		}
		if a != nil && !a.sendable() {
			fault = pop3Answer(upstream.Miss)
		}
		if fault != "" {
			if err := d.fail(c, fault); err != nil {
				return nil, err
			}
			continue
		}
		if a != nil {
			return a, nil
		}
	}
}

// run answers one command, or takes the credentials out of it; fault is the
// answer to a bad command.
func (d *pop3Dialogue) run(c *Conn, cmd pop3Command) (a *Attempt, fault string, err error) {
	switch cmd.name {
	case "CAPA":
		return nil, "", c.write("+OK Capability list follows.\r\n" + pop3Capabilities(c) + ".\r\n")
	case "NOOP":
		return nil, "", c.write("+OK\r\n")
	case "QUIT":
		if err := c.write("+OK Logging out.\r\n"); err != nil {
			return nil, "", err
		}
		return nil, "", io.EOF
	case "STLS":
		if !c.offersTLS() {
			return nil, "-ERR TLS is not available here.", nil
		}
		if err := c.write("+OK Begin TLS negotiation now.\r\n"); err != nil {
			return nil, "", err
		}
		d.user = "" // said in plaintext: forgotten, RFC 2595 section 4
		return nil, "", c.startTLS()
	case "USER", "PASS", "AUTH":
		if !c.mayLogin() {
			return nil, pop3Answer(upstream.TLSRequired), nil
		}
		return d.login(c, cmd)
	}
	return nil, "-ERR Unknown command, or not before login.", nil
}

func (d *pop3Dialogue) login(c *Conn, cmd pop3Command) (*Attempt, string, error) {
	switch {
	case cmd.name == "AUTH" && cmd.arg == "":
		return nil, "", c.write("+OK Mechanisms follow.\r\nPLAIN\r\nLOGIN\r\n.\r\n")
	case cmd.name == "AUTH":
		return d.auth(c, cmd.arg)
	case cmd.name == "USER" && cmd.arg == "":
		return nil, "-ERR USER needs a name.", nil
	case cmd.name == "USER":
		d.user = cmd.arg
		return nil, "", c.write("+OK Send the password.\r\n")
	case d.user == "":
		return nil, "-ERR Send USER first.", nil
	case !cmd.hasArg:
		return nil, "-ERR PASS needs a password.", nil
	}
	a := &Attempt{Login: d.user, Password: config.NewSecret(cmd.arg)}
	d.user = "" // RFC 1939 section 7: a PASS follows a USER
	return a, "", nil
}

func (d *pop3Dialogue) auth(c *Conn, arg string) (*Attempt, string, error) {
	mechanism, initial, _ := strings.Cut(arg, " ")
	a, err := saslExchange(c, mechanism, initial)
	switch {
	case errors.Is(err, errCancelled):
		return nil, "-ERR Authentication cancelled.", nil
	case errors.Is(err, errBadSASL):
		return nil, "-ERR Invalid authentication response.", nil
	case errors.Is(err, errMechanism):
		return nil, "-ERR Unsupported authentication mechanism.", nil
	}
	return a, "", err
}

// fail answers a bad command, and ends the dialogue after too many.
func (d *pop3Dialogue) fail(c *Conn, answer string) error {
	if err := c.write(answer + "\r\n"); err != nil {
		return err
	}
	if d.bad++; d.bad >= maxBadCommands {
		return errTooManyBad
	}
	return nil
}

// end tells a client that broke a limit, and gives err back.
func (d *pop3Dialogue) end(c *Conn, err error) error {
	if errors.Is(err, errLineTooLong) {
		if werr := c.write("-ERR Line too long.\r\n"); werr != nil {
			return werr
		}
	}
	return err
}

func (d *pop3Dialogue) Accept(c *Conn, _ *Attempt, _ *upstream.Session) error {
	return c.write("+OK Logged in.\r\n")
}

func (d *pop3Dialogue) Reject(c *Conn, _ *Attempt, o upstream.Outcome) error {
	return c.write(pop3Answer(o) + "\r\n")
}

// Bye answers a crowded client instead of the greeting; at any other moment
// POP3 has nothing to say and just closes (RFC 1939 section 3).
func (d *pop3Dialogue) Bye(c *Conn, r Reason) error {
	if r == Crowded {
		return c.write("-ERR [SYS/TEMP] Too many connections from your address.\r\n")
	}
	return nil
}

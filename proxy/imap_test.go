package proxy

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/upstream"
)

// passwords are what clients have been seen to use, and what breaks parsers.
var passwords = []string{
	"simple", `a"b`, `a\b`, `\`, `"`, "{5}", "{5+}", "x{5}", "x{5+}", "100%", "a:b", " lead", "trail ", "  ", "päßwörd€", "\xff\xfe",
	"(paren)", "*", "=", "+", "]", "~{3}", strings.Repeat("x", 200), "tab\there", strings.Repeat(`"\`, 100), "NIL",
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// imapWays are all the ways in which an IMAP client sends its credentials.
var imapWays = map[string]func(p *peer, login, password string){
	"quoted": func(p *peer, login, password string) {
		p.send(fmt.Sprintf("t LOGIN \"%s\" \"%s\"\r\n", quoter.Replace(login), quoter.Replace(password)))
	},
	"literal": func(p *peer, login, password string) {
		p.send(fmt.Sprintf("t login {%d}\r\n", len(login)))
		p.expect("+ ")
		p.send(fmt.Sprintf("%s {%d}\r\n", login, len(password)))
		p.expect("+ ")
		p.send(password + "\r\n")
	},
	"literal+": func(p *peer, login, password string) {
		p.send(fmt.Sprintf("t LOGIN {%d+}\r\n%s {%d+}\r\n%s\r\n", len(login), login, len(password), password))
	},
	"plain": func(p *peer, login, password string) {
		p.send("t AUTHENTICATE PLAIN\r\n")
		p.exactly("+ \r\n")
		p.send(b64("\x00"+login+"\x00"+password) + "\r\n")
	},
	"plain initial": func(p *peer, login, password string) {
		p.send("t authenticate plain " + b64(login+"\x00"+login+"\x00"+password) + "\r\n")
	},
	"login": func(p *peer, login, password string) {
		p.send("t AUTHENTICATE LOGIN\r\n")
		p.exactly("+ " + b64("Username:") + "\r\n")
		p.send(b64(login) + "\r\n")
		p.exactly("+ " + b64("Password:") + "\r\n")
		p.send(b64(password) + "\r\n")
	},
	"login initial": func(p *peer, login, password string) {
		p.send("t AUTHENTICATE LOGIN " + b64(login) + "\r\n")
		p.expect("+ ")
		p.send(b64(password) + "\r\n")
	},
	"login empty initial": func(p *peer, login, password string) {
		p.send("t AUTHENTICATE LOGIN =\r\n")
		p.expect("+ ")
		p.send(b64(login) + "\r\n")
		p.expect("+ ")
		p.send(b64(password) + "\r\n")
	},
}

func TestIMAPPasswordBytesSurvive(t *testing.T) {
	got := make(chan *Attempt, 1)
	f := start(t, capturing(got))
	for way, send := range imapWays {
		t.Run(way, func(t *testing.T) {
			p := f.with(t).connect(imapPlain)
			for _, password := range passwords {
				send(p, "us er@example.com", password)
				p.expect("t NO [UNAVAILABLE]")
				checkAttempt(t, receive(t, got), "us er@example.com", "", password)
			}
		})
	}
	t.Run("atom", func(t *testing.T) {
		p := f.connect(imapPlain)
		for _, password := range []string{"simple", `a\b`, "100%", "*", "x{5}", "x{5+}", "a)b", "]", "päß"} {
			p.send("t LOGIN user " + password + "\r\n")
			p.expect("t NO [UNAVAILABLE]")
			checkAttempt(t, receive(t, got), "user", "", password)
		}
	})
}

// capturing hands the attempts over and says that it cannot be asked, which
// counts as nothing for the limits.
func capturing(got chan<- *Attempt) authFunc {
	return func(ctx context.Context, a *Attempt) (*upstream.Session, error) {
		got <- a
		return rejecting(upstream.Unavailable)(ctx, a)
	}
}

func checkAttempt(t *testing.T, a *Attempt, login, authzid, password string) {
	t.Helper()
	if a.Login != login || a.Authzid != authzid || a.Password.Reveal() != password {
		t.Errorf("got %q, %q, %q, want %q, %q, %q", a.Login, a.Authzid, a.Password.Reveal(), login, authzid, password)
	}
}

func TestIMAPAuthorisationIdentityIsKeptApart(t *testing.T) {
	got := make(chan *Attempt, 1)
	p := start(t, capturing(got)).connect(imapPlain)
	p.send("t AUTHENTICATE PLAIN " + b64("boss\x00clerk\x00pw") + "\r\n")
	p.expect("t NO")
	checkAttempt(t, receive(t, got), "clerk", "boss", "pw")
}

func TestIMAPAttemptKnowsItsConnection(t *testing.T) {
	got := make(chan *Attempt, 1)
	f := start(t, capturing(got), func(c *config.Config) { c.Listeners[imapTLS].Domain = "listener.example" })
	p := f.connect(imapTLS)
	p.send("t LOGIN user pw\r\n")
	p.expect("t NO")
	a := receive(t, got)
	if a.Protocol != config.IMAP || !a.Client.TLS || a.ServerName != "localhost" || a.ListenerDomain != "listener.example" ||
		len(a.Client.SessionID) < 16 || a.Client.Remote.String() != p.LocalAddr().String() || a.Client.Local.String() != p.RemoteAddr().String() {
		t.Errorf("got %+v", a)
	}
}

func TestIMAPBeforeLogin(t *testing.T) {
	f := start(t, rejectingSendable(t))
	tests := []struct {
		name, send string
		want       []string
	}{
		{"capability", "a CAPABILITY\r\n", []string{"* CAPABILITY IMAP4rev1 SASL-IR ID STARTTLS AUTH=PLAIN AUTH=LOGIN\r\n", "a OK"}},
		{"noop", "a noop\r\n", []string{"a OK"}},
		{"id", "a ID (\"name\" \"x\")\r\n", []string{"* ID (\"name\" \"migproxy\")\r\n", "a OK"}},
		{"bare LF", "a NOOP\n", []string{"a OK"}},
		{"logout", "a LOGOUT\r\n", []string{"* BYE", "a OK"}},
		{"unknown", "a FROBNICATE\r\n", []string{"a BAD"}},
		{"too early", "a SELECT INBOX\r\n", []string{"a BAD"}},
		{"no command", "a\r\n", []string{"a BAD"}},
		{"no tag", "\r\n", []string{"* BAD"}},
		{"bad tag", "a+b NOOP\r\n", []string{"* BAD"}},
		{"login without password", "a LOGIN user\r\n", []string{"a BAD"}},
		{"login with three", "a LOGIN user pw more\r\n", []string{"a BAD"}},
		{"open quote", "a LOGIN user \"pw\r\n", []string{"a BAD"}},
		{"guessable escape", "a LOGIN user \"p\\w\"\r\n", []string{"a BAD"}},
		{"empty password", "a LOGIN user \"\"\r\n", []string{"a NO [AUTHENTICATIONFAILED]"}},
		{"NUL", "a LOGIN user {3+}\r\na\x00b\r\n", []string{"a NO [AUTHENTICATIONFAILED]"}},
		{"CR", "a LOGIN user {3+}\r\nab\r\r\n", []string{"a NO [AUTHENTICATIONFAILED]"}},
		{"LF", "a LOGIN user {3+}\r\na\nb\r\n", []string{"a NO [AUTHENTICATIONFAILED]"}},
		{"CR at the end of PLAIN", "a AUTHENTICATE PLAIN " + b64("\x00user\x00pw\r") + "\r\n", []string{"a NO [AUTHENTICATIONFAILED]"}},
		{"NUL in PLAIN", "a AUTHENTICATE PLAIN " + b64("\x00user\x00p\x00w") + "\r\n", []string{"a BAD"}},
		{"empty PLAIN", "a AUTHENTICATE PLAIN =\r\n", []string{"a BAD"}},
		{"no base64", "a AUTHENTICATE PLAIN !!!\r\n", []string{"a BAD"}},
		{"cancelled", "a AUTHENTICATE PLAIN\r\n*\r\n", []string{"+ ", "a BAD"}},
		{"cancelled late", "a AUTHENTICATE LOGIN\r\n" + b64("user") + "\r\n*\r\n", []string{"+ ", "+ ", "a BAD"}},
		{"unknown mechanism", "a AUTHENTICATE GSSAPI\r\n", []string{"a NO"}},
		{"literal elsewhere", "a ID {4}\r\n", []string{"a BAD"}},
		{"literal+ elsewhere is no command", "a FOO {8+}\r\nb NOOP\r\n)\r\n", []string{"a BAD"}},
		{"literal+ after a bad tag is no command", "* LOGIN {8+}\r\nb NOOP\r\n x\r\n", []string{"* BAD"}},
		{"too big to invite", "a LOGIN user {5000}\r\n", []string{"a NO [TOOBIG]"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := f.with(t).connect(imapPlain)
			p.send(test.send)
			for _, want := range test.want {
				p.expect(want)
			}
			if test.name == "logout" {
				if rest := p.rest(); rest != "" {
					t.Errorf("got %q after the logout", rest)
				}
				return
			}
			p.send("z NOOP\r\n") // nothing is left over
			p.expect("z OK")
		})
	}
}

func TestIMAPGreetingAndCapabilities(t *testing.T) {
	tests := []struct {
		name     string
		listener int
		allow    config.PlaintextLogin
		want     string
	}{
		{"STARTTLS", imapPlain, config.PlaintextNever, "IMAP4rev1 SASL-IR ID STARTTLS LOGINDISABLED"},
		{"loopback", imapPlain, config.PlaintextLoopback, "IMAP4rev1 SASL-IR ID STARTTLS AUTH=PLAIN AUTH=LOGIN"},
		{"TLS", imapTLS, config.PlaintextNever, "IMAP4rev1 SASL-IR ID AUTH=PLAIN AUTH=LOGIN"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := start(t, rejecting(upstream.Miss), func(c *config.Config) { c.TLS.AllowPlaintextLogin = test.allow })
			f.dial(test.listener).exactly("* OK [CAPABILITY " + test.want + "] mail.example.com ready.\r\n")
		})
	}
}

func TestIMAPNoPasswordWithoutTLS(t *testing.T) {
	f := start(t, authFunc(func(context.Context, *Attempt) (*upstream.Session, error) {
		t.Error("a password was taken")
		return nil, &upstream.Error{Outcome: upstream.Miss}
	}), func(c *config.Config) { c.TLS.AllowPlaintextLogin = config.PlaintextNever })
	p := f.connect(imapPlain)
	for _, command := range []string{"LOGIN user pw", "LOGIN {4}", "LOGIN {4+}\r\nuser {2+}\r\npw", "AUTHENTICATE PLAIN", "AUTHENTICATE LOGIN " + b64("user")} {
		p.send("t " + command + "\r\n")
		p.expect("t NO [PRIVACYREQUIRED]")
	}
}

func TestIMAPOutcomes(t *testing.T) {
	for outcome, want := range map[upstream.Outcome]string{
		upstream.Miss: "AUTHENTICATIONFAILED", upstream.Refused: "AUTHENTICATIONFAILED", upstream.Unavailable: "UNAVAILABLE",
		upstream.Limited: "LIMIT", upstream.Held: "UNAVAILABLE", upstream.Blocked: "CONTACTADMIN", upstream.TLSRequired: "PRIVACYREQUIRED",
	} {
		p := start(t, rejecting(outcome)).connect(imapPlain)
		p.send("t LOGIN user pw\r\n")
		line := p.expect("t NO [" + want + "] ")
		if strings.Contains(line, "server said") || strings.Contains(line, "internal") {
			t.Errorf("what a server said reached the client: %q", line)
		}
	}
	if imapAnswer(upstream.Miss) != imapAnswer(upstream.Refused) || pop3Answer(upstream.Miss) != pop3Answer(upstream.Refused) {
		t.Error("a refusal tells who exists")
	}
}

func TestIMAPAcceptGivesTheServersCapabilities(t *testing.T) {
	b := newBackend(t)
	b.caps = []string{"IMAP4REV1", "IDLE", "MOVE"}
	p := start(t, b).connect(imapPlain)
	p.send("t LOGIN user pw\r\n")
	p.exactly("t OK [CAPABILITY IMAP4rev1 IDLE MOVE] Logged in.\r\n")
}

func TestIMAPBounds(t *testing.T) {
	f := start(t, rejecting(upstream.Miss))
	tests := []struct {
		name string
		send func(*peer)
		want string
	}{
		{"endless line", func(p *peer) { p.send("a NOOP " + strings.Repeat("x", 1<<20)) }, "* BYE"},
		{"huge literal", func(p *peer) { p.send("a LOGIN user {99999999999999999999+}\r\n") }, "* BYE"},
		{"literal just too large", func(p *peer) { p.send("a LOGIN user {4097+}\r\n") }, "* BYE"},
		{"many literals", func(p *peer) {
			p.send("a LOGIN" + strings.Repeat(" {4000+}\r\n"+strings.Repeat("x", 4000), 100))
		}, "* BYE"},
		{"many bad commands", func(p *peer) {
			for range maxBadCommands {
				p.send("a FOO\r\n")
				p.expect("a BAD")
			}
		}, "* BYE"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := f.with(t).connect(imapPlain)
			test.send(p)
			p.expect(test.want)
			p.rest()
		})
	}
	t.Run("the longest password", func(t *testing.T) {
		p := f.connect(imapPlain)
		p.send("a LOGIN user {4096+}\r\n" + strings.Repeat("x", 4096) + "\r\n")
		p.expect("a NO [AUTHENTICATIONFAILED]")
	})
}

// scriptedConn is a client that has said all it will say, and listens to
// nothing.
func scriptedConn(said []byte) *Conn {
	c := newConn(deafConn{}, "h")
	c.plaintextLogin = true
	c.r.Reset(strings.NewReader(string(said)))
	return c
}

type deafConn struct{ net.Conn }

func (deafConn) Write(b []byte) (int, error)        { return len(b), nil }
func (deafConn) SetWriteDeadline(t time.Time) error { return nil }

func FuzzIMAPDialogue(f *testing.F) {
	for _, seed := range []string{
		"a LOGIN u p\r\n", "a LOGIN {1}\r\nu {1+}\r\np\r\n", "a AUTHENTICATE PLAIN AHUAcA==\r\n", "a LOGIN \"\\\"\" x{5}\r\n",
		"* LOGIN {3+}\r\nabc\r\n", "a ID {0+}\r\n\r\nb LOGOUT\r\n", "a AUTHENTICATE LOGIN\r\n*\r\n", "a LOGIN {\r\n", "a LOGIN {1+}", "\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		c := scriptedConn(said)
		d := &imapDialogue{}
		for {
			a, err := d.Next(c)
			if err != nil {
				return
			}
			if !a.sendable() {
				t.Fatalf("%q was taken for credentials", said)
			}
			if !validTag([]byte(d.tag)) {
				t.Fatalf("tag %q", d.tag)
			}
		}
	})
}

func FuzzIMAPAStringRoundTrip(f *testing.F) {
	for _, p := range passwords {
		f.Add("user", p)
	}
	f.Fuzz(func(t *testing.T, login, password string) {
		for _, form := range []string{
			fmt.Sprintf("{%d}\r\n%s {%d+}\r\n%s", len(login), login, len(password), password),
			fmt.Sprintf("\"%s\" \"%s\"", quoter.Replace(login), quoter.Replace(password)),
		} {
			if form[0] == '"' && strings.ContainsAny(login+password, "\r\n") {
				continue
			}
			args, pending, ok := parseAStrings([]byte(form))
			if !ok || pending != nil || len(args) != 2 || args[0] != login || args[1] != password {
				t.Fatalf("%q gave %q, %v, %v", form, args, pending, ok)
			}
		}
	})
}

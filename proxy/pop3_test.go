package proxy

import (
	"context"
	"strings"
	"testing"

	"migproxy/config"
	"migproxy/upstream"
)

// pop3Ways are all the ways in which a POP3 client sends its credentials.
var pop3Ways = map[string]func(p *peer, login, password string){
	"pass": func(p *peer, login, password string) {
		p.send("USER " + login + "\r\n")
		p.expect("+OK")
		p.send("pass " + password + "\r\n")
	},
	"pipelined": func(p *peer, login, password string) {
		p.send("USER " + login + "\r\nPASS " + password + "\r\n")
		p.expect("+OK")
	},
	"plain": func(p *peer, login, password string) {
		p.send("AUTH PLAIN\r\n")
		p.exactly("+ \r\n")
		p.send(b64("\x00"+login+"\x00"+password) + "\r\n")
	},
	"plain initial": func(p *peer, login, password string) {
		p.send("auth plain " + b64("\x00"+login+"\x00"+password) + "\r\n")
	},
	"login": func(p *peer, login, password string) {
		p.send("AUTH LOGIN\r\n")
		p.exactly("+ " + b64("Username:") + "\r\n")
		p.send(b64(login) + "\r\n")
		p.exactly("+ " + b64("Password:") + "\r\n")
		p.send(b64(password) + "\r\n")
	},
	"login initial": func(p *peer, login, password string) {
		p.send("AUTH LOGIN " + b64(login) + "\r\n")
		p.expect("+ ")
		p.send(b64(password) + "\r\n")
	},
}

func TestPOP3PasswordBytesSurvive(t *testing.T) {
	got := make(chan *Attempt, 1)
	f := start(t, capturing(got))
	for way, send := range pop3Ways {
		t.Run(way, func(t *testing.T) {
			p := f.with(t).connect(pop3Plain)
			for _, password := range passwords {
				send(p, "us er@example.com", password)
				p.expect("-ERR [SYS/TEMP]")
				checkAttempt(t, receive(t, got), "us er@example.com", "", password)
			}
		})
	}
}

func TestPOP3BeforeLogin(t *testing.T) {
	f := start(t, rejectingSendable(t))
	tests := []struct {
		name, send string
		want       []string
	}{
		{"capabilities", "CAPA\r\n", []string{"+OK", "UIDL\r\n", "TOP\r\n", "RESP-CODES\r\n", "AUTH-RESP-CODE\r\n",
			"STLS\r\n", "USER\r\n", "SASL PLAIN LOGIN\r\n", ".\r\n"}},
		{"mechanisms", "AUTH\r\n", []string{"+OK", "PLAIN\r\n", "LOGIN\r\n", ".\r\n"}},
		{"quit", "QUIT\r\n", []string{"+OK"}},
		{"unknown", "APOP user digest\r\n", []string{"-ERR"}},
		{"empty", "\r\n", []string{"-ERR"}},
		{"too early", "STAT\r\n", []string{"-ERR"}},
		{"no name", "USER\r\n", []string{"-ERR"}},
		{"no user", "PASS pw\r\n", []string{"-ERR"}},
		{"no password", "USER user\r\nPASS\r\n", []string{"+OK", "-ERR"}},
		{"empty password", "USER user\r\nPASS \r\n", []string{"+OK", "-ERR [AUTH]"}},
		{"NUL", "USER user\r\nPASS a\x00b\r\n", []string{"+OK", "-ERR [AUTH]"}},
		{"ends in CR", "USER user\r\nPASS ab\r\r\n", []string{"+OK", "-ERR [AUTH]"}},
		{"LF in PLAIN", "AUTH PLAIN " + b64("\x00user\x00a\nb") + "\r\n", []string{"-ERR [AUTH]"}},
		{"empty PLAIN", "AUTH PLAIN =\r\n", []string{"-ERR"}},
		{"cancelled", "AUTH PLAIN\r\n*\r\n", []string{"+ ", "-ERR"}},
		{"unknown mechanism", "AUTH GSSAPI\r\n", []string{"-ERR"}},
		{"a PASS needs its own USER", "USER user\r\nPASS pw\r\nPASS pw\r\n", []string{"+OK", "-ERR [AUTH]", "-ERR"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := f.with(t).connect(pop3Plain)
			p.send(test.send)
			for _, want := range test.want {
				p.expect(want)
			}
			if test.name == "quit" {
				if rest := p.rest(); rest != "" {
					t.Errorf("got %q after QUIT", rest)
				}
				return
			}
			p.send("NOOP\r\n") // nothing is left over
			p.exactly("+OK\r\n")
		})
	}
}

func TestPOP3NoPasswordWithoutTLS(t *testing.T) {
	f := start(t, authFunc(func(context.Context, *Attempt) (*upstream.Session, error) {
		t.Error("a password was taken")
		return nil, &upstream.Error{Outcome: upstream.Miss}
	}), func(c *config.Config) { c.TLS.AllowPlaintextLogin = config.PlaintextNever })
	p := f.connect(pop3Plain)
	for _, command := range []string{"USER user", "PASS pw", "AUTH PLAIN", "AUTH LOGIN " + b64("user")} {
		p.send(command + "\r\n")
		p.expect("-ERR [AUTH]")
	}
	p.send("CAPA\r\n")
	p.exactly("+OK Capability list follows.\r\nUIDL\r\nTOP\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nSTLS\r\n.\r\n")
}

func TestPOP3Outcomes(t *testing.T) {
	for outcome, want := range map[upstream.Outcome]string{
		upstream.Miss: "AUTH", upstream.Refused: "AUTH", upstream.Unavailable: "SYS/TEMP", upstream.Limited: "LOGIN-DELAY",
		upstream.Held: "IN-USE", upstream.Blocked: "SYS/PERM", upstream.TLSRequired: "AUTH",
	} {
		p := start(t, rejecting(outcome)).connect(pop3Plain)
		p.send("USER user\r\nPASS pw\r\n")
		p.expect("+OK")
		line := p.expect("-ERR [" + want + "] ")
		if strings.Contains(line, "server said") || strings.Contains(line, "internal") {
			t.Errorf("what a server said reached the client: %q", line)
		}
	}
}

func TestPOP3Bounds(t *testing.T) {
	f := start(t, rejecting(upstream.Miss))
	t.Run("endless line", func(t *testing.T) {
		p := f.with(t).connect(pop3Plain)
		p.send("USER " + strings.Repeat("x", 1<<20))
		p.expect("-ERR")
		p.rest()
	})
	t.Run("many bad commands", func(t *testing.T) {
		p := f.with(t).connect(pop3Plain)
		for range maxBadCommands {
			p.send("FOO\r\n")
			p.expect("-ERR")
		}
		p.rest()
	})
}

func FuzzPOP3Dialogue(f *testing.F) {
	for _, seed := range []string{"USER u\r\nPASS p \r\n", "AUTH PLAIN AHUAcA==\r\n", "AUTH LOGIN\r\ndQ==\r\n*\r\n", "CAPA\r\nQUIT\r\n", "PASS\n", "AUTH \r\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		c, d := scriptedConn(said), &pop3Dialogue{}
		for {
			a, err := d.Next(c)
			if err != nil {
				return
			}
			if !a.sendable() {
				t.Fatalf("%q was taken for credentials", said)
			}
		}
	})
}

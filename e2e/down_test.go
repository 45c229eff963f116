package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// Unreachable is not unknown: nobody is told that his password is wrong, and
// nothing is created.
func TestServersThatAreDown(t *testing.T) {
	const resident, residentPassword = "rita@example.com", "lives there"
	p := newPair(t, binary, nil)
	p.source.AddUser(user, password)
	p.target.AddUser(resident, residentPassword)
	appendTo(t, login(t, p.source.IMAP, user, password), "INBOX", note("mine"))
	p.start()

	unavailable := func(what string) {
		t.Helper()
		imap := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls"})
		if imap.OK || !strings.Contains(imap.Error, "UNAVAILABLE") {
			t.Errorf("%s, IMAP: %+v", what, imap)
		}
		pop3 := ask(t, request{Op: "pop3dump", Port: p.pop3, TLS: "starttls"})
		if pop3.OK || !strings.Contains(pop3.Error, "[SYS/TEMP]") {
			t.Errorf("%s, POP3: %+v", what, pop3)
		}
		if a, err := p.state(user); err != nil || a.State != "" {
			t.Errorf("%s: %+v, %v", what, a, err)
		}
		if strings.Contains(p.targetPasswd(), user) {
			t.Errorf("%s: an account was made", what)
		}
	}
	p.target.Stop()
	unavailable("target down")
	p.target.Start()

	p.source.Stop()
	unavailable("source down")
	there := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", User: resident, Password: residentPassword, Commands: [][]any{{"select"}}})
	if !there.OK || !strings.HasPrefix(fmt.Sprint(there.Answers[0]), "[OK") {
		t.Errorf("a user of the target notices that the source is down: %+v", there)
	}
	p.source.Start()

	if first := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls"}); !first.OK {
		t.Fatalf("after both are back: %+v", first)
	}
	p.awaitState(user, "active")
	sameMail(t, p.sourceView(), p.targetView())
}

// A copy whose servers are killed in its middle goes on when they are back.
func TestServersKilledInMidCopy(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"source", "target"} {
		t.Run(side, func(t *testing.T) {
			p := newPair(t, binary, nil)
			p.source.AddUser(user, password)
			fillMany(t, p.source, 2000)
			p.start()
			if first := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls"}); !first.OK {
				t.Fatalf("%+v", first)
			}
			p.awaitMessages(300)
			server := p.source
			if side == "target" {
				server = p.target
			}
			server.Kill()
			if a, err := p.state(user); err != nil || a.State != "copying" {
				t.Errorf("with the %s killed: %+v, %v", side, a, err)
			}
			server.Start()
			p.awaitState(user, "active")
			sameMail(t, p.sourceView(), p.targetView())
		})
	}
}

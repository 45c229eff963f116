package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

func TestParkedUsersSeeOnlyTheNotice(t *testing.T) {
	gate := newGate(t)
	p := newPair(t, binary, gate.provision)
	const other, otherPassword = "bert@example.com", "another"
	p.source.AddUser(user, password)
	p.source.AddUser(other, otherPassword)
	c := login(t, p.source.IMAP, user, password)
	appendTo(t, c, "INBOX", note("mine"))
	before := filesOf(t, p.source.Maildir(user))
	p.start()

	secret := "b64:U3ViamVjdDogZHJhZnQNCg0KbXkgc2VjcmV0IGRyYWZ0DQo=" // a draft
	mine := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Commands: [][]any{
		{"select", "INBOX"},
		{"append", "INBOX", "", "", secret},
		{"store", "1", "+FLAGS", "(\\Deleted)"},
		{"expunge"},
		{"create", "Sent"},
		{"delete", "INBOX"},
		{"append", "Drafts", "", "", secret},
		{"search", nil, "ALL"},
		{"fetch", "1", "(FLAGS BODY.PEEK[])"},
		{"list"},
	}})
	if !mine.OK {
		t.Fatalf("%+v", mine)
	}
	for i, name := range []string{"append", "store", "expunge", "create", "delete", "append"} {
		text := fmt.Sprint(mine.Answers[i+1])
		if !strings.Contains(text, "NO") && !strings.Contains(text, "error") || !strings.Contains(text, "UNAVAILABLE") {
			t.Errorf("%s: %s", name, text)
		}
	}
	if text := fmt.Sprint(mine.Answers[7]); !strings.Contains(text, "[1]") {
		t.Errorf("there is to be one message: %s", text)
	}
	if text := fmt.Sprint(mine.Answers[8]); !strings.Contains(text, user) || strings.Contains(text, "Deleted") {
		t.Errorf("the notice: %s", text)
	}

	theirs := ask(t, request{Op: "commands", Port: p.imaps, TLS: "implicit", User: other, Password: otherPassword, Commands: [][]any{
		{"select", "INBOX"}, {"fetch", "1:*", "(BODY.PEEK[])"}, {"list"},
	}})
	if text := fmt.Sprint(theirs); !theirs.OK || strings.Contains(text, "draft") || strings.Contains(text, user) {
		t.Errorf("another parked user sees %s", text)
	}

	// A parked session is told when the new mailbox is there.
	idle := dial(t, p.imaps, true)
	idle.until("* OK")
	idle.send(fmt.Sprintf("a LOGIN %s {%d+}\r\n%s\r\n", user, len(password), password))
	idle.until("a OK")
	idle.send("b SELECT INBOX\r\n")
	idle.until("b OK")
	gate.open()
	idle.until("* BYE")
	p.awaitState(user, "active")
	sameFiles(t, before, filesOf(t, p.source.Maildir(user)))
	sameMail(t, p.sourceView(), p.targetView())
}

// A phone opens five connections at once.
func TestFiveConnectionsMakeOneAccount(t *testing.T) {
	p := newPair(t, binary, nil)
	p.source.AddUser(user, password)
	fill(t, p.source.IMAP, user, password, sourcePrefix, sourceSep, "Gesendet")
	p.start()
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			port, mode := p.imap, "starttls"
			if i%2 == 1 {
				port, mode = p.imaps, "implicit"
			}
			a, err := tryAsk(request{Op: "commands", Port: port, TLS: mode, Commands: [][]any{{"noop"}}})
			if err != nil || !a.OK {
				t.Errorf("connection %d: %+v %v", i, a, err)
			}
		})
	}
	wg.Wait()
	p.awaitState(user, "active")
	sameMail(t, p.sourceView(), p.targetView())
	if n := strings.Count(p.targetPasswd(), user+":"); n != 1 {
		t.Errorf("%d accounts on the target", n)
	}
	log, err := p.cli("log", user)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log, "Migrating '"+user+"'..."); n != 1 {
		t.Errorf("%d copies began:\n%s", n, log)
	}
}

// The migration account's messages are what parked users see, and nobody's
// session reaches the migration account itself.
func TestParkedOnTheMigrationAccount(t *testing.T) {
	const parkUser, parkPassword = "migration@example.com", "park"
	gate := newGate(t)
	p := newPair(t, binary, func(s *settings) {
		gate.provision(s)
		s.domain = fmt.Sprintf("    parking: { mode: account, account: %s, password_file: %s }\n", parkUser, writeFile(t, "parking", parkPassword+"\n"))
	})
	p.target.AddUser(parkUser, parkPassword)
	appendTo(t, login(t, p.target.IMAP, parkUser, parkPassword), "INBOX", note("we-are-moving"), note("please-wait"))
	p.source.AddUser(user, password)
	appendTo(t, login(t, p.source.IMAP, user, password), "INBOX", note("mine"))
	p.start()
	parked := ask(t, request{Op: "commands", Port: p.imaps, TLS: "implicit", Commands: [][]any{
		{"select", "INBOX"}, {"fetch", "1:*", "(BODY.PEEK[])"}, {"append", "INBOX", "", "", "b64:eA0K"}, {"store", "1", "+FLAGS", "(\\Deleted)"},
	}})
	if text := fmt.Sprint(parked.Answers[1]); !strings.Contains(text, "About we-are-moving") || !strings.Contains(text, "About please-wait") || strings.Contains(text, "mine") {
		t.Errorf("%s", text)
	}
	for _, answer := range parked.Answers[2:] {
		if !strings.Contains(fmt.Sprint(answer), "UNAVAILABLE") {
			t.Errorf("%v", answer)
		}
	}
	park := ask(t, request{Op: "dump", Port: p.target.IMAP, User: parkUser, Password: parkPassword})
	for _, f := range park.Folders {
		if f.Name == "INBOX" && (len(f.Messages) != 2 || len(f.Messages[0].Flags) != 0) {
			t.Errorf("the migration account was changed: %+v", f)
		}
	}
	gate.open()
	p.awaitState(user, "active")
}

func (p *pair) targetPasswd() string {
	p.t.Helper()
	return readFile(p.t, p.target.PasswdFile)
}

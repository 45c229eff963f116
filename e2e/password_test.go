package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

// After the flip the source's password opens nothing, and an account that the
// target had before keeps its own.
func TestOnlyTheTargetsPasswordOpens(t *testing.T) {
	p := newPair(t, binary, nil)
	p.source.AddUser(user, "old secret")
	p.target.AddUser(user, password)
	appendTo(t, login(t, p.source.IMAP, user, "old secret"), "INBOX", note("at the source"))
	before := p.targetPasswd()
	p.start()
	if a := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Commands: [][]any{{"select"}}}); !a.OK {
		t.Fatalf("the target's password: %+v", a)
	}
	if a, err := p.state(user); err != nil || a.State != "native" {
		t.Fatalf("%+v, %v", a, err)
	}
	old := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Password: "old secret"})
	if old.OK || !strings.Contains(old.Error, "AUTHENTICATIONFAILED") {
		t.Errorf("the source's password: %+v", old)
	}
	if a, err := p.state(user); err != nil || a.State != "native" {
		t.Errorf("%+v, %v", a, err)
	}
	if p.targetPasswd() != before {
		t.Error("the target's accounts were changed")
	}
}

// The target has the name with another password, and nobody logged in there
// through the proxy yet: a conflict, and nothing is written.
func TestAnAccountOfTheTargetIsNotTaken(t *testing.T) {
	p := newPair(t, binary, nil)
	p.source.AddUser(user, password)
	p.target.AddUser(user, "somebody else's")
	appendTo(t, login(t, p.source.IMAP, user, password), "INBOX", note("at the source"))
	before := p.targetPasswd()
	p.start()
	if a := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls"}); !a.OK {
		t.Fatalf("%+v", a)
	}
	p.awaitState(user, "conflict")
	if p.targetPasswd() != before {
		t.Error("the target's accounts were changed")
	}
	if a := ask(t, request{Op: "dump", Port: p.target.IMAP, Password: "somebody else's"}); !a.OK || fmt.Sprint(a.Folders) == "" || len(a.Folders[0].Messages) != 0 {
		t.Errorf("%+v", a)
	}
	// He goes on at the source.
	a := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Commands: [][]any{{"select", "INBOX"}, {"uid", "SEARCH", "ALL"}}})
	if !a.OK || !strings.Contains(fmt.Sprint(a.Answers[0]), "[OK [1]]") {
		t.Errorf("in conflict: %+v", a)
	}
}

// A password that was changed on the source while the copy runs is the one
// that opens the account afterwards.
func TestANewPasswordDuringTheCopy(t *testing.T) {
	gate := newGate(t)
	p := newPair(t, binary, gate.provision)
	p.source.AddUser(user, "first")
	appendTo(t, login(t, p.source.IMAP, user, "first"), "INBOX", note("mine"))
	p.start()
	if a := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Password: "first"}); !a.OK {
		t.Fatalf("%+v", a)
	}
	changePassword(t, p.source, user, "second")
	if a := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Password: "first"}); a.OK || !strings.Contains(a.Error, "AUTHENTICATIONFAILED") {
		t.Errorf("the old password: %+v", a)
	}
	if a := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Password: "second"}); !a.OK {
		t.Fatalf("the new password: %+v", a)
	}
	gate.open()
	p.awaitState(user, "active")
	if a := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Password: "first"}); a.OK {
		t.Error("the first password opens the account")
	}
	if a := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Password: "second"}); !a.OK {
		t.Errorf("the new password: %+v", a)
	}
}

// changePassword changes a user's password on a server, and waits until the
// server knows: it looks once a second, and only where the file's time in
// seconds has changed.
func changePassword(t testing.TB, d *servers.Dovecot, name, to string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(readFile(t, d.PasswdFile)) {
		if fields := strings.SplitN(line, ":", 3); fields[0] == name {
			line = name + ":{PLAIN.b64}" + base64.StdEncoding.EncodeToString([]byte(to)) + ":" + fields[2]
		}
		lines = append(lines, line)
	}
	text := strings.Join(lines, "")
	info, err := os.Stat(d.PasswdFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.PasswdFile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(d.PasswdFile, time.Time{}, info.ModTime().Add(10*time.Second)); err != nil {
		t.Fatal(err)
	}
	awaitLogin(t, d, name, to)
}

// awaitLogin waits until a server knows a user and his password.
func awaitLogin(t testing.TB, d *servers.Dovecot, name, password string) {
	t.Helper()
	err := eventually(20*time.Second, func() error {
		a, err := tryAsk(request{Op: "commands", Port: d.IMAP, User: name, Password: password})
		if err == nil && !a.OK {
			err = errors.New(a.Error)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Passwords are seen by nobody: every file that migproxy wrote, its metrics,
// and what its children were given, is searched for them.
func TestPasswordsAreSeenByNobody(t *testing.T) {
	// Some of the octets are written otherwise in JSON, in IMAP's quoted strings
	// and in Go's.
	const typed, wrong = `Tr0ub4dor-"correct\horse`, `Wr0ng-"battery\staple`
	gate := newGate(t)
	p := newPair(t, binary, gate.provision)
	p.source.AddUser(user, typed)
	appendTo(t, login(t, p.source.IMAP, user, typed), "INBOX", note("mine"))
	p.start()
	for _, pass := range []string{wrong, typed} {
		for _, sasl := range []bool{false, true} {
			ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Password: pass, SASL: sasl})
		}
		ask(t, request{Op: "pop3dump", Port: p.pop3, TLS: "starttls", Password: pass})
	}
	gate.await("ensure")
	if children := p.search(typed, wrong); children == 0 { // while the password is sealed and the command runs
		t.Error("the command that creates accounts was not seen running")
	}
	gate.open()
	p.awaitState(user, "active")
	for _, args := range [][]string{{"status", "--json"}, {"accounts", "--json"}, {"account", "show", user}, {"account", "show", user, "--json"}, {"log"}} {
		out, err := p.cli(args...)
		if err != nil {
			t.Error(err)
		}
		if holdsPassword([]byte(out), typed, wrong) {
			t.Errorf("%v shows a password", args)
		}
	}
	p.search(typed, wrong)
	if holdsPassword([]byte(p.metrics()), typed, wrong) {
		t.Error("the metrics hold a password")
	}
	if seen := gate.seen(); holdsPassword([]byte(seen), typed, wrong) || !strings.Contains(seen, "ensure") {
		t.Errorf("what the command was given: %s", seen)
	}
}

// holdsPassword looks for passwords in the clear, as JSON and IMAP write them,
// and as SASL sends them.
func holdsPassword(octets []byte, passwords ...string) bool {
	coded, escaped := base64.StdEncoding.EncodeToString, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace
	for _, pass := range passwords {
		for _, form := range []string{
			pass, escaped(pass), escaped(escaped(pass)),
			coded([]byte(pass)), coded([]byte("\x00" + user + "\x00" + pass)), hex.EncodeToString([]byte(pass)),
		} {
			if bytes.Contains(octets, []byte(form)) {
				return true
			}
		}
	}
	return false
}

// The search finds what it is to find.
func TestHoldsPassword(t *testing.T) {
	const pass = `a"b\c`
	quoted, err := json.Marshal(map[string]string{"msg": "in " + pass})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"x" + pass + "y", string(quoted), fmt.Sprintf("%q", pass), "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+pass))} {
		if !holdsPassword([]byte(text), "other", pass) {
			t.Errorf("not found in %s", text)
		}
	}
	if holdsPassword([]byte("nothing here"), pass) {
		t.Error("found where it is not")
	}
}

// search fails where a file of migproxy's, an argument list or an environment
// holds one of the passwords. It returns how many children were looked at.
func (p *pair) search(passwords ...string) (children int) {
	p.t.Helper()
	files := 0
	err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		octets, err := os.ReadFile(path)
		if holdsPassword(octets, passwords...) {
			p.t.Errorf("%s holds a password", path)
		}
		return err
	})
	if err != nil || files < 4 {
		p.t.Fatalf("%d files searched, %v", files, err)
	}
	list := p.children()
	for _, pid := range append(list, fmt.Sprint(p.cmd.Process.Pid)) {
		for _, name := range []string{"cmdline", "environ"} {
			octets, err := os.ReadFile(filepath.Join("/proc", pid, name))
			if err != nil {
				continue // it has ended
			}
			if holdsPassword(octets, passwords...) {
				p.t.Errorf("/proc/%s/%s holds a password", pid, name)
			}
		}
	}
	return len(list)
}

// children is migproxy's children, by process id. Each belongs to the thread
// that started it.
func (p *pair) children() (list []string) {
	p.t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		p.t.Fatalf("%d threads, %v", len(threads), err)
	}
	for _, thread := range threads {
		if children, err := os.ReadFile(thread); err == nil { // or the thread has ended
			list = append(list, strings.Fields(string(children))...)
		}
	}
	return list
}

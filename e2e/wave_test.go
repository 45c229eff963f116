package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// refusing is a provision command that has no room for accounts whose name begins
// with full. The others are created by a gate that is open.
func refusing(t *testing.T, s *settings) {
	t.Helper()
	g := newGate(t)
	g.open()
	g.provision(s)
	command := filepath.Join(g.dir, "refusing")
	text := fmt.Sprintf(`#!/bin/sh
request=$(cat)
case "$request" in
*'"op":"ensure"'*'"account":"full'* | *'"account":"full'*'"op":"ensure"'*) echo "no licence is left" >&2; exit 1 ;;
esac
printf '%%s' "$request" | %s/provision.py
`, g.dir)
	if err := os.WriteFile(command, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	s.provision = fmt.Sprintf("{ driver: exec, command: [%s], timeout: 60s }", command)
}

// domainStatus is what `migproxy status --json` says of the one domain.
type domainStatus struct {
	Active         bool   `json:"active"`
	StoppedBecause string `json:"stopped_because"`
	Wave           struct {
		Included, Excluded int
		Differs            bool `json:"differs_from_settings"`
	} `json:"wave"`
}

func (p *proxy) domain() (domainStatus, error) {
	var s struct{ Domains []domainStatus }
	out, err := p.cli("status", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	if err != nil || len(s.Domains) != 1 {
		return domainStatus{}, fmt.Errorf("%+v, %w", s, err)
	}
	return s.Domains[0], nil
}

// Who is not in the wave reads his mail on the source, through migproxy, until the
// wave takes him in while it runs. When too many accounts of a wave fail it stops by
// itself: nobody else begins, and he notices nothing.
func TestWaves(t *testing.T) {
	t.Parallel()
	p := newPair(t, binary, func(s *settings) {
		s.domain = "    wave: { include: [\"anna@example.com\"], max_failed: 2 }\n"
		refusing(t, s)
	})
	users := []string{"anna", "bert", "carla", "full1", "full2", "gerd"}
	for _, name := range users {
		p.source.AddUser(name+"@example.com", password)
	}
	awaitLogin(t, p.source, "gerd@example.com", password)
	for _, name := range users {
		appendTo(t, login(t, p.source.IMAP, name+"@example.com", password), "INBOX", note("the first of "+name), note("the second of "+name))
	}
	p.start()

	// enter logs a user in through migproxy, to a mailbox with his own mail or to a
	// notice.
	enter := func(name string) {
		t.Helper()
		ask(t, request{Op: "commands", Port: p.imaps, TLS: "implicit", User: name + "@example.com", Commands: [][]any{{"noop"}}})
	}
	// reads fails unless a user finds on migproxy what he has on the source.
	reads := func(name, state string) {
		t.Helper()
		p.awaitState(name+"@example.com", state)
		r := request{Op: "dump", Port: p.source.IMAP, User: name + "@example.com"}
		was := viewOf(t, ask(t, r), sourcePrefix, sourceSep, sentName)
		prefix, sep := "", targetSep
		if state == "at_source" {
			prefix, sep = sourcePrefix, sourceSep
		}
		r.Port, r.TLS = p.imaps, "implicit"
		is := viewOf(t, ask(t, r), prefix, sep, sentName)
		sameMail(t, was, is)
		if len(is.folders["INBOX"]) != 2 {
			t.Errorf("%s has %d messages", name, len(is.folders["INBOX"]))
		}
	}
	command := func(want string, args ...string) {
		t.Helper()
		if out, err := p.cli(args...); err != nil || !strings.Contains(out, want) {
			t.Fatalf("%v: %s%v", args, out, err)
		}
	}

	enter("anna")
	reads("anna", "active")
	enter("bert")
	reads("bert", "at_source")
	if _, err := p.cli("wave", "add", "bert@example.org"); err == nil {
		t.Error("somebody of another domain was added")
	}
	command("added 1, already there 0", "wave", "add", "bert@example.com")
	command("added 0, already there 1", "wave", "add", "BERT@example.com")
	enter("bert")
	reads("bert", "active")

	// A restart forgets nothing, whatever the settings say.
	p.stop(syscall.SIGTERM)
	p.start()
	if d, err := p.domain(); err != nil || !d.Wave.Differs || d.Wave.Included != 2 || !d.Active {
		t.Errorf("%+v, %v", d, err)
	}
	if text := p.read("migproxy.log"); !strings.Contains(text, "the settings' wave differs") {
		t.Error("the log does not say that the settings' wave differs")
	}
	enter("carla")
	reads("carla", "at_source")
	command("removed 1, not there 0\n    Of the accounts that match, 0 are being moved and 1 have moved", "wave", "remove", "bert@example.com")
	reads("bert", "active")

	// Everybody, but two of them cannot be created.
	command("added 1", "wave", "add", "*")
	enter("full1")
	enter("full2")
	var d domainStatus
	if err := eventually(3*time.Minute, func() (err error) {
		if d, err = p.domain(); err == nil && d.StoppedBecause == "" {
			err = fmt.Errorf("not stopped: %+v", d)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if d.Active || !strings.HasPrefix(d.StoppedBecause, "2 accounts have failed") || !strings.Contains(d.StoppedBecause, "no licence is left") {
		t.Errorf("%+v", d)
	}
	for _, name := range []string{"carla", "gerd"} {
		enter(name)
		reads(name, "at_source")
	}
	if text := p.metrics(); !strings.Contains(text, "migproxy_migration_stopped_by_itself{domain=\"example.com\"} 1\n") {
		t.Error("no metric says so")
	}
	if n := strings.Count(p.read("migproxy.log"), "THE MIGRATION HAS STOPPED BY ITSELF"); n != 1 {
		t.Errorf("the log says %d times that it stopped", n)
	}
	command("THE MIGRATION OF example.com HAS STOPPED BY ITSELF", "status")
	command("IS ACTIVE", "start")
	enter("gerd")
	reads("gerd", "active")
	if d, err := p.domain(); err != nil || d.StoppedBecause != "" || !d.Active {
		t.Errorf("%+v, %v", d, err)
	}
}

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
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

// waveWorld is a migproxy whose wave has anna in it, and six users, two of whom cannot
// be created on the target.
type waveWorld struct {
	*pair
	t *testing.T
}

func newWaveWorld(t *testing.T) *waveWorld {
	t.Helper()
	w := &waveWorld{t: t, pair: newPair(t, binary, func(s *settings) {
		s.domain = "    wave: { include: [\"anna@example.com\"], max_failed: 2 }\n"
		refusing(t, s)
	})}
	users := []string{"anna", "bert", "carla", "full1", "full2", "gerd"}
	for _, name := range users {
		w.source.AddUser(name+"@example.com", password)
	}
	awaitLogin(t, w.source, "gerd@example.com", password)
	for _, name := range users {
		appendTo(t, login(t, w.source.IMAP, name+"@example.com", password), "INBOX", note("the first of "+name), note("the second of "+name))
	}
	w.start()
	return w
}

// enter logs a user in through migproxy, to a mailbox with his own mail or to a
// notice.
func (w *waveWorld) enter(name string) {
	w.t.Helper()
	ask(w.t, request{Op: "commands", Port: w.imaps, TLS: "implicit", User: name + "@example.com", Commands: [][]any{{"noop"}}})
}

// reads fails unless a user finds on migproxy what he has on the source.
func (w *waveWorld) reads(name, state string) {
	w.t.Helper()
	w.awaitState(name+"@example.com", state)
	r := request{Op: "dump", Port: w.source.IMAP, User: name + "@example.com"}
	was := viewOf(w.t, ask(w.t, r), sourcePrefix, sourceSep, sentName)
	prefix, sep := "", targetSep
	if state == "at_source" {
		prefix, sep = sourcePrefix, sourceSep
	}
	r.Port, r.TLS = w.imaps, "implicit"
	is := viewOf(w.t, ask(w.t, r), prefix, sep, sentName)
	sameMail(w.t, was, is)
	if len(is.folders["INBOX"]) != 2 {
		w.t.Errorf("%s has %d messages", name, len(is.folders["INBOX"]))
	}
}

func (w *waveWorld) command(want string, args ...string) {
	w.t.Helper()
	if out, err := w.cli(args...); err != nil || !strings.Contains(out, want) {
		w.t.Fatalf("%v: %s%v", args, out, err)
	}
}

// Who is not in the wave reads his mail on the source, through migproxy, until the
// wave takes him in while it runs.
func TestWaves(t *testing.T) {
	t.Parallel()
	w := newWaveWorld(t)
	w.enter("anna")
	w.reads("anna", "active")
	w.enter("bert")
	w.reads("bert", "at_source")
	if _, err := w.cli("wave", "add", "bert@example.org"); err == nil {
		t.Error("somebody of another domain was added")
	}
	w.command("added 1, already there 0", "wave", "add", "bert@example.com")
	w.command("added 0, already there 1", "wave", "add", "BERT@example.com")
	w.enter("bert")
	w.reads("bert", "active")

	// A restart forgets nothing, whatever the settings say.
	w.stop(syscall.SIGTERM)
	w.start()
	if d, err := w.domain(); err != nil || !d.Wave.Differs || d.Wave.Included != 2 || !d.Active {
		t.Errorf("%+v, %v", d, err)
	}
	if text := w.read("migproxy.log"); !strings.Contains(text, "the settings' wave differs") {
		t.Error("the log does not say that the settings' wave differs")
	}
	w.enter("carla")
	w.reads("carla", "at_source")
	w.command("removed 1, not there 0\n    Of the accounts that match, 0 are being moved and 1 have moved", "wave", "remove", "bert@example.com")
	w.reads("bert", "active")
}

//go:build long

package e2e

import (
	"fmt"
	"maps"
	"strings"
	"syscall"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

// Killed where a crash could do most harm, on the way back and forth again, migproxy
// goes on after the restart, and everything is on both sides once. The source
// delivers late what it was sent.
func TestRollbackKilled(t *testing.T) {
	source := servers.StartDovecot(t, servers.DovecotOptions{Separator: ".", Prefix: "INBOX.", SentName: "Gesendet"})
	target := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
	source.AddUser(user, password)
	fill(t, source.IMAP, user, password, "INBOX.", ".", "Gesendet")
	e := dovecotEndpoint(source)
	e.imap = late(t, source.IMAP)
	p := newProxy(t, killable, settings{source: e, target: dovecotEndpoint(target),
		provision: fmt.Sprintf("{ driver: passwd-file, path: %s }", target.PasswdFile), migration: "concurrency: 1, " + lateQuiet})
	everywhere := func(port int) map[string]int {
		return viewOf(t, ask(t, request{Op: "dump", Port: port}), "", targetSep, nil).everywhere()
	}
	comeIn := func() {
		_, _ = tryAsk(request{Op: "commands", Port: p.imap, TLS: "starttls", Commands: [][]any{{"noop"}}}) // may die with the process
	}
	p.start()
	comeIn()
	p.awaitState(user, "active")
	for round, step := range []string{"rollback.intent.committed", "rollback.sent", "rollback.settle.before", "rollback.end.before", "rollback.rebase.before"} {
		want := everywhere(source.IMAP)
		liveOnTarget(t, target.IMAP, round)
		for m, n := range everywhere(target.IMAP) {
			want[m] = max(n, want[m])
		}
		back := !strings.Contains(step, "rebase")
		p.stop(syscall.SIGTERM)
		p.env = []string{"KILLTEST_AT=" + step + ":1"}
		p.start()
		_, err := p.cli("account", "rollback", user)
		if back {
			p.killed(step)
		} else if err != nil {
			t.Fatal(err)
		}
		p.awaitState(user, "excluded")
		if got := everywhere(source.IMAP); !maps.Equal(got, want) {
			t.Errorf("%s: the source has %v\nwant %v", step, got, want)
		}
		if _, err := p.cli("account", "retry", user); err != nil {
			t.Fatal(err)
		}
		comeIn()
		if !back {
			p.killed(step)
		}
		p.awaitState(user, "active")
		if got := everywhere(target.IMAP); !maps.Equal(got, want) {
			t.Errorf("%s: the target has %v\nwant %v", step, got, want)
		}
	}
}

// killed waits until the kill point has struck, and starts migproxy again.
func (p *proxy) killed(step string) {
	p.t.Helper()
	select {
	case <-p.done:
		p.cmd = nil
	case <-time.After(30 * time.Second):
		p.t.Fatalf("the step %s was not reached", step)
	}
	p.env = nil
	p.start()
}

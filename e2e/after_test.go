package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// afterAnna is the command after each account of the test below. For bert it
// fails with much to say; at anna's it kills migproxy first, in its middle.
const afterAnna = `#!/bin/sh
input=$(cat)
echo "$input" >>%[1]s/inputs
case $input in
*bert*) head -c 5000000 /dev/zero | tr '\0' y >&2; printf 'no \033[31mlist\n' >&2; exit 4;;
esac
if [ ! -e %[1]s/killed ]; then
	echo >%[1]s/killed
	kill -KILL $PPID
fi
`

// Killed by the very command that it runs after an account, migproxy runs it
// again; a command that fails is told and changes nothing. The figures are those
// of what is on the target, and the end of the bulk is said once.
func TestAfterAccountAndFigures(t *testing.T) {
	dir := t.TempDir()
	command := filepath.Join(dir, "after-account")
	if err := os.WriteFile(command, fmt.Appendf(nil, afterAnna, dir), 0o700); err != nil {
		t.Fatal(err)
	}
	p := newPair(t, binary, func(s *settings) {
		s.migration = fmt.Sprintf("settle_quiet: 500ms, concurrency: 1, after_account: [%s]", command)
	})
	const bert = "bert@example.com"
	for _, name := range []string{user, bert} {
		p.source.AddUser(name, password)
		awaitLogin(t, p.source, name, password)
		own := login(t, p.source.IMAP, name, password)
		appendTo(t, own, "INBOX", note("the first of "+name)) // by which the two mailboxes are not taken for one
		if err := own.Logout().Wait(); err != nil {
			t.Fatal(err)
		}
		fill(t, p.source.IMAP, name, password, sourcePrefix, sourceSep, "Gesendet")
	}
	p.start()
	// Anna's move, which is first, may end before bert has logged in.
	_, _ = tryAsk(request{Op: "commands", Port: p.imap, TLS: "starttls"})
	_, _ = tryAsk(request{Op: "commands", Port: p.imap, TLS: "starttls", User: bert})
	p.wait()
	if _, err := os.Stat(filepath.Join(dir, "killed")); err != nil {
		t.Fatal(err)
	}
	p.start()
	if a, err := p.state(bert); err != nil || a.State == "" {
		ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", User: bert})
	}
	p.awaitState(user, "active")
	p.awaitState(bert, "active")
	said := func(text string) {
		t.Helper()
		err := eventually(30*time.Second, func() error {
			log, err := p.cli("log")
			if n := strings.Count(log, text); err == nil && n != 1 {
				err = fmt.Errorf("%q stands %d times in\n%s", text, n, log)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	said("after_account for '" + user + "' (active): done")
	said("after_account for '" + bert + "' (active) failed and is not run again: " + command + " ended with status 4: yyy")
	said("yno  [31mlist\n")
	said("Bulk migration finished: 2 accounts of example.com migrated\n")

	inputs, err := os.ReadFile(filepath.Join(dir, "inputs"))
	if err != nil || strings.Count(string(inputs), user) != 2 || strings.Count(string(inputs), bert) < 1 || strings.Contains(string(inputs), "a\\\"b") {
		t.Errorf("%s, %v", inputs, err)
	}
	out, err := p.cli("status", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var status struct {
		MailboxesMigrated int `json:"mailboxes_migrated"`
		MessagesMigrated  int `json:"messages_migrated"`
		BytesMigrated     int `json:"bytes_migrated"`
		Rate              struct {
			Messages float64 `json:"messages_per_second"`
			Seconds  float64 `json:"over_seconds"`
		}
		Remaining struct{ Accounts, Messages int }
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		t.Fatal(err)
	}
	messages, octets := 0, 0
	for _, name := range []string{user, bert} {
		for _, f := range ask(t, request{Op: "dump", Port: p.target.IMAP, User: name}).Folders {
			for _, m := range f.Messages {
				messages, octets = messages+1, octets+m.Octets
			}
		}
	}
	if status.MailboxesMigrated != 2 || status.MessagesMigrated != messages || status.BytesMigrated != octets || messages == 0 ||
		int(status.Rate.Messages*status.Rate.Seconds+0.5) != messages || status.Remaining.Accounts+status.Remaining.Messages != 0 {
		t.Errorf("%d messages of %d octets on the target: %s", messages, octets, out)
	}
	for _, metric := range []string{"migproxy_migration_active_since_timestamp_seconds", "migproxy_migration_last_begun_timestamp_seconds"} {
		if !strings.Contains(p.metrics(), "\n"+metric+"{domain=\"example.com\"} 1") {
			t.Errorf("no metric %s", metric)
		}
	}
}

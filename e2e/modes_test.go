package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Of two real servers, `--mode passwords` sets passwords that the source takes,
// and copies nothing; `--mode messages` copies into accounts that are there, and
// changes no password.
func TestModesOfMigrate(t *testing.T) {
	const bert, carla, dora = "bert@example.com", "carla@example.com", "dora@example.com"
	var d *directory
	p := newPair(t, binary, func(s *settings) { d = newDirectory(t, s) })
	for _, name := range []string{bert, carla} {
		p.source.AddUser(name, password)
		awaitLogin(t, p.source, name, password)
		fill(t, p.source.IMAP, name, password, sourcePrefix, sourceSep, "Gesendet")
	}
	p.target.AddUser(carla, password)
	awaitLogin(t, p.target, carla, password)
	own := login(t, p.target.IMAP, carla, password)
	appendTo(t, own, "INBOX", note("hers before"))
	if err := own.Logout().Wait(); err != nil {
		t.Fatal(err)
	}
	p.start()
	inList := strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(password)
	migrate := func(mode, lines string) (string, error) {
		t.Helper()
		list := filepath.Join(t.TempDir(), "list")
		if err := os.WriteFile(list, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
		return p.cliFor(copyDeadline, "migrate", "--mode", mode, "--file", list)
	}

	if out, err := migrate("passwords", bert+":"+inList+"\n"+dora+":nobody's\n"); err == nil || !strings.Contains(out, dora) {
		t.Errorf("an unknown user went unnoticed: %v\n%s", err, out)
	}
	p.awaitState(bert, "finished")
	awaitLogin(t, p.target, bert, password)
	if n := len(viewOf(t, ask(t, request{Op: "dump", Port: p.target.IMAP, User: bert}), "", targetSep, nil).folders["INBOX"]); n != 0 {
		t.Errorf("%d messages were copied with the password", n)
	}
	if n := d.count(p.target.PasswdFile, dora+":"); n != 0 {
		t.Error("an account was made for a password that the source refuses")
	}

	if out, err := migrate("messages", carla+":"+inList+"\n"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p.awaitState(carla, "active")
	source := viewOf(t, ask(t, request{Op: "dump", Port: p.source.IMAP, User: carla}), sourcePrefix, sourceSep, nil)
	target := viewOf(t, ask(t, request{Op: "dump", Port: p.target.IMAP, User: carla}), "", targetSep, nil)
	if was, is := len(source.folders["INBOX"]), len(target.folders["INBOX"]); was == 0 || is != was+1 {
		t.Errorf("%d messages of the source, and one of the target's own, became %d", was, is)
	}
	if d.count(d.note, "ensure "+carla)+d.count(d.note, "set_password "+carla) > 0 {
		t.Errorf("the account that is there was touched: %s", readFile(t, d.note))
	}
}

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// passwdPath finds the passwd-file that the settings name.
var passwdPath = regexp.MustCompile(`path: ([^,} ]*)`)

// directoryCommand creates accounts in a Dovecot's passwd-file under a lock,
// and keeps aliases in a file of its own: an address belongs to one account.
const directoryCommand = `#!/usr/bin/env python3
import fcntl, json, os, sys
passwd, aliases, log = %q, %q, %q
r = json.load(sys.stdin)
lock = open(passwd + ".lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
with open(log, "a") as f:
    f.write(r["op"] + " " + r["account"] + " " + r.get("alias", "") + "\n")
lines = open(passwd).read().splitlines()
names = {l.split(":")[0] for l in lines if l}
owners = dict(l.split() for l in open(aliases)) if os.path.exists(aliases) else {}
if r["op"] == "lookup":
    sys.exit(2 if r["account"] in names or r["account"] in owners else 0)
if r["op"] == "add_alias":
    owner = owners.get(r["alias"])
    if r["alias"] in names or owner not in (None, r["account"]):
        sys.exit(2)
    if owner is None:
        with open(aliases, "a") as f:
            f.write(r["alias"] + " " + r["account"] + "\n")
    sys.exit(0)
if r["op"] == "remove_alias":
    if owners.get(r["alias"]) == r["account"]:
        del owners[r["alias"]]
        with open(aliases, "w") as f:
            f.writelines(a + " " + o + "\n" for a, o in owners.items())
    sys.exit(0)
if r["op"] not in ("ensure", "set_password"):
    sys.exit("unknown operation " + r["op"])
if r["op"] == "set_password" and r["account"] not in names:
    sys.exit("no such account")
rest = [l for l in lines if not l.startswith(r["account"] + ":")]
before = os.stat(passwd).st_mtime
with open(passwd + ".new", "w") as f:
    f.write("\n".join(rest + ["%%s:{PLAIN.b64}%%s::::::" %% (r["account"], r["password_base64"])]) + "\n")
os.chmod(passwd + ".new", 0o644)
after = max(os.stat(passwd + ".new").st_mtime, before + 1) # Dovecot looks at whole seconds
os.utime(passwd + ".new", (after, after))
os.rename(passwd + ".new", passwd)
`

// directory is a provision command for a target, and what it wrote.
type directory struct {
	t               testing.TB
	aliasFile, note string
}

func newDirectory(t testing.TB, s *settings) *directory {
	t.Helper()
	path := passwdPath.FindStringSubmatch(s.provision)
	if path == nil {
		t.Fatalf("no passwd-file in %q", s.provision)
	}
	dir := t.TempDir()
	d := &directory{t: t, aliasFile: filepath.Join(dir, "aliases"), note: filepath.Join(dir, "log")}
	command := filepath.Join(dir, "create-account")
	if err := os.WriteFile(command, fmt.Appendf(nil, directoryCommand, path[1], d.aliasFile, d.note), 0o755); err != nil {
		t.Fatal(err)
	}
	s.provision = fmt.Sprintf("{ driver: exec, command: [%s] }", command)
	return d
}

// count counts the lines of a file that begin with a text.
func (d *directory) count(file, prefix string) (n int) {
	d.t.Helper()
	for line := range strings.Lines(readFile(d.t, file)) {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

// statistics are the figures of `migproxy status --json` that tests look at.
type statistics struct {
	MailboxesSeen     int64            `json:"mailboxes_seen"`
	MailboxesMigrated int64            `json:"mailboxes_migrated"`
	MailboxesFailed   int64            `json:"mailboxes_failed"`
	MessagesMigrated  int64            `json:"messages_migrated"`
	BytesMigrated     int64            `json:"bytes_migrated"`
	Accounts          map[string]int64 `json:"accounts"`
}

func (p *proxy) statistics() (s statistics) {
	p.t.Helper()
	out, err := p.cli("status", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// A list of fifty users is moved between two real servers, while ten of them log
// in themselves: every account once, every alias once, and exact figures.
func TestAListOfFifty(t *testing.T) {
	t.Parallel()
	const users = 50
	var d *directory
	p := newPair(t, binary, func(s *settings) { d = newDirectory(t, s) })
	var list strings.Builder
	list.WriteString("# fifty users\n\n")
	var messages, octets int64
	person := func(i int) (name, pass string) {
		return fmt.Sprintf("user%02d@example.com", i), fmt.Sprintf(`p:%d\w`, i)
	}
	for i := range users {
		p.source.AddUser(person(i))
	}
	last, lastPass := person(users - 1)
	awaitLogin(t, p.source, last, lastPass)
	for i := range users {
		name, pass := person(i)
		c := login(t, p.source.IMAP, name, pass)
		for j := range i%5 + 1 {
			m := note(fmt.Sprintf("u%d-%d", i, j))
			appendTo(t, c, "INBOX", m)
			messages, octets = messages+1, octets+int64(len(m.octets))
		}
		_ = c.Logout().Wait()
		alias := fmt.Sprintf("alias%02d@example.com", i)
		if i == 1 {
			alias = "alias00@example.com" // two want the same address: one gets it
		}
		fmt.Fprintf(&list, "%s:%s:%s\n", name, strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(pass), alias)
	}
	file := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()

	var logins sync.WaitGroup
	for i := range 10 {
		logins.Go(func() {
			r := request{Op: "commands", Port: p.imap, TLS: "starttls"}
			r.User, r.Password = person(i * 5)
			if a, err := tryAsk(r); err != nil || !a.OK {
				t.Errorf("%s: %+v, %v", r.User, a, err)
			}
		})
	}
	out, err := p.cliFor(copyDeadline, "migrate", "--file", file)
	logins.Wait()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := p.statistics()
	if s.MailboxesSeen != users || s.MailboxesMigrated != users || s.MailboxesFailed != 0 || s.Accounts["active"] != users ||
		s.MessagesMigrated != messages || s.BytesMigrated != octets {
		t.Errorf("%+v; want %d messages of %d octets", s, messages, octets)
	}
	if n := d.count(d.aliasFile, "alias"); n != users-1 {
		t.Errorf("%d aliases", n)
	}
	for i := range users {
		name, pass := person(i)
		if n := d.count(p.target.PasswdFile, name+":"); n != 1 {
			t.Errorf("%s is there %d times", name, n)
		}
		if n := d.count(d.note, "ensure "+name+" "); n < 1 {
			t.Errorf("%s was not created by the command", name)
		}
		if i%10 == 0 {
			a := ask(t, request{Op: "dump", Port: p.imap, TLS: "starttls", User: name, Password: pass})
			if v := viewOf(t, a, "", targetSep, nil); len(v.folders["INBOX"]) != i%5+1 {
				t.Errorf("%s has %v", name, v.folders)
			}
		}
	}
	p.search(lastPass)
}

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// alias is one line of `migproxy aliases list --json`.
type alias struct {
	Address  string `json:"address"`
	Account  string `json:"account"`
	State    string `json:"state"`
	Reason   string `json:"reason"`
	Messages int    `json:"messages"`
}

func (p *proxy) aliases(state string) (all []alias) {
	p.t.Helper()
	out, err := p.cli("aliases", "list", "--state", state, "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &all)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return all
}

// owners are the aliases that the target has, with their accounts.
func (d *directory) owners() map[string]string {
	owners := map[string]string{}
	text, err := os.ReadFile(d.aliasFile)
	if err != nil && !os.IsNotExist(err) {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		owners[words[0]] = words[1]
	}
	return owners
}

// corpus reads the headers that aliasresolve is tested with, as the mail of the
// source's users: name, folder, message.
func corpus(t testing.TB, each func(name string, sent bool, octets []byte)) {
	t.Helper()
	files, err := filepath.Glob("../aliasresolve/testdata/corpus/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	sentFolders := []string{"Sent", "INBOX.Sent", "Sent Items", "Gesendet", "Gesendete Elemente", "[Gmail]/Sent Mail"}
	for _, file := range files {
		for _, part := range strings.Split("\n"+readFile(t, file), "\n== ")[1:] {
			head, text, _ := strings.Cut(part, "\n")
			text, _, _ = strings.Cut(text, "\n##")
			where, count, _ := strings.Cut(head, " x ")
			name, folder, _ := strings.Cut(where, " ")
			times, err := strconv.Atoi(count)
			if err != nil {
				t.Fatalf("%s: %q", file, head)
			}
			for range min(times, 4) { // the minimum is 3
				each(name, slices.Contains(sentFolders, folder), []byte(strings.ReplaceAll(strings.TrimRight(text, "\n")+"\n\nbody\n", "\n", "\r\n")))
			}
		}
	}
}

// words reads a file of lines with an account and further addresses.
func words(t testing.TB, path string) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for line := range strings.Lines(readFile(t, path)) {
		if w := strings.Fields(line); len(w) > 0 && w[0] != "#" {
			all[w[0]] = w[1:]
		}
	}
	return all
}

// The mail of an organisation is moved between two real servers, with the list of
// its accounts: what is found is created once and for the right account, and
// nothing of anybody else's stays.
func TestAliasesOfAnOrganisation(t *testing.T) {
	var d *directory
	p := newPair(t, binary, func(s *settings) {
		d = newDirectory(t, s)
		list, err := filepath.Abs("../aliasresolve/testdata/accounts.txt")
		if err != nil {
			t.Fatal(err)
		}
		s.domain = fmt.Sprintf("    access_mode: extended\n    aliases: { accounts_file: %s }\n", list)
		s.migration = "settle_quiet: 500ms, catch_up: 1s"
	})
	truth := words(t, "../aliasresolve/testdata/truth.txt")
	var list strings.Builder
	var added string
	boxes := map[string]map[bool][]mail{}
	for name := range truth {
		p.source.AddUser(name, "secret")
		added = name
		boxes[name] = map[bool][]mail{}
		fmt.Fprintf(&list, "%s:secret\n", name)
	}
	corpus(t, func(name string, sent bool, octets []byte) {
		boxes[name][sent] = append(boxes[name][sent], mail{octets: octets, date: time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)})
	})
	awaitLogin(t, p.source, added, "secret")
	for name, mails := range boxes {
		c := login(t, p.source.IMAP, name, "secret")
		appendTo(t, c, "INBOX", mails[false]...)
		appendTo(t, c, sourcePrefix+"Gesendet", mails[true]...)
		_ = c.Logout().Wait()
	}
	file := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	if out, err := p.cliFor(copyDeadline, "migrate", "--file", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// What was claimed before a second mailbox showed it is taken away.
	err := eventually(30*time.Second, func() error {
		there, created := d.owners(), p.aliases("created")
		if len(there) != len(created) {
			return fmt.Errorf("%d aliases are there, %d created", len(there), len(created))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	there := d.owners()
	for address, account := range there {
		if !slices.Contains(truth[account], address) {
			t.Errorf("%s is not %s's", address, account)
		}
		if n := d.count(d.note, "add_alias "+account+" "+address+"\n"); n != 1 {
			t.Errorf("%s was added %d times", address, n)
		}
	}
	found, all := 0, 0
	for account, addresses := range truth {
		for _, address := range addresses {
			if strings.HasSuffix(address, "@example.com") {
				all++
				if there[address] == account {
					found++
				}
			}
		}
	}
	t.Logf("%d of %d aliases found; not claimed: %d", found, all, len(p.aliases("withdrawn")))
	if found < all*2/3 {
		t.Errorf("%d of %d aliases found: %v", found, all, there)
	}
	var s struct {
		AliasesCreated int `json:"aliases_created"`
	}
	if out, err := p.cli("status", "--json"); err != nil || json.Unmarshal([]byte(out), &s) != nil || s.AliasesCreated != len(truth)+len(there) {
		t.Errorf("%+v, %v; want %d accounts and %d aliases", s, err, len(truth), len(there))
	}
}

// Without the list nothing is created before it is approved; what a second
// mailbox shows later is withdrawn and taken away.
func TestAliasIsApprovedAndWithdrawn(t *testing.T) {
	var d *directory
	p := newPair(t, binary, func(s *settings) {
		d = newDirectory(t, s)
		s.domain = "    access_mode: extended\n"
		s.migration = "settle_quiet: 500ms, catch_up: 1s"
	})
	const address = "a.rossi@example.com"
	move := func(name string, shown int) {
		p.source.AddUser(name, "secret")
		awaitLogin(t, p.source, name, "secret")
		c := login(t, p.source.IMAP, name, "secret")
		for i := range shown {
			m := note(fmt.Sprintf("%s-%d", name, i))
			m.octets = append([]byte("Delivered-To: "+address+"\r\n"), m.octets...)
			appendTo(t, c, "INBOX", m)
		}
		_ = c.Logout().Wait()
		a := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", User: name, Password: "secret"})
		if !a.OK {
			t.Fatalf("%+v", a)
		}
		p.awaitState(name, "active")
	}
	p.start()
	move(user, 3)
	if all := p.aliases("proposed"); len(all) != 1 || all[0].Address != address || all[0].Account != user || all[0].Messages != 3 || len(d.owners()) != 0 {
		t.Fatalf("%+v, %v", all, d.owners())
	}
	if out, err := p.cli("aliases", "list"); err != nil || !strings.Contains(out, "Delivered-To 3") {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := p.cli("aliases", "approve", address); err != nil {
		t.Fatal(out, err)
	}
	await := func(want string) {
		t.Helper()
		err := eventually(30*time.Second, func() error {
			if owner := d.owners()[address]; owner != want {
				return fmt.Errorf("it is %q's, not %q's", owner, want)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	await(user)
	move("bert@example.com", 1)
	await("")
	all := p.aliases("withdrawn")
	if len(all) != 2 || all[0].Account != user || all[0].Reason != "shown by another mailbox as well: bert@example.com" || all[1].Account != "bert@example.com" {
		t.Errorf("%+v", all)
	}
	if out, err := p.cli("log", user); err != nil || !strings.Contains(out, "Available Aliases: a.rossi - 3 x") || !strings.Contains(out, "removed on the target") {
		t.Errorf("%s, %v", out, err)
	}
}

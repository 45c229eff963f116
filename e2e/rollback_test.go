package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"migproxy/e2e/servers"
)

// everywhere counts the messages of a mailbox by digest and date, wherever they
// are.
func (v view) everywhere() map[string]int {
	count := map[string]int{}
	for _, list := range v.folders {
		for _, m := range list {
			words := strings.Fields(m)
			count[words[0]+" "+words[len(words)-1]]++
		}
	}
	return count
}

// An account is taken back to its source and moves forth again, twice: whatever its
// owner does on either side, everything is on both once.
func TestRollbackAndForthAgain(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"dovecot", "courier"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			rollbackAndForth(t, kind)
		})
	}
}

func rollbackAndForth(t *testing.T, kind string) {
	target := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
	var source endpoint
	sent := "Sent"
	var rename map[string]string
	if kind == "courier" {
		c := servers.StartCourier(t, map[string]string{user: password})
		source = endpoint{imap: c.IMAP, pop3: c.POP3, tls: "none"}
	} else {
		d := servers.StartDovecot(t, servers.DovecotOptions{Separator: ".", Prefix: "INBOX.", SentName: "Gesendet"})
		d.AddUser(user, password)
		source, sent, rename = dovecotEndpoint(d), "Gesendet", sentName
	}
	fill(t, source.imap, user, password, "INBOX.", ".", sent)
	p := newProxy(t, binary, settings{source: source, target: dovecotEndpoint(target),
		provision: fmt.Sprintf("{ driver: passwd-file, path: %s }", target.PasswdFile)}).start()
	sourceView := func() view {
		return viewOf(t, ask(t, request{Op: "dump", Port: source.imap}), "INBOX.", ".", rename)
	}
	targetView := func() view {
		return viewOf(t, ask(t, request{Op: "dump", Port: target.IMAP}), "", targetSep, nil)
	}
	comeIn := func() {
		t.Helper()
		if in := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Commands: [][]any{{"noop"}}}); !in.OK {
			t.Fatalf("%+v", in)
		}
	}
	comeIn()
	p.awaitState(user, "active")
	sameMail(t, sourceView(), targetView())

	for round := range 2 {
		before := sourceView()
		liveOnTarget(t, target.IMAP, round)
		there := targetView()
		open := dial(t, p.imaps, true)
		open.until("* OK")
		open.send(fmt.Sprintf("a LOGIN %s {%d+}\r\n%s\r\n", user, len(password), password))
		open.until("a OK")

		if _, err := p.cli("account", "exclude", user); err == nil || !strings.Contains(err.Error(), "migproxy account rollback "+user) {
			t.Errorf("account exclude: %v", err)
		}
		var plan struct {
			Folders []struct {
				Source, Target string
				Messages       int
				Create         bool
			}
			Messages int
		}
		out, err := p.cli("account", "rollback", user, "--dry-run", "--json")
		if err == nil {
			err = json.Unmarshal([]byte(out), &plan)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := sourceView(); !maps.Equal(got.everywhere(), before.everywhere()) {
			t.Error("the dry run has changed the source")
		}
		if a, err := p.state(user); err != nil || a.State != "active" {
			t.Errorf("after the dry run: %+v, %v", a, err)
		}
		out, err = p.cli("account", "rollback", user)
		if err != nil || !strings.Contains(out, "lives at its source again") {
			t.Fatalf("%s\n%v", out, err)
		}
		open.ends()

		// What was said is what happened.
		after := sourceView()
		planned := 0
		for _, f := range plan.Folders {
			name := strings.ReplaceAll(strings.TrimPrefix(f.Source, "INBOX."), ".", "\x00")
			if to, ok := rename[name]; ok {
				name = to
			}
			_, had := before.folders[name]
			if n := len(after.folders[name]) - len(before.folders[name]); n != f.Messages || had == f.Create {
				t.Errorf("%+v was planned, %d messages came", f, n)
			}
			planned += f.Messages
		}
		if planned != plan.Messages || planned != 7 {
			t.Errorf("%+v", plan)
		}
		for name, list := range before.folders {
			if lost := minus(list, after.folders[name]); len(lost) > 0 {
				t.Errorf("%s on the source was changed: %v", name, lost)
			}
		}
		if fresh := minus(after.folders["INBOX"], before.folders["INBOX"]); len(fresh) != 4 || strings.Count(strings.Join(fresh, ","), "$Label1") != 1 ||
			strings.Count(strings.Join(fresh, ","), "2021-03-04T05:06:07Z") != 3 {
			t.Errorf("new in INBOX: %q", fresh)
		}
		want := before.everywhere()
		for m, n := range there.everywhere() {
			want[m] = max(n, want[m])
		}
		if got := after.everywhere(); !maps.Equal(got, want) {
			t.Errorf("the source has %v\nwant %v", got, want)
		}
		if got := targetView(); !maps.Equal(got.everywhere(), there.everywhere()) {
			t.Error("the target was changed")
		}

		// He is on the source now, and works there.
		through := viewOf(t, ask(t, request{Op: "dump", Port: p.imap, TLS: "starttls"}), "INBOX.", ".", rename)
		sameMail(t, after, through)
		c := login(t, source.imap, user, password)
		appendTo(t, c, "INBOX", note(fmt.Sprintf("at-the-source-%d", round)))
		if _, err := c.Select("INBOX.archive", nil).Wait(); err != nil {
			t.Fatal(err)
		}
		if round == 0 { // a client's move, on servers without MOVE
			moved := imap.SeqSetNum(1)
			if _, err := c.Copy(moved, "INBOX.empty").Wait(); err != nil {
				t.Fatal(err)
			}
			if err := c.Store(moved, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
				t.Fatal(err)
			}
			if err := c.Expunge().Close(); err != nil {
				t.Fatal(err)
			}
		}

		if out, err := p.cli("account", "retry", user); err != nil {
			t.Fatalf("%s%v", out, err)
		}
		comeIn()
		p.awaitState(user, "active")
		if was, is := sourceView().everywhere(), targetView().everywhere(); !maps.Equal(was, is) {
			t.Errorf("round %d: the source has %v\nthe target %v", round, was, is)
		}
		comeIn()
	}
}

// liveOnTarget gets mail, writes, moves, copies and deletes there: seven messages
// are new.
func liveOnTarget(t *testing.T, port, round int) {
	t.Helper()
	c := login(t, port, user, password)
	fresh := note(fmt.Sprintf("arrived-%d", round))
	fresh.flags = []imap.Flag{imap.FlagSeen, "$Label1"}
	twin := note(fmt.Sprintf("twin-%d", round))
	appendTo(t, c, "INBOX", fresh, twin, twin)
	appendTo(t, c, "Sent", note(fmt.Sprintf("sent-%d", round)))
	projects := fmt.Sprintf("Projects/%d", round)
	if err := c.Create(projects, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := c.Subscribe(projects).Wait(); err != nil {
		t.Fatal(err)
	}
	appendTo(t, c, projects, note(fmt.Sprintf("project-%d", round)))
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Move(imap.SeqSetNum(4), projects).Wait(); err != nil { // the twins' cousin
		t.Fatal(err)
	}
	if _, err := c.Copy(imap.SeqSetNum(4), projects).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Copy(imap.SeqSetNum(5), "INBOX").Wait(); err != nil {
		t.Fatal(err)
	}
	if err := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.UIDExpunge(imap.UIDSetNum(1)).Close(); err != nil && round == 0 {
		t.Fatal(err)
	}
	if err := c.Logout().Wait(); err != nil {
		t.Fatal(err)
	}
}

// ends waits until the server has closed the connection.
func (l *line) ends() {
	l.t.Helper()
	chunk := make([]byte, 4096)
	for {
		if _, err := l.Read(chunk); err != nil {
			return
		}
	}
}

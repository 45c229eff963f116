package migrator_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
	"migproxy/upstream"
)

// livesThere is a bench on which anna has moved, and has something new on the target.
func livesThere(t *testing.T) (source, target *fakeServer, b *bench) {
	t.Helper()
	source, target, _, b = fakes(t, func(f *fakeServer) {
		f.delim = "."
		f.box("INBOX").fill(6, true)
		f.box("Work").fill(4, false)
	})
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	target.put("INBOX", message(1001, "new"), `\Seen`, "$Label1")
	target.put("Work", message(1002, "new"))
	return source, target, b
}

// Whatever keeps an account from being taken back, it stays on the target with the
// reason, and can be taken back once that is gone, with nothing doubled.
func TestRollbackThatCannotBe(t *testing.T) {
	refuses := func(of string, no string) func(f *fakeServer) {
		return func(f *fakeServer) {
			f.onAppend = func(_ int, mails []fakeMail) verdict {
				if slices.ContainsFunc(mails, func(m fakeMail) bool { return strings.Contains(m.body, of) }) {
					return verdict{no: no}
				}
				return verdict{}
			}
		}
	}
	for _, tt := range []struct {
		name           string
		source, target func(*fakeServer)
		says           string
		needsPassword  bool
	}{
		{"no room", refuses("", "[OVERQUOTA] full"), nil, "no room", false},
		{"one message refused", refuses("message 1002", "[CANNOT] bad"), nil, "does not take UID 5 of the target's folder Work", false},
		{"source away", func(f *fakeServer) { f.loginCode = "[UNAVAILABLE]" }, nil, "the source cannot be asked", false},
		{"target away", nil, func(f *fakeServer) { f.loginCode = "[UNAVAILABLE]" }, "the target cannot be asked", false},
		{"source's password changed", func(f *fakeServer) { f.password = "another" }, nil, "the source takes no password", true},
		{"target's password changed", nil, func(f *fakeServer) { f.password = "another" }, "the target takes no password", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			source, target, b := livesThere(t)
			want := source.all()
			change := func(f *fakeServer, how func(*fakeServer)) {
				f.mu.Lock()
				defer f.mu.Unlock()
				if how != nil {
					how(f)
				}
			}
			change(source, tt.source)
			change(target, tt.target)
			a := b.rollback(t, b.options(t), "anna")
			if a.State != store.Active || !strings.Contains(a.Reason, tt.says) || a.Due.IsZero() || a.NeedsPassword != tt.needsPassword || !a.RolledBackAt.IsZero() {
				t.Fatalf("%+v", a)
			}
			for _, f := range []*fakeServer{source, target} {
				change(f, func(f *fakeServer) { f.onAppend, f.loginCode, f.password = nil, "", secret })
			}
			if tt.needsPassword { // his next login gives it
				if err := b.store.KeepPassword(t.Context(), a.ID, config.NewSecret(secret), false); err != nil {
					t.Fatal(err)
				}
			}
			if a = b.rollback(t, b.options(t), "anna"); a.State != store.Excluded {
				t.Fatalf("%+v", a)
			}
			want[message(1001, "new")]++
			want[message(1002, "new")]++
			once(t, "source", source, want)
		})
	}
}

// What a rollback that was given up has added to the source is not copied to the
// target by the catch-up, as mail that has arrived there.
func TestCatchUpKnowsAGivenUpRollback(t *testing.T) {
	source, target, b := livesThere(t)
	there := target.all()
	// The source takes everything, answers nothing, and is away from then on.
	source.mu.Lock()
	source.onAppend = func(int, []fakeMail) verdict {
		source.loginCode = "[UNAVAILABLE]"
		return verdict{keep: true, cut: true}
	}
	source.mu.Unlock()
	if a := b.rollback(t, b.options(t), "anna"); a.State != store.Active {
		t.Fatalf("%+v", a)
	}
	source.mu.Lock()
	source.loginCode, source.onAppend = "", nil
	source.mu.Unlock()
	if _, err := b.store.Retry(t.Context(), "anna@example.com"); err != nil {
		t.Fatal(err)
	}
	b.until(t, b.options(t), "anna", func(a store.Account) bool { return !a.CaughtUpAt.IsZero() })
	once(t, "target", target, there)
}

// A keyword that the source does not take is left out rather than the message.
func TestRollbackWithoutKeywords(t *testing.T) {
	source, _, b := livesThere(t)
	source.onAppend = func(_ int, mails []fakeMail) verdict {
		if slices.Contains(mails[0].flags, "$Label1") {
			return verdict{no: "[CANNOT] no keywords here"}
		}
		return verdict{}
	}
	if a := b.rollback(t, b.options(t), "anna"); a.State != store.Excluded {
		t.Fatalf("%+v", a)
	}
	if have := source.contents("INBOX"); !slices.Contains(have, `\Seen|12-Feb-2020 02:02:02 +0000|`+message(1001, "new")) {
		t.Errorf("%q", have)
	}
}

// A source that numbers a folder anew between the intent and the look at it gets
// nothing twice.
func TestRollbackIntoARenumberedFolder(t *testing.T) {
	for _, step := range []string{"rollback.intent.committed", "rollback.sent"} {
		t.Run(step, func(t *testing.T) { rollbackIntoARenumberedFolder(t, step) })
	}
}

func rollbackIntoARenumberedFolder(t *testing.T, step string) {
	source, target, b := livesThere(t)
	want := source.all()
	for range 3 {
		target.put("INBOX", message(1, "x")) // as one that the source has
		want[message(1, "x")]++
	}
	want[message(1001, "new")]++
	want[message(1002, "new")]++
	o := b.options(t)
	o.Concurrency = 1
	k := &killer{name: step, n: 1, died: make(chan struct{})}
	o.Step = k.step
	if _, err := b.store.AskRollback(t.Context(), "anna@example.com"); err != nil {
		t.Fatal(err)
	}
	b.untilDead(t, o, "anna", k.died, func(store.Account) bool { return false })
	source.mu.Lock()
	in := source.box("INBOX")
	in.validity += 1000
	for i := range in.mails {
		in.mails[i].uid = uint32(i + 1)
	}
	in.next = uint32(len(in.mails) + 1)
	source.mu.Unlock()
	if a := b.until(t, b.options(t), "anna", func(a store.Account) bool { return a.RollingBack == store.NotRollingBack }); a.State != store.Excluded {
		t.Fatalf("%+v", a)
	}
	once(t, "source", source, want)
	b.forth(t, b.options(t), "anna", secret)
	once(t, "target", target, want)
}

// A source that alters what it takes has it once all the same, with the extensions
// and without them.
func TestRollbackIntoASourceThatAlters(t *testing.T) {
	for name, caps := range sourceKinds {
		t.Run(name, func(t *testing.T) {
			source, target, b := livesThere(t)
			source.mu.Lock()
			source.caps = caps
			source.onAppend = func(int, []fakeMail) verdict {
				return verdict{tamperer: func(s string) string { return "X-Stamp: yes\r\n" + s }}
			}
			source.mu.Unlock()
			if a := b.rollback(t, b.options(t), "anna"); a.State != store.Excluded {
				t.Fatalf("%+v", a)
			}
			if n := source.all()["X-Stamp: yes\r\n"+message(1001, "new")]; n != 1 {
				t.Errorf("it is there %d times", n)
			}
			there := target.all()
			b.forth(t, b.options(t), "anna", secret)
			once(t, "target", target, there)
		})
	}
}

// What the target has lost or numbered anew since is copied again, or recognised.
func TestForthIntoAnotherMailbox(t *testing.T) {
	source, target, b := livesThere(t)
	if a := b.rollback(t, b.options(t), "anna"); a.State != store.Excluded {
		t.Fatalf("%+v", a)
	}
	want := source.all()
	target.mu.Lock()
	in := target.box("INBOX")
	in.validity += 1000
	for i := range in.mails {
		in.mails[i].uid += 100
	}
	in.next += 100
	target.boxes = slices.DeleteFunc(target.boxes, func(b *fakeBox) bool { return b.name == "Work" })
	target.mu.Unlock()
	b.forth(t, b.options(t), "anna", secret)
	once(t, "target", target, want)
	if n := len(target.contents("Work")); n != 5 {
		t.Errorf("%d messages in Work", n)
	}
	a, err := b.store.Account(t.Context(), "anna@example.com")
	if err != nil {
		t.Fatal(err)
	}
	folders, err := b.store.Folders(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders { // each message of the source is that of its own folder
		if want := map[string]int64{"INBOX": 7, "Work": 5}[f.Source]; f.Messages != want {
			t.Errorf("the ledger has %d messages in %s", f.Messages, f.Source)
		}
	}
	if a.Messages != 12 {
		t.Errorf("%d messages", a.Messages)
	}
}

// A source that is read over POP3 is not written.
func TestNoRollbackToPOP3(t *testing.T) {
	_, _, b := livesThere(t)
	cfg := *b.domains[domain].Config
	cfg.Source.Protocols = []config.Protocol{config.POP3}
	cfg.Source.POP3 = cfg.Source.IMAP
	domains, err := upstream.Domains(&config.Config{Domains: []config.Domain{cfg}}, b.options(t).Log)
	if err != nil {
		t.Fatal(err)
	}
	b.domains = domains
	a := b.rollback(t, b.options(t), "anna")
	if a.State != store.Active || !strings.Contains(a.Reason, "POP3") {
		t.Fatalf("%+v", a)
	}
	o := b.options(t)
	o.Metrics = prometheus.NewRegistry()
	m, err := migrator.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.PlanRollback(context.Background(), a); err == nil || !strings.Contains(err.Error(), "POP3") {
		t.Error(err)
	}
}

// What has moved on the source since the flip is not taken for one more copy that
// the source has: a copy that its owner makes on the target comes back.
func TestRollbackAfterAMoveOnTheSource(t *testing.T) {
	source, target, b := livesThere(t)
	body := message(3, "xxx")
	source.carry("Work", "INBOX", body)
	if _, err := b.store.Retry(t.Context(), "anna@example.com"); err != nil {
		t.Fatal(err)
	}
	b.until(t, b.options(t), "anna", func(a store.Account) bool { return !a.CaughtUpAt.IsZero() })
	want := source.all()
	target.put("Trash", body)
	for _, m := range []string{body, message(1001, "new"), message(1002, "new")} {
		want[m]++
	}
	if a := b.rollback(t, b.options(t), "anna"); a.State != store.Excluded {
		t.Fatalf("%+v", a)
	}
	once(t, "source", source, want)
	b.forth(t, b.options(t), "anna", secret)
	once(t, "target", target, want)
}

// A finished account has no password any more: master users take it back. It moves
// anew with the password that its owner has by then.
func TestRollbackOfAFinishedAccount(t *testing.T) {
	source, target, b := livesThere(t)
	if err := b.store.SetActive(t.Context(), domain, false); err != nil {
		t.Fatal(err)
	}
	begin(t, b) // it keeps the domain from being finished
	if err := b.store.Complete(t.Context(), domain, store.CompleteWhole, false); err != nil {
		t.Fatal(err)
	}
	if a := b.run(t, b.options(t), "anna", store.Finished); a.HasPassword {
		t.Fatalf("%+v", a)
	}
	if a := b.rollback(t, b.options(t), "anna"); a.State != store.Finished || !strings.Contains(a.Reason, "takes no password") || !a.Due.IsZero() {
		t.Fatalf("%+v", a)
	}
	source.mu.Lock()
	source.master = "master of the old"
	source.mu.Unlock()
	target.mu.Lock()
	target.master = "master of the new"
	target.mu.Unlock()
	b.domains[domain].Source.Master = &upstream.Master{User: "admin", Style: config.MasterAuthzid, Password: config.NewSecret("master of the old")}
	b.domains[domain].Target.Master = &upstream.Master{User: "admin", Style: config.MasterAuthzid, Password: config.NewSecret("master of the new")}
	want := source.all()
	want[message(1001, "new")]++
	want[message(1002, "new")]++
	if a := b.rollback(t, b.options(t), "anna"); a.State != store.Excluded {
		t.Fatalf("%+v", a)
	}
	once(t, "source", source, want)
	source.mu.Lock()
	source.password = "newer"
	source.mu.Unlock()
	b.forth(t, b.options(t), "anna", "newer")
	once(t, "target", target, want)
	if target.password != "newer" {
		t.Errorf("the target takes %q", target.password)
	}
}

// begin notes a user who has not moved.
func begin(t *testing.T, b *bench) {
	t.Helper()
	if _, err := b.store.Note(t.Context(), identity("bert"), store.AtSource); err != nil {
		t.Fatal(err)
	}
}

// Folders that only the target has get the source's own kind of names: its
// separator, its prefix, another spelling where it refuses one. One that was
// renamed is no new one, and what moved with it comes back nowhere.
func TestRollbackFolderNames(t *testing.T) {
	source, target, b := livesThere(t)
	source.mu.Lock()
	source.prefix = "INBOX."
	source.onCommand = func(name, args string) string {
		if name == "CREATE" && strings.Contains(args, "#") {
			return "NO [CANNOT] not this name"
		}
		return ""
	}
	source.mu.Unlock()
	want := source.all()
	target.mu.Lock()
	target.box("Work").name = "Job" // under the UIDVALIDITY that it had
	target.mu.Unlock()
	for n, box := range []string{"Job", "Projects/2026/a.b", "Projects", "#1", "Sent", "Work"} {
		body := message(2000+n, "new")
		target.put(box, body)
		want[body]++
	}
	want[message(1001, "new")]++
	want[message(1002, "new")]++
	target.mu.Lock()
	target.box("Projects").subscribed = true
	target.mu.Unlock()
	if a := b.rollback(t, b.options(t), "anna"); a.State != store.Excluded {
		t.Fatalf("%+v", a)
	}
	once(t, "source", source, want)
	for box, n := range map[string]int{"INBOX.Job": 2, "INBOX.Projects.2026.a_b": 1, "INBOX.Projects": 1, "INBOX._1": 1, "INBOX.Sent": 1, "Work": 5, "INBOX": 7} {
		if have := len(source.contents(box)); have != n {
			t.Errorf("%s has %d messages, not %d", box, have, n)
		}
	}
	if !source.box("INBOX.Projects").subscribed || source.box("INBOX.Job").subscribed {
		t.Error("subscriptions")
	}
}

package migrator_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

// moved is an account that has just flipped.
func moved(t testing.TB, fill func(*fakeServer)) (source, target *fakeServer, driver *fakeDriver, b *bench) {
	t.Helper()
	source, target, driver, b = fakes(t, fill)
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	return source, target, driver, b
}

// catchUp runs one catch-up of anna's and returns what the account is then.
func (b *bench) catchUp(t testing.TB) store.Account {
	t.Helper()
	before, err := b.store.Account(t.Context(), identity("anna").Address())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.Retry(t.Context(), identity("anna").Address()); err != nil {
		t.Fatal(err)
	}
	return b.until(t, b.options(t), "anna", func(a store.Account) bool {
		return a.CaughtUpAt.After(before.CaughtUpAt) || a.Reason != ""
	})
}

// with runs a function while nobody else touches the server.
func (f *fakeServer) with(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

// lines are the commands since the last call.
func (f *fakeServer) lines() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	log := f.log
	f.log = nil
	return log
}

func caughtUp(t testing.TB, a store.Account) {
	t.Helper()
	if a.State != store.Active || a.Reason != "" || a.CaughtUpAt.IsZero() || !a.Due.After(time.Now()) {
		t.Fatalf("%s, %q: %+v", a.State, a.Reason, a)
	}
}

func TestCatchUpAddsWhatIsNew(t *testing.T) {
	source, target, _, b := moved(t, twoFolders)
	var kept fakeMail
	target.with(func() { // the owner lives there
		in := target.box("INBOX")
		kept = in.mails[1]
		in.mails = in.mails[1:]
		in.mails[0].flags = []string{`\Flagged`}
		in.add(fakeMail{body: message(5000, "a delivery")})
	})
	source.with(func() {
		source.box("INBOX").fill(2, false) // once more what is there already: two copies
		source.box("INBOX").add(fakeMail{body: message(9001, "new"), date: "14-Mar-2019 05:06:07 +0100", flags: []string{`\Seen`}})
		source.box("New").add(fakeMail{body: message(9002, "new"), date: "14-Mar-2019 05:06:07 +0100"})
		source.box("New").subscribed = true
		source.box("Empty")
	})
	caughtUp(t, b.catchUp(t))
	target.with(func() {
		in := target.box("INBOX").mails
		if len(in) != 149+1+3 || in[0].body != kept.body || !slices.Equal(in[0].flags, []string{`\Flagged`}) {
			t.Errorf("%d messages, the first %v", len(in), in[0].flags)
		}
		if in[len(in)-1].body != message(9001, "new") {
			t.Errorf("last is %q", in[len(in)-1].body)
		}
	})
	if n := len(target.contents("New")); n != 1 || !target.box("New").subscribed {
		t.Errorf("%d messages in the new folder", n)
	}
	if target.find("Empty") != nil {
		t.Error("an empty folder was made")
	}
	caughtUp(t, b.catchUp(t))
	if n := len(target.contents("INBOX")); n != 153 {
		t.Errorf("%d messages after a second pass", n)
	}
}

// With nothing new, the target is not even connected to, and no message of the
// source is looked at.
func TestCatchUpIsCheap(t *testing.T) {
	source, target, _, b := moved(t, twoFolders)
	source.lines()
	logins := target.logins
	caughtUp(t, b.catchUp(t))
	if target.logins != logins {
		t.Error("the target was asked")
	}
	for _, line := range source.lines() {
		if strings.HasPrefix(line, "UID") || strings.HasPrefix(line, "EXAMINE") {
			t.Error(line)
		}
	}
}

// What was deleted or moved on the target stays so, and nothing is doubled,
// while the source numbers a folder anew, renames another and moves a message.
func TestNothingComesBack(t *testing.T) {
	source, target, _, b := moved(t, func(f *fakeServer) {
		twoFolders(f)
		f.box("Old").fill(40, true)
	})
	target.with(func() {
		for _, name := range []string{"INBOX", "Work", "Old"} {
			box := target.box(name)
			box.mails = box.mails[len(box.mails)/2:]
		}
		moved := target.box("INBOX").mails[0]
		target.box("INBOX").mails = target.box("INBOX").mails[1:]
		target.box("Private").add(moved)
	})
	before := map[string][]string{}
	for _, name := range []string{"INBOX", "Work", "Old", "Private"} {
		before[name] = target.contents(name)
	}
	source.with(func() {
		in := source.box("INBOX")
		in.validity += 7
		for i := range in.mails {
			in.mails[i].uid += 500
		}
		in.next += 500
		source.box("Old").name = "Older"
		m := source.box("Work").mails[3]
		source.box("Work").mails = slices.Delete(source.box("Work").mails, 3, 4)
		source.box("Older").add(m)
	})
	appends := target.appends
	for range 3 {
		caughtUp(t, b.catchUp(t))
	}
	if target.appends != appends || target.find("Older") != nil {
		t.Errorf("%d appends, folder made: %v", target.appends-appends, target.find("Older") != nil)
	}
	for name, was := range before {
		if is := target.contents(name); !slices.Equal(was, is) {
			t.Errorf("%s: %d messages became %d", name, len(was), len(is))
		}
	}
	// A message that arrives then is still told from what has moved.
	source.with(func() { source.box("Older").add(fakeMail{body: message(9100, "late")}) })
	caughtUp(t, b.catchUp(t))
	if n := len(target.contents("Older")); n != 1 {
		t.Errorf("%d late messages", n)
	}
	// Each message counts once, and goes on counting.
	if st, err := b.store.Statistics(t.Context()); err != nil || st.MessagesMigrated != 150+30+40+1 {
		t.Errorf("%d messages counted, %v", st.MessagesMigrated, err)
	}
	source.with(func() {
		in := source.box("INBOX")
		in.validity += 7
		in.mails = in.mails[100:]
	})
	caughtUp(t, b.catchUp(t))
	if st, err := b.store.Statistics(t.Context()); err != nil || st.MessagesMigrated != 150+30+40+1 {
		t.Errorf("%d messages counted, %v", st.MessagesMigrated, err)
	}
}

// A copy within the source is one message more, a move is none: also where
// several are alike.
func TestCopiesAreTold(t *testing.T) {
	source, target, _, b := moved(t, func(f *fakeServer) {
		f.box("INBOX").fill(6, true) // three pairs of twins
		f.box("Else")
	})
	source.with(func() {
		in, other := source.box("INBOX"), source.box("Else")
		other.add(in.mails[0])                               // a third one
		other.add(in.mails[2])                               // one of a pair, moved
		in.mails = slices.Delete(in.mails, 2, 3)             // ...
		other.add(fakeMail{body: message(77, "unheard of")}) // a new one
	})
	caughtUp(t, b.catchUp(t))
	if in, other := len(target.contents("INBOX")), len(target.contents("Else")); in != 6 || other != 2 {
		t.Errorf("%d and %d messages", in, other)
	}
}

// The owner may remove a folder of the target; mail that arrives in it on the
// source finds a new one, without what he has removed.
func TestFolderRemovedOnTheTarget(t *testing.T) {
	source, target, _, b := moved(t, twoFolders)
	target.with(func() {
		target.boxes = slices.DeleteFunc(target.boxes, func(x *fakeBox) bool { return x.name == "Work" })
		target.box("Other") // so that a new Work gets another UIDVALIDITY
		target.box("Another")
	})
	source.with(func() { source.box("Work").add(fakeMail{body: message(9001, "new")}) })
	caughtUp(t, b.catchUp(t))
	if all := target.contents("Work"); len(all) != 1 || !strings.HasSuffix(all[0], message(9001, "new")) {
		t.Errorf("%d messages", len(all))
	}
	source.with(func() { source.box("Work").add(fakeMail{body: message(9002, "new")}) })
	caughtUp(t, b.catchUp(t))
	if all := target.contents("Work"); len(all) != 2 {
		t.Errorf("%d messages", len(all))
	}
}

// A password that the source refuses is asked for once. The next one of the
// owner's is tried once as well, and never decides whether he may log in; the
// administrator's is tried whenever he gives it.
func TestSourceRefusesThePassword(t *testing.T) {
	source, target, _, b := moved(t, twoFolders)
	source.with(func() {
		source.password = "changed"
		source.box("INBOX").add(fakeMail{body: message(9001, "new")})
	})
	tried := func(password string, proved bool, more int) store.Account {
		t.Helper()
		before := source.logins
		if password != "" {
			a, err := b.store.Account(t.Context(), identity("anna").Address())
			if err == nil {
				err = b.store.KeepPassword(t.Context(), a.ID, config.NewSecret(password), proved)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		a := b.catchUp(t)
		if n := source.logins - before; n != more {
			t.Errorf("password %q: the source was asked %d times", password, n)
		}
		return a
	}
	for _, try := range []struct {
		password string
		proved   bool // by its owner's login on the target
		more     int
	}{{"", false, 1}, {"", false, 0}, {"wrong too", false, 1}, {"wrong too", false, 1}, {secret, true, 1}, {secret, true, 0}} {
		a := tried(try.password, try.proved, try.more)
		if a.State != store.Active || !a.NeedsPassword || !strings.Contains(a.Reason, "needs a password") {
			t.Fatalf("%+v", a)
		}
	}
	a := tried("changed", false, 1)
	caughtUp(t, a)
	if a.NeedsPassword || len(target.contents("INBOX")) != 151 {
		t.Errorf("%+v", a)
	}
}

// The password on the target is its owner's: it is never set, whatever is kept.
func TestTargetRefusesThePassword(t *testing.T) {
	source, target, driver, b := moved(t, twoFolders)
	target.with(func() { target.password = "his own" })
	source.with(func() { source.box("INBOX").add(fakeMail{body: message(9001, "new")}) })
	a := b.catchUp(t)
	if a.State != store.Active || !a.NeedsPassword || !strings.Contains(a.Reason, "the target takes no password") {
		t.Fatalf("%+v", a)
	}
	if err := b.store.KeepPassword(t.Context(), a.ID, config.NewSecret("his own"), true); err != nil {
		t.Fatal(err)
	}
	caughtUp(t, b.catchUp(t))
	if n := len(target.contents("INBOX")); n != 151 || target.password != "his own" || slices.Contains(driver.calls, "set_password") {
		t.Errorf("%d messages, %v", n, driver.calls)
	}
	// The source was asked with its own password all the time.
	if p, _, err := b.store.Password(t.Context(), a.ID, store.SideSource); err != nil || p.Reveal() != secret {
		t.Error(err)
	}
}

func TestMasterUsers(t *testing.T) {
	source, target, _, b := moved(t, twoFolders)
	source.with(func() {
		source.password, source.master = "changed", "master of the old"
		source.box("INBOX").add(fakeMail{body: message(9001, "new")})
	})
	target.with(func() { target.password, target.master = "changed", "master of the new" })
	d := b.domains[domain]
	d.Source.Master = &upstream.Master{User: "admin", Style: config.MasterAuthzid, Password: config.NewSecret("master of the old")}
	d.Target.Master = &upstream.Master{User: "admin", Style: config.MasterAuthzid, Password: config.NewSecret("master of the new")}
	caughtUp(t, b.catchUp(t))
	if n := len(target.contents("INBOX")); n != 151 {
		t.Errorf("%d messages", n)
	}
	d.Source.Master.Password = config.NewSecret("wrong")
	if a := b.catchUp(t); !strings.Contains(a.Reason, "domains[].source.master") || a.NeedsPassword {
		t.Errorf("%+v", a)
	}
}

package migrator_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/store"
)

// What an adopted account has already is recognised, one for one; the rest is
// copied, and what else is there is left alone.
func TestAdoptedAccount(t *testing.T) {
	source, target, _, b := fakes(t, func(f *fakeServer) { f.box("INBOX").fill(30, true) })
	target.exists, target.password = true, secret
	in := target.box("INBOX")
	for _, m := range source.box("INBOX").mails[:9] { // four pairs of twins, and one of a pair
		in.add(fakeMail{body: strings.ReplaceAll(m.body, "\r\n", "\n"), date: m.date, flags: m.flags})
	}
	in.add(fakeMail{body: "a: delivery\r\n\r\n", date: "14-Mar-2019 05:06:07 +0100"})
	b.begin(t, store.NewAccount{Identity: identity("anna"), Password: config.NewSecret(secret), Adopt: true})
	a := b.run(t, b.options(t), "anna", rest...)
	if a.State != store.Active || a.Messages != 30 {
		t.Fatal(a.State, a.Messages, a.Reason)
	}
	if n := len(target.contents("INBOX")); n != 31 {
		t.Errorf("%d messages", n)
	}
	if target.appends == 0 {
		t.Error("nothing was copied")
	}
}

// A changed UIDVALIDITY of the source, in the middle of the copy, doubles nothing.
func TestSourceUIDValidityChanges(t *testing.T) {
	source, target, _, b := fakes(t, twoFolders)
	target.onAppend = func(n int, _ []fakeMail) verdict { return verdict{cut: n == 2, keep: true} }
	b.anna(t)
	o := b.options(t)
	renumbered := false
	o.Step = func(step string) {
		if step != "batch.sent" || renumbered || target.sent() < 2 {
			return
		}
		renumbered = true
		source.mu.Lock()
		defer source.mu.Unlock()
		box := source.box("INBOX")
		box.validity += 5
		for i := range box.mails {
			box.mails[i].uid += 1000
		}
		box.next += 1000
	}
	a := b.run(t, o, "anna", rest...)
	if a.State != store.Active || a.Messages != 180 || !renumbered {
		t.Fatal(a.State, a.Messages, a.Reason)
	}
	equal(t, source, target, "INBOX", "Work")
}

// The same between two runs, when no batch is open.
func TestSourceUIDValidityChangesBetweenRuns(t *testing.T) {
	source, target, _, b := fakes(t, twoFolders)
	target.onAppend = func(n int, _ []fakeMail) verdict {
		if n == 2 {
			return verdict{no: "[OVERQUOTA] full"}
		}
		return verdict{}
	}
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", store.Waiting); a.Messages == 0 {
		t.Fatal("nothing was copied before")
	}
	source.mu.Lock()
	source.box("INBOX").validity += 5
	source.mu.Unlock()
	if a := b.run(t, b.options(t), "anna", store.Active, store.Failed); a.State != store.Active || a.Messages != 180 {
		t.Fatal(a.State, a.Messages, a.Reason)
	}
	equal(t, source, target, "INBOX", "Work")
}

// A message that was copied and that its owner deleted on the target does not
// come back when the source gives its messages new UIDs; nor does it fail the
// comparison that the source has a twin less by then.
func TestRenumberedSource(t *testing.T) {
	for name, c := range map[string]struct {
		adopt   bool
		deleted func(i int) bool // on the target
		gone    bool             // one of two twins, from the source
	}{
		"one deleted":   {adopt: true, deleted: func(i int) bool { return i == 4 }},
		"all deleted":   {adopt: true, deleted: func(int) bool { return true }},
		"one twin less": {deleted: func(int) bool { return false }, gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, _, b := fakes(t, func(f *fakeServer) {
				f.box("INBOX").fill(30, true)
				f.box("Work").fill(30, false)
			})
			if c.adopt {
				target.exists, target.password = true, secret
			}
			full := true
			target.onAppend = func(n int, _ []fakeMail) verdict {
				if full && n > 1 {
					return verdict{no: "[OVERQUOTA] full"}
				}
				return verdict{}
			}
			b.begin(t, store.NewAccount{Identity: identity("anna"), Password: config.NewSecret(secret), Adopt: c.adopt})
			b.run(t, b.options(t), "anna", store.Waiting)
			target.mu.Lock()
			in, copied, deleted := target.box("INBOX"), len(target.box("INBOX").mails), 0
			for i := copied - 1; i >= 0; i-- {
				if c.deleted(i) {
					in.mails = slices.Delete(in.mails, i, i+1)
					deleted++
				}
			}
			full = false
			target.mu.Unlock()
			source.mu.Lock()
			box := source.box("INBOX")
			if c.gone {
				box.mails = slices.Delete(box.mails, 10, 11)
			}
			box.validity += 5
			for i := range box.mails {
				box.mails[i].uid += 1000
			}
			box.next += 1000
			source.mu.Unlock()
			if a := b.run(t, b.options(t), "anna", store.Active, store.Failed); a.State != store.Active {
				t.Fatal(a.State, a.Reason)
			}
			if n := len(target.contents("INBOX")); copied < 20 || n != 30-deleted {
				t.Errorf("%d messages were copied, %d deleted, and %d are there", copied, deleted, n)
			}
		})
	}
}

// What showed that a message is refused for its own sake is known after a
// crash, also when its neighbour was acknowledged and not yet settled.
func TestCrashBetweenRefusalAndWitness(t *testing.T) {
	_, target, _, b := fakes(t, func(f *fakeServer) {
		f.box("INBOX").fill(20, false)
		f.box("Z").add(fakeMail{body: "x: bad"})
	})
	refusedAt := 0
	target.onAppend = func(n int, mails []fakeMail) verdict {
		if mails[0].body == "x: bad" {
			refusedAt = n
			return verdict{no: "[CANNOT] I do not like it"}
		}
		return verdict{}
	}
	b.anna(t)
	o := b.options(t)
	o.Concurrency = 1
	k := &killer{name: "batch.acked", n: 1, died: make(chan struct{})}
	o.Step = func(step string) {
		target.mu.Lock()
		after := refusedAt > 0 && target.appends > refusedAt
		target.mu.Unlock()
		if after {
			k.step(step)
		}
	}
	crash(t, b, o, k)
	if k.n > 0 {
		t.Fatal("it did not die")
	}
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active || a.SetAside != 1 || a.Messages != 20 {
		t.Fatal(a.State, a.SetAside, a.Messages, a.Reason)
	}
}

func (f *fakeServer) sent() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.appends
}

// Mail that arrives during the copy comes along, and mail that is delivered to
// the target is left alone.
func TestMailArrivesMeanwhile(t *testing.T) {
	source, target, _, b := fakes(t, twoFolders)
	b.anna(t)
	o := b.options(t)
	n := 0
	o.Step = func(step string) {
		if step != "settle.committed" {
			return
		}
		if n++; n > 5 {
			return
		}
		source.mu.Lock()
		source.box("INBOX").fill(1, false)
		source.mu.Unlock()
		target.mu.Lock()
		target.box("INBOX").add(fakeMail{body: "delivered: " + strings.Repeat("x", n)})
		target.mu.Unlock()
	}
	a := b.run(t, o, "anna", rest...)
	if a.State != store.Active || a.Messages != 185 {
		t.Fatal(a.State, a.Messages, a.Reason)
	}
	if n := len(target.contents("INBOX")); n != 160 {
		t.Errorf("%d messages", n)
	}
}

// A flag that changes on the source after the message was copied comes along;
// what migproxy did not append, and what the target marks, is left alone.
func TestFlagsChangeMeanwhile(t *testing.T) {
	for _, adopt := range []bool{false, true} {
		source, target, _, b := fakes(t, twoFolders)
		if adopt {
			target.exists, target.password = true, secret
		}
		target.box("Work").add(fakeMail{body: "a: delivered\r\n", flags: []string{`\Flagged`}})
		b.begin(t, store.NewAccount{Identity: identity("anna"), Password: config.NewSecret(secret), Adopt: adopt})
		o := b.options(t)
		once := false
		o.Step = func(step string) {
			if step != "settle.committed" || once || target.sent() < 3 {
				return
			}
			once = true
			source.mu.Lock()
			defer source.mu.Unlock()
			source.box("INBOX").mails[7].flags = []string{`\Answered`, "$Label1", "$Forwarded"} // and \Seen no more
			target.mu.Lock()
			defer target.mu.Unlock()
			target.box("INBOX").mails[20].flags = append(target.box("INBOX").mails[20].flags, "$HasAttachment")
		}
		if a := b.run(t, o, "anna", rest...); a.State != store.Active || !once {
			t.Fatal(a.State, a.Reason)
		}
		changed, marked := 0, 0
		for _, line := range append(target.contents("INBOX"), target.contents("Work")...) {
			switch flags, _, _ := strings.Cut(line, "|"); flags {
			case "$Label1 $Forwarded " + `\Answered`:
				changed++
			case `\Seen $Label1 $HasAttachment`, `\Flagged`:
				marked++
			case `\Seen $Label1`:
			default:
				t.Errorf("adopt %v: %s", adopt, flags)
			}
		}
		if marked != 2 || changed == 0 != adopt {
			t.Errorf("adopt %v: %d changed, %d marked", adopt, changed, marked)
		}
	}
}

// An intent for a message that is settled already is ended like any other.
func TestIntentOfASettledMessage(t *testing.T) {
	source, target, _, b := moved(t, twoFolders)
	twice := source.box("Work").mails[3]
	var next uint32
	target.with(func() { next = target.box("Work").add(twice) })
	if _, err := b.store.Retry(t.Context(), identity("anna").Address()); err != nil {
		t.Fatal(err)
	}
	c, err := b.store.ClaimNext(t.Context(), "other", time.Minute)
	if err != nil || c == nil {
		t.Fatal(c, err)
	}
	folders, err := c.Folders(t.Context())
	at := slices.IndexFunc(folders, func(f store.Folder) bool { return f.Source == "Work" })
	if err != nil || at < 0 {
		t.Fatal(folders, err)
	}
	f := folders[at]
	err = c.OpenIntent(t.Context(), &store.Intent{FolderID: f.ID, SourceUIDValidity: f.SourceUIDValidity,
		TargetUIDValidity: f.TargetUIDValidity, TargetUIDNext: next,
		Messages: []store.IntentMessage{{SourceUID: 4, Size: int64(len(twice.body))}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Release(t.Context(), c.Account.State, "", time.Now(), false); err != nil {
		t.Fatal(err)
	}
	caughtUp(t, b.catchUp(t))
	if n := len(target.contents("Work")); n != 31 {
		t.Errorf("%d messages", n)
	}
}

// once refuses the next command that names a folder.
func (f *fakeServer) once(command, box, refusal string) {
	f.onCommand = func(name, args string) string {
		if name != command || !strings.Contains(args, `"`+box+`"`) {
			return ""
		}
		f.onCommand = nil
		return refusal
	}
}

// A target that does not open a folder for a moment may have there all that was
// sent: nothing is sent again before it was looked for.
func TestTargetDoesNotOpenAFolder(t *testing.T) {
	for name, c := range map[string]struct {
		command, refusal string
		late             time.Duration
	}{
		"unavailable":    {"SELECT", "NO [UNAVAILABLE] not now", 0},
		"a fault":        {"SELECT", "NO [SERVERBUG] Internal error occurred", 0},
		"no code":        {"SELECT", "NO something is wrong", 0},
		"still storing":  {"STATUS", "NO [UNAVAILABLE] not now", 150 * time.Millisecond},
		"without a code": {"STATUS", "NO something is wrong", 150 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, _, b := moved(t, twoFolders)
			source.with(func() { source.box("Work").add(fakeMail{body: message(9001, "new")}) })
			target.with(func() {
				target.onAppend = func(int, []fakeMail) verdict { // the server's mu is held
					target.onAppend = nil
					target.once(c.command, "Work", c.refusal)
					return verdict{cut: true, keep: true, late: c.late}
				}
			})
			if a := b.catchUp(t); a.Reason == "" {
				t.Error("no batch was cut")
			}
			caughtUp(t, b.until(t, b.options(t), "anna", func(a store.Account) bool { return a.Reason == "" }))
			time.Sleep(2 * c.late)
			if n := len(target.contents("Work")); n != 31 || target.onCommand != nil {
				t.Errorf("%d messages", n)
			}
		})
	}
}

// A target that says with no code that a folder is not there is believed if it
// does not list it either.
func TestFolderRemovedUnderABatch(t *testing.T) {
	for name, refusal := range map[string]string{"a code": "NO [NONEXISTENT] no such mailbox", "no code": "NO no such mailbox"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, _, b := moved(t, twoFolders)
			source.with(func() { source.box("Work").add(fakeMail{body: message(9001, "new")}) })
			target.with(func() {
				target.onAppend = func(int, []fakeMail) verdict { // the server's mu is held
					target.onAppend = nil
					target.boxes = slices.DeleteFunc(target.boxes, func(x *fakeBox) bool { return x.name == "Work" })
					target.box("Other") // so that a new Work gets another UIDVALIDITY
					target.box("Another")
					target.onCommand = func(name, args string) string {
						if (name == "SELECT" || name == "STATUS") && strings.Contains(args, `"Work"`) && target.find("Work") == nil {
							return refusal
						}
						return ""
					}
					return verdict{cut: true}
				}
			})
			if a := b.catchUp(t); a.Reason == "" {
				t.Error("no batch was cut")
			}
			caughtUp(t, b.until(t, b.options(t), "anna", func(a store.Account) bool { return a.Reason == "" }))
			if n := len(target.contents("Work")); n != 1 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

// A source that does not open a folder for a moment has not lost what is in it:
// a second copy of such a message, in another folder, is not one that has moved.
func TestSourceDoesNotOpenAFolder(t *testing.T) {
	source, target, _, b := moved(t, twoFolders)
	source.with(func() {
		source.box("INBOX").add(fakeMail{body: source.box("Work").mails[3].body})
		source.once("EXAMINE", "Work", "NO [UNAVAILABLE] not now")
	})
	if a := b.catchUp(t); a.Reason == "" {
		t.Error("nothing was reported")
	}
	caughtUp(t, b.until(t, b.options(t), "anna", func(a store.Account) bool { return a.Reason == "" }))
	if n := len(target.contents("INBOX")); n != 151 {
		t.Errorf("%d messages", n)
	}
}

// The owner of an active account may replace a folder while mail is added to it.
// The batch under way is matched with what is there then, and nothing blocks.
func TestFolderReplacedUnderABatch(t *testing.T) {
	mail := fakeMail{body: message(9001, "new")}
	replace := func(target *fakeServer) *fakeBox {
		work := target.box("Work")
		work.validity += 77
		work.mails, work.next = nil, 1
		return work
	}
	// arrives replaces the folder just before the batch is stored.
	arrives := func(v verdict) func(*fakeServer) {
		return func(f *fakeServer) {
			f.onAppend = func(int, []fakeMail) verdict { // the server's mu is held
				f.onAppend = nil
				replace(f)
				return v
			}
		}
	}
	for name, c := range map[string]struct {
		dies bool // before the batch is sent
		meet func(target *fakeServer)
	}{
		"before it is sent": {true, func(f *fakeServer) { replace(f) }},
		"with other mail": {true, func(f *fakeServer) {
			work := replace(f)
			for range 40 {
				work.add(fakeMail{body: message(1, "its owner's")})
			}
		}},
		"as it arrives":          {false, arrives(verdict{})},
		"as it arrives, cut off": {false, arrives(verdict{cut: true, keep: true})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, _, b := moved(t, twoFolders)
			source.with(func() { source.box("Work").add(mail) })
			if c.dies {
				if _, err := b.store.Retry(t.Context(), identity("anna").Address()); err != nil {
					t.Fatal(err)
				}
				b.die(t, "intent.committed")
				target.with(func() { c.meet(target) })
			} else {
				target.with(func() { c.meet(target) })
				if a := b.catchUp(t); a.Reason == "" || strings.Contains(a.Reason, "remove the account") || a.Due.IsZero() {
					t.Errorf("%q, due %v", a.Reason, a.Due)
				}
			}
			caughtUp(t, b.catchUp(t))
			if n := strings.Count(strings.Join(target.contents("Work"), "\n"), mail.body); n != 1 {
				t.Errorf("it is there %d times", n)
			}
			b.complete(t, store.CompleteWhole, true)
			if d := b.completed(t); !d.Finished {
				t.Errorf("%+v", d)
			}
		})
	}
}

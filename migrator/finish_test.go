package migrator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/migrator"
	"migproxy/store"
)

// complete stops the domain and begins its completion.
func (b *bench) complete(t testing.TB, how store.Completing, without bool) {
	t.Helper()
	if err := b.store.SetActive(t.Context(), domain, false); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Complete(t.Context(), domain, how, without); err != nil {
		t.Fatal(err)
	}
}

// settled waits until the completion is over, and returns the domain's state.
func (b *bench) completed(t testing.TB) store.DomainState {
	t.Helper()
	b.until(t, b.options(t), "anna", func(store.Account) bool {
		d, err := b.store.DomainState(t.Context(), domain)
		if err != nil {
			t.Fatal(err)
		}
		return d.Completing == store.NotCompleting
	})
	d, err := b.store.DomainState(t.Context(), domain)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (b *bench) events(t testing.TB) []string {
	t.Helper()
	all, err := b.store.Events(t.Context(), "", 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, e := range all {
		texts = append(texts, e.Text)
	}
	return texts
}

func TestComplete(t *testing.T) {
	source, target, _, b := moved(t, twoFolders)
	source.with(func() {
		source.box("INBOX").add(fakeMail{body: message(9001, "late")})
		source.box("Work").add(fakeMail{body: message(9002, "late")})
	})
	b.complete(t, store.CompleteWhole, false)
	if d := b.completed(t); !d.Finished || d.Active {
		t.Errorf("%+v", d)
	}
	a := b.run(t, b.options(t), "anna", store.Finished)
	if a.HasPassword || !a.Due.IsZero() || a.Finishing != store.NotFinishing || len(target.contents("INBOX")) != 151 || len(target.contents("Work")) != 31 {
		t.Errorf("%+v", a)
	}
	events := b.events(t)
	for _, want := range []string{"Finishing 'anna@example.com' migration...", "'anna@example.com' migration finished, 2 additional messages"} {
		if !slices.Contains(events, want) {
			t.Errorf("no event %q in %q", want, events)
		}
	}
	if err := b.store.SetActive(t.Context(), domain, true); err == nil {
		t.Error("a finished domain was started again")
	}
}

// The last pass looks at every message, not only at those above the UIDNEXT of
// the last time: some servers show a message late, below it.
func TestLastPassLooksAtEverything(t *testing.T) {
	source, target, _, b := moved(t, func(f *fakeServer) {
		twoFolders(f)
		f.box("INBOX").next = 300
	})
	source.with(func() {
		in := source.box("INBOX")
		in.mails = append(in.mails, fakeMail{uid: 200, body: message(9001, "late")})
	})
	caughtUp(t, b.catchUp(t))
	if n := len(target.contents("INBOX")); n != 150 {
		t.Errorf("%d messages before", n)
	}
	b.complete(t, store.CompleteWhole, false)
	if d := b.completed(t); !d.Finished {
		t.Errorf("%+v", d)
	}
	if n := len(target.contents("INBOX")); n != 151 {
		t.Errorf("%d messages", n)
	}
}

// An account whose last pass fails stays active, with the reason, and the
// domain is not finished; it can be tried again.
func TestCompleteFails(t *testing.T) {
	source, _, _, b := moved(t, twoFolders)
	source.with(func() { source.loginCode = "[UNAVAILABLE]" })
	b.complete(t, store.CompleteWhole, false)
	if d := b.completed(t); d.Finished {
		t.Errorf("%+v", d)
	}
	left, err := b.store.Unfinished(t.Context(), domain, "", 10)
	if err != nil || len(left) != 1 || left[0].State != store.Active || left[0].Finishing != store.NotFinishing ||
		!strings.Contains(left[0].Reason, "the source cannot be asked") || !left[0].HasPassword {
		t.Errorf("%+v, %v", left, err)
	}
	source.with(func() { source.loginCode = "" })
	b.complete(t, store.CompleteWhole, false)
	if d := b.completed(t); !d.Finished {
		t.Errorf("%+v", d)
	}
}

// An account that needs a password is not finished without one.
func TestCompleteNeedsAPassword(t *testing.T) {
	source, _, _, b := moved(t, twoFolders)
	source.with(func() { source.password = "changed" })
	for range 2 { // the second time no password is left to try
		b.complete(t, store.CompleteWhole, false)
		if d := b.completed(t); d.Finished {
			t.Errorf("%+v", d)
		}
		a, err := b.store.Account(t.Context(), identity("anna").Address())
		if err != nil || a.State != store.Active || !a.NeedsPassword || a.Finishing != store.NotFinishing || !a.Due.IsZero() {
			t.Errorf("%+v, %v", a, err)
		}
	}
}

// Accounts that have not moved keep their domain from being finished, unless
// the administrator forces it: then nothing is kept and nothing is due.
func TestCompleteForced(t *testing.T) {
	_, _, _, b := moved(t, twoFolders)
	left := identity("bert")
	if _, err := b.store.Note(t.Context(), left, store.AtSource); err != nil {
		t.Fatal(err)
	}
	b.complete(t, store.CompleteWhole, false)
	if d := b.completed(t); d.Finished {
		t.Errorf("%+v", d)
	}
	if a, err := b.store.Account(t.Context(), identity("anna").Address()); err != nil || a.State != store.Finished {
		t.Errorf("%+v, %v", a, err)
	}
	b.complete(t, store.CompleteForced, false)
	if d := b.completed(t); !d.Finished {
		t.Errorf("%+v", d)
	}
}

// refusing is a target that refuses some messages of the source.
func refusing(t *testing.T, bad ...string) (source, target *fakeServer, b *bench) {
	refuse := func(n int, mails []fakeMail) verdict {
		if slices.ContainsFunc(mails, func(m fakeMail) bool { return slices.Contains(bad, m.body) }) {
			return verdict{no: "[CANNOT] bad message"}
		}
		return verdict{}
	}
	source, target, _, b = fakes(t, func(f *fakeServer) {
		twoFolders(f)
		for _, body := range bad {
			f.box("Work").add(fakeMail{body: body, flags: []string{`\Seen`, "$Label1"}, date: "14-Mar-2019 05:06:07 +0100"})
		}
	})
	target.onAppend = refuse
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active || a.SetAside != int64(len(bad)) {
		t.Fatal(a.State, a.Reason, a.SetAside)
	}
	return source, target, b
}

// An account with a message set aside is finished only on the administrator's
// word.
func TestCompleteWithMessagesSetAside(t *testing.T) {
	_, _, b := refusing(t, message(4000, "bad"))
	b.complete(t, store.CompleteWhole, false)
	if err := b.store.SettleCompletion(t.Context(), domain); err != nil {
		t.Fatal(err)
	}
	if d := b.completed(t); d.Finished {
		t.Errorf("%+v", d)
	}
	b.complete(t, store.CompleteWhole, true)
	if d := b.completed(t); !d.Finished {
		t.Errorf("%+v", d)
	}
}

// What is refused in the very last pass keeps the account as well.
func TestRefusedInTheLastPass(t *testing.T) {
	bad := message(4000, "bad")
	source, target, _, b := moved(t, twoFolders)
	target.onAppend = func(_ int, mails []fakeMail) verdict {
		if slices.ContainsFunc(mails, func(m fakeMail) bool { return m.body == bad }) {
			return verdict{no: "[CANNOT] bad message"}
		}
		return verdict{}
	}
	source.with(func() {
		source.box("Work").add(fakeMail{body: bad})
		source.box("Work").add(fakeMail{body: message(4001, "good")})
	})
	b.complete(t, store.CompleteWhole, false)
	if d := b.completed(t); d.Finished {
		t.Errorf("%+v", d)
	}
	a, err := b.store.Account(t.Context(), identity("anna").Address())
	if err != nil || a.State != store.Active || a.SetAside != 1 || !strings.Contains(a.Reason, "--accept-set-aside") {
		t.Errorf("%+v, %v", a, err)
	}
}

// Retry offers the target again what it refused, although the source has it no
// more; crashes in between neither lose nor double it.
func TestRetryDeliversWhatWasSetAside(t *testing.T) {
	bad := message(4000, "bad")
	for _, at := range []string{"", "intent.before", "intent.committed", "batch.acked", "settle.before", "settle.committed"} {
		for _, cut := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, cut %t", at, cut), func(t *testing.T) {
				source, target, b := refusing(t, bad)
				if a := b.catchUp(t); a.SetAside != 1 || len(target.contents("Work")) != 30 {
					t.Fatalf("%+v", a)
				}
				source.with(func() {
					work := source.box("Work")
					work.mails = work.mails[:len(work.mails)-1]
				})
				target.with(func() {
					target.onAppend = nil
					if cut {
						target.onAppend = func(int, []fakeMail) verdict {
							target.onAppend = nil
							return verdict{cut: true, late: 50 * time.Millisecond}
						}
					}
				})
				if at != "" {
					if _, err := b.store.Retry(t.Context(), identity("anna").Address()); err != nil {
						t.Fatal(err)
					}
					b.die(t, at)
				}
				a := b.catchUp(t)
				if a.Reason != "" { // the connection was cut
					a = b.until(t, b.options(t), "anna", func(a store.Account) bool { return a.Reason == "" })
				}
				if a.SetAside != 0 || a.Messages != 181 {
					t.Errorf("%+v", a)
				}
				if all := target.contents("Work"); len(all) != 31 || !slices.Contains(all, `\Seen $Label1|14-Mar-2019 05:06:07 +0100|`+bad) {
					t.Errorf("%d messages", len(all))
				}
			})
		}
	}
}

// A message that the target acknowledges under another form is offered to it
// once, not at every catch-up.
func TestRetryOnATargetThatChangesMail(t *testing.T) {
	for _, noUIDs := range []bool{true, false} {
		t.Run(fmt.Sprintf("no UIDs %t", noUIDs), func(t *testing.T) {
			t.Parallel()
			source, target, b := refusing(t, message(4000, "bad"))
			target.with(func() {
				target.onAppend = func(int, []fakeMail) verdict {
					return verdict{noUIDs: noUIDs, tamperer: func(s string) string { return "X-Added: yes\r\n" + s }}
				}
			})
			caughtUp(t, b.catchUp(t))
			target.with(func() { target.onAppend = nil })
			source.with(func() { source.box("INBOX").add(fakeMail{body: message(9001, "new")}) })
			for range 2 {
				caughtUp(t, b.catchUpUnasked(t))
			}
			a, aside := b.setAside(t)
			if n, in := len(target.contents("Work")), len(target.contents("INBOX")); n != 31 || in != 151 || len(aside) != 1 || a.SetAside != 1 {
				t.Fatalf("%d and %d messages, %+v", n, in, aside)
			}
			if want := map[bool]string{true: "does not show it as it was sent", false: "keeps another message"}[noUIDs]; !strings.Contains(aside[0].Reason, want) {
				t.Error(aside[0].Reason)
			}
			if events := b.events(t); !slices.ContainsFunc(events, func(e string) bool { return strings.Contains(e, "stays set aside: "+aside[0].Reason) }) {
				t.Error(events)
			}
		})
	}
}

// A message that the target does not take at the administrator's retry either
// holds up neither new mail nor another one that was set aside.
func TestRetryHoldsUpNothing(t *testing.T) {
	for name, c := range map[string]struct {
		verdict verdict
		reason  string // empty: it is on the target after all
		appends int
	}{
		"cut":              {verdict{cut: true}, "cut the connection at it three times", 3},
		"cut, kept":        {verdict{cut: true, keep: true}, "", 1},
		"too large":        {verdict{no: "[LIMIT] too large"}, "too large", 1},
		"full":             {verdict{no: "[OVERQUOTA] full"}, "full", 1},
		"refused and kept": {verdict{no: "[SERVERBUG] oh", keep: true}, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad, other := message(4000, "bad"), message(4001, "bad")
			source, target, b := refusing(t, bad, other)
			appends := 0
			target.with(func() {
				target.onAppend = func(_ int, mails []fakeMail) verdict {
					if slices.ContainsFunc(mails, func(m fakeMail) bool { return m.body == bad }) {
						appends++
						return c.verdict
					}
					return verdict{}
				}
			})
			source.with(func() { source.box("INBOX").add(fakeMail{body: message(9001, "new")}) })
			caughtUp(t, b.catchUp(t))
			caughtUp(t, b.catchUpUnasked(t))
			left := 1
			if c.reason == "" {
				left = 0
			}
			a, aside := b.setAside(t)
			if in, work := len(target.contents("INBOX")), len(target.contents("Work")); in != 151 || work != 32-left || int(a.SetAside) != left || len(aside) != left || appends != c.appends {
				t.Fatalf("%d and %d messages, sent %d times, %+v", in, work, appends, aside)
			}
			if left > 0 && !strings.Contains(aside[0].Reason, c.reason) {
				t.Error(aside[0].Reason)
			}
			// He may ask again.
			target.with(func() { target.onAppend = nil })
			caughtUp(t, b.catchUp(t))
			if a, _ := b.setAside(t); a.SetAside != 0 || len(target.contents("Work")) != 32 {
				t.Errorf("%d messages, %d set aside", len(target.contents("Work")), a.SetAside)
			}
		})
	}
}

// catchUpUnasked is a catch-up that is due by itself.
func (b *bench) catchUpUnasked(t *testing.T) store.Account {
	t.Helper()
	a, _ := b.setAside(t)
	if err := b.store.CatchUpNow(t.Context(), a.ID, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	return b.until(t, b.options(t), "anna", func(is store.Account) bool {
		return is.CaughtUpAt.After(a.CaughtUpAt) || is.Reason != ""
	})
}

// setAside is anna's account with what is set aside of it.
func (b *bench) setAside(t *testing.T) (store.Account, []store.SetAside) {
	t.Helper()
	a, err := b.store.Account(t.Context(), identity("anna").Address())
	if err != nil {
		t.Fatal(err)
	}
	aside, err := b.store.SetAside(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	return a, aside
}

// die runs a Migrator that is killed at a step, if it comes to pass that.
func (b *bench) die(t *testing.T, step string) {
	t.Helper()
	o := b.options(t)
	o.Concurrency = 1
	k := &killer{name: step, n: 1, died: make(chan struct{})}
	o.Step = k.step
	before, err := b.store.Account(t.Context(), identity("anna").Address())
	if err != nil {
		t.Fatal(err)
	}
	b.untilDead(t, o, "anna", k.died, func(a store.Account) bool {
		return a.CaughtUpAt.After(before.CaughtUpAt) || a.State == store.Finished || a.Reason != ""
	})
}

// Killed at any step of a catch-up and of the last pass, with a batch that is
// cut and committed late, nothing is missing, doubled or brought back.
func TestCrashAfterTheFlip(t *testing.T) {
	steps := append([]string{"intent.before", "intent.committed", "batch.sent.half", "batch.sent", "batch.acked", "settle.looked",
		"settle.before", "settle.committed", "folder.before", "folder.created", "folder.committed", "match.committed"}, migrator.LaterSteps()...)
	for _, last := range []bool{false, true} {
		for _, step := range steps {
			t.Run(fmt.Sprintf("%s, last %t", step, last), func(t *testing.T) {
				t.Parallel()
				source, target, _, b := moved(t, func(f *fakeServer) {
					twoFolders(f)
					f.box("Old").fill(20, true)
				})
				target.with(func() {
					old := target.box("Old")
					old.mails = old.mails[5:]
				})
				source.with(func() {
					source.box("Old").name = "Older"
					in := source.box("INBOX")
					in.validity += 3
					for i := range in.mails {
						in.mails[i].uid += 500
					}
					in.next += 500
					for i := range 12 {
						in.add(fakeMail{body: message(9000+i/2, "late"), date: "14-Mar-2019 05:06:07 +0100"})
						source.box("New").add(fakeMail{body: message(9100+i, "late"), date: "14-Mar-2019 05:06:07 +0100"})
					}
				})
				n := target.appends
				target.with(func() {
					target.onAppend = func(m int, _ []fakeMail) verdict {
						if m == n+2 {
							return verdict{cut: true, late: 50 * time.Millisecond}
						}
						return verdict{}
					}
				})
				if last {
					b.complete(t, store.CompleteWhole, false)
				} else if _, err := b.store.Retry(t.Context(), identity("anna").Address()); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					b.die(t, step)
				}
				a := b.until(t, b.options(t), "anna", func(a store.Account) bool {
					return a.Reason == "" && (!last && !a.CaughtUpAt.IsZero() || a.State == store.Finished)
				})
				if in, fresh, old := len(target.contents("INBOX")), len(target.contents("New")), len(target.contents("Old")); in != 162 || fresh != 12 || old != 15 || target.find("Older") != nil {
					t.Errorf("%d, %d and %d messages; %+v", in, fresh, old, a)
				}
			})
		}
	}
}

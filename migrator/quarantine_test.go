package migrator_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"migproxy/store"
)

// maxRefused is more than may be refused one after the other.
const maxRefused = 55

func refuse(bad func(fakeMail) bool) func(int, []fakeMail) verdict {
	return func(_ int, mails []fakeMail) verdict {
		if slices.ContainsFunc(mails, bad) {
			return verdict{no: "[CANNOT] I do not like it"}
		}
		return verdict{}
	}
}

// A message is set aside only when it is the message that the target refuses.
func TestQuarantine(t *testing.T) {
	isBad := func(m fakeMail) bool { return strings.HasSuffix(m.body, "bad") }
	for name, c := range map[string]struct {
		noMulti  bool
		fill     func(*fakeServer)
		onAppend func(int, []fakeMail) verdict
		state    store.State
		aside    int64
		messages int64
	}{
		"one in the middle": {fill: func(f *fakeServer) {
			f.box("INBOX").fill(20, false)
			f.box("INBOX").add(fakeMail{body: "x: bad"})
			f.box("INBOX").fill(20, false)
		}, onAppend: refuse(isBad), state: store.Active, aside: 1, messages: 40},
		"the very last": {fill: func(f *fakeServer) {
			f.box("INBOX").fill(20, false)
			f.box("Z").add(fakeMail{body: "x: bad"})
		}, onAppend: refuse(isBad), state: store.Active, aside: 1, messages: 20},
		"the very last, sent one by one": {noMulti: true, fill: func(f *fakeServer) {
			f.box("INBOX").fill(5, false)
			f.box("INBOX").add(fakeMail{body: "x: bad"})
		}, onAppend: refuse(isBad), state: store.Active, aside: 1, messages: 5},
		"the first": {fill: func(f *fakeServer) {
			f.box("INBOX").add(fakeMail{body: "x: bad"})
			f.box("INBOX").fill(3, false)
		}, onAppend: refuse(isBad), state: store.Active, aside: 1, messages: 3},
		"the second of two": {fill: func(f *fakeServer) {
			f.box("INBOX").fill(1, false)
			f.box("INBOX").add(fakeMail{body: "x: bad"})
		}, onAppend: refuse(isBad), state: store.Active, aside: 1, messages: 1},
		"the only one": {fill: func(f *fakeServer) { f.box("INBOX").add(fakeMail{body: "x: bad"}) },
			onAppend: refuse(isBad), state: store.Waiting},
		"all of them": {fill: func(f *fakeServer) { f.box("INBOX").fill(maxRefused, false) }, onAppend: refuse(func(fakeMail) bool { return true }), state: store.Waiting},
		"more than ten": {fill: func(f *fakeServer) {
			for range 11 {
				f.box("INBOX").add(fakeMail{body: "x: bad"})
			}
			f.box("Work").fill(30, false)
		}, onAppend: refuse(isBad), state: store.Waiting, aside: 11, messages: 30},
		"three cut connections": {fill: func(f *fakeServer) {
			f.box("INBOX").fill(20, false)
			f.box("INBOX").add(fakeMail{body: "x: bad"})
			f.box("INBOX").fill(20, false)
		}, onAppend: func(_ int, mails []fakeMail) verdict {
			return verdict{cut: slices.ContainsFunc(mails, isBad)}
		}, state: store.Active, aside: 1, messages: 40},
		"one that does not fit": {fill: func(f *fakeServer) {
			f.box("INBOX").fill(2, false)
			f.box("INBOX").add(fakeMail{body: "x: bad"})
			f.box("Work").fill(20, false)
		}, onAppend: func(_ int, mails []fakeMail) verdict {
			if slices.ContainsFunc(mails, isBad) {
				return verdict{no: "[OVERQUOTA] full"}
			}
			return verdict{}
		}, state: store.Waiting, messages: 20},
		"a full mailbox": {fill: twoFolders, onAppend: func(int, []fakeMail) verdict {
			return verdict{no: "[OVERQUOTA] full"}
		}, state: store.Waiting},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, target, _, b := fakes(t, c.fill)
			if c.noMulti {
				target.caps = strings.Replace(target.caps, " MULTIAPPEND", "", 1)
			}
			target.onAppend = c.onAppend
			b.anna(t)
			a := b.run(t, b.options(t), "anna", rest...)
			if a.State != c.state || a.SetAside != c.aside || a.Messages != c.messages {
				t.Fatalf("%s, %d messages, %d aside: %s", a.State, a.Messages, a.SetAside, a.Reason)
			}
			aside, err := b.store.SetAside(context.Background(), a.ID)
			if err != nil || int64(len(aside)) != c.aside {
				t.Fatal(aside, err)
			}
			for _, s := range aside {
				var octets strings.Builder
				if err := b.store.SetAsideOctets(context.Background(), s.ID, &octets); err != nil || octets.String() != "x: bad" {
					t.Fatalf("%q %v", octets.String(), err)
				}
			}
		})
	}
}

// A target that begins to refuse everything, just when one message was refused
// for its own sake, has nothing set aside that it would take.
func TestTargetTurnsBad(t *testing.T) {
	source, target, _, b := fakes(t, func(f *fakeServer) {
		f.box("INBOX").fill(11, false)
		f.box("INBOX").add(fakeMail{body: "x: bad", date: "14-Mar-2019 05:06:07 +0100"})
		f.box("INBOX").fill(1, false)
	})
	isBad := func(m fakeMail) bool { return m.body == "x: bad" }
	sick := true
	target.onAppend = func(n int, mails []fakeMail) verdict {
		if slices.ContainsFunc(mails, isBad) || sick && n > 2 {
			return verdict{no: "oh"}
		}
		return verdict{}
	}
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Waiting || a.SetAside != 0 || a.Messages == 0 {
		t.Fatalf("%s, %d messages, %d aside: %s", a.State, a.Messages, a.SetAside, a.Reason)
	}
	target.mu.Lock()
	sick = false
	target.mu.Unlock()
	if a := b.run(t, b.options(t), "anna", store.Active, store.Failed); a.SetAside != 1 || a.Messages != 12 {
		t.Fatalf("%s, %d messages, %d aside: %s", a.State, a.Messages, a.SetAside, a.Reason)
	}
	box := source.box("INBOX")
	box.mails = slices.DeleteFunc(box.mails, isBad)
	equal(t, source, target, "INBOX")
}

// What is larger than the target says that it takes is not sent there at all.
func TestAppendLimit(t *testing.T) {
	const limit = 1000
	source, target, _, b := fakes(t, func(f *fakeServer) {
		f.box("INBOX").fill(3, false)
		f.box("INBOX").add(fakeMail{body: "x: " + strings.Repeat("x", limit)})
		f.box("INBOX").add(fakeMail{body: "x: " + strings.Repeat("x", limit-3)})
	})
	target.caps += fmt.Sprintf(" APPENDLIMIT=%d", limit)
	target.onAppend = func(_ int, mails []fakeMail) verdict {
		for _, m := range mails {
			if len(m.body) > limit {
				t.Errorf("a message of %d octets was sent", len(m.body))
			}
		}
		return verdict{}
	}
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active || a.SetAside != 1 || a.Messages != 4 {
		t.Fatalf("%s, %d messages, %d aside: %s", a.State, a.Messages, a.SetAside, a.Reason)
	}
	box := source.box("INBOX")
	box.mails = slices.DeleteFunc(box.mails, func(m fakeMail) bool { return len(m.body) > limit })
	equal(t, source, target, "INBOX")
}

// A mailbox whose only message is refused waits for the administrator, and moves
// without that message when he says so.
func TestOnlyMessageIsRefused(t *testing.T) {
	_, target, _, b := fakes(t, func(f *fakeServer) { f.box("INBOX").add(fakeMail{body: "x: bad"}) })
	target.onAppend = refuse(func(fakeMail) bool { return true })
	b.anna(t)
	m, ctx := b.start(t, b.options(t))
	waits := func(a store.Account) bool { return a.State == store.Waiting && a.Attempts > 1 }
	if a := b.await(t, m, ctx, "anna", waits); a.SetAside != 0 {
		t.Fatal(a.SetAside, a.Reason)
	}
	if _, err := b.store.Retry(ctx, "anna@"+domain); err != nil {
		t.Fatal(err)
	}
	if a := b.await(t, m, ctx, "anna", func(a store.Account) bool { return a.State == store.Active }); a.SetAside != 1 {
		t.Fatal(a.SetAside, a.Reason)
	}
}

// A message that is refused in a catch-up is set aside as one before the flip
// is, though its folder has nothing else that is new.
func TestRefusedInACatchUp(t *testing.T) {
	source, target, _, b := moved(t, twoFolders)
	target.onAppend = refuse(func(m fakeMail) bool { return strings.HasSuffix(m.body, "bad") })
	source.with(func() {
		for i := range 3 {
			source.box("INBOX").add(fakeMail{body: message(9001+i, "new")})
		}
		source.box("Work").add(fakeMail{body: "x: bad"})
	})
	a := b.catchUp(t)
	caughtUp(t, a)
	if a.SetAside != 1 {
		t.Errorf("%d aside", a.SetAside)
	}
	if in, work := len(target.contents("INBOX")), len(target.contents("Work")); in != 153 || work != 30 {
		t.Errorf("%d and %d messages", in, work)
	}
}

// The only new message of a catch-up, if it is refused, is reported until the
// administrator has agreed to set it aside.
func TestOnlyOneOfACatchUpRefused(t *testing.T) {
	source, target, _, b := moved(t, twoFolders)
	target.onAppend = refuse(func(m fakeMail) bool { return strings.HasSuffix(m.body, "bad") })
	source.with(func() { source.box("Work").add(fakeMail{body: "x: bad"}) })
	m, ctx := b.start(t, b.options(t))
	for _, aside := range []int64{0, 1} {
		if _, err := b.store.Retry(t.Context(), identity("anna").Address()); err != nil {
			t.Fatal(err)
		}
		a := b.await(t, m, ctx, "anna", func(a store.Account) bool { return a.Reason != "" || a.SetAside > 0 || !a.CaughtUpAt.IsZero() })
		if a.SetAside != aside || (a.Reason == "") != (aside > 0) {
			t.Fatalf("%q, %d aside", a.Reason, a.SetAside)
		}
	}
}

package migrator_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
)

func workFolders(f *fakeServer) {
	twoFolders(f)
	f.box("Work").subscribed = true
	f.box("Tree").fill(5, false)
	f.box("Tree/a").fill(3, false)
	f.box("Gone").fill(6, false)
}

// doMuch is what an owner does between two looks.
func doMuch(f *fakeServer) {
	in, work := f.box("INBOX"), f.box("Work")
	for _, m := range in.mails[:20] {
		work.add(m)
	}
	in.mails = in.mails[40:]
	in.mails[0].flags = []string{`\Flagged`}
	f.rename("Tree", "Bush")
	f.box("Bush").mails = f.box("Bush").mails[1:]
	f.remove("Gone")
	f.box("New").fill(3, false)
}

// Whatever step the process dies at while it mirrors and flips, the next one ends
// the move with both sides the same.
func TestParkedCrashAtEveryStep(t *testing.T) {
	steps := append(migrator.FlipSteps(), "settle.committed", "intent.committed", "flip.before")
	for _, step := range steps {
		for _, renumbers := range []bool{false, true} {
			if renumbers && !strings.HasPrefix(step, "rename.") {
				continue
			}
			t.Run(fmt.Sprintf("%s/%v", step, renumbers), func(t *testing.T) {
				t.Parallel()
				source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
				target.renumbers = renumbers
				h := b.hold(t, nil)
				b.anna(t)
				o := b.options(t)
				o.Concurrency = 1
				k := &killer{name: step, n: 1, died: make(chan struct{})}
				var begun atomic.Bool
				begun.Store(step == "flip.closing")
				o.Step = func(name string) {
					if begun.Load() {
						k.step(name)
					}
				}
				// What is done before the first flip is there for its last pass.
				h.mu.Lock()
				h.before = func(n int) bool {
					if n == 1 {
						source.on(func() { doMuch(source) })
						begun.Store(true)
					}
					return true
				}
				h.mu.Unlock()
				crash(t, b, o, k)
				if k.n > 0 {
					t.Errorf("the step %s was never passed", step)
				}
				b.flips(t, b.options(t), source, target)
			})
		}
	}
}

// What is on the target and was not appended as it is there stays, whatever
// becomes of it on the source.
func TestParkedTouchesOwnOnly(t *testing.T) {
	source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
	was := source.box("Work").mails[4]
	target.box("Work").add(fakeMail{body: was.body, date: was.date, flags: was.flags}) // is recognised
	target.box("Gone").add(fakeMail{body: "a: foreign\r\n\r\n", date: was.date})
	b.hold(t, nil)
	b.anna(t)
	o := b.options(t)
	const changed = "a: changed\r\n\r\nby something else\r\n"
	atStep(&o, "flip.closing", 1, func() {
		source.on(func() {
			source.box("Work").mails = slices.Delete(source.box("Work").mails, 3, 6)
			source.remove("Gone")
			source.box("Tree").mails = nil
		})
		target.on(func() {
			target.box("Tree").mails[2].body = changed + strings.Repeat("x", len(target.box("Tree").mails[2].body)-len(changed))
		})
	})
	if a := b.run(t, o, "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	if got := target.contents("Work"); len(got) != 28 || !slices.ContainsFunc(got, func(s string) bool { return strings.HasSuffix(s, was.body) }) {
		t.Errorf("%d messages", len(got))
	}
	if got := target.contents("Gone"); len(got) != 1 || !strings.Contains(got[0], "foreign") {
		t.Errorf("%q", got)
	}
	if got := target.contents("Tree"); len(got) != 1 || !strings.Contains(got[0], "changed") {
		t.Errorf("%q", got)
	}
}

// Keywords that the target sets of its own neither go nor keep the account from
// its flip.
func TestParkedKeywordsOfTheTarget(t *testing.T) {
	source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
	target.onAppend = func(_ int, mails []fakeMail) verdict {
		for i := range mails {
			mails[i].flags = append(slices.Clone(mails[i].flags), "$HasNoAttachment")
		}
		return verdict{}
	}
	b.hold(t, nil)
	b.anna(t)
	o := b.options(t)
	atStep(&o, "flip.closing", 1, func() {
		source.on(func() { source.box("Work").mails[0].flags = nil })
	})
	if a := b.run(t, o, "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	target.on(func() {
		if got := target.box("Work").mails[0].flags; !slices.Equal(got, []string{"$HasNoAttachment"}) {
			t.Errorf("%q", got)
		}
	})
}

// Without UIDPLUS nothing is copied, and the account waits.
func TestParkedNeedsUIDPLUS(t *testing.T) {
	_, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
	target.caps = strings.Replace(target.caps, " UIDPLUS", "", 1)
	h := b.hold(t, nil)
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Waiting || !strings.Contains(a.Reason, "UIDPLUS") || target.sent() > 0 || h.times() > 0 {
		t.Fatal(a.State, a.Reason)
	}
}

// A source that shows nothing any more is believed when it does so again, a while
// later.
func TestParkedSourceSuddenlyEmpty(t *testing.T) {
	for name, comes := range map[string]bool{"for a moment": true, "for good": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
			b.hold(t, nil)
			b.anna(t)
			o := b.options(t)
			var kept []*fakeBox
			deleted := 0
			atStep(&o, "flip.closing", 1, func() {
				source.on(func() {
					for _, box := range source.boxes {
						was := *box
						kept = append(kept, &was)
						box.mails = nil
					}
				})
			})
			before := o.Step
			o.Step = func(name string) {
				before(name)
				if name == "mirror.deleted" {
					deleted++
				}
			}
			a := b.runUntil(t, o, "anna", nil, func(a store.Account) bool { return strings.Contains(a.Reason, "does not show") }, func(m *migrator.Migrator) { m.HastenFlip(500*time.Millisecond, 10*time.Second, 20*time.Second) })
			if a.Attempts != 0 || deleted != 0 || len(target.contents("INBOX")) != 150 {
				t.Error(a.Reason, a.Attempts, deleted)
			}
			if comes {
				source.on(func() {
					for i, box := range source.boxes {
						box.mails = kept[i].mails
					}
				})
			}
			b.flipsWith(t, b.options(t), source, target, func(m *migrator.Migrator) { m.HastenFlip(0, 10*time.Second, 20*time.Second) })
			if comes && deleted > 0 {
				t.Errorf("%d removals", deleted)
			}
		})
	}
}

// A session that is never silent puts the flip off; nothing is wrong with the
// account, and no login waits.
func TestParkedNeverSilent(t *testing.T) {
	source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
	h := b.hold(t, func(n int) bool { return n > 2 })
	b.anna(t)
	o := b.options(t)
	var during []store.Account
	atStep(&o, "flip.closing", 2, func() {
		a, err := b.store.Account(t.Context(), "anna@example.com")
		if err != nil {
			t.Error(err)
		}
		during = append(during, a)
	})
	a := b.flipsWith(t, o, source, target, func(m *migrator.Migrator) { m.HastenFlip(0, 50*time.Millisecond, 20*time.Second) })
	if h.times() != 3 || a.Attempts != 0 {
		t.Errorf("asked %d times, %d attempts", h.times(), a.Attempts)
	}
	if len(during) != 1 || during[0].State != store.Copying || !strings.Contains(during[0].Reason, "was never silent") || during[0].Attempts != 0 || during[0].Flipping != store.FlipClosing {
		t.Errorf("%+v", during)
	}
	text := strings.Join(b.events(t), "\n")
	if strings.Count(text, "was never silent") != 1 || strings.Count(text, "Migrating") != 1 {
		t.Error(text)
	}
	if n := putOff(t, o)["session"]; n != 2 {
		t.Errorf("%v flips are counted as put off", n)
	}
}

// putOff reads how many flips are counted as put off, by reason.
func putOff(t *testing.T, o migrator.Options) map[string]float64 {
	t.Helper()
	families, err := o.Metrics.(prometheus.Gatherer).Gather()
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "migproxy_flips_put_off_total" {
			for _, m := range f.GetMetric() {
				count[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return count
}

// What the administrator has agreed to outlives a flip that is put off.
func TestParkedPutOffKeepsConsent(t *testing.T) {
	_, target, b := parkedFakes(t, config.FlipAt{}, func(f *fakeServer) {
		for range 11 {
			f.box("INBOX").add(fakeMail{body: "x: bad"})
		}
		f.box("Work").fill(3, false)
	})
	target.onAppend = refuse(func(m fakeMail) bool { return strings.HasSuffix(m.body, "bad") })
	b.hold(t, func(n int) bool { return n > 1 })
	b.anna(t)
	m, ctx := b.start(t, b.options(t), func(m *migrator.Migrator) { m.HastenFlip(0, 50*time.Millisecond, 20*time.Second) })
	atRest := func(a store.Account) bool { return slices.Contains(rest, a.State) }
	if a := b.await(t, m, ctx, "anna", atRest); a.State != store.Waiting || a.SetAside != 11 {
		t.Fatalf("%s, %d aside: %s", a.State, a.SetAside, a.Reason)
	}
	if _, err := b.store.Retry(ctx, "anna@"+domain); err != nil {
		t.Fatal(err)
	}
	if a := b.await(t, m, ctx, "anna", atRest); a.State != store.Active {
		t.Errorf("%s: %s", a.State, a.Reason)
	}
	if text := strings.Join(b.events(t), "\n"); strings.Count(text, "was never silent") != 1 {
		t.Error(text)
	}
}

// A last pass that takes too long is taken back, and is tried again.
func TestParkedFlipTakesTooLong(t *testing.T) {
	source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
	h := b.hold(t, nil)
	b.anna(t)
	o := b.options(t)
	atStep(&o, "flip.held", 1, func() {
		source.on(func() {
			source.onCommand = func(name, _ string) string {
				if name == "LIST" { // it does not answer until the flip is taken back
					source.onCommand = nil
					source.mu.Unlock()
					defer source.mu.Lock()
					b.awaitRow(t, func(a store.Account) bool { return a.Flipping == store.NotFlipping })
				}
				return ""
			}
		})
	})
	b.flipsWith(t, o, source, target, func(m *migrator.Migrator) { m.HastenFlip(0, 10*time.Second, 300*time.Millisecond) })
	if text := strings.Join(b.events(t), "\n"); h.times() < 2 || !strings.Contains(text, "took longer than 300ms") {
		t.Error(h.times(), text)
	}
	if n := putOff(t, o); n["time"] == 0 || n["session"] != 0 {
		t.Errorf("counted as put off: %v", n)
	}
}

// Two sides that are not shown to be the same are not flipped to: after three tries
// the administrator is told.
func TestParkedNotEqual(t *testing.T) {
	source, _, b := parkedFakes(t, config.FlipAt{}, workFolders)
	h := b.hold(t, nil)
	b.anna(t)
	o := b.options(t)
	var verified, verifying atomic.Int32
	source.on(func() {
		source.onCommand = func(name, _ string) string { // nothing can be read while the sides are compared
			if name != "EXAMINE" || verifying.Load() == 0 {
				return ""
			}
			source.mu.Unlock()
			defer source.mu.Lock()
			if a, err := b.store.Account(t.Context(), "anna@example.com"); err != nil || a.Flipping != store.FlipHeld {
				return ""
			}
			return "NO [SERVERBUG] not now"
		}
	})
	o.Step = func(name string) {
		switch name {
		case "flip.held":
			verifying.Store(0)
		case "compare.done":
			verified.Add(1)
			verifying.Store(1)
		}
	}
	a := b.run(t, o, "anna", rest...)
	if a.State != store.Failed || a.Flipping != store.NotFlipping || !strings.Contains(a.Reason, "migproxy verify anna@example.com") {
		t.Fatal(a.State, a.Reason)
	}
	if h.times() != 3 || verified.Load() != 3 {
		t.Errorf("held %d times, compared %d times", h.times(), verified.Load())
	}
}

// Mail that is delivered between the last pass and the proof is no fault, however
// often that happens: the flip is put off.
func TestParkedMailArrivesBeforeTheProof(t *testing.T) {
	source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
	h := b.hold(t, nil)
	b.anna(t)
	o := b.options(t)
	arrivals := 0
	o.Step = func(name string) {
		if name == "compare.done" && arrivals < 4 {
			arrivals++
			source.on(func() { source.box("INBOX").fill(1, false) })
		}
	}
	b.flips(t, o, source, target)
	if text := strings.Join(b.events(t), "\n"); h.times() != 5 || !strings.Contains(text, "1 not copied yet") {
		t.Error(h.times(), text)
	}
}

// The end of the process in the middle of a flip takes it back.
func TestParkedProcessEnds(t *testing.T) {
	for _, step := range []string{"flip.closing", "flip.held", "flip.verified"} {
		t.Run(step, func(t *testing.T) {
			source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
			b.hold(t, func(n int) bool { return step != "flip.closing" || n > 1 })
			b.anna(t)
			o := b.options(t)
			reached := make(chan struct{})
			atStep(&o, step, 1, func() { close(reached) })
			a := b.runUntil(t, o, "anna", reached, func(store.Account) bool { return false })
			if a, _ = b.store.Account(t.Context(), "anna@example.com"); a.Flipping != store.NotFlipping {
				t.Error(a.State, a.Flipping)
			}
			if a.State == store.Active {
				return // it was too late to stop
			}
			b.flips(t, b.options(t), source, target)
		})
	}
}

// A mailbox in use flips once a pass finds little enough, and not before.
func TestParkedThreshold(t *testing.T) {
	for name, c := range map[string]struct {
		at      config.FlipAt
		arrives int // between two passes
		flips   bool
	}{
		"few":            {config.FlipAt{Messages: 5, Octets: 10_000}, 3, true},
		"many":           {config.FlipAt{Messages: 2, Octets: 10_000}, 3, false},
		"few but large":  {config.FlipAt{Messages: 5, Octets: 100}, 3, false},
		"nothing at all": {config.FlipAt{}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, b := parkedFakes(t, c.at, twoFolders)
			b.hold(t, func(int) bool { source.on(func() { source.onCommand = nil }); return true })
			n := 0
			source.onCommand = func(command, args string) string {
				if command == "LSUB" { // once a pass
					for range c.arrives {
						n++
						source.box("INBOX").add(fakeMail{body: message(1000+n, ""), date: "14-Mar-2019 05:06:07 +0100"})
					}
				}
				return ""
			}
			b.anna(t)
			o := b.options(t)
			if c.flips {
				b.flips(t, o, source, target)
				return
			}
			a := b.until(t, o, "anna", func(a store.Account) bool { return a.Reason != "" || a.State == store.Active })
			if a.State != store.Copying || !strings.Contains(a.Reason, "faster") {
				t.Error(a.State, a.Reason)
			}
		})
	}
}

// Other ways of parking, and accounts that were there before, know nothing of all
// that: nothing is removed, nobody is asked.
func TestOthersAreNotMirrored(t *testing.T) {
	for name, c := range map[string]struct {
		mode  config.ParkingMode
		adopt bool
	}{"notice": {mode: config.ParkNotice}, "adopted": {mode: config.ParkSource, adopt: true}} {
		t.Run(name, func(t *testing.T) {
			source, target, _, b := fakes(t, workFolders)
			cfg := b.park(t, config.FlipAt{}).domains[domain]
			cfg.Config.Parking.Mode = c.mode
			if c.adopt {
				target.exists, target.password = true, secret
			}
			h := b.hold(t, nil)
			b.begin(t, store.NewAccount{Identity: identity("anna"), Password: config.NewSecret(secret), Adopt: c.adopt})
			o := b.options(t)
			atStep(&o, "settle.committed", 4, func() {
				source.on(func() { source.box("Work").mails = nil; source.remove("Gone") })
			})
			if a := b.run(t, o, "anna", rest...); a.State != store.Active || h.times() > 0 {
				t.Fatal(a.State, a.Reason, h.times())
			}
			target.on(func() {
				if slices.ContainsFunc(target.log, func(s string) bool {
					return strings.Contains(s, "EXPUNGE") || strings.HasPrefix(s, "RENAME") || strings.HasPrefix(s, "DELETE") || strings.HasPrefix(s, "UNSUBSCRIBE")
				}) {
					t.Error("something was removed")
				}
			})
		})
	}
}

// awaitRow waits until the account's row is as wanted.
func (b *bench) awaitRow(t testing.TB, wanted func(store.Account) bool) {
	changes, cancel := b.store.Subscribe(false)
	defer cancel()
	for deadline := time.After(20 * time.Second); ; {
		a, err := b.store.Account(context.Background(), "anna@example.com")
		if err != nil {
			t.Error(err)
			return
		}
		if wanted(a) {
			return
		}
		select {
		case <-changes:
		case <-deadline:
			t.Error("the account's row never was as wanted")
			return
		}
	}
}

// A POP3 server may hide what was read once: nothing of it is removed.
func TestParkedPOP3OnlyAdds(t *testing.T) {
	source, target, b := popFakes(t, func(f *fakePOP3) { f.fill(20) })
	b.park(t, config.FlipAt{})
	target.caps = strings.Replace(target.caps, " UIDPLUS", "", 1) // is not needed
	b.hold(t, func(n int) bool {
		if n == 1 {
			source.mu.Lock()
			source.mails = source.mails[5:]
			source.mu.Unlock()
			source.add(message(901, ""))
		}
		return true
	})
	b.anna(t)
	a := b.run(t, b.options(t), "anna", rest...)
	if a.State != store.Active || a.Messages != 21 || len(target.contents("INBOX")) != 21 {
		t.Fatal(a.State, a.Messages, a.Reason, b.events(t))
	}
	if !slices.ContainsFunc(b.events(t), func(s string) bool {
		return strings.Contains(s, "16 messages") && strings.Contains(s, "5 gone from the source")
	}) {
		t.Errorf("%q", b.events(t))
	}
}

// Where folders are labels, a message that leaves one of them is not removed.
func TestParkedLabelsOnlyAdd(t *testing.T) {
	source, target, b := parkedFakes(t, config.FlipAt{}, fillGmail)
	fresh := fakeMail{body: message(5000, ""), gmail: 5000, date: "14-Mar-2019 05:06:07 +0100"}
	b.hold(t, func(n int) bool {
		if n == 1 {
			source.on(func() {
				source.unlabel(gmailMail(5).gmail, "INBOX")
				source.unlabel(gmailMail(3).gmail, allMail)
				source.unlabel(gmailMail(3).gmail, "Work")
				source.label(fresh, "INBOX")
			})
		}
		return true
	})
	b.anna(t)
	a := b.run(t, b.options(t), "anna", rest...)
	if a.State != store.Active || a.Messages != 67 {
		t.Fatal(a.State, a.Messages, a.Reason)
	}
	target.on(func() {
		if slices.ContainsFunc(target.log, func(s string) bool { return strings.Contains(s, "EXPUNGE") }) {
			t.Error("something was removed")
		}
	})
}

// A message that is moved about counts once for the addresses that it shows.
func TestParkedMovesCountOnce(t *testing.T) {
	source, target, b := parkedFakes(t, config.FlipAt{}, func(f *fakeServer) {
		for i := range 2 {
			f.box("Work").add(delivered(rossi, i))
		}
	})
	b.hold(t, func(n int) bool { return n > 2 })
	b.anna(t)
	o := discover(t, b.options(t), "")
	boxes := []string{"Work", "Other", "INBOX"}
	o.Step = func(name string) {
		if name == "flip.closing" && len(boxes) > 1 {
			source.on(func() {
				for _, m := range source.box(boxes[0]).mails {
					source.box(boxes[1]).add(m)
				}
				source.box(boxes[0]).mails = nil
			})
			boxes = boxes[1:]
		}
	}
	b.flipsWith(t, o, source, target, func(m *migrator.Migrator) { m.HastenFlip(0, 50*time.Millisecond, 20*time.Second) })
	if a, n := b.alias(t, rossi); n > 2 {
		t.Errorf("%+v, %d messages", a, n)
	}
}

// A list of the source that leaves messages out says nothing of whether they are
// there.
func TestParkedSourceListsTooLittle(t *testing.T) {
	source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
	b.hold(t, nil)
	b.anna(t)
	o := b.options(t)
	hidden, deleted := 0, 0
	atStep(&o, "flip.held", 1, func() {
		source.on(func() {
			source.hides = func(m fakeMail) bool {
				if m.uid == 7 && hidden < 3 {
					hidden++
					return true
				}
				return false
			}
		})
	})
	before := o.Step
	o.Step = func(name string) {
		before(name)
		if name == "mirror.deleted" {
			deleted++
		}
	}
	b.flips(t, o, source, target)
	if hidden < 3 || deleted > 0 {
		t.Errorf("%d hidden, %d removals", hidden, deleted)
	}
}

// What was removed on the target and is in the ledger still, after a crash, does
// not account for a message that is equal to it: not when the source gives its
// messages new UIDs either.
func TestParkedRemovedAccountsForNothing(t *testing.T) {
	source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
	b.hold(t, nil)
	b.anna(t)
	o := b.options(t)
	o.Concurrency = 1
	renumber := func(box *fakeBox) {
		box.validity += 500
		for i := range box.mails {
			box.mails[i].uid += 1000
		}
		box.next += 1000
	}
	k := &killer{name: "mirror.deleted", n: 1, died: make(chan struct{})}
	o.Step = k.step
	var removed fakeMail
	atStep(&o, "flip.closing", 1, func() {
		source.on(func() {
			work := source.box("Work")
			removed = work.mails[3]
			work.mails = slices.Delete(work.mails, 3, 4)
			renumber(work)
		})
	})
	crash(t, b, o, k)
	source.on(func() {
		renumber(source.box("Work"))
		source.box("Work").add(removed)
	})
	b.flips(t, b.options(t), source, target)
}

// A folder that is removed, made again, and removed for good: what was set aside
// from it stays listed.
func TestParkedFolderComesBack(t *testing.T) {
	source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
	refused := message(3, "bad")
	source.box("Gone").add(fakeMail{body: refused, date: "14-Mar-2019 05:06:07 +0100"})
	target.onAppend = func(_ int, mails []fakeMail) verdict {
		if slices.ContainsFunc(mails, func(m fakeMail) bool { return m.body == refused }) {
			return verdict{no: "[CANNOT] bad message"}
		}
		return verdict{}
	}
	b.hold(t, func(n int) bool { return n > 3 })
	begun := b.anna(t)
	o := b.options(t)
	n := 0
	o.Step = func(name string) {
		if name == "flip.closing" {
			n++
			source.on(func() {
				if n != 2 {
					source.remove("Gone")
					return
				}
				source.box("Gone").fill(8, false)
			})
		}
	}
	a := b.flipsWith(t, o, source, target, func(m *migrator.Migrator) { m.HastenFlip(0, 50*time.Millisecond, 20*time.Second) })
	aside, err := b.store.SetAside(t.Context(), begun.ID)
	if err != nil || len(aside) != 1 || aside[0].FolderName != "Gone" || a.SetAside != 1 || n != 4 {
		t.Error(aside, a.SetAside, n, err)
	}
}

// A folder with a use is emptied and stays, also when the source's was renamed.
func TestParkedFoldersWithAUse(t *testing.T) {
	source, target, b := parkedFakes(t, config.FlipAt{}, func(f *fakeServer) {
		workFolders(f)
		f.box("Sent").fill(4, false)
		f.box("Trash").fill(3, false)
	})
	target.box("Sent").attrs, target.box("Trash").attrs = `\Sent`, `\Trash`
	b.hold(t, nil)
	b.anna(t)
	o := b.options(t)
	atStep(&o, "flip.closing", 1, func() {
		source.on(func() { source.rename("Sent", "Sent2019"); source.remove("Trash") })
	})
	if a := b.run(t, o, "anna", rest...); a.State != store.Active || a.Messages != 198 {
		t.Fatal(a.State, a.Messages, a.Reason)
	}
	equal(t, source, target, "INBOX", "Work", "Sent2019")
	target.on(func() {
		if len(target.box("Sent").mails)+len(target.box("Trash").mails) > 0 || target.box("Sent").attrs == "" || target.box("Trash").attrs == "" {
			t.Error("Sent and Trash are not there, or not empty")
		}
	})
}

// The last pass over many folders takes as many connections as there are by then.
func TestParkedManyFolders(t *testing.T) {
	source, target, b := parkedFakes(t, config.FlipAt{}, func(f *fakeServer) {
		for i := range 60 {
			f.box(fmt.Sprintf("f%d", i)).fill(1, false)
		}
	})
	before := 0
	b.hold(t, func(int) bool {
		source.on(func() {
			before = source.users
			for i := range 60 {
				box := source.box(fmt.Sprintf("f%d", i))
				switch i % 5 {
				case 0:
					box.mails = box.mails[1:]
				case 1:
					box.add(fakeMail{body: message(900+i, ""), date: "14-Mar-2019 05:06:07 +0100"})
				case 2:
					box.mails[0].flags = []string{`\Flagged`}
				}
			}
			source.rename("f3", "g3")
			source.remove("f4")
		})
		return true
	})
	b.anna(t)
	most := 0
	source.onCommand = func(string, string) string { most = max(most, source.users); return "" }
	b.flips(t, b.options(t), source, target)
	if before != 1 || most < 3 {
		t.Errorf("%d connections before, and %d at most", before, most)
	}
}

// A source that lists too little says of no message that it is gone, also where one
// was removed on the target before a crash.
func TestParkedSourceListsTooLittleAfterACrash(t *testing.T) {
	source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
	b.hold(t, nil)
	b.anna(t)
	o := b.options(t)
	o.Concurrency = 1
	k := &killer{name: "mirror.deleted", n: 1, died: make(chan struct{})}
	o.Step = k.step
	atStep(&o, "flip.closing", 1, func() {
		source.on(func() { source.box("Work").mails = slices.Delete(source.box("Work").mails, 3, 4) })
	})
	crash(t, b, o, k)
	hidden := 0
	source.on(func() {
		at := slices.IndexFunc(source.box("Work").mails, func(m fakeMail) bool { return m.uid == 7 })
		body := source.box("Work").mails[at].body
		source.hides = func(m fakeMail) bool {
			if m.uid == 7 && m.body == body && hidden < 3 {
				hidden++
				return true
			}
			return false
		}
	})
	b.flips(t, b.options(t), source, target)
	if hidden < 3 {
		t.Errorf("%d hidden", hidden)
	}
}

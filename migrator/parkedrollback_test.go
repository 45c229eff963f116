package migrator_test

import (
	"strings"
	"testing"

	"migproxy/config"
	"migproxy/store"
)

// parkedAndBack is an account that was parked on the source, lived on the target,
// where it got mail, and was taken back.
func parkedAndBack(t *testing.T) (source, target *fakeServer, b *bench) {
	t.Helper()
	source, target, b = parkedFakes(t, config.FlipAt{}, workFolders)
	b.hold(t, nil)
	b.anna(t)
	b.flips(t, b.options(t), source, target)
	for n := range 3 {
		target.put("INBOX", message(1000+n, "new"))
	}
	if a := b.rollback(t, b.options(t), "anna"); a.State != store.Excluded {
		t.Fatalf("%+v", a)
	}
	return source, target, b
}

func (f *fakeServer) mark(box, body string, flags ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, at := f.mail(box, body)
	b.mails[at].flags = flags
}

// What an account that was taken back has marked on the source since, of mail
// that came to it on the target, does not keep it from moving anew.
func TestParkedAgainWithReturnedMailMarked(t *testing.T) {
	source, target, b := parkedAndBack(t)
	source.mark("INBOX", message(1000, "new"), `\Seen`, `\Answered`)
	want := source.all()
	b.forth(t, b.options(t), "anna", secret)
	once(t, "source", source, want)
	same(t, source, target)
	if text := strings.Join(b.events(t), "\n"); strings.Contains(text, "taken back, since the two sides") {
		t.Error(text)
	}
}

// A source that alters what is copied back to it has other octets than the target,
// which does not keep the account from moving anew.
func TestParkedAgainWithAlteredReturnedMail(t *testing.T) {
	for name, alter := range map[string]func(string) string{
		"a header": func(s string) string { return "X-Stamp: yes\r\n" + s },
		"same":     func(s string) string { return s },
	} {
		t.Run(name, func(t *testing.T) {
			source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
			b.hold(t, nil)
			b.anna(t)
			b.flips(t, b.options(t), source, target)
			target.put("INBOX", message(1000, "new"))
			source.on(func() {
				source.onAppend = func(int, []fakeMail) verdict { return verdict{tamperer: alter} }
			})
			if a := b.rollback(t, b.options(t), "anna"); a.State != store.Excluded {
				t.Fatalf("%+v", a)
			}
			there := target.all()
			b.forth(t, b.options(t), "anna", secret)
			once(t, "target", target, there)
		})
	}
}

// Mail that came on the target and was taken back is followed like any other, wherever
// its owner puts it on the source while he moves anew.
func TestParkedAgainWithReturnedMailMoved(t *testing.T) {
	source, target, b := parkedAndBack(t)
	want := source.all()
	o := b.options(t)
	atStep(&o, "flip.closing", 1, func() {
		source.carry("INBOX", "Work", message(1000, "new"))
		source.carry("INBOX", "Fresh", message(1001, "new"))
		source.put("Fresh", message(1002, "new")) // one more
		source.put("Fresh", message(2000, "newer"))
	})
	atStep(&o, "flip.held", 1, func() { source.carry("Work", "Fresh", message(1000, "new")) })
	want[message(1002, "new")]++
	want[message(2000, "newer")]++
	b.forth(t, o, "anna", secret)
	once(t, "source", source, want)
	same(t, source, target)
}

// What its owner has deleted on the source since, he has not on the target either;
// what nothing on the source is equal to stays there.
func TestParkedAgainWithReturnedMailDeleted(t *testing.T) {
	source, target, b := parkedAndBack(t)
	source.pull("INBOX", message(1001, "new"))
	target.put("Work", message(3000, "delivered to the wrong place"))
	target.put("Own", message(3001, "its own"))
	o := b.options(t)
	atStep(&o, "flip.closing", 1, func() { source.pull("INBOX", message(1000, "new")) })
	b.forth(t, o, "anna", secret)
	want := source.all()
	want[message(3000, "delivered to the wrong place")] = 1
	want[message(3001, "its own")] = 1
	once(t, "target", target, want)
	if text := strings.Join(b.events(t), "\n"); !strings.Contains(text, "equal; beside that: 2 on the target only") {
		t.Error(text)
	}
}

// What its owner has moved on the target is where the source has it, when he moves
// anew, and a folder that he made there for that is gone.
func TestParkedAgainAfterMovesOnTheTarget(t *testing.T) {
	source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
	b.hold(t, nil)
	b.anna(t)
	b.flips(t, b.options(t), source, target)
	gone := message(5, strings.Repeat("x", 5))
	for n, box := range []string{"Work", "Projects", "Projects"} {
		target.carry("INBOX", box, message(3+n, strings.Repeat("x", 3+n)))
	}
	if a := b.rollback(t, b.options(t), "anna"); a.State != store.Excluded {
		t.Fatalf("%+v", a)
	}
	source.pull("INBOX", gone) // from where it was before he moved it on the target
	b.forth(t, b.options(t), "anna", secret)
	same(t, source, target)
}

// A folder that its owner made on the target, and makes on the source while he moves
// anew, is one that the source has.
func TestParkedAgainWithItsFolderMadeOnTheSource(t *testing.T) {
	source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
	b.hold(t, nil)
	b.anna(t)
	b.flips(t, b.options(t), source, target)
	target.carry("INBOX", "Own", message(3, strings.Repeat("x", 3)))
	if a := b.rollback(t, b.options(t), "anna"); a.State != store.Excluded {
		t.Fatalf("%+v", a)
	}
	o := b.options(t)
	o.Concurrency = 1
	atStep(&o, "rollback.rebase.committed", 1, func() {
		source.put("Own", message(4000, "new"))
		source.put("Own", message(4001, "new"))
	})
	b.forth(t, o, "anna", secret)
	same(t, source, target)
}

// What accounts for a message of another folder does so no more when the parking mode
// is changed to one in which it can be removed.
func TestParkedAgainInAnotherMode(t *testing.T) {
	source, target, _, b := fakes(t, workFolders)
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	target.carry("INBOX", "Own", message(3, strings.Repeat("x", 3)))
	target.carry("INBOX", "Work", message(4, strings.Repeat("x", 4)))
	if a := b.rollback(t, b.options(t), "anna"); a.State != store.Excluded {
		t.Fatalf("%+v", a)
	}
	b.askForth(t, "anna", secret)
	o := b.options(t)
	o.Concurrency = 1
	k := &killer{name: "rollback.rebase.committed", n: 1, died: make(chan struct{})}
	o.Step = k.step
	crash(t, b, o, k)
	b.park(t, config.FlipAt{})
	b.hold(t, nil)
	b.flips(t, b.options(t), source, target)
}

// What accounts for a message that has moved on the source does not account for an
// equal one as well, when the source gives its old folder new UIDs.
func TestParkedAgainWithReturnedMailMovedAndRenumbered(t *testing.T) {
	source, target, b := parkedAndBack(t)
	source.carry("INBOX", "Work", message(1000, "new"))
	o := b.options(t)
	atStep(&o, "flip.closing", 1, func() {
		source.put("INBOX", message(1000, "new"))
		source.on(func() {
			inbox := source.box("INBOX")
			inbox.validity += 500
			for i := range inbox.mails {
				inbox.mails[i].uid += 1000
			}
			inbox.next += 1000
		})
	})
	b.forth(t, o, "anna", secret)
	same(t, source, target)
}

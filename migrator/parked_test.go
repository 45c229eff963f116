package migrator_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
	"migproxy/upstream"
)

// park has the accounts parked on the source.
func (b *bench) park(t testing.TB, at config.FlipAt) *bench {
	t.Helper()
	cfg := *b.domains[domain].Config
	cfg.Parking = config.Parking{Mode: config.ParkSource, Flip: at}
	domains, err := upstream.Domains(&config.Config{Domains: []config.Domain{cfg}}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	b.domains = domains
	return b
}

// holder stands in for whoever has the sessions of accounts: it answers when a
// flip asks for them to be closed.
type holder struct {
	mu    sync.Mutex
	asked int
	// before, if set, is called before the nth answer; false is none.
	before func(n int) bool
}

func (b *bench) hold(t testing.TB, before func(n int) bool) *holder {
	h := &holder{before: before}
	changes, cancel := b.store.Subscribe(false)
	var wg sync.WaitGroup
	wg.Go(func() {
		for c := range changes {
			if c.Flipping != store.FlipClosing {
				continue
			}
			h.mu.Lock()
			h.asked++
			answer := h.before == nil || h.before(h.asked)
			h.mu.Unlock()
			if answer {
				if _, err := b.store.Hold(context.Background(), c.AccountID); err != nil {
					t.Error(err)
				}
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return h
}

func (h *holder) times() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

// parkedFakes is fakes for an account that is parked on the source.
func parkedFakes(t testing.TB, at config.FlipAt, fill func(*fakeServer)) (source, target *fakeServer, b *bench) {
	source, target, _, b = fakes(t, fill)
	return source, target, b.park(t, at)
}

// on does something on a server while it is connected to.
func (f *fakeServer) on(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// atStep does something once, when a step is passed for the nth time.
func atStep(o *migrator.Options, step string, nth int, do func()) {
	before := o.Step
	o.Step = func(name string) {
		if before != nil {
			before(name)
		}
		if name == step {
			if nth--; nth == 0 {
				do()
			}
		}
	}
}

// same holds all mailboxes of two servers against each other.
func same(t testing.TB, source, target *fakeServer) {
	t.Helper()
	names := func(f *fakeServer) (all []string) {
		f.on(func() {
			for _, b := range f.boxes {
				all = append(all, fmt.Sprintf("%s %v", b.name, b.subscribed))
			}
		})
		slices.Sort(all)
		return all
	}
	was, is := names(source), names(target)
	is = slices.DeleteFunc(is, func(n string) bool { // which was removed, and what is below it stays
		name, _, _ := strings.Cut(n, " ")
		return source.find(name) == nil && len(target.find(name).mails) == 0 &&
			slices.ContainsFunc(target.boxes, func(b *fakeBox) bool { return strings.HasPrefix(b.name, name+target.delim) })
	})
	if !slices.Equal(was, is) {
		t.Errorf("the source has %q, the target %q", was, is)
	}
	for _, b := range source.boxes {
		if was, is := source.sorted(b.name), target.sorted(b.name); !slices.Equal(was, is) {
			t.Errorf("%s: source has %d messages, target %d:\n%q\n%q", b.name, len(was), len(is), was, is)
		}
	}
}

// sorted is contents, with the flags of each message sorted.
func (f *fakeServer) sorted(box string) []string {
	all := f.contents(box)
	for i, m := range all {
		flags, rest, _ := strings.Cut(m, "|")
		words := strings.Fields(flags)
		slices.Sort(words)
		all[i] = strings.Join(words, " ") + "|" + rest
	}
	slices.Sort(all)
	return all
}

// flips runs until the account has flipped, and holds both sides against each
// other.
func (b *bench) flips(t testing.TB, o migrator.Options, source, target *fakeServer) store.Account {
	t.Helper()
	return b.flipsWith(t, o, source, target, func(*migrator.Migrator) {})
}

func (b *bench) flipsWith(t testing.TB, o migrator.Options, source, target *fakeServer, prepare func(*migrator.Migrator)) store.Account {
	t.Helper()
	a := b.runUntil(t, o, "anna", nil, func(a store.Account) bool { return slices.Contains(rest, a.State) }, prepare)
	if a.State != store.Active {
		t.Fatalf("%s: %s\n%s", a.State, a.Reason, strings.Join(b.events(t), "\n"))
	}
	if a.Flipping != store.NotFlipping {
		t.Errorf("still %s", a.Flipping)
	}
	n := 0
	for _, box := range source.boxes {
		n += len(box.mails)
	}
	if a.Messages != int64(n) {
		t.Errorf("%d messages are counted, and there are %d", a.Messages, n)
	}
	if text := strings.Join(b.events(t), "\n"); !strings.Contains(text, fmt.Sprintf("Messages for 'anna@example.com' migrated, %d messages", n)) || !strings.Contains(text, "Verified before the flip: ") {
		t.Errorf("events: %s", text)
	}
	same(t, source, target)
	return a
}

// What an owner does in his old mailbox while it is copied, and until it is held, is
// on the target after the flip.
func TestParkedOwnerWorks(t *testing.T) {
	mail := func(n int) fakeMail {
		return fakeMail{body: message(n, "late"), date: "14-Mar-2019 05:06:07 +0100"}
	}
	for name, work := range map[string]func(f *fakeServer){
		"nothing":  func(*fakeServer) {},
		"arrivals": func(f *fakeServer) { f.box("INBOX").add(mail(1)); f.box("INBOX").add(mail(1)) },
		"deletions": func(f *fakeServer) {
			in := f.box("INBOX")
			in.mails = slices.Delete(slices.Delete(in.mails, 100, 120), 3, 4)
		},
		"a folder emptied": func(f *fakeServer) { f.box("Work").mails = nil },
		"moves": func(f *fakeServer) {
			in, work := f.box("INBOX"), f.box("Work")
			for _, m := range in.mails[10:30] {
				work.add(m)
			}
			in.mails = slices.Delete(in.mails, 10, 30)
			in.add(work.mails[0])
			work.mails = work.mails[1:]
		},
		"flags and keywords": func(f *fakeServer) {
			in := f.box("INBOX")
			in.mails[0].flags = []string{`\Flagged`}
			in.mails[1].flags = []string{`\Seen`, "$Other"}
			in.mails[2].flags = nil
		},
		"a folder made":    func(f *fakeServer) { f.box("New").fill(3, false); f.box("New/below").fill(2, false) },
		"a folder renamed": func(f *fakeServer) { f.rename("Work", "Play") },
		"a folder renamed and used": func(f *fakeServer) {
			f.rename("Work", "Play")
			b := f.box("Play")
			b.mails = b.mails[3:]
			b.add(mail(2))
		},
		"a folder renamed below another": func(f *fakeServer) { f.box("Top"); f.rename("Work", "Top/Work") },
		"an empty folder renamed":        func(f *fakeServer) { f.rename("Empty", "Void") },
		"two folders swapped": func(f *fakeServer) {
			f.rename("Work", "x")
			f.rename("Tree", "Work")
			f.rename("x", "Tree")
		},
		"renamed onto one removed": func(f *fakeServer) { f.remove("Empty"); f.rename("Work", "Empty") },
		"a folder removed":         func(f *fakeServer) { f.remove("Work") },
		"a tree removed":           func(f *fakeServer) { f.remove("Tree"); f.remove("Tree/a"); f.remove("Tree/a/b") },
		"a part of a tree removed": func(f *fakeServer) { f.remove("Tree/a/b") },
		"another with the UIDVALIDITY of one removed": func(f *fakeServer) {
			validity := f.box("Work").validity
			f.remove("Work")
			b := f.box("New")
			b.validity = validity
			for i := range 30 {
				b.add(mail(i + 100))
			}
		},
		"a folder made anew": func(f *fakeServer) { f.remove("Work"); f.box("Work").fill(7, true) },
		"a folder made anew, empty": func(f *fakeServer) {
			f.remove("Work")
			f.box("Work")
		},
		"numbered anew, with deletions": func(f *fakeServer) {
			in := f.box("INBOX")
			in.mails = in.mails[20:]
			in.validity += 500
			for i := range in.mails {
				in.mails[i].uid += 1000
			}
			in.next += 1000
		},
		"INBOX renamed": func(f *fakeServer) { // its messages move
			in := f.box("INBOX")
			old := f.box("Old")
			for _, m := range in.mails {
				old.add(m)
			}
			in.mails = nil
		},
		"subscriptions": func(f *fakeServer) {
			f.box("Work").subscribed = false
			f.box("Empty").subscribed = true
		},
	} {
		for when, step := range map[string]string{"copied": "flip.closing", "between": "settle.committed"} {
			t.Run(name+"/"+when, func(t *testing.T) {
				t.Parallel()
				source, target, b := parkedFakes(t, config.FlipAt{}, func(f *fakeServer) {
					twoFolders(f)
					f.box("Work").subscribed = true
					f.box("Empty")
					f.box("Tree").fill(5, false)
					f.box("Tree/a")
					f.box("Tree/a/b").fill(4, false)
				})
				h := b.hold(t, nil)
				b.anna(t)
				o := b.options(t)
				atStep(&o, step, 1, func() { source.on(func() { work(source) }) })
				b.flipsWith(t, o, source, target, func(m *migrator.Migrator) { m.HastenFlip(0, 10*time.Second, 20*time.Second) })
				if n := h.times(); n != 1 && !strings.Contains(strings.Join(b.events(t), " "), "does not show") {
					t.Errorf("sessions were closed %d times", n)
				}
			})
		}
	}
}

// A tree that is renamed is renamed on the target, and nothing is copied again,
// also where that gives the folders other UIDVALIDITYs.
func TestParkedTreeRenamed(t *testing.T) {
	for name, renumbers := range map[string]bool{"as it was": false, "another UIDVALIDITY": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, b := parkedFakes(t, config.FlipAt{}, func(f *fakeServer) {
				f.box("Tree").fill(5, false)
				f.box("Tree").subscribed = true
				f.box("Tree/a")
				f.box("Tree/a/b").fill(4, false)
			})
			target.renumbers = renumbers
			b.hold(t, nil)
			b.anna(t)
			o, sent := b.options(t), 0
			atStep(&o, "flip.closing", 1, func() {
				sent = target.sent()
				source.on(func() {
					source.rename("Tree", "Bush")
					source.box("Bush").subscribed = true
					below := source.box("Bush/a/b") // what was copied there is still known as that
					below.mails = below.mails[1:]
				})
			})
			b.flips(t, o, source, target)
			if n := target.sent(); n != sent {
				t.Errorf("%d appends", n-sent)
			}
		})
	}
}

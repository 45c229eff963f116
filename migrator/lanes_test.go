package migrator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"migproxy/config"
	"migproxy/store"
)

// wide has enough in several folders that they are copied at a time.
func wide(f *fakeServer) {
	for i := range 6 {
		f.box(fmt.Sprintf("f%d", i)).fill(120, true)
	}
}

var wideBoxes = []string{"f0", "f1", "f2", "f3", "f4", "f5"}

// gauge counts the users of a target's connections.
func (f *fakeServer) most(most *int) func(int, []fakeMail) verdict {
	return func(int, []fakeMail) verdict { // the server's mu is held
		*most = max(*most, f.users)
		return verdict{}
	}
}

// Several folders are copied at a time, each over connections of its own, as far
// as the target takes them.
func TestLanes(t *testing.T) {
	for name, c := range map[string]struct{ limit, most int }{
		"as many as it likes":     {0, 5}, // four that append, one that only looks
		"three connections":       {3, 3},
		"no more than one to two": {2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, _, b := fakes(t, wide)
			target.limit = c.limit
			var most int
			target.onAppend = target.most(&most)
			b.anna(t)
			if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active || a.Messages != 720 {
				t.Fatal(a.State, a.Messages, a.Reason)
			}
			equal(t, source, target, wideBoxes...)
			if most > c.most || most < 2 {
				t.Errorf("%d connections", most)
			}
		})
	}
}

// What is refused in one of several folders that are copied at a time is set
// aside as ever, and only that.
func TestRefusedInALane(t *testing.T) {
	isBad := func(m fakeMail) bool { return strings.HasSuffix(m.body, "bad") }
	for name, fill := range map[string]func(*fakeServer){
		"in the middle": func(f *fakeServer) {
			f.box("f3").add(fakeMail{body: "x: bad"})
			f.box("f3").fill(5, false)
		},
		"the last of one": func(f *fakeServer) { f.box("f5").add(fakeMail{body: "x: bad"}) },
		"the last of all": func(f *fakeServer) { f.box("z").add(fakeMail{body: "x: bad"}) },
		"in each": func(f *fakeServer) {
			for _, box := range wideBoxes {
				f.box(box).add(fakeMail{body: "x: bad"})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, _, b := fakes(t, func(f *fakeServer) { wide(f); fill(f) })
			target.onAppend = refuse(isBad)
			b.anna(t)
			a := b.run(t, b.options(t), "anna", rest...)
			bad := int64(0)
			for _, box := range source.boxes {
				n := len(box.mails)
				box.mails = slices.DeleteFunc(box.mails, isBad)
				bad += int64(n - len(box.mails))
			}
			if a.State != store.Active || a.SetAside != bad || bad == 0 {
				t.Fatalf("%s, %d messages, %d aside: %s", a.State, a.Messages, a.SetAside, a.Reason)
			}
			equal(t, source, target, wideBoxes...)
		})
	}
}

// A lane that meets a message which is too large, behind a full window, ends what
// it has under way before it leaves the rest over: nothing is doubled.
func TestTooLargeInALane(t *testing.T) {
	for name, adopted := range map[string]bool{"new": false, "adopted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, _, b := fakes(t, func(f *fakeServer) {
				f.box("f0").fill(1150, false)
				f.box("f0").add(fakeMail{body: message(1, strings.Repeat("y", 5000))})
				f.box("f0").fill(20, false)
				for i := range 4 {
					f.box(fmt.Sprintf("f%d", i+1)).fill(300, false)
				}
			})
			target.caps += " APPENDLIMIT=4000"
			if adopted {
				target.exists, target.password = true, secret
				b.begin(t, store.NewAccount{Identity: identity("anna"), Password: config.NewSecret(secret), Adopt: true})
			} else {
				b.anna(t)
			}
			a := b.run(t, b.options(t), "anna", rest...)
			if a.State != store.Active || a.Messages != 2370 || a.SetAside != 1 {
				t.Errorf("%s, %d messages, %d aside: %s", a.State, a.Messages, a.SetAside, a.Reason)
			}
			source.with(func() {
				f0 := source.box("f0")
				f0.mails = slices.DeleteFunc(f0.mails, func(m fakeMail) bool { return len(m.body) > 4000 })
			})
			equal(t, source, target, "f0", "f1", "f2", "f3", "f4")
		})
	}
}

// A target that breaks off while several folders are copied into it gets them
// one after the other then, and nothing twice.
func TestLaneBreaksOff(t *testing.T) {
	source, target, _, b := fakes(t, wide)
	cuts := 0
	target.onAppend = func(n int, _ []fakeMail) verdict { // the server's mu is held
		if n < 4 || target.users < 3 {
			return verdict{}
		}
		cuts++
		return verdict{cut: true, keep: true}
	}
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active || a.Messages != 720 {
		t.Fatal(a.State, a.Messages, a.Reason)
	}
	if cuts < 1 || cuts > 4 {
		t.Errorf("%d connections were cut", cuts)
	}
	equal(t, source, target, wideBoxes...)
}

package migrator_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/migrator"
)

// owner does whatever an owner may do in his mailbox.
type owner struct {
	mu   sync.Mutex
	rnd  *rand.Rand
	made int
	did  []string
}

func (o *owner) name(f *fakeServer) string {
	o.made++
	if o.rnd.IntN(3) == 0 {
		return f.boxes[o.rnd.IntN(len(f.boxes))].name + f.delim + fmt.Sprint("n", o.made)
	}
	return fmt.Sprint("n", o.rnd.IntN(4)) // perhaps one that was there before
}

// act does one thing; the server's mu is held.
func (o *owner) act(f *fakeServer) {
	box := f.boxes[o.rnd.IntN(len(f.boxes))]
	other := f.boxes[o.rnd.IntN(len(f.boxes))]
	at := 0
	if len(box.mails) > 0 {
		at = o.rnd.IntN(len(box.mails))
	}
	what := o.rnd.IntN(12)
	o.did = append(o.did, fmt.Sprint(what, " ", box.name, " ", at, " ", other.name))
	switch name := o.name(f); {
	case what < 2:
		box.add(fakeMail{body: message(o.rnd.IntN(30), ""), date: "14-Mar-2019 05:06:07 +0100"})
	case what < 4 && len(box.mails) > 0:
		box.mails = slices.Delete(slices.Clone(box.mails), at, at+1)
	case what < 6 && len(box.mails) > 0:
		m := box.mails[at]
		box.mails = slices.Delete(slices.Clone(box.mails), at, at+1)
		other.add(m)
	case what == 6 && len(box.mails) > 0:
		box.mails[at].flags = [][]string{nil, {`\Seen`}, {`\Flagged`, "$A"}, {"$A", "$B"}}[o.rnd.IntN(4)]
	case what == 7 && f.find(name) == nil:
		f.box(name).fill(o.rnd.IntN(3), false)
	case what == 8 && box.name != "INBOX" && f.find(name) == nil && !strings.HasPrefix(name, box.name):
		f.rename(box.name, name)
	case what == 9 && box.name != "INBOX":
		f.remove(box.name)
		if o.rnd.IntN(3) == 0 {
			f.box(box.name).fill(o.rnd.IntN(4), false)
		}
	case what == 10:
		box.validity = uint32(5000 + len(o.did)*1000 + o.rnd.IntN(1000))
		for i := range box.mails {
			box.mails[i].uid += 50
		}
		box.next += 50
	case what == 11:
		box.subscribed = !box.subscribed
	}
}

// Whatever an owner does until logins wait, and whenever he does it, both sides are
// the same after the flip, also where the process dies in between.
func TestParkedOwnerDoesWhatever(t *testing.T) {
	for range ownerSeeds {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			source, target, b := parkedFakes(t, config.FlipAt{Messages: int(seed % 3), Octets: 1 << 20}, func(f *fakeServer) {
				for i := range 4 {
					f.box(fmt.Sprint("n", i)).fill(4, true)
				}
				f.box("INBOX").fill(10, true)
				f.box("n1/a").fill(3, false)
				f.box("n1/a/b").fill(3, false)
			})
			source.flags = `\Answered \Flagged \Deleted \Seen \Draft $A $B $Label1`
			target.renumbers = seed%4 == 0
			o := &owner{rnd: rand.New(rand.NewPCG(seed, 0))}
			b.hold(t, func(n int) bool { return n > 4 })
			b.anna(t)
			options := b.options(t)
			options.Concurrency = 1
			k := &killer{died: make(chan struct{})}
			if steps := append(migrator.FlipSteps(), "settle.committed"); o.rnd.IntN(2) == 0 {
				k.name, k.n = steps[o.rnd.IntN(len(steps))], 1+o.rnd.IntN(3)
			}
			works := func(name string) {
				o.mu.Lock()
				defer o.mu.Unlock()
				if name == "flip.held" || name == "compare.done" || strings.HasPrefix(name, "flip.v") || o.rnd.IntN(4) > 0 && name != "flip.closing" {
					return
				}
				if len(o.did) < 60 {
					source.on(func() {
						for range 1 + o.rnd.IntN(6) {
							o.act(source)
						}
					})
				}
			}
			held := false
			options.Step = func(name string) {
				if held = held && name != "flip.closing" || name == "flip.held"; !held {
					works(name)
				}
				k.step(name)
			}
			if k.name != "" {
				crash(t, b, options, k)
				options = b.options(t)
			}
			defer func() {
				if t.Failed() {
					t.Log(k.name, k.n, strings.Join(o.did, "; "))
				}
			}()
			b.flipsWith(t, options, source, target, func(m *migrator.Migrator) { m.HastenFlip(0, 20*time.Millisecond, 20*time.Second) })
		})
	}
}

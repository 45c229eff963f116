package migrator_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
)

// owner does whatever an owner may do in his mailbox.
type owner struct {
	mu    sync.Mutex
	rnd   *rand.Rand
	made  int
	did   []string
	there bool // on the target: what has no mail in it stays there
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
	if o.there && what == 11 {
		what = 0
	}
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
		n := o.rnd.IntN(3)
		if o.there {
			n++
		}
		f.box(name).fill(n, false)
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

// works has its owner do something at about every fourth step, until logins wait.
func (o *owner) works(f *fakeServer, most int, then func(step string)) func(step string) {
	held, until := false, len(o.did)+most
	return func(name string) {
		o.mu.Lock()
		defer o.mu.Unlock()
		held = held && name != "flip.closing" || name == "flip.held"
		proof := name == "compare.done" || strings.HasPrefix(name, "flip.v")
		if !held && !proof && (name == "flip.closing" || o.rnd.IntN(4) == 0) && len(o.did) < until {
			o.acts(f, 1+o.rnd.IntN(6))
		}
		then(name)
	}
}

func (o *owner) acts(f *fakeServer, n int) {
	f.on(func() {
		for range n {
			o.act(f)
		}
	})
}

// ownedFakes are two servers with an owner who may do much.
func ownedFakes(t *testing.T, seed uint64) (source, target *fakeServer, b *bench, o *owner) {
	source, target, _, b = fakes(t, func(f *fakeServer) {
		for i := range 4 {
			f.box(fmt.Sprint("n", i)).fill(4, true)
		}
		f.box("INBOX").fill(10, true)
		f.box("n1/a").fill(3, false)
		f.box("n1/a/b").fill(3, false)
	})
	source.flags = `\Answered \Flagged \Deleted \Seen \Draft $A $B $Label1`
	target.renumbers = seed%4 == 0
	o = &owner{rnd: rand.New(rand.NewPCG(seed, 0))}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(strings.Join(o.did, "; "))
		}
	})
	b.anna(t)
	return source, target, b, o
}

// parkedOwned are ownedFakes for an account that is parked on the source.
func parkedOwned(t *testing.T, seed uint64) (source, target *fakeServer, b *bench, o *owner) {
	source, target, b, o = ownedFakes(t, seed)
	b.park(t, config.FlipAt{Messages: int(seed % 3), Octets: 1 << 20})
	b.hold(t, func(n int) bool { return n > 4 })
	return source, target, b, o
}

// perhaps dies at one of some steps, or not at all.
func (o *owner) perhaps(t *testing.T, steps ...string) *killer {
	k := &killer{died: make(chan struct{})}
	if o.rnd.IntN(2) == 0 {
		k.name, k.n = steps[o.rnd.IntN(len(steps))], 1+o.rnd.IntN(3)
		t.Logf("dies at %s, %d", k.name, k.n)
	}
	return k
}

func hastened(m *migrator.Migrator) { m.HastenFlip(0, 20*time.Millisecond, 20*time.Second) }

// Whatever an owner does until logins wait, and whenever he does it, both sides are
// the same after the flip, also where the process dies in between.
func TestParkedOwnerDoesWhatever(t *testing.T) {
	for range ownerSeeds {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			source, target, b, o := parkedOwned(t, seed)
			options := b.options(t)
			options.Concurrency = 1
			k := o.perhaps(t, append(migrator.FlipSteps(), "settle.committed")...)
			options.Step = o.works(source, 60, k.step)
			if k.name != "" {
				crash(t, b, options, k)
				options.Metrics = prometheus.NewRegistry()
			}
			b.flipsWith(t, options, source, target, hastened)
		})
	}
}

// livesThere has the owner do something on the target, and returns what the source
// is to have when the account was taken back.
func (o *owner) livesThere(source, target *fakeServer) map[string]int {
	o.there = true
	o.acts(target, o.rnd.IntN(15))
	o.there = false
	tidy(source, target)
	want := source.all()
	for body, n := range target.all() {
		want[body] = max(want[body], n)
	}
	return want
}

// tidy takes away what belongs to no move: empty folders that only the target has,
// and subscriptions that were lost there.
func tidy(source, target *fakeServer) {
	target.on(func() {
		target.boxes = slices.DeleteFunc(target.boxes, func(b *fakeBox) bool { return len(b.mails) == 0 && source.find(b.name) == nil })
		for _, b := range target.boxes {
			if x := source.find(b.name); x != nil {
				b.subscribed = x.subscribed
			}
		}
	})
}

// An account that was taken back is on the source with all that its owner had on the
// target by then, and on the target as on the source when he has moved anew, whatever
// he does in the one and in the other, and also where the process dies in between.
func TestParkedAgainOwnerDoesWhatever(t *testing.T) {
	for range ownerSeeds {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			source, target, b, o := parkedOwned(t, seed)
			b.flipsWith(t, b.options(t), source, target, hastened)
			for range 2 {
				want := o.livesThere(source, target)
				options := b.options(t)
				options.Concurrency = 1
				k := o.perhaps(t, migrator.RollbackSteps()...)
				options.Step = k.step
				if _, err := b.store.AskRollback(t.Context(), "anna@example.com"); err != nil {
					t.Fatal(err)
				}
				back := func(a store.Account) bool { return a.RollingBack == store.NotRollingBack }
				b.untilDead(t, options, "anna", k.died, back)
				if a := b.until(t, b.options(t), "anna", back); a.State != store.Excluded {
					t.Fatal(a.State, a.Reason)
				}
				once(t, "source", source, want)
				o.acts(source, o.rnd.IntN(15))
				b.askForth(t, "anna", secret)
				options = b.options(t)
				options.Concurrency = 1
				k = o.perhaps(t, append(append(migrator.FlipSteps(), migrator.RebaseSteps()...), "settle.committed")...)
				options.Step = o.works(source, 40, k.step)
				if k.name != "" {
					crash(t, b, options, k)
				}
				options.Metrics = prometheus.NewRegistry()
				b.flipsWith(t, options, source, target, hastened)
			}
		})
	}
}

// Where nothing is removed on the target, it has once what the source has when the
// account has moved anew, and beside that no more than it had.
func TestForthOwnerDoesWhatever(t *testing.T) {
	for range ownerSeeds {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			source, target, b, o := ownedFakes(t, seed)
			if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active {
				t.Fatal(a.State, a.Reason)
			}
			for round := range 2 {
				want := o.livesThere(source, target)
				if a := b.rollback(t, b.options(t), "anna"); a.State != store.Excluded {
					t.Fatal(a.State, a.Reason)
				}
				if round == 0 { // later it has not what was deleted on the source
					once(t, "source", source, want)
				}
				there := target.all()
				o.acts(source, o.rnd.IntN(15))
				b.forth(t, b.options(t), "anna", secret)
				was, is := source.all(), target.all()
				for body, n := range was {
					if is[body] < n || is[body] > max(n, there[body]) {
						t.Errorf("%.60q is on the source %d times, on the target %d, before that %d", body, n, is[body], there[body])
					}
				}
			}
		})
	}
}

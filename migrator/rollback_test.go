package migrator_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
)

// mail is where a fake has a message; f.mu is held.
func (f *fakeServer) mail(box, body string) (b *fakeBox, at int) {
	b = f.box(box)
	if at = slices.IndexFunc(b.mails, func(m fakeMail) bool { return m.body == body }); at < 0 {
		f.t.Fatalf("%s has no such message", box)
	}
	return b, at
}

// pull takes a message out of a fake's mailbox.
func (f *fakeServer) pull(box string, body string) fakeMail {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, at := f.mail(box, body)
	m := b.mails[at]
	b.mails = slices.Delete(b.mails, at, at+1)
	return m
}

// put adds a message to a fake's mailbox.
func (f *fakeServer) put(box, body string, flags ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.box(box).add(fakeMail{body: body, flags: flags, date: "12-Feb-2020 02:02:02 +0000"})
}

// carry moves a message, as a client's COPY and EXPUNGE do.
func (f *fakeServer) carry(from, to, body string) {
	m := f.pull(from, body)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.box(to).add(m)
}

// all counts the bodies in all mailboxes of a fake.
func (f *fakeServer) all() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	count := map[string]int{}
	for _, b := range f.boxes {
		for _, m := range b.mails {
			count[m.body]++
		}
	}
	return count
}

// rollback has an account taken back and returns it.
func (b *bench) rollback(t testing.TB, o migrator.Options, local string) store.Account {
	t.Helper()
	if _, err := b.store.AskRollback(context.Background(), identity(local).Address()); err != nil {
		t.Fatal(err)
	}
	return b.until(t, o, local, func(a store.Account) bool { return a.RollingBack == store.NotRollingBack })
}

// forth has an account that was taken back move once more.
func (b *bench) forth(t testing.TB, o migrator.Options, local, password string) store.Account {
	t.Helper()
	b.askForth(t, local, password)
	a := b.run(t, o, local, rest...)
	if a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	return a
}

// askForth asks for it, and logs the owner in.
func (b *bench) askForth(t testing.TB, local, password string) {
	t.Helper()
	ctx := context.Background()
	a, err := b.store.Retry(ctx, identity(local).Address())
	if err != nil || a.State != store.Waiting || !a.Due.IsZero() {
		t.Fatal(a.State, a.Due, err)
	}
	// His next login.
	if _, err := b.store.SealPassword(ctx, a.ID, config.NewSecret(password)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.Revive(ctx, identity(local).Address()); err != nil {
		t.Fatal(err)
	}
}

func once(t testing.TB, which string, f *fakeServer, want map[string]int) {
	t.Helper()
	have := f.all()
	for body, n := range want {
		if have[body] != n {
			t.Errorf("the %s has %q %d times, not %d", which, strings.SplitN(body, "\r\n", 3)[1], have[body], n)
		}
	}
	for body, n := range have {
		if want[body] == 0 {
			t.Errorf("the %s has %.60q %d times", which, body, n)
		}
	}
}

// lived is what its owner does on the target: he writes, gets mail, deletes, moves,
// copies, and makes a folder. It returns what the source is to have then.
func lived(source, target *fakeServer, round int) map[string]int {
	want := source.all()
	for n, box := range []string{"INBOX", "INBOX", "Work", "Projects/new"} {
		body := message(1000*round+n, "new")
		target.put(box, body, `\Answered`, "$Label1")
		want[body]++
	}
	target.put("INBOX", message(1000*round, "new")) // the same once more
	want[message(1000*round, "new")]++
	target.pull("INBOX", message(5*round, strings.Repeat("x", 5*round%7)))
	target.carry("INBOX", "Projects/new", message(7*round, strings.Repeat("x", 7*round%7)))
	target.carry("INBOX", "Work", message(16+round, strings.Repeat("x", (16+round)%7))) // where an equal one is
	copied := message(9*round, strings.Repeat("x", 9*round%7))
	target.put("Work", copied)
	want[copied]++
	return want
}

var sourceKinds = map[string]string{
	"all extensions": "IMAP4rev1 LITERAL+ MULTIAPPEND UIDPLUS NAMESPACE SPECIAL-USE SASL-IR AUTH=PLAIN",
	"none":           "IMAP4rev1 NAMESPACE SASL-IR AUTH=PLAIN",
}

// What is new on the target comes back once, twice in a row and with moves forth
// between, and nothing is doubled or changed on either side.
func TestRollbackAndForthAgain(t *testing.T) {
	for name, caps := range sourceKinds {
		t.Run(name, func(t *testing.T) {
			source, target, _, b := fakes(t, func(f *fakeServer) {
				f.caps, f.delim = caps, "."
				f.box("INBOX").fill(120, true)
				f.box("Work").fill(30, false)
			})
			a := b.anna(t)
			o := b.options(t)
			if a = b.run(t, o, "anna", rest...); a.State != store.Active {
				t.Fatal(a.State, a.Reason)
			}
			for round := 1; round <= 3; round++ {
				want, before := lived(source, target, round), source.contents("INBOX")
				there := target.all()
				m, err := migrator.New(b.options(t))
				if err != nil {
					t.Fatal(err)
				}
				plan, err := m.PlanRollback(context.Background(), a)
				if err != nil {
					t.Fatal(err)
				}
				if plan.Messages != 6 {
					t.Errorf("%+v", plan)
				}
				a = b.rollback(t, b.options(t), "anna")
				if a.State != store.Excluded || a.RolledBackAt.IsZero() || a.HasPassword || !a.FlippedAt.IsZero() || !a.Due.IsZero() {
					t.Fatalf("%+v", a)
				}
				once(t, "source", source, want)
				once(t, "target", target, there)
				for _, m := range before {
					if !slices.Contains(source.contents("INBOX"), m) {
						t.Errorf("the source's INBOX has lost %.40q", m)
					}
				}
				// The flags and the date come with it.
				if have := source.contents("Projects.new"); !slices.Contains(have, `\Answered $Label1|12-Feb-2020 02:02:02 +0000|`+message(1000*round+3, "new")) {
					t.Errorf("%.200q", have)
				}
				// He works on the source.
				source.put("INBOX", message(5000+round, "at the source"))
				want[message(5000+round, "at the source")]++
				source.carry("INBOX", "Work", message(40+round, strings.Repeat("x", (40+round)%7)))
				a = b.forth(t, b.options(t), "anna", secret)
				if !a.RolledBackAt.IsZero() {
					t.Error("it counts as taken back still")
				}
				once(t, "source", source, want)
				once(t, "target", target, want)
			}
		})
	}
}

// Whatever step the process dies at, the next one ends the rollback, and the move
// forth, with every message there once.
func TestRollbackCrashesAtEveryStep(t *testing.T) {
	for name, caps := range sourceKinds {
		for _, step := range append(migrator.RollbackSteps(), migrator.RebaseSteps()...) {
			for _, nth := range []int{1, 2} {
				t.Run(fmt.Sprintf("%s/%s/%d", name, step, nth), func(t *testing.T) {
					t.Parallel()
					source, target, _, b := fakes(t, func(f *fakeServer) {
						f.caps, f.delim = caps, "."
						f.box("INBOX").fill(60, true)
						f.box("Work").fill(30, false)
					})
					b.anna(t)
					if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active {
						t.Fatal(a.State, a.Reason)
					}
					want := lived(source, target, 1)
					for n := range 45 { // three batches
						target.put("Work", message(2000+n/2, "twin"))
						want[message(2000+n/2, "twin")]++
					}
					cut := 0
					source.onAppend = func(n int, mails []fakeMail) verdict {
						if cut++; cut == 8 {
							return verdict{cut: true, late: 50 * time.Millisecond}
						}
						return verdict{}
					}
					o := b.options(t)
					o.Concurrency = 1
					k := &killer{name: step, n: nth, died: make(chan struct{})}
					o.Step = k.step
					if _, err := b.store.AskRollback(t.Context(), "anna@example.com"); err != nil {
						t.Fatal(err)
					}
					b.untilDead(t, o, "anna", k.died, func(a store.Account) bool { return a.RollingBack == store.NotRollingBack })
					if nth == 1 && k.n > 0 && slices.Contains(migrator.RollbackSteps(), step) {
						t.Errorf("the step %s was never passed", step)
					}
					a := b.until(t, b.options(t), "anna", func(a store.Account) bool { return a.RollingBack == store.NotRollingBack })
					if a.State != store.Excluded {
						t.Fatal(a.State, a.Reason)
					}
					once(t, "source", source, want)
					if k.n > 0 {
						if _, _, err := b.store.Migrate(t.Context(), store.NewAccount{Identity: identity("anna"), Mode: config.ModeAccounts, Password: config.NewSecret(secret)}); err != nil {
							t.Fatal(err)
						}
						o.Metrics = prometheus.NewRegistry()
						b.untilDead(t, o, "anna", k.died, func(a store.Account) bool { return a.State == store.Active })
						if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active {
							t.Fatal(a.State, a.Reason)
						}
					} else {
						b.forth(t, b.options(t), "anna", secret)
					}
					once(t, "source", source, want)
					once(t, "target", target, want)
				})
			}
		}
	}
}

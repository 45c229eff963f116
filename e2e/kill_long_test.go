//go:build long

package e2e

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"migproxy/migrator"
)

// special are the steps that a move passes only where something is special
// about it; how to come there is in TestKilledAtSpecialSteps.
var special = []string{"match.committed", "settle.looked", "aside.before", "aside.after", "password.before", "password.after"}

func TestKilledAtEachStep(t *testing.T) {
	w := newKillWorld(t, 130)
	for i, step := range migrator.Steps() {
		if slices.Contains(special, step) {
			continue
		}
		t.Run(step, func(t *testing.T) {
			r := w.runner(t, i)
			r.kill(step)
			r.finish()
		})
	}
}

func TestKilledAtSpecialSteps(t *testing.T) {
	w := newKillWorld(t, 130)
	n := 0
	each := func(name string, f func(t *testing.T, r *runner), steps ...string) {
		for _, step := range steps {
			n++
			t.Run(name+"/"+step, func(t *testing.T) {
				r := w.runner(t, n)
				f(t, r)
				r.kill(step)
				r.finish()
			})
		}
	}
	each("after a cut batch", func(_ *testing.T, r *runner) { r.kill("batch.sent") }, "settle.looked", "settle.before", "settle.committed")
	each("mail that is there already", func(t *testing.T, r *runner) {
		files, err := filepath.Glob(filepath.Join(w.source.Maildir(r.user), "cur", "*"))
		files = slices.DeleteFunc(files, func(f string) bool { // keywords are numbered for each Maildir
			_, flags, _ := strings.Cut(f, ":2,")
			return strings.ContainsAny(flags, "abcdefgh")
		})
		if err != nil || len(files) < 10 {
			t.Fatalf("%d files, %v", len(files), err)
		}
		there := w.target.Maildir(r.user)
		for _, dir := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(there, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		run(t, exec.Command("cp", append(append([]string{"-a"}, files[:5]...), filepath.Join(there, "cur"))...))
		run(t, exec.Command("chown", "-R", "--reference", w.source.Maildir(r.user), filepath.Dir(there)))
	}, "match.committed", "intent.committed", "batch.sent")
	each("a message that the target refuses", func(t *testing.T, r *runner) {
		deliver(t, w.source.Maildir(r.user), "1700000000.M1P1.empty", "") // Dovecot takes no empty message
		r.refused = 1
	}, "aside.before", "aside.after", "batch.sent")
	each("a new password", func(t *testing.T, r *runner) {
		r.kill("intent.committed")
		r.password = "changed meanwhile"
		changePassword(t, w.source, r.user, r.password)
	}, "password.before", "password.after", "flip.before")
}

// Killed again and again at random moments of one copy.
func TestKilledAtRandomMoments(t *testing.T) {
	w := newKillWorld(t, 6000)
	r := w.runner(t, 1000)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	r.start()
	if err := r.begin(); err != nil {
		t.Fatal(err)
	}
	kills := 0
	for kills < 20 {
		// Somewhere within the next few batches of a copy that was given the
		// time to settle what the last kill cut.
		pause := time.NewTimer(3*time.Second + time.Duration(random.Int64N(int64(time.Second))))
		select {
		case <-pause.C:
		case <-r.done:
			t.Fatal("migproxy ended by itself")
		}
		if a, err := r.state(r.user); err == nil && a.State == "active" {
			break
		}
		_ = r.cmd.Process.Kill()
		r.wait()
		kills++
		r.start()
	}
	if kills < 20 {
		t.Errorf("the copy ended after %d kills", kills)
	}
	r.finish()
}

// afterFlip is a runner whose account has flipped, whose owner has deleted some
// mail on the target, and whose source has something new since.
type afterFlip struct {
	*runner
	want []string // what the target is to have in the end
}

func (w *killWorld) afterFlip(t testing.TB, n int) *afterFlip {
	t.Helper()
	r := w.runner(t, n)
	r.finish()
	view := func() []string {
		return subjects(viewOf(t, ask(t, request{Op: "dump", Port: w.target.IMAP, User: r.user, Password: r.password}), "", targetSep, nil))
	}
	owner := login(t, w.target.IMAP, r.user, r.password)
	if _, err := owner.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	var first imap.SeqSet
	first.AddRange(1, 5)
	if err := owner.Store(first, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if err := owner.Expunge().Close(); err != nil {
		t.Fatal(err)
	}
	a := &afterFlip{runner: r, want: view()}
	c := login(t, w.source.IMAP, r.user, r.password)
	if err := c.Create(sourcePrefix+"Later", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	for i := range 130 {
		m := note(fmt.Sprintf("late-%d", i/2)) // twins
		folder := []string{"INBOX", "Later"}[i%2]
		name := folder
		if folder != "INBOX" {
			name = sourcePrefix + folder
		}
		appendTo(t, c, name, m)
		a.want = append(a.want, fmt.Sprintf("%s %x %d [] %s", folder, sha256.Sum256(m.octets), len(m.octets), m.date.UTC().Format(time.RFC3339)))
	}
	// A message moves to another folder of the source: it is on the target.
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Move(imap.SeqSetNum(7), sourcePrefix+"Later").Wait(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(a.want)
	return a
}

// settled checks that the target has what it is to have.
func (a *afterFlip) settled() {
	a.t.Helper()
	have := subjects(viewOf(a.t, ask(a.t, request{Op: "dump", Port: a.w.target.IMAP, User: a.user, Password: a.password}), "", targetSep, nil))
	if !slices.Equal(a.want, have) {
		a.t.Errorf("missing %v\ntoo many %v", minus(a.want, have), minus(have, a.want))
	}
}

// complete stops the migration and completes it, however often that is cut off.
func (a *afterFlip) complete() {
	a.t.Helper()
	_, _ = a.cli("stop")
	_, _ = a.cli("complete")
}

func TestKilledAfterTheFlip(t *testing.T) {
	w := newKillWorld(t, 130)
	n := 2000
	steps := append([]string{"intent.before", "intent.committed", "batch.sent.half", "batch.sent", "batch.acked",
		"settle.before", "settle.committed", "folder.before", "folder.created", "folder.committed"}, migrator.LaterSteps()...)
	for _, last := range []bool{false, true} {
		for _, step := range steps {
			if !last && strings.HasPrefix(step, "finish.") {
				continue
			}
			n++
			t.Run(fmt.Sprintf("%s, last pass %t", step, last), func(t *testing.T) {
				a := w.afterFlip(t, n)
				a.env = []string{"KILLTEST_AT=" + step + ":1"}
				a.start()
				if last {
					a.complete()
				} else if _, err := a.cli("account", "retry", a.user); err != nil {
					t.Log(err) // it may have died already
				}
				a.awaitDeath()
				a.env = nil
				a.start()
				if last {
					if s, err := a.state(a.user); err != nil || s.State != "finished" {
						a.complete()
					}
					a.awaitState(a.user, "finished")
				} else {
					a.caughtUpOnce()
				}
				a.settled()
			})
		}
	}
}

// caughtUpOnce waits for a catch-up that finds nothing more.
func (a *afterFlip) caughtUpOnce() {
	a.t.Helper()
	since := time.Now()
	err := eventually(copyDeadline, func() error {
		s, err := a.state(a.user)
		if err != nil || s.Error == "" && s.CaughtUpAt.After(since) {
			return err
		}
		return fmt.Errorf("%+v", s)
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// Killed again and again at random moments of catch-ups and of the completion.
func TestKilledAtRandomMomentsAfterTheFlip(t *testing.T) {
	w := newKillWorld(t, 130)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	kills := 0
	for n := 3000; kills < 30; n++ {
		a := w.afterFlip(t, n)
		a.start()
		last := n%2 == 1
		for range 6 {
			if last {
				go a.complete()
			} else {
				_, _ = a.cli("account", "retry", a.user)
			}
			pause := time.NewTimer(time.Duration(random.Int64N(int64(1500 * time.Millisecond))))
			select {
			case <-pause.C:
			case <-a.done:
				t.Fatal("migproxy ended by itself")
			}
			_ = a.cmd.Process.Kill()
			a.wait()
			kills++
			a.start()
		}
		if last {
			a.complete()
			a.awaitState(a.user, "finished")
		} else {
			_, _ = a.cli("account", "retry", a.user)
			a.caughtUpOnce()
		}
		a.settled()
	}
}

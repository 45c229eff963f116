//go:build long

package e2e

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
	w := newKillWorld(t, 2000)
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

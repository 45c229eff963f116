package migrator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
)

// afterScript writes a command that is run after each account. $DIR is its own
// directory.
func afterScript(t testing.TB, body string) (dir, path string) {
	t.Helper()
	dir = t.TempDir()
	path = filepath.Join(dir, "after-account")
	text := "#!/bin/sh\nDIR=" + dir + "\n" + body + "\n"
	// See provision: a process forked meanwhile would hold the file open.
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, []byte(text), 0o700)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	return dir, path
}

// afterEvents are the events of the command, in their order.
func (b *bench) afterEvents(t testing.TB) []string {
	t.Helper()
	return slices.DeleteFunc(b.events(t), func(e string) bool { return !strings.HasPrefix(e, "after_account for") })
}

// runAfter moves anna and runs until the command has had so many outcomes.
func (b *bench) runAfter(t testing.TB, o migrator.Options, n int) []string {
	t.Helper()
	b.until(t, o, "anna", func(store.Account) bool { return len(b.afterEvents(t)) >= n })
	return b.afterEvents(t)
}

// The command is told what was moved, once it has flipped and once it is
// finished, and never a password.
func TestAfterAccount(t *testing.T) {
	source, _, _, b := fakes(t, twoFolders)
	dir, path := afterScript(t, `cat >>$DIR/stdin; cat /proc/self/environ /proc/$$/cmdline >>$DIR/seen; head -c 1000000 /dev/zero; echo chatter >&2`)
	o := b.options(t)
	o.AfterAccount = []string{path, "an argument"}
	b.anna(t)
	want := []string{"after_account for 'anna@example.com' (active): done"}
	if got := b.runAfter(t, o, 1); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	source.with(func() { source.box("Work").add(fakeMail{body: message(9002, "late")}) })
	b.complete(t, store.CompleteWhole, false)
	o = b.options(t)
	o.AfterAccount = []string{path, "an argument"}
	want = append(want, "after_account for 'anna@example.com' (finished): done")
	if got := b.runAfter(t, o, 2); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	type input struct {
		Address, Domain string
		Aliases         []string
		State, Origin   string
		FlippedAt       time.Time `json:"flipped_at"`
		Counts          map[string]int64
	}
	text, err := os.ReadFile(filepath.Join(dir, "stdin"))
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	for i, state := range []string{"active", "finished"} {
		var in input
		if err := d.Decode(&in); err != nil {
			t.Fatal(err)
		}
		if in.Address != "anna@example.com" || in.Domain != domain || in.Aliases == nil || len(in.Aliases) != 0 || in.State != state ||
			in.Origin != "created" || time.Since(in.FlippedAt).Abs() > time.Minute || len(in.Counts) != 4 ||
			in.Counts["messages"] != int64(180+i) || in.Counts["bytes"] == 0 || in.Counts["set_aside"] != 0 || in.Counts["altered"] != 0 {
			t.Errorf("%+v", in)
		}
	}
	seen, err := os.ReadFile(filepath.Join(dir, "seen"))
	if err != nil || !strings.Contains(string(seen), "an argument") {
		t.Errorf("%q, %v", seen, err)
	}
	if strings.Contains(string(seen)+string(text), "s3cret") {
		t.Error("the command was told a password")
	}
}

// However the command fails, the account lives on the target, what went wrong
// is one of its events, and nothing is run again.
func TestAfterAccountFails(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		gone bool
		want string // the end of the event
	}{
		"fails":         {body: "echo no such list >&2; exit 3", want: "ended with status 3: no such list"},
		"hangs":         {body: "sleep 600 & sleep 600", want: "was killed, it had not ended after 2s: context deadline exceeded: it gave no reason on standard error"},
		"floods":        {body: `head -c 20000000 /dev/zero | tr '\0' x >&2; printf 'the \033[31mend' >&2; exit 1`, want: "xthe  [31mend"},
		"cannot be run": {body: "exit 0", gone: true, want: "no such file or directory"},
		"no reading":    {body: "exec <&-; exit 1", want: "ended with status 1: it gave no reason on standard error"},
		"a signal":      {body: "kill -TERM $$", want: "ended by a signal (signal: terminated): it gave no reason on standard error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, _, b := fakes(t, twoFolders)
			dir, path := afterScript(t, "echo >>$DIR/runs\n"+c.body)
			o := b.options(t)
			o.AfterAccount = []string{path}
			if c.gone {
				o.Step = func(string) { _ = os.Remove(path) }
			}
			b.anna(t)
			a := b.untilAfter(t, o, 2*time.Second, 1)
			events := b.afterEvents(t)
			if a.State != store.Active || a.Reason != "" || len(events) != 1 ||
				!strings.HasPrefix(events[0], "after_account for 'anna@example.com' (active) failed and is not run again: ") ||
				!strings.HasSuffix(events[0], c.want) || len(events[0]) > 2048 {
				t.Errorf("%s, %q: %q", a.State, a.Reason, events)
			}
			left, err := b.store.AfterRuns(t.Context(), 10)
			if err != nil || len(left) != 0 {
				t.Errorf("%v, %v", left, err)
			}
			if runs, err := os.ReadFile(filepath.Join(dir, "runs")); !c.gone && (err != nil || len(runs) != 1) {
				t.Errorf("run %d times, %v", len(runs), err)
			}
		})
	}
}

// untilAfter runs a Migrator whose commands may take a time, until there are so
// many outcomes.
func (b *bench) untilAfter(t testing.TB, o migrator.Options, timeout time.Duration, n int) store.Account {
	t.Helper()
	m, err := migrator.New(o)
	if err != nil {
		t.Fatal(err)
	}
	m.Hasten(20*time.Millisecond, 20*time.Second)
	m.HastenAfter(timeout)
	return b.untilOf(t, m, "anna", nil, func(store.Account) bool { return len(b.afterEvents(t)) >= n })
}

// Commands that hang hold up no move, and not each other but by their number.
func TestAfterAccountHoldsNothingUp(t *testing.T) {
	_, _, _, b := fakes(t, twoFolders)
	dir, path := afterScript(t, `echo >>$DIR/begun; while [ ! -e $DIR/go ]; do sleep 0.05; done`)
	o := b.options(t)
	o.Concurrency = 1
	o.AfterAccount = []string{path}
	b.anna(t)
	const accounts = 5
	for i := range accounts - 1 {
		b.begin(t, store.NewAccount{Identity: identity(fmt.Sprint("more", i)), Password: config.NewSecret(secret), Adopt: true})
	}
	let := false
	b.until(t, o, "anna", func(store.Account) bool {
		st, err := b.store.Statistics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		begun, _ := os.ReadFile(filepath.Join(dir, "begun"))
		if len(begun) > 2 && !let {
			t.Errorf("%d commands at a time", len(begun))
		}
		if st.MailboxesMigrated == accounts && !let { // while the first commands still run
			if n := len(b.afterEvents(t)); n != 0 {
				t.Errorf("%d commands have ended", n)
			}
			let = true
			if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return len(b.afterEvents(t)) == accounts
	})
}

// A crash while the command runs, or before that is committed, costs one more
// run, and none is forgotten. What ends the process each time is given up.
func TestAfterAccountAfterACrash(t *testing.T) {
	for _, step := range append([]string{"flip.committed"}, migrator.AfterSteps()...) {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			_, _, _, b := fakes(t, twoFolders)
			dir, path := afterScript(t, "echo >>$DIR/runs")
			b.anna(t)
			o := b.options(t)
			o.Concurrency = 1
			o.AfterAccount = []string{path}
			k := &killer{name: step, n: 1, died: make(chan struct{})}
			o.Step = k.step
			b.untilDead(t, o, "anna", k.died, func(store.Account) bool { return false })
			if n := len(b.afterEvents(t)); n != 0 {
				t.Fatalf("%d outcomes before the crash", n)
			}
			o = b.options(t)
			o.AfterAccount = []string{path}
			if got := b.runAfter(t, o, 1); got[0] != "after_account for 'anna@example.com' (active): done" {
				t.Errorf("%q", got)
			}
			runs, err := os.ReadFile(filepath.Join(dir, "runs"))
			if want := map[string]int{"after.ended": 2}[step]; err != nil || len(runs) != max(want, 1) {
				t.Errorf("run %d times, %v", len(runs), err)
			}
		})
	}
	t.Run("each time", func(t *testing.T) {
		t.Parallel()
		_, _, _, b := fakes(t, twoFolders)
		_, path := afterScript(t, "exit 0")
		b.anna(t)
		for i := range 5 {
			o := b.options(t)
			o.AfterAccount = []string{path}
			k := &killer{name: "after.begun", n: 1, died: make(chan struct{})}
			o.Step = k.step
			b.untilDead(t, o, "anna", k.died, func(store.Account) bool { return false })
			select {
			case <-k.died:
			default:
				t.Fatalf("not begun at start %d", i)
			}
		}
		o := b.options(t)
		o.AfterAccount = []string{path}
		if got := b.runAfter(t, o, 1); !strings.HasSuffix(got[0], "is not run again: migproxy ended 5 times while it ran") {
			t.Errorf("%q", got)
		}
	})
}

// A command that is running when the process ends has the grace to end, is then
// killed, and is run again at the next start.
func TestAfterAccountAtTheEnd(t *testing.T) {
	_, _, _, b := fakes(t, twoFolders)
	dir, path := afterScript(t, `[ -e $DIR/begun ] && exit 0; echo >$DIR/fifo; echo >$DIR/begun; sleep 600`)
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	b.anna(t)
	o := b.options(t)
	o.AfterAccount, o.Grace = []string{path}, 100*time.Millisecond
	m, err := migrator.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	if _, err := os.ReadFile(fifo); err != nil { // until the command is there
		t.Fatal(err)
	}
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the end waits for the command")
	}
	if events := b.afterEvents(t); len(events) != 0 {
		t.Errorf("%q", events)
	}
	if err := os.WriteFile(filepath.Join(dir, "begun"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o = b.options(t)
	o.AfterAccount = []string{path}
	if got := b.runAfter(t, o, 1); got[0] != "after_account for 'anna@example.com' (active): done" {
		t.Errorf("%q", got)
	}
}

// A command that is not there is found at the start.
func TestAfterAccountIsChecked(t *testing.T) {
	_, _, _, b := fakes(t, nil)
	o := b.options(t)
	o.AfterAccount = []string{"/does/not/exist"}
	if _, err := migrator.New(o); err == nil || !strings.Contains(err.Error(), "migration.after_account: ") {
		t.Error(err)
	}
}

// The command for the end of an account waits for the one for its flip.
func TestAfterAccountInOrder(t *testing.T) {
	_, _, _, b := fakes(t, twoFolders)
	dir, path := afterScript(t, `echo >>$DIR/begun; while [ ! -e $DIR/go ]; do sleep 0.05; done`)
	b.anna(t)
	o := b.options(t)
	o.AfterAccount = []string{path}
	completing, let := false, false
	b.until(t, o, "anna", func(a store.Account) bool {
		begun, _ := os.ReadFile(filepath.Join(dir, "begun"))
		for end := time.Now().Add(20 * time.Second); a.State == store.Finished && len(begun) == 0 && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond) // it is a process, whose start no event tells
			begun, _ = os.ReadFile(filepath.Join(dir, "begun"))
		}
		switch {
		case a.State == store.Active && !completing:
			completing = true
			b.complete(t, store.CompleteWhole, false)
		case a.State == store.Finished && !let && len(begun) > 0:
			if len(begun) != 1 || len(b.afterEvents(t)) != 0 {
				t.Errorf("%d begun, %d ended", len(begun), len(b.afterEvents(t)))
			}
			let = true
			if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return len(b.afterEvents(t)) == 2
	})
	want := []string{"after_account for 'anna@example.com' (active): done", "after_account for 'anna@example.com' (finished): done"}
	if got := b.afterEvents(t); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

package migrator_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
)

const secret = "s3cret {}%\"\\"

// fakes is a source with mail, an empty target and a store.
func fakes(t testing.TB, fill func(*fakeServer)) (source, target *fakeServer, driver *fakeDriver, b *bench) {
	source, target = newFake(t, secret), newFake(t, "")
	if fill != nil {
		fill(source)
	}
	driver = &fakeDriver{f: target}
	return source, target, driver, newBench(t, source.port, target.port, driver)
}

func (b *bench) anna(t testing.TB) store.Account {
	return b.begin(t, store.NewAccount{Identity: identity("anna"), Password: config.NewSecret(secret)})
}

// rest are the states in which the work on an account is over, for now or for good.
var rest = []store.State{store.Active, store.Finished, store.Conflict, store.Waiting, store.Failed}

// equal holds the target's mailboxes against the source's.
func equal(t testing.TB, source, target *fakeServer, boxes ...string) {
	t.Helper()
	for _, box := range boxes {
		was, is := source.contents(box), target.contents(box)
		if !slices.Equal(was, is) {
			t.Errorf("%s: source has %d messages, target %d", box, len(was), len(is))
		}
	}
}

func twoFolders(f *fakeServer) {
	f.box("INBOX").fill(150, true) // more than one batch
	f.box("Work").fill(30, false)
}

// killer ends the worker at the nth time that a step is passed, as a crash
// would: nothing after it is done, and nothing is put down.
type killer struct {
	name string
	n    int
	died chan struct{}
}

func (k *killer) step(name string) {
	if name != k.name {
		return
	}
	if k.n--; k.n == 0 {
		close(k.died)
		runtime.Goexit()
	}
}

// Whatever step the process dies at, the next one ends the move with every
// message there once.
func TestCrashAtEveryStep(t *testing.T) {
	for _, step := range migrator.Steps() {
		times := []int{1}
		switch step {
		case "intent.committed", "batch.sent", "batch.acked", "settle.before":
			times = []int{1, 3} // the second batch is cut, and what follows it differs
		}
		for _, nth := range times {
			t.Run(fmt.Sprintf("%s/%d", step, nth), func(t *testing.T) {
				t.Parallel()
				crashAndGoOn(t, step, nth)
			})
		}
	}
}

// crashAndGoOn has all that can go wrong in one move: a message is refused, a
// batch is cut and committed late, the target's INBOX has a delivery already,
// and the user's password changes.
func crashAndGoOn(t *testing.T, step string, nth int) {
	const newer, delivery = "newer", "a: delivery\r\n\r\n"
	source, target, _, b := fakes(t, twoFolders)
	refused := message(3, "bad")
	source.box("Work").add(fakeMail{body: refused, date: "14-Mar-2019 05:06:07 +0100"})
	target.box("INBOX").add(fakeMail{body: delivery})
	target.onAppend = func(n int, mails []fakeMail) verdict {
		switch {
		case slices.ContainsFunc(mails, func(m fakeMail) bool { return m.body == refused }):
			return verdict{no: "[CANNOT] bad message"}
		case n == 2:
			return verdict{cut: true, late: 50 * time.Millisecond}
		}
		return verdict{}
	}
	a := b.anna(t)
	o := b.options(t)
	o.Concurrency = 1
	k := &killer{name: step, n: nth, died: make(chan struct{})}
	changed := false
	o.Step = func(name string) {
		if name == "created.committed" && !changed {
			changed = true
			source.mu.Lock()
			source.password = newer
			source.mu.Unlock()
			if _, err := b.store.SealPassword(context.Background(), a.ID, config.NewSecret(newer)); err != nil {
				t.Error(err)
			}
		}
		k.step(name)
	}
	crash(t, b, o, k)
	if nth == 1 && k.n > 0 {
		t.Errorf("the step %s was never passed", step)
	}
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active || a.Messages != 180 || a.SetAside != 1 {
		t.Fatalf("%s, %d messages, %d aside: %s", a.State, a.Messages, a.SetAside, a.Reason)
	}
	target.mu.Lock()
	in := target.box("INBOX")
	in.mails = slices.DeleteFunc(in.mails, func(m fakeMail) bool { return m.body == delivery })
	work := source.box("Work")
	work.mails = slices.DeleteFunc(work.mails, func(m fakeMail) bool { return m.body == refused })
	target.mu.Unlock()
	equal(t, source, target, "INBOX", "Work")
}

// crash runs until the killer struck or the move is over.
func crash(t *testing.T, b *bench, o migrator.Options, k *killer) {
	t.Helper()
	m, err := migrator.New(o)
	if err != nil {
		t.Fatal(err)
	}
	m.Hasten(10*time.Millisecond, 10*time.Second)
	m.HastenFlip(0, 200*time.Millisecond, 10*time.Second)
	m.OneLane()
	changes, cancel := b.store.Subscribe(false)
	defer cancel()
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	for over := false; !over; {
		select {
		case <-k.died:
			over = true
		case c := <-changes:
			over = c.State == store.Active
		case <-ctx.Done():
			t.Error("neither killed nor done")
			over = true
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What a target does to single batches never loses or doubles a message.
func TestHostileTargets(t *testing.T) {
	once := func(v verdict) func(int, []fakeMail) verdict {
		return func(n int, _ []fakeMail) verdict {
			if n == 2 {
				return v
			}
			return verdict{}
		}
	}
	for name, c := range map[string]struct {
		caps     string // taken away
		limit    int    // of connections
		onAppend func(int, []fakeMail) verdict
	}{
		"plain":                        {},
		"cut, nothing kept":            {onAppend: once(verdict{cut: true})},
		"cut, kept":                    {onAppend: once(verdict{cut: true, keep: true})},
		"cut, kept late":               {onAppend: once(verdict{cut: true, late: 150 * time.Millisecond})},
		"refused and kept":             {onAppend: once(verdict{no: "[SERVERBUG] oh", keep: true})},
		"refused once":                 {onAppend: once(verdict{no: "no reason"})},
		"refused once, kept":           {onAppend: once(verdict{no: "no reason", keep: true})},
		"full once":                    {onAppend: once(verdict{no: "[OVERQUOTA] full"})},
		"OK without UIDs":              {onAppend: once(verdict{noUIDs: true})},
		"no UIDPLUS":                   {caps: " UIDPLUS"},
		"no MULTIAPPEND":               {caps: " MULTIAPPEND"},
		"no MULTIAPPEND, refused once": {caps: " MULTIAPPEND", onAppend: once(verdict{no: "no reason"})},
		"no LITERAL+":                  {caps: " LITERAL+"},
		"none of them":                 {caps: " LITERAL+ MULTIAPPEND UIDPLUS"},
		"one connection":               {limit: 1},
		"one connection, refused once": {limit: 1, onAppend: once(verdict{no: "no reason"})},
		"one connection, cut":          {limit: 1, onAppend: once(verdict{cut: true, keep: true})},
		"one connection, none of them": {limit: 1, caps: " LITERAL+ MULTIAPPEND UIDPLUS"},
		"none of them, cut":            {caps: " LITERAL+ MULTIAPPEND UIDPLUS", onAppend: once(verdict{cut: true, late: 100 * time.Millisecond})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, _, b := fakes(t, twoFolders)
			for _, capability := range strings.Fields(c.caps) {
				target.caps = strings.Replace(target.caps, " "+capability, "", 1)
			}
			target.onAppend, target.limit = c.onAppend, c.limit
			b.anna(t)
			a := b.run(t, b.options(t), "anna", store.Active, store.Failed, store.Conflict)
			if a.State != store.Active || a.Messages != 180 || a.SetAside != 0 {
				t.Fatalf("%s, %d messages, %d aside: %s", a.State, a.Messages, a.SetAside, a.Reason)
			}
			equal(t, source, target, "INBOX", "Work")
		})
	}
}

// A message that the source lists and does not give, or at which it always
// breaks off, is named and never left out: everything else is copied, and the
// flip waits for it.
func TestSourceThatKeepsAMessageBack(t *testing.T) {
	for name, withheld := range map[string]struct{ skip, cut bool }{
		"skips it":     {skip: true},
		"breaks off":   {cut: true},
		"has no other": {skip: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fill, messages := twoFolders, int64(180)
			if name == "has no other" {
				fill, messages = func(f *fakeServer) {
					f.box("INBOX").next = 17
					f.box("INBOX").fill(1, false)
				}, 1
			}
			source, target, _, b := fakes(t, fill)
			bad := source.box("INBOX").mails[min(16, messages-1)].body
			held := true
			source.onFetch = func(m fakeMail) (skip, cut bool) {
				held := held && m.body == bad && m.uid == 17
				return held && withheld.skip, held && withheld.cut
			}
			b.anna(t)
			a := b.run(t, b.options(t), "anna", rest...)
			if a.State != store.Waiting || !strings.Contains(a.Reason, "UID 17 in INBOX") || a.Messages != messages-1 {
				t.Fatalf("%s, %d messages: %s", a.State, a.Messages, a.Reason)
			}
			source.mu.Lock()
			held = false
			source.mu.Unlock()
			if a = b.run(t, b.options(t), "anna", store.Active); a.Messages != messages {
				t.Fatalf("%d messages", a.Messages)
			}
			equal(t, source, target, "INBOX", "Work")
		})
	}
}

// A source that breaks off inside of a message leaves nothing short on the target.
func TestSourceCutInLiteral(t *testing.T) {
	source, target, _, b := fakes(t, twoFolders)
	left := 3
	source.onFetch = func(m fakeMail) (skip, cut bool) {
		if m.uid%40 == 9 && left > 0 {
			left--
			return false, true
		}
		return false, false
	}
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", store.Active, store.Failed); a.State != store.Active || a.Messages != 180 {
		t.Fatalf("%s, %d messages: %s", a.State, a.Messages, a.Reason)
	}
	equal(t, source, target, "INBOX", "Work")
}

// The source gets no command that could change it.
func TestSourceIsNeverWritten(t *testing.T) {
	source, _, _, b := fakes(t, twoFolders)
	b.anna(t)
	b.run(t, b.options(t), "anna", store.Active)
	for _, line := range source.log {
		name, _, _ := strings.Cut(line, " ")
		if !slices.Contains([]string{"CAPABILITY", "NAMESPACE", "LIST", "LSUB", "STATUS", "EXAMINE", "UID", "NOOP", "LOGOUT"}, name) ||
			name == "UID" && (!strings.HasPrefix(line, "UID FETCH") || strings.Contains(line, "BODY[")) {
			t.Errorf("the source was sent %s", line)
		}
	}
}

// What a target alters is kept with both digests; a target that keeps
// something else is found out before the flip.
func TestAlteredMessages(t *testing.T) {
	for name, c := range map[string]struct {
		body     string
		tamperer func(string) string
		altered  int
		state    store.State
	}{
		"bare LF becomes CRLF": {"a: b\n\nc\n", func(s string) string { return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\n", "\r\n") }, 1, store.Active},
		"NUL becomes 0x80":     {"a: b\r\n\r\nc\x00d\r\n", func(s string) string { return strings.ReplaceAll(s, "\x00", "\x80") }, 1, store.Active},
		"8 bits become X":      {"a: \xfcb\r\n\r\n\xfc\r\n", func(s string) string { return strings.Replace(s, "\xfc", "X", 1) }, 1, store.Active},
		"a header is added":    {"a: b\r\n\r\nc\r\n", func(s string) string { return "X: y\r\n" + s }, 0, store.Failed},
		"kept as it is":        {"a: b\n\nc\x00\r", nil, 0, store.Active},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, target, _, b := fakes(t, func(f *fakeServer) {
				f.box("INBOX").add(fakeMail{body: c.body, date: "14-Mar-2019 05:06:07 +0100"})
			})
			target.onAppend = func(int, []fakeMail) verdict { return verdict{tamperer: c.tamperer} }
			a := b.anna(t)
			if a := b.run(t, b.options(t), "anna", rest...); a.State != c.state {
				t.Fatalf("%s: %s", a.State, a.Reason)
			}
			altered, err := b.store.AlteredMessages(context.Background(), a.ID, 100)
			if err != nil || len(altered) != c.altered {
				t.Fatalf("%v %v", altered, err)
			}
		})
	}
}

// What a target takes and does not keep is counted in the account's log: dates
// that become the day of the move, flags that it does not permit.
func TestWhatIsNotKeptIsReported(t *testing.T) {
	_, target, _, b := fakes(t, twoFolders)
	target.permanent = `\Answered \Flagged \Deleted \Draft`
	target.onAppend = func(int, []fakeMail) verdict { return verdict{date: "25-Nov-2026 12:00:00 +0000"} }
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active || a.Messages != 180 {
		t.Fatalf("%s, %d messages: %s", a.State, a.Messages, a.Reason)
	}
	events, err := b.store.Events(t.Context(), "", 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	const want = `the target did not keep 180 internal dates, the flags $Label1 \Seen, which it does not permit`
	if !slices.ContainsFunc(events, func(e store.Event) bool { return strings.Contains(e.Text, want) }) {
		t.Errorf("no event says so: %v", events)
	}
	for _, m := range target.contents("INBOX") {
		if strings.Contains(m, "Label") {
			t.Fatalf("the target was sent %q", m)
		}
	}
}

// Many small folders cost few round trips each: two looks at the source and two
// at the target, besides the copy itself.
func TestRoundTrips(t *testing.T) {
	const folders = 100
	source, target, _, b := fakes(t, func(f *fakeServer) {
		for i := range folders {
			f.box(fmt.Sprintf("f%03d", i)).fill(1, false)
		}
	})
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active || a.Messages != folders {
		t.Fatal(a.State, a.Messages, a.Reason)
	}
	if n := len(source.log); n > 7*folders+20 {
		t.Errorf("%d commands to the source", n)
	}
	if n := len(target.log); n > 8*folders+20 {
		t.Errorf("%d commands to the target", n)
	}
}

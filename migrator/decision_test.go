package migrator_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
	"migproxy/upstream"
)

// What a worker does with an account before it copies anything.
func TestProvisioning(t *testing.T) {
	for name, c := range map[string]struct {
		taken  string // the password of an account that is there; empty is none
		origin store.Origin
		mode   config.Mode
		adopt  bool
		none   bool // no driver
		state  store.State
		calls  string
	}{
		"free":                               {state: store.Active, calls: "lookup ensure"},
		"taken by another":                   {taken: "other", state: store.Conflict, calls: "lookup"},
		"taken, with the same password":      {taken: secret, state: store.Conflict, calls: "lookup"},
		"created before a crash":             {taken: secret, origin: store.OriginFree, state: store.Active, calls: "lookup"},
		"taken by another after free":        {taken: "other", origin: store.OriginFree, state: store.Conflict, calls: "lookup lookup lookup lookup lookup lookup lookup"},
		"free before a crash":                {origin: store.OriginFree, state: store.Active, calls: "lookup ensure"},
		"adopted":                            {taken: secret, adopt: true, state: store.Active},
		"adopted, without a driver":          {taken: secret, adopt: true, none: true, state: store.Active},
		"adopted, another password":          {taken: "other", adopt: true, state: store.Waiting},
		"created, an older password there":   {taken: "older", origin: store.OriginCreated, state: store.Active, calls: "set_password"},
		"no driver":                          {none: true, state: store.Waiting},
		"passwords, free":                    {mode: config.ModePasswords, state: store.Finished, calls: "lookup ensure"},
		"passwords, there":                   {mode: config.ModePasswords, taken: "older", state: store.Finished, calls: "lookup set_password"},
		"passwords, there with this already": {mode: config.ModePasswords, taken: secret, state: store.Finished, calls: "lookup set_password"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, target, driver, b := fakes(t, func(f *fakeServer) { f.box("INBOX").fill(3, false) })
			if c.taken != "" {
				target.exists, target.password = true, c.taken
			}
			if c.none {
				b.driver = nil
			}
			b.begin(t, store.NewAccount{Identity: identity("anna"), Password: config.NewSecret(secret), Mode: c.mode, Adopt: c.adopt})
			if c.origin != "" {
				claim, err := b.store.ClaimNext(context.Background(), "test", time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				if err := claim.SetOrigin(context.Background(), c.origin); err != nil {
					t.Fatal(err)
				}
			}
			a := b.run(t, b.options(t), "anna", rest...)
			if got := strings.Join(driver.calls, " "); a.State != c.state || got != c.calls {
				t.Fatalf("%s (%s), driver: %q", a.State, a.Reason, got)
			}
			if c.state != store.Active && len(target.contents("INBOX")) > 0 {
				t.Error("mail was written")
			}
			if c.state == store.Conflict && slices.ContainsFunc(target.log, func(l string) bool { return strings.HasPrefix(l, "CREATE") }) {
				t.Error("something was written on the target")
			}
			if c.adopt && target.password != c.taken {
				t.Error("the password of an adopted account was set")
			}
		})
	}
}

// No account flips before the target has taken the newest password.
func TestFlipWithTheNewestPassword(t *testing.T) {
	const newer = "newer"
	source, target, _, b := fakes(t, twoFolders)
	a := b.anna(t)
	o := b.options(t)
	sealed := false
	o.Step = func(step string) {
		if step == "flip.before" && !sealed {
			sealed = true
			source.with(func() { source.password = newer })
			if _, err := b.store.SealPassword(context.Background(), a.ID, config.NewSecret(newer)); err != nil {
				t.Error(err)
			}
		}
	}
	if a = b.run(t, o, "anna", rest...); a.State != store.Active || !sealed {
		t.Fatal(a.State, a.Reason)
	}
	if target.password != newer {
		t.Error("the target has an older password")
	}
}

// A password that the administrator gives during the copy is set on the target
// only if the source takes it; otherwise the proved one stays, if there is one.
func TestPasswordGivenDuringTheCopy(t *testing.T) {
	const given = "given"
	for name, c := range map[string]struct {
		step, source string // the source's password from then on
		master       bool   // reads the source
		state        store.State
		want         string // the target's password; empty: one of our own
	}{
		"stale":                   {"settle.committed", secret, false, store.Active, secret},
		"stale, at the flip":      {"flip.before", secret, false, store.Active, secret},
		"stale, while created":    {"provision.lookup", secret, false, store.Active, secret},
		"right":                   {"settle.committed", given, false, store.Active, given},
		"both are stale":          {"settle.committed", "third", false, store.Waiting, secret},
		"stale, read by a master": {"settle.committed", secret, true, store.Waiting, ""},
		"right, read by a master": {"settle.committed", given, true, store.Active, given},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, _, b := fakes(t, twoFolders)
			if c.master {
				source.master = "master"
				b.domains[domain].Source.Master = &upstream.Master{User: "admin", Style: config.MasterAuthzid, Password: config.NewSecret("master")}
				b.migrate(t, store.NewAccount{})
			} else {
				b.anna(t)
			}
			o := b.options(t)
			var once sync.Once
			o.Step = func(step string) {
				if step != c.step {
					return
				}
				once.Do(func() {
					source.with(func() { source.password = c.source })
					if _, _, err := b.store.Migrate(context.Background(), store.NewAccount{Identity: identity("anna"), Mode: config.ModeAccounts, Password: config.NewSecret(given)}); err != nil {
						t.Error(err)
					}
				})
			}
			a := b.run(t, o, "anna", rest...)
			if a.State != c.state || a.Messages != 180 {
				t.Fatalf("%s, %d messages: %s", a.State, a.Messages, a.Reason)
			}
			if c.want != "" && target.password != c.want || c.want == "" && (target.password == given || target.password == secret) {
				t.Errorf("the target's password is %q", target.password)
			}
			if a.State != store.Active {
				return
			}
			for _, side := range []store.Side{store.SideSource, store.SideTarget} {
				if p, _, err := b.store.Password(t.Context(), a.ID, side); err != nil || p.Reveal() != c.want {
					t.Errorf("kept for the %s: %q, %v", side, p.Reveal(), err)
				}
			}
		})
	}
}

// An adopted account whose password on the target is another than on the source is
// copied once its owner has logged in there, and each side keeps its own.
func TestAdoptedAccountWithAnotherPassword(t *testing.T) {
	const other = "of the target"
	source, target, driver, b := fakes(t, twoFolders)
	target.exists, target.password = true, other
	a := b.begin(t, store.NewAccount{Identity: identity("anna"), Password: config.NewSecret(secret), Adopt: true})
	if a = b.run(t, b.options(t), "anna", rest...); a.State != store.Waiting || !a.Due.IsZero() {
		t.Fatalf("%s: %s, due %v", a.State, a.Reason, a.Due)
	}
	// What a login on the target does.
	if err := b.store.KeepTargetPassword(t.Context(), a.ID, config.NewSecret(other)); err != nil {
		t.Fatal(err)
	}
	if a = b.run(t, b.options(t), "anna", store.Active, store.Failed); a.State != store.Active || a.Messages != 180 {
		t.Fatalf("%s, %d messages: %s", a.State, a.Messages, a.Reason)
	}
	equal(t, source, target, "INBOX", "Work")
	if target.password != other || len(driver.calls) > 0 {
		t.Errorf("the target's password is %q; %v", target.password, driver.calls)
	}
	for side, want := range map[store.Side]string{store.SideSource: secret, store.SideTarget: other} {
		if p, _, err := b.store.Password(t.Context(), a.ID, side); err != nil || p.Reveal() != want {
			t.Errorf("kept for the %s: %q, %v", side, p.Reveal(), err)
		}
	}
}

// An account that was created just before a crash, or by a command that failed
// after the fact, is ours even if its owner has given another password since.
func TestNewPasswordAfterCreating(t *testing.T) {
	const newer = "newer"
	for name, c := range map[string]struct {
		step   string // at which the process dies
		fails  bool   // the driver, after it has created the account
		master bool   // reads the source, until the owner's login
	}{
		"crash":                  {step: "ensure.after"},
		"crash, nothing made":    {step: "ensure.before"},
		"driver":                 {step: "ensure.before", fails: true},
		"crash, with a stand-in": {step: "ensure.after", master: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, driver, b := fakes(t, twoFolders)
			var a store.Account
			if c.master {
				source.master = "master"
				b.domains[domain].Source.Master = &upstream.Master{User: "admin", Style: config.MasterAuthzid, Password: config.NewSecret("master")}
				a = b.migrate(t, store.NewAccount{})
			} else {
				a = b.anna(t)
			}
			o := b.options(t)
			o.Concurrency = 1
			k := &killer{name: c.step, n: 1, died: make(chan struct{})}
			if c.fails { // at the second try; by then the first one has come to its end
				k.name, k.n = "provision.lookup", 2
				target.with(func() { driver.fail = errors.New("the command was killed") })
				o.Step = func(step string) {
					if step == "provision.lookup" || step == "ensure.before" {
						target.with(func() {
							driver.fail = nil
							if step == "ensure.before" {
								driver.fail = errors.New("the command was killed")
							}
						})
					}
					k.step(step)
				}
			} else {
				o.Step = k.step
			}
			b.untilDead(t, o, "anna", k.died, func(a store.Account) bool { return a.State == store.Active })
			target.with(func() { driver.fail = nil })
			source.with(func() { source.password = newer })
			if _, err := b.store.SealPassword(t.Context(), a.ID, config.NewSecret(newer)); err != nil {
				t.Fatal(err)
			}
			a = b.run(t, b.options(t), "anna", rest...)
			if a.State != store.Active || a.Messages != 180 || a.Origin != store.OriginCreated || target.password != newer {
				t.Fatalf("%s, %s, %d messages, the target's password is %q: %s", a.State, a.Origin, a.Messages, target.password, a.Reason)
			}
			equal(t, source, target, "INBOX", "Work")
		})
	}
}

// An adopted account whose password was changed on the source goes on with the one
// that its owner gives on the target, if the source takes it.
func TestAdoptedAccountWhosePasswordWasChanged(t *testing.T) {
	const newer = "newer"
	source, target, _, b := fakes(t, twoFolders)
	target.exists, target.password, source.password = true, newer, newer
	a := b.begin(t, store.NewAccount{Identity: identity("anna"), Password: config.NewSecret(secret), Adopt: true})
	if a = b.run(t, b.options(t), "anna", rest...); a.State != store.Waiting || !a.Due.IsZero() {
		t.Fatalf("%s: %s, due %v", a.State, a.Reason, a.Due)
	}
	if err := b.store.KeepTargetPassword(t.Context(), a.ID, config.NewSecret(newer)); err != nil {
		t.Fatal(err)
	}
	if a = b.run(t, b.options(t), "anna", store.Active, store.Failed); a.State != store.Active || a.Messages != 180 {
		t.Fatalf("%s, %d messages: %s", a.State, a.Messages, a.Reason)
	}
	equal(t, source, target, "INBOX", "Work")
	if p, _, err := b.store.Password(t.Context(), a.ID, store.SideSource); err != nil || p.Reveal() != newer {
		t.Errorf("kept for the source: %q, %v", p.Reveal(), err)
	}
}

// A password that was changed on the source makes the account wait for a login,
// which brings the new one.
func TestPasswordChangedOnTheSource(t *testing.T) {
	source, target, _, b := fakes(t, twoFolders)
	source.password = "changed"
	a := b.anna(t)
	if a = b.run(t, b.options(t), "anna", rest...); a.State != store.Waiting || !a.Due.IsZero() {
		t.Fatal(a.State, a.Reason, a.Due)
	}
	if _, err := b.store.SealPassword(context.Background(), a.ID, config.NewSecret("changed")); err != nil {
		t.Fatal(err)
	}
	if a = b.run(t, b.options(t), "anna", store.Active, store.Failed); a.State != store.Active || target.password != "changed" {
		t.Fatal(a.State, a.Reason)
	}
}

// An unavailable server changes nothing; the account goes on when it is back.
func TestUnavailableServers(t *testing.T) {
	for name, pick := range map[string]func(s, t *fakeServer) *fakeServer{
		"source": func(s, _ *fakeServer) *fakeServer { return s },
		"target": func(_, t *fakeServer) *fakeServer { return t },
	} {
		t.Run(name, func(t *testing.T) {
			source, target, driver, b := fakes(t, twoFolders)
			f := pick(source, target)
			f.loginCode = "[UNAVAILABLE]"
			b.anna(t)
			o := b.options(t)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			changes, unsubscribe := b.store.Subscribe(false)
			defer unsubscribe()
			done := make(chan store.Account, 1)
			go func() { done <- b.run(t, o, "anna", rest...) }()
			for reason := ""; reason == ""; {
				select {
				case <-changes:
				case <-ctx.Done():
					t.Fatal("no reason was given")
				}
				a, err := b.store.Account(ctx, "anna@"+domain)
				if err != nil {
					t.Fatal(err)
				}
				reason = a.Reason
			}
			f.mu.Lock()
			f.loginCode = ""
			f.mu.Unlock()
			if a := <-done; a.State != store.Active || slices.Contains(driver.calls, "set_password") {
				t.Fatal(a.State, a.Reason, driver.calls)
			}
		})
	}
}

// An error of the driver may have happened after the fact.
func TestDriverFailsAfterCreating(t *testing.T) {
	_, _, driver, b := fakes(t, twoFolders)
	b.anna(t)
	o := b.options(t)
	o.Step = func(step string) {
		driver.f.mu.Lock()
		defer driver.f.mu.Unlock()
		switch step {
		case "ensure.before":
			driver.fail = errors.New("the command was killed")
		case "provision.lookup":
			driver.fail = nil
		}
	}
	if a := b.run(t, o, "anna", rest...); a.State != store.Active || a.Messages != 180 {
		t.Fatal(a.State, a.Reason)
	}
}

// A message that was copied and is no longer there, or is there twice, is
// found before the flip.
func TestComparison(t *testing.T) {
	for name, spoil := range map[string]func(*fakeBox){
		"gone":  func(b *fakeBox) { b.mails = b.mails[1:] },
		"twice": func(b *fakeBox) { b.add(b.mails[len(b.mails)-1]) },
		"other": func(b *fakeBox) { b.mails[0].body += "x" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, target, _, b := fakes(t, func(f *fakeServer) { f.box("INBOX").fill(20, false) })
			b.anna(t)
			o := b.options(t)
			spoilt := false
			o.Step = func(step string) {
				target.mu.Lock()
				defer target.mu.Unlock()
				if box := target.box("INBOX"); step == "settle.committed" && len(box.mails) == 20 && !spoilt {
					spoilt = true
					spoil(box)
				}
			}
			if a := b.run(t, o, "anna", rest...); a.State != store.Failed {
				t.Fatal(a.State, a.Reason)
			}
		})
	}
}

// Only the personal namespace is copied.
func TestOtherUsersMail(t *testing.T) {
	source, target, _, b := fakes(t, func(f *fakeServer) {
		f.box("INBOX").fill(2, false)
		f.box("Other Users/bob/INBOX").fill(3, false)
		f.box("Public").fill(3, false)
		f.others = `(("Other Users/" "/")) (("Public" "/"))`
	})
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active || a.Messages != 2 {
		t.Fatal(a.State, a.Messages, a.Reason)
	}
	if len(target.boxes) != 1 {
		t.Errorf("%d mailboxes", len(target.boxes))
	}
	equal(t, source, target, "INBOX")
}

// More than ten refused messages wait for the administrator, whose retry is
// the word to go on without them. A user's login is not, with a new password
// neither.
func TestRetryConfirmsWhatIsSetAside(t *testing.T) {
	_, target, _, b := fakes(t, func(f *fakeServer) {
		for range 11 {
			f.box("INBOX").add(fakeMail{body: "x: bad"})
		}
		f.box("Work").fill(3, false)
	})
	target.onAppend = refuse(func(m fakeMail) bool { return strings.HasSuffix(m.body, "bad") })
	b.anna(t)
	m, ctx := b.start(t, b.options(t))
	a := b.await(t, m, ctx, "anna", func(a store.Account) bool { return a.State == store.Waiting })
	if a.SetAside != 11 {
		t.Fatal(a.SetAside, a.Reason)
	}
	if _, err := b.store.SealPassword(ctx, a.ID, config.NewSecret(secret)); err != nil {
		t.Fatal(err)
	}
	b.await(t, m, ctx, "anna", func(x store.Account) bool { return x.State == store.Waiting && x.Attempts > a.Attempts })
	if _, err := b.store.Revive(ctx, "anna@"+domain); err != nil { // what a login does once it has sealed a new one
		t.Fatal(err)
	}
	a = b.await(t, m, ctx, "anna", func(x store.Account) bool { return x.State == store.Active || x.State == store.Waiting })
	if a.State != store.Waiting || a.SetAside != 11 {
		t.Fatalf("%s, %d aside: %s", a.State, a.SetAside, a.Reason)
	}
	if _, err := b.store.Retry(ctx, "anna@"+domain); err != nil {
		t.Fatal(err)
	}
	b.await(t, m, ctx, "anna", func(a store.Account) bool { return a.State == store.Active })
}

// start runs a Migrator until the test ends.
func (b *bench) start(t testing.TB, o migrator.Options, prepare ...func(*migrator.Migrator)) (*migrator.Migrator, context.Context) {
	m, err := migrator.New(o)
	if err != nil {
		t.Fatal(err)
	}
	m.Hasten(20*time.Millisecond, 10*time.Second)
	for _, f := range prepare {
		f(m)
	}
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return m, ctx
}

// await waits until an account is as it should be.
func (b *bench) await(t testing.TB, _ *migrator.Migrator, ctx context.Context, local string, is func(store.Account) bool) store.Account {
	t.Helper()
	changes, unsubscribe := b.store.Subscribe(false)
	defer unsubscribe()
	for {
		a, err := b.store.Account(ctx, identity(local).Address())
		if err != nil {
			t.Fatal(err)
		}
		if is(a) {
			return a
		}
		select {
		case <-changes:
		case <-ctx.Done():
			t.Fatalf("%s: %s", a.State, a.Reason)
		}
	}
}

// A process that stops finishes the batch under way, and the next one goes on.
func TestStop(t *testing.T) {
	source, target, _, b := fakes(t, twoFolders)
	b.anna(t)
	o := b.options(t)
	ctx, cancel := context.WithCancel(context.Background())
	o.Step = func(step string) {
		if step == "batch.sent.half" {
			cancel()
		}
	}
	m, err := migrator.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(ctx); err != nil {
		t.Fatal(err)
	}
	a, err := b.store.Account(context.Background(), "anna@"+domain)
	if err != nil || a.State != store.Copying || a.Messages == 0 || a.Attempts != 0 || a.Due.IsZero() {
		t.Fatalf("%+v %v", a, err)
	}
	if a = b.run(t, b.options(t), "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	equal(t, source, target, "INBOX", "Work")
}

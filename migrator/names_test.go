package migrator_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
)

const otherName = "a.rossi"

// byMail is a message that came by mail.
func byMail(n int) string {
	return fmt.Sprintf("Received: from a by b with ESMTP id %d;\r\n\tMon, 1 Jan 2024 00:00:00 +0000\r\n", n) + message(n, "")
}

func deliveries(n int) func(*fakeServer) {
	return func(f *fakeServer) {
		for i := range n {
			f.box("INBOX").add(fakeMail{body: byMail(i), date: "14-Mar-2019 05:06:07 +0100"})
		}
	}
}

func (b *bench) named(t testing.TB, local, password string) store.Account {
	return b.begin(t, store.NewAccount{Identity: identity(local), Password: config.NewSecret(password)})
}

// settle runs a Migrator until the store is as wanted.
func (b *bench) settle(t testing.TB, o migrator.Options, wanted func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	changes, unsubscribe := b.store.Subscribe(true)
	defer unsubscribe()
	m, err := migrator.New(o)
	if err != nil {
		t.Fatal(err)
	}
	m.Hasten(20*time.Millisecond, 20*time.Second)
	m.ShortSessions(time.Second, 50*time.Millisecond)
	ended := make(chan error, 1)
	work, stop := context.WithCancel(ctx)
	go func() { ended <- m.Run(work) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for !wanted(ctx) {
		select {
		case <-changes:
		case <-ctx.Done():
			all, _ := b.store.Accounts(context.Background(), "", "", 9)
			t.Fatalf("not settled: %+v", all)
		}
	}
}

// one says that a single account is left, which lives on the target, and that
// the other name is its login alias.
func (b *bench) one(locals ...string) func(context.Context) bool {
	return func(ctx context.Context) bool {
		all, err := b.store.Accounts(ctx, "", "", 9)
		if err != nil || len(all) != 1 || all[0].State != store.Active {
			return false
		}
		for _, local := range locals {
			if a, err := b.store.LoginAlias(ctx, identity(local).Address()); local != all[0].Identity.Local && (err != nil || a.ID != all[0].ID) {
				return false
			}
		}
		return true
	}
}

// ensures counts how often an account was created.
func ensures(d *fakeDriver) (n int) {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	for _, c := range d.calls {
		if c == "ensure" {
			n++
		}
	}
	return n
}

// The second name of a mailbox that has been moved, that is being moved, or that
// began at the same time makes no second account and no second copy.
func TestOneMailboxUnderTwoNames(t *testing.T) {
	for _, when := range []string{"moved", "at once", "waiting for room"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			source, target, driver, b := fakes(t, deliveries(12))
			b.named(t, "anna", secret)
			switch when {
			case "moved":
				b.run(t, b.options(t), "anna", store.Active)
			case "waiting for room": // some of it is copied
				target.onAppend = func(int, []fakeMail) verdict { return verdict{no: "[OVERQUOTA] full"} }
				b.run(t, b.options(t), "anna", store.Waiting)
				target.mu.Lock()
				target.onAppend = nil
				target.mu.Unlock()
			}
			b.named(t, otherName, secret)
			b.settle(t, b.options(t), b.one("anna", otherName))
			equal(t, source, target, "INBOX")
			if n := ensures(driver); n != 1 {
				t.Errorf("%d accounts were created", n)
			}
			events, err := b.store.Events(context.Background(), "", 0, 1000)
			if err != nil || !slices.ContainsFunc(events, func(e store.Event) bool { return strings.Contains(e.Text, "is another name of") }) {
				t.Errorf("no event: %v", err)
			}
		})
	}
}

// Where the password does not open the account whose mailbox it seems to be, the
// administrator decides: retry makes it an account of its own, and another
// password is looked at anew.
func TestAnothersMailboxIsNotTakenForOnesOwn(t *testing.T) {
	for _, then := range []string{"retry", "the right password"} {
		t.Run(then, func(t *testing.T) {
			t.Parallel()
			source, _, driver, b := fakes(t, deliveries(3))
			source.passwords = map[string]string{identity(otherName).Address(): "other"}
			b.named(t, "anna", secret)
			b.run(t, b.options(t), "anna", store.Active)
			b.named(t, otherName, "other")
			o := b.options(t)
			asked := false
			b.settle(t, o, func(ctx context.Context) bool {
				a, err := b.store.Account(ctx, identity(otherName).Address())
				switch {
				case errors.Is(err, store.ErrNotFound):
					return then != "retry" && b.one(otherName)(ctx)
				case err != nil:
					t.Fatal(err)
				case asked:
					// The fake target has one user, who is there already.
					return a.State == store.Conflict
				case a.State == store.Waiting:
					asked = true
					if ensures(driver) != 1 || !strings.Contains(a.Reason, "seems to be that of anna@") || !strings.Contains(a.Reason, "migproxy account alias") {
						t.Errorf("%d created; %s", ensures(driver), a.Reason)
					}
					if then == "retry" {
						_, err = b.store.Retry(ctx, a.Identity.Address())
					} else {
						source.mu.Lock()
						source.passwords = nil
						source.mu.Unlock()
						_, err = b.store.SealPassword(ctx, a.ID, config.NewSecret(secret))
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				return false
			})
		})
	}
}

// A copy of a mailbox, which begins with the same messages and goes on with others,
// is another mailbox, whatever the passwords are. One to which mail came while it
// was looked at is not.
func TestCopyOfAMailboxIsAnother(t *testing.T) {
	for name, others := range map[string]int{"a copy": 99, "mail came": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, _, driver, b := fakes(t, deliveries(12))
			b.named(t, "anna", secret)
			b.run(t, b.options(t), "anna", store.Active)
			user := ""
			source.onCommand = func(name, args string) string {
				switch {
				case name == "AUTHENTICATE":
					plain, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(args, "PLAIN "))
					user = strings.Split(string(plain), "\x00")[1]
				case name == "EXAMINE" && user == identity("anna").Address() && others > 0:
					others--
					return "* 13 EXISTS\r\n* OK [UIDVALIDITY 1] v\r\nOK done"
				}
				return ""
			}
			b.named(t, otherName, secret)
			if name == "mail came" {
				b.settle(t, b.options(t), b.one("anna", otherName))
				return
			}
			a := b.run(t, b.options(t), otherName, rest...)
			if a.State != store.Waiting || !strings.Contains(a.Reason, "goes on with others") || ensures(driver) != 1 {
				t.Errorf("%s: %s", a.State, a.Reason)
			}
		})
	}
}

// A question that did not reach the administrator, as the claim was lost before the
// account could be put down with it, is not taken for answered.
func TestLostQuestionIsAskedAgain(t *testing.T) {
	source, target, driver, b := fakes(t, deliveries(3))
	source.passwords = map[string]string{identity(otherName).Address(): "other"}
	b.named(t, "anna", secret)
	b.run(t, b.options(t), "anna", store.Active)
	logins := 0
	target.onCommand = func(name, _ string) string {
		if name == "AUTHENTICATE" {
			if logins++; logins == 1 { // whether the password opens anna's account
				if err := b.store.TakeBack(context.Background(), "test"); err != nil {
					t.Error(err)
				}
			}
		}
		return ""
	}
	b.named(t, otherName, "other")
	o := b.options(t)
	o.Concurrency = 1
	if a := b.run(t, o, otherName, rest...); a.State != store.Waiting || !strings.Contains(a.Reason, "seems to be that of anna@") || ensures(driver) != 1 || logins != 2 {
		t.Errorf("%s: %s, %d logins", a.State, a.Reason, logins)
	}
}

// What proves nothing goes to the administrator: an empty mailbox, and messages
// that whoever makes mailboxes may put into each of them.
func TestWhatProvesNothingWaits(t *testing.T) {
	for name, c := range map[string]struct {
		fill func(*fakeServer)
		want string
	}{
		"empty":         {deliveries(0), "proves nothing"},
		"not delivered": {func(f *fakeServer) { f.box("INBOX").fill(2, false) }, "none of them came by mail"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, driver, b := fakes(t, c.fill)
			b.named(t, "anna", secret)
			b.run(t, b.options(t), "anna", store.Active)
			b.named(t, otherName, secret)
			a := b.run(t, b.options(t), otherName, rest...)
			if a.State != store.Waiting || !strings.Contains(a.Reason, c.want) || ensures(driver) != 1 {
				t.Errorf("%s: %s", a.State, a.Reason)
			}
			if err := b.store.GiveLoginAlias(context.Background(), identity(otherName).Address(), identity("anna").Address()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Other mail under the same UIDVALIDITY, as some servers give one to all, is
// another mailbox.
func TestOtherMailIsAnotherMailbox(t *testing.T) {
	source, _, _, b := fakes(t, deliveries(3))
	b.named(t, "anna", secret)
	b.run(t, b.options(t), "anna", store.Active)
	source.mu.Lock()
	source.box("INBOX").mails[2].body = byMail(99)
	source.mu.Unlock()
	b.named(t, otherName, secret)
	if a := b.run(t, b.options(t), otherName, rest...); a.State != store.Conflict { // the fake target has one user
		t.Errorf("%s: %s", a.State, a.Reason)
	}
}

// Over POP3 a mailbox is recognised by its UIDLs, also while its other name is
// read and the maildrop is locked.
func TestOneMaildropUnderTwoNames(t *testing.T) {
	for _, when := range []string{"moved", "at once"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			source, target, b := popFakes(t, func(f *fakePOP3) {
				for i := range 12 {
					f.add(byMail(i) + "\r\n")
				}
			})
			b.named(t, "anna", secret)
			if when == "moved" {
				b.run(t, b.options(t), "anna", store.Active)
			}
			b.named(t, otherName, secret)
			b.settle(t, b.options(t), b.one("anna", otherName))
			if have := target.contents("INBOX"); len(have) != len(source.contents()) {
				t.Errorf("%d messages", len(have))
			}
		})
	}
}

// A crash around the commit loses no name: it is an account that is looked at
// again, or a login alias.
func TestCrashWhileANameIsRecognised(t *testing.T) {
	for _, step := range migrator.NameSteps() {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			source, target, driver, b := fakes(t, deliveries(3))
			b.named(t, "anna", secret)
			b.run(t, b.options(t), "anna", store.Active)
			b.named(t, otherName, secret)
			o := b.options(t)
			o.Concurrency = 1
			k := &killer{name: step, n: 1, died: make(chan struct{})}
			o.Step = k.step
			crash(t, b, o, k)
			select {
			case <-k.died:
			default:
				t.Fatal("the step was not passed")
			}
			b.settle(t, b.options(t), b.one("anna", otherName))
			equal(t, source, target, "INBOX")
			if n := ensures(driver); n != 1 {
				t.Errorf("%d accounts were created", n)
			}
		})
	}
}

// The second name of a mailbox that is also an alias of it stays one.
func TestNameThatIsAnAliasStaysOne(t *testing.T) {
	_, _, driver, b := fakes(t, func(f *fakeServer) {
		deliveries(3)(f)
		for i := range 3 {
			f.box("Work").add(delivered(rossi, i))
		}
	})
	b.named(t, "anna", secret)
	b.run(t, discover(t, b.options(t), bothAccounts), "anna", store.Active)
	b.named(t, otherName, secret)
	b.settle(t, discover(t, b.options(t), bothAccounts), b.one("anna", otherName))
	if a, _ := b.alias(t, rossi); a.State != store.AliasCreated || !driver.there[rossi] || slices.Contains(driver.calls, "remove_alias "+rossi) {
		t.Errorf("%+v, %v", a, driver.calls)
	}
}

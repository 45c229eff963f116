package migrator_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/aliasresolve"
	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
)

const rossi = "a.rossi@example.com"

// delivered is a message that was delivered to an address of anna's.
func delivered(to string, i int) fakeMail {
	return fakeMail{date: "14-Mar-2019 05:06:07 +0100",
		body: fmt.Sprintf("Delivered-To: %s\r\nFrom: bert@example.com\r\nTo: carl@example.com\r\nSubject: %d\r\n\r\ntext\r\n", to, i)}
}

// alsoRossi is twoFolders, and three messages for a.rossi.
func alsoRossi(f *fakeServer) {
	twoFolders(f)
	for i := range 3 {
		f.box("Work").add(delivered(rossi, i))
	}
}

// discover has options look for aliases; list is the accounts file.
func discover(t testing.TB, o migrator.Options, list string) migrator.Options {
	t.Helper()
	rules := aliasresolve.Rules{Mode: aliasresolve.Extended, Domains: aliasresolve.NewDomains(domain), Minimum: 3, Approval: list == ""}
	var accounts *aliasresolve.Accounts
	if list != "" {
		var err error
		if accounts, err = aliasresolve.ReadAccounts(strings.NewReader(list)); err != nil {
			t.Fatal(err)
		}
	}
	o.Aliases = map[string]*migrator.Aliases{domain: {Rules: rules, Accounts: accounts, Version: list + " 1"}}
	return o
}

const bothAccounts = "anna@example.com\nbert@example.com"

// alias gives an alias of anna's, and how many messages speak for it.
func (b *bench) alias(t testing.TB, address string) (a store.Alias, messages int64) {
	t.Helper()
	anna, err := b.store.Account(t.Context(), identity("anna").Address())
	if err != nil {
		t.Fatal(err)
	}
	all, err := b.store.AccountAliases(t.Context(), anna.ID)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(all, func(a store.Alias) bool { return a.Address == address })
	if at < 0 {
		return a, 0
	}
	var c aliasresolve.Claim
	if all[at].Evidence != "" {
		if err := json.Unmarshal([]byte(all[at].Evidence), &c); err != nil {
			t.Fatal(err)
		}
	}
	return all[at], c.Messages
}

// hasEvent reports whether the log of the migration has a text.
func (b *bench) hasEvent(t testing.TB, text string) bool {
	t.Helper()
	events, err := b.store.Events(t.Context(), "", 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(events, func(e store.Event) bool { return strings.Contains(e.Text, text) })
}

func added(d *fakeDriver) (n int) {
	for _, c := range d.calls {
		if strings.HasPrefix(c, "add_alias") {
			n++
		}
	}
	return n
}

// With the list of accounts an address that the mail was delivered to is an
// alias before its owner lives on the target, and nobody else's is.
func TestAliasIsFound(t *testing.T) {
	_, _, driver, b := fakes(t, func(f *fakeServer) {
		alsoRossi(f)
		for i := range 5 {
			f.box("Work").add(delivered("bert@example.com", i)) // forwarded by a colleague
			f.box("Sent").add(delivered("x@example.com", i))
		}
		f.box("Work").add(delivered("rare@example.com", 1))
	})
	b.anna(t)
	o := discover(t, b.options(t), bothAccounts)
	o.Step = func(name string) {
		if name == "flip.before" && added(driver) != 1 {
			t.Errorf("before the flip: %v", driver.calls)
		}
	}
	if a := b.run(t, o, "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	if a, n := b.alias(t, rossi); a.State != store.AliasCreated || !a.There || n != 3 || !driver.there[rossi] || added(driver) != 1 {
		t.Errorf("%+v, %d messages, %v", a, n, driver.calls)
	}
	for address, reason := range map[string]string{"bert@example.com": "another's in the accounts file: bert@example.com", "rare@example.com": "below minimum"} {
		if a, _ := b.alias(t, address); a.State != store.AliasWithdrawn || a.Reason != reason {
			t.Errorf("%+v", a)
		}
	}
	for _, address := range []string{"x@example.com", "carl@example.com"} { // in sent mail; in To
		if a, _ := b.alias(t, address); a.Address != "" {
			t.Errorf("%+v", a)
		}
	}
	if !b.hasEvent(t, "'anna@example.com': Available Aliases: a.rossi - 3 x") {
		t.Error("no event says so")
	}
}

// Without the list nothing is created before the administrator has said so; then
// it is, for an account that lives on the target as well.
func TestAliasIsApproved(t *testing.T) {
	_, _, driver, b := fakes(t, alsoRossi)
	b.anna(t)
	if a := b.run(t, discover(t, b.options(t), ""), "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	if a, _ := b.alias(t, rossi); a.State != store.AliasProposed || added(driver) != 0 {
		t.Fatalf("%+v, %v", a, driver.calls)
	}
	if _, err := b.store.ApproveAlias(t.Context(), rossi, ""); err != nil {
		t.Fatal(err)
	}
	b.untilAlias(t, discover(t, b.options(t), ""), rossi, func(a store.Alias) bool { return a.State == store.AliasCreated })
	if !driver.there[rossi] {
		t.Error(driver.calls)
	}
	if _, err := b.store.RejectAlias(t.Context(), rossi, "anna@example.com"); err != nil {
		t.Fatal(err)
	}
	driver.stuck = errors.New("not now")
	b.untilAlias(t, discover(t, b.options(t), ""), rossi, func(a store.Alias) bool { return a.Reason == "still on the target: not now" })
	driver.stuck = nil
	if _, err := b.store.Retry(t.Context(), "anna@example.com"); err != nil {
		t.Fatal(err)
	}
	b.untilAlias(t, discover(t, b.options(t), ""), rossi, func(a store.Alias) bool { return !a.There })
	if a, _ := b.alias(t, rossi); driver.there[rossi] || a.State != store.AliasRejected || a.Reason != "" {
		t.Errorf("%+v, %v", a, driver.calls)
	}
	// More mail for it does not bring it back.
	b.moreMail(t, rossi, 5)
	if a, _ := b.alias(t, rossi); a.State != store.AliasRejected {
		t.Errorf("%+v", a)
	}
}

// moreMail has bert's worker commit nothing, and anna's messages show an address
// again.
func (b *bench) moreMail(t testing.TB, address string, n int) {
	t.Helper()
	if _, err := b.store.Retry(t.Context(), "anna@example.com"); err != nil {
		t.Fatal(err)
	}
	c := b.claimed(t)
	showIn(t, c, "More", address, n)
	if err := c.CaughtUp(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	b.until(t, discover(t, b.options(t), ""), "anna", func(a store.Account) bool { return a.CaughtUpAt.After(before) })
}

// untilAlias runs a Migrator until an alias of anna's is as wanted.
func (b *bench) untilAlias(t testing.TB, o migrator.Options, address string, wanted func(store.Alias) bool) {
	t.Helper()
	b.until(t, o, "anna", func(store.Account) bool {
		a, _ := b.alias(t, address)
		return wanted(a)
	})
}

// claimed takes the account that is due.
func (b *bench) claimed(t testing.TB) *store.Claim {
	t.Helper()
	c, err := b.store.ClaimNext(t.Context(), "another worker", time.Minute)
	if err != nil || c == nil {
		t.Fatal(c, err)
	}
	return c
}

// showIn settles messages in a folder of an account that show an address.
func showIn(t testing.TB, c *store.Claim, name, address string, n int) {
	t.Helper()
	f := store.Folder{Source: name, Target: name, SourceUIDValidity: 1, TargetUIDValidity: 1}
	if err := c.PutFolder(t.Context(), &f); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(n) {
		m := store.Message{SourceUID: 2*i + 1, TargetUID: i + 1, Appended: true,
			Shows: []store.Sighting{{Address: address, Headers: "Delivered-To", Weighs: true}}}
		if err := c.Settle(t.Context(), f.ID, nil, []store.Message{m}); err != nil {
			t.Fatal(err)
		}
	}
}

// bertShows has another mailbox read that shows an address.
func (b *bench) bertShows(t testing.TB, address string) {
	t.Helper()
	b.begin(t, store.NewAccount{Identity: identity("bert")})
	b.shows(t, b.claimed(t), address)
}

func (b *bench) shows(t testing.TB, c *store.Claim, address string) {
	t.Helper()
	showIn(t, c, "INBOX", address, 1)
	shown := func(*store.AliasEvidence) (store.AliasRulings, error) {
		return store.AliasRulings{Shown: []string{address}}, nil
	}
	if _, err := c.DecideAliases(t.Context(), "x", shown); err != nil {
		t.Fatal(err)
	}
	if err := c.Release(t.Context(), store.Waiting, "", time.Time{}, false); err != nil {
		t.Fatal(err)
	}
}

// An address that a second mailbox shows later is withdrawn from the first, and
// taken away where it was created, whatever has become of that account.
func TestAliasIsWithdrawn(t *testing.T) {
	for _, state := range []store.State{store.Active, store.Finished} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			_, _, driver, b := fakes(t, alsoRossi)
			b.anna(t)
			o := discover(t, b.options(t), bothAccounts)
			b.run(t, o, "anna", rest...)
			b.begin(t, store.NewAccount{Identity: identity("bert")}) // with whom the domain is not finished
			bert := b.claimed(t)
			if state == store.Finished {
				b.complete(t, store.CompleteWhole, false)
				b.run(t, discover(t, b.options(t), bothAccounts), "anna", store.Finished)
			}
			driver.stuck = errors.New("not now")
			b.shows(t, bert, rossi)
			b.untilAlias(t, discover(t, b.options(t), bothAccounts), rossi, func(a store.Alias) bool { return strings.Contains(a.Reason, "not now") })
			driver.stuck = nil
			if state == store.Active {
				if _, err := b.store.Retry(t.Context(), "anna@example.com"); err != nil {
					t.Fatal(err)
				}
			}
			b.untilAlias(t, discover(t, b.options(t), bothAccounts), rossi, func(a store.Alias) bool { return !a.There })
			a, _ := b.alias(t, rossi)
			if a.State != store.AliasWithdrawn || a.Reason != "shown by another mailbox as well: bert@example.com" || driver.there[rossi] || !b.hasEvent(t, "alias a.rossi@example.com withdrawn: shown by another mailbox as well: bert@example.com") {
				t.Errorf("%+v, %v", a, driver.calls)
			}
			b.until(t, discover(t, b.options(t), bothAccounts), "anna", func(a store.Account) bool {
				return a.State == state && (state == store.Active || a.Due.IsZero() && a.Reason == "")
			})
		})
	}
}

// An address that a second mailbox shows is withdrawn also where the account of that
// one never gets so far that it is decided.
func TestAliasThatAStoppedMailboxShows(t *testing.T) {
	for _, state := range []store.State{store.Active, store.Finished} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			_, _, driver, b := fakes(t, alsoRossi)
			b.anna(t)
			b.run(t, discover(t, b.options(t), bothAccounts), "anna", rest...)
			b.begin(t, store.NewAccount{Identity: identity("bert")})
			bert := b.claimed(t)
			if state == store.Finished {
				b.complete(t, store.CompleteWhole, false)
				b.run(t, discover(t, b.options(t), bothAccounts), "anna", store.Finished)
			}
			showIn(t, bert, "INBOX", rossi, 2)
			if err := bert.Release(t.Context(), store.Waiting, "full", time.Time{}, true); err != nil {
				t.Fatal(err)
			}
			b.untilAlias(t, discover(t, b.options(t), bothAccounts), rossi, func(a store.Alias) bool { return a.State == store.AliasWithdrawn && !a.There })
			a := b.until(t, discover(t, b.options(t), bothAccounts), "anna", func(a store.Account) bool { return !a.Due.Before(time.Now()) || a.Due.IsZero() })
			if a.State != state || driver.there[rossi] || !b.hasEvent(t, "alias a.rossi@example.com withdrawn: shown by another mailbox as well: bert@example.com") {
				t.Errorf("%+v, %v", a, driver.calls)
			}
		})
	}
}

// An address that another mailbox showed first is never claimed.
func TestAliasOfAnotherMailbox(t *testing.T) {
	_, _, driver, b := fakes(t, alsoRossi)
	b.bertShows(t, rossi)
	b.anna(t)
	if a := b.run(t, discover(t, b.options(t), bothAccounts), "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	if a, _ := b.alias(t, rossi); a.State != store.AliasWithdrawn || a.Reason != "shown by another mailbox as well: bert@example.com" || added(driver) != 0 {
		t.Errorf("%+v, %v", a, driver.calls)
	}
}

// Somebody whose address was taken for an alias gets it back before his own
// account is made, or given its password.
func TestNameIsReclaimed(t *testing.T) {
	for _, mode := range []config.Mode{config.ModeAccounts, config.ModePasswords} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			source, target, driver, b := fakes(t, func(f *fakeServer) {
				twoFolders(f)
				for i := range 3 {
					f.box("Work").add(delivered("bert@example.com", i))
				}
			})
			b.anna(t)
			b.run(t, discover(t, b.options(t), "anna@example.com"), "anna", rest...)
			if !driver.there["bert@example.com"] {
				t.Fatal(driver.calls)
			}
			source.with(func() { source.box("INBOX").mails[0].body = message(9000, "bert's own") }) // or it were one mailbox
			target.with(func() {
				target.exists, target.boxes = false, nil
				target.box("INBOX")
			})
			b.begin(t, store.NewAccount{Identity: identity("bert"), Password: config.NewSecret(secret), Mode: mode})
			o := discover(t, b.options(t), "anna@example.com")
			o.Step = func(name string) {
				if name == "provision.lookup" && driver.there["bert@example.com"] {
					t.Error("asked while it was an alias")
				}
			}
			if a := b.run(t, o, "bert", rest...); !a.Moved() {
				t.Fatal(a.State, a.Reason)
			}
			if a, _ := b.alias(t, "bert@example.com"); a.State != store.AliasWithdrawn || a.There {
				t.Errorf("%+v", a)
			}
		})
	}
}

// Whatever step of its aliases the process dies at, in the end the alias is there
// or, if it turned out to be another's, is not.
func TestCrashAtEveryStepOfAnAlias(t *testing.T) {
	for _, step := range migrator.AliasSteps() {
		for _, withdrawn := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, withdrawn %t", step, withdrawn), func(t *testing.T) {
				t.Parallel()
				_, _, driver, b := fakes(t, alsoRossi)
				b.anna(t)
				o := discover(t, b.options(t), bothAccounts)
				o.Concurrency = 1
				k := &killer{name: step, n: 1, died: make(chan struct{})}
				o.Step = k.step
				crash(t, b, o, k)
				if passed := step != "alias.removed"; passed != (k.n == 0) {
					t.Errorf("passed: %t", !passed)
				}
				if !withdrawn {
					b.untilAlias(t, discover(t, b.options(t), bothAccounts), rossi, func(a store.Alias) bool { return a.State == store.AliasCreated })
					if _, n := b.alias(t, rossi); n != 3 || !driver.there[rossi] {
						t.Errorf("%d messages, %v", n, driver.calls)
					}
					return
				}
				if step == "alias.removed" {
					b.bertShows(t, rossi)
					o.Metrics, k.died = b.options(t).Metrics, make(chan struct{})
					b.untilDead(t, o, "anna", k.died, func(store.Account) bool { return false })
				} else {
					if err := b.store.TakeBack(t.Context(), "test"); err != nil {
						t.Fatal(err)
					}
					b.bertShowsBeside(t, rossi)
				}
				b.untilAlias(t, discover(t, b.options(t), bothAccounts), rossi, func(a store.Alias) bool { return a.State == store.AliasWithdrawn && !a.There })
				if a := b.run(t, discover(t, b.options(t), bothAccounts), "anna", store.Active); driver.there[rossi] {
					t.Errorf("%+v, %v", a, driver.calls)
				}
			})
		}
	}
}

// bertShowsBeside is bertShows while anna is due as well.
func (b *bench) bertShowsBeside(t testing.TB, address string) {
	t.Helper()
	anna := b.claimed(t)
	b.bertShows(t, address)
	if err := anna.Release(t.Context(), anna.Account.State, "", time.Now(), false); err != nil {
		t.Fatal(err)
	}
}

// Each message counts once, whatever happens to its batch, and in whichever lane
// it is copied.
func TestMessagesCountOnce(t *testing.T) {
	fill := func(f *fakeServer) {
		for i := range 6 {
			for n := range 120 {
				f.box(fmt.Sprintf("f%d", i)).add(delivered(rossi, 1000*i+n))
			}
		}
	}
	for name, v := range map[string]verdict{"plain": {}, "cut": {cut: true}, "cut, kept": {cut: true, keep: true}, "cut, kept late": {cut: true, late: 100 * time.Millisecond},
		"no UIDs": {noUIDs: true}, "refused": {no: "no reason"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, target, _, b := fakes(t, fill)
			target.onAppend = func(n int, _ []fakeMail) verdict {
				if n == 2 {
					return v
				}
				return verdict{}
			}
			b.anna(t)
			if a := b.run(t, discover(t, b.options(t), bothAccounts), "anna", store.Active, store.Failed); a.State != store.Active {
				t.Fatal(a.State, a.Reason)
			}
			if a, n := b.alias(t, rossi); n != 720 || a.State != store.AliasCreated {
				t.Errorf("%+v, %d messages", a, n)
			}
		})
	}
}

// Mail that is recognised in an account that was there counts, and nothing is
// changed on the target.
func TestAliasesOfAnAdoptedAccount(t *testing.T) {
	source, target, driver, b := fakes(t, alsoRossi)
	target.exists, target.password = true, secret
	for _, box := range source.boxes {
		target.box(box.name).mails = slices.Clone(box.mails)
		target.box(box.name).next = box.next
	}
	b.migrate(t, store.NewAccount{Adopt: true, Password: config.NewSecret(secret)})
	if a := b.run(t, discover(t, b.options(t), bothAccounts), "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	if a, n := b.alias(t, rossi); n != 3 || a.State != store.AliasProposed || len(driver.calls) > 0 {
		t.Errorf("%+v, %d messages, %v", a, n, driver.calls)
	}
}

// What arrives later counts as well, and may make an alias of an account that
// has moved.
func TestAliasIsFoundLater(t *testing.T) {
	source, _, driver, b := fakes(t, twoFolders)
	b.anna(t)
	b.run(t, discover(t, b.options(t), bothAccounts), "anna", rest...)
	if !b.hasEvent(t, "No Aliases were discovered, Using Username") {
		t.Error("no event says that there are none")
	}
	source.with(func() {
		for i := range 3 {
			source.box("Work").add(delivered(rossi, i))
		}
	})
	if _, err := b.store.Retry(t.Context(), "anna@example.com"); err != nil {
		t.Fatal(err)
	}
	b.untilAlias(t, discover(t, b.options(t), bothAccounts), rossi, func(a store.Alias) bool { return a.State == store.AliasCreated })
	if !driver.there[rossi] || !b.hasEvent(t, "Available Aliases: a.rossi - 3 x") {
		t.Error(driver.calls)
	}
}

// Other settings have an account decided anew: the list of accounts now lets be
// created what was proposed.
func TestNewSettingsDecideAnew(t *testing.T) {
	_, _, driver, b := fakes(t, alsoRossi)
	b.anna(t)
	b.run(t, discover(t, b.options(t), ""), "anna", rest...)
	if _, err := b.store.Retry(t.Context(), "anna@example.com"); err != nil {
		t.Fatal(err)
	}
	b.untilAlias(t, discover(t, b.options(t), bothAccounts), rossi, func(a store.Alias) bool { return a.State == store.AliasCreated })
	if !driver.there[rossi] {
		t.Error(driver.calls)
	}
}

// A name under which somebody else logs in is nobody's alias.
func TestAliasIsAnothersLoginName(t *testing.T) {
	_, _, driver, b := fakes(t, alsoRossi)
	b.begin(t, store.NewAccount{Identity: identity("bert")})
	if err := b.store.GiveLoginAlias(t.Context(), rossi, "bert@example.com"); err != nil {
		t.Fatal(err)
	}
	b.claimed(t)
	b.anna(t)
	if a := b.run(t, discover(t, b.options(t), bothAccounts), "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	if a, _ := b.alias(t, rossi); a.State != store.AliasWithdrawn || added(driver) != 0 {
		t.Errorf("%+v, %v", a, driver.calls)
	}
}

// What the administrator gave to one account is not claimed for another in whose
// mail it stands, although the one shows nothing yet.
func TestAliasThatWasGivenToAnother(t *testing.T) {
	_, _, driver, b := fakes(t, alsoRossi)
	if _, _, err := b.store.Migrate(t.Context(), store.NewAccount{Identity: identity("bert"), Mode: config.ModeAccounts, Aliases: []string{rossi}}); err != nil {
		t.Fatal(err)
	}
	b.claimed(t)
	b.anna(t)
	if a := b.run(t, discover(t, b.options(t), bothAccounts), "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	if a, _ := b.alias(t, rossi); a.State != store.AliasWithdrawn || a.Reason != "another account's alias: bert@example.com" || added(driver) != 0 {
		t.Errorf("%+v, %v", a, driver.calls)
	}
}

// hasRossi makes anna's account one that was created, with an alias that was found
// and is on the target.
func (b *bench) hasRossi(t testing.TB, driver *fakeDriver) *store.Claim {
	t.Helper()
	b.anna(t)
	c := b.claimed(t)
	found := func(*store.AliasEvidence) (store.AliasRulings, error) {
		return store.AliasRulings{Aliases: []store.AliasRuling{{Address: rossi, State: store.AliasApproved}}}, nil
	}
	_, err := c.DecideAliases(t.Context(), "x", found)
	begun, beginErr := c.BeginAlias(t.Context(), rossi)
	if err := errors.Join(err, beginErr, c.SetOrigin(t.Context(), store.OriginCreated), c.NoteAlias(t.Context(), rossi, store.AliasCreated, "")); err != nil || !begun {
		t.Fatal(begun, err)
	}
	driver.there = map[string]bool{rossi: true}
	return c
}

// What turns out to be another's is taken away from an account that has stopped
// as well, and from one that does not move, however often that fails at first.
func TestAliasOfAStoppedAccountIsWithdrawn(t *testing.T) {
	for _, state := range []store.State{store.Waiting, store.Failed, store.Excluded} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			source, _, driver, b := fakes(t, twoFolders)
			source.password = "another" // so that the account gets no further
			c := b.hasRossi(t, driver)
			var err error
			if state == store.Excluded {
				_, err = b.store.Exclude(t.Context(), identity("anna"))
			} else {
				err = c.Release(t.Context(), state, "x", time.Time{}, true)
			}
			if err != nil {
				t.Fatal(err)
			}
			driver.stuck = errors.New("not now")
			b.bertShows(t, rossi)
			o := discover(t, b.options(t), bothAccounts)
			b.until(t, o, "anna", func(a store.Account) bool {
				l, _ := b.alias(t, rossi)
				return strings.Contains(l.Reason, "not now") && a.Attempts > 1 && !a.Due.IsZero()
			})
			driver.stuck = nil
			b.untilAlias(t, discover(t, b.options(t), bothAccounts), rossi, func(a store.Alias) bool { return !a.There })
			a := b.until(t, discover(t, b.options(t), bothAccounts), "anna", func(a store.Account) bool { return a.Due.IsZero() })
			if excluded := state == store.Excluded; driver.there[rossi] || excluded != (a.State == store.Excluded) || excluded == source.wasAsked() {
				t.Errorf("%s: %s, %v", a.State, a.Reason, driver.calls)
			}
		})
	}
}

// wasAsked reports whether anybody has come to the server.
func (f *fakeServer) wasAsked() bool { return len(f.lines()) > 0 }

// The aliases of an account that lives on the target are seen to also where its
// domain was finished by force, without the source.
func TestAliasInAFinishedDomain(t *testing.T) {
	source, _, driver, b := fakes(t, alsoRossi)
	b.anna(t)
	b.run(t, discover(t, b.options(t), bothAccounts), "anna", rest...)
	b.complete(t, store.CompleteForced, false)
	for range 3 { // the last pass is given up
		if err := b.claimed(t).Release(t.Context(), store.Active, "x", time.Now(), true); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.store.SettleCompletion(t.Context(), domain); err != nil {
		t.Fatal(err)
	}
	source.lines()
	if _, err := b.store.RejectAlias(t.Context(), rossi, "anna@example.com"); err != nil {
		t.Fatal(err)
	}
	b.untilAlias(t, discover(t, b.options(t), bothAccounts), rossi, func(a store.Alias) bool { return !a.There })
	a := b.until(t, discover(t, b.options(t), bothAccounts), "anna", func(a store.Account) bool { return a.Due.IsZero() })
	if d, err := b.store.DomainState(t.Context(), domain); err != nil || !d.Finished || a.State != store.Active || driver.there[rossi] || source.wasAsked() {
		t.Errorf("%+v, %+v, %v, %v", a, d, err, driver.calls)
	}
}

// One address is what Standard takes: one that turns out to be another's makes room
// for the next.
func TestStandardTakesTheNext(t *testing.T) {
	const next = "rossi@example.com"
	sent := func(f *fakeServer, from string, n int) {
		for i := range n {
			f.box("Sent").add(fakeMail{date: "14-Mar-2019 05:06:07 +0100", body: fmt.Sprintf("From: %s\r\nTo: carl@example.com\r\nSubject: %d\r\n\r\ntext\r\n", from, f.box("Sent").next+uint32(i))})
		}
	}
	source, _, driver, b := fakes(t, func(f *fakeServer) {
		twoFolders(f)
		sent(f, rossi, 5)
		sent(f, next, 3)
	})
	options := func() migrator.Options {
		o := discover(t, b.options(t), bothAccounts)
		o.Aliases[domain].Rules.Mode = aliasresolve.Standard
		return o
	}
	b.anna(t)
	b.run(t, options(), "anna", rest...)
	if a, _ := b.alias(t, rossi); a.State != store.AliasCreated {
		t.Fatalf("%+v", a)
	}
	b.begin(t, store.NewAccount{Identity: identity("bert")})
	c := b.claimed(t)
	showIn(t, c, "INBOX", rossi, 1) // what comes of it is for anna's next look to find
	if err := c.Release(t.Context(), store.Waiting, "", time.Time{}, false); err != nil {
		t.Fatal(err)
	}
	source.with(func() { sent(source, next, 1) })
	if _, err := b.store.Retry(t.Context(), "anna@example.com"); err != nil {
		t.Fatal(err)
	}
	b.untilAlias(t, options(), rossi, func(a store.Alias) bool { return a.State == store.AliasWithdrawn && !a.There })
	if a, n := b.alias(t, next); a.State != store.AliasCreated && a.State != store.AliasApproved || n != 4 {
		t.Errorf("%+v, %d messages, %v", a, n, driver.calls)
	}
}

// Where the target lets anna in under her alias, that is no login of somebody else's.
// An account that was there before is.
func TestAliasThatOpensTheTarget(t *testing.T) {
	for _, before := range []bool{false, true} {
		t.Run(fmt.Sprintf("before %t", before), func(t *testing.T) {
			t.Parallel()
			source, _, _, b := fakes(t, alsoRossi)
			logIn := func() {
				if _, err := b.store.Note(t.Context(), identity("a.rossi"), store.Native); err != nil {
					t.Fatal(err)
				}
			}
			if before {
				logIn()
			}
			b.anna(t)
			b.run(t, discover(t, b.options(t), bothAccounts), "anna", rest...)
			logIn()
			source.with(func() { source.box("Work").add(delivered(rossi, 9)) })
			if _, err := b.store.Retry(t.Context(), "anna@example.com"); err != nil {
				t.Fatal(err)
			}
			b.until(t, discover(t, b.options(t), bothAccounts), "anna", func(store.Account) bool {
				_, n := b.alias(t, rossi)
				return n == 4
			})
			want := store.AliasCreated
			if before {
				want = store.AliasWithdrawn
			}
			if a, _ := b.alias(t, rossi); a.State != want {
				t.Errorf("%+v", a)
			}
		})
	}
}

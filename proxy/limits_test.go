package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

// attempt is one of user@example.com from an address.
func attempt(from, user, password string) *Attempt {
	return &Attempt{Login: user, Password: config.NewSecret(password),
		Identity: config.Identity{Login: user, Local: user, Domain: "example.com"},
		Client:   upstream.Client{Remote: netip.AddrPortFrom(netip.MustParseAddr(from), 1)}}
}

func admitted(t *testing.T, f *failures, a *Attempt) (delay time.Duration, ok bool) {
	t.Helper()
	begun := time.Now()
	err := f.admit(t.Context(), a)
	if err != nil && upstream.OutcomeOf(err) != upstream.Limited {
		t.Fatalf("got %v", err)
	}
	return time.Since(begun), err == nil
}

func TestGuessesAreSlowedDownThenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFailures(config.Limits{})
		last := time.Duration(0)
		for i := range accountPenalty.max {
			// Each guess from an address of its own: the account is what is guessed.
			a := attempt(fmt.Sprintf("192.0.2.%d", i), "user", fmt.Sprint("guess", i))
			delay, ok := admitted(t, f, a)
			if !ok || delay < last || (i < accountPenalty.free) != (delay == 0) || delay > accountPenalty.most {
				t.Fatalf("guess %d: delay %v after %v, admitted %v", i, delay, last, ok)
			}
			last = delay
			f.fail(a)
		}
		if _, ok := admitted(t, f, attempt("192.0.2.200", "user", "guess")); ok {
			t.Error("guesses go on for ever")
		}
		if _, ok := admitted(t, f, attempt("192.0.2.200", "other", "pw")); !ok {
			t.Error("another account is locked out")
		}
		time.Sleep(failureWindow) // in the bubble's own time
		if delay, ok := admitted(t, f, attempt("192.0.2.200", "user", "guess")); !ok || delay != 0 {
			t.Error("the lock does not end by itself")
		}
	})
}

func TestOneAddressGuessingManyAccountsIsRefused(t *testing.T) {
	for _, network := range []string{"192.0.2.1", "2001:db8::%x"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFailures(config.Limits{})
			address := func(i int) string {
				if network[0] == '2' {
					return fmt.Sprintf(network, i+1) // an IPv6 client may have any address of its /64
				}
				return network
			}
			for i := range addressPenalty.max {
				f.fail(attempt("192.0.2.1", fmt.Sprint("user", i), "pw"))
				f.fail(attempt(address(i), fmt.Sprint("user", i), "pw"))
			}
			if _, ok := admitted(t, f, attempt(address(1000), "new", "pw")); ok {
				t.Error("guesses go on for ever")
			}
			if _, ok := admitted(t, f, attempt("192.0.2.2", "new", "pw")); !ok {
				t.Error("another address is locked out")
			}
		})
	}
}

func TestTrustedNetworksAreNotLockedOut(t *testing.T) {
	trusted := []config.Network{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}
	f := newFailures(config.Limits{TrustedNetworks: trusted})
	for i := range 2 * addressPenalty.max {
		f.fail(attempt("192.0.2.1", fmt.Sprint("user", i), "pw"))
	}
	if delay, ok := admitted(t, f, attempt("192.0.2.1", "new", "pw")); !ok || delay > patience/2 {
		t.Error("a trusted network is limited")
	}
	o := newOccupancy(config.Limits{PerAddress: 1, TrustedNetworks: trusted})
	for range 3 {
		if _, ok := o.connect(netip.MustParseAddr("192.0.2.1")); !ok {
			t.Error("a trusted network's connections are limited")
		}
	}
}

func TestTheSameWrongPasswordCountsOnce(t *testing.T) {
	f := newFailures(config.Limits{})
	for range 10 * accountPenalty.max {
		f.fail(attempt("192.0.2.1", "user", "outdated"))
	}
	if delay, ok := admitted(t, f, attempt("192.0.2.1", "user", "right")); !ok || delay > patience/2 {
		t.Error("a client with an outdated password locks its user out")
	}
}

func TestAKnownAddressIsNotLockedOutByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFailures(config.Limits{})
		home := attempt("192.0.2.1", "user", "right")
		f.succeed(home)
		for i := range addressPenalty.max {
			f.fail(attempt("198.51.100.1", "user", fmt.Sprint("guess", i))) // the account
			f.fail(attempt("192.0.2.1", fmt.Sprint("colleague", i), "pw"))  // the address
		}
		if delay, ok := admitted(t, f, home); !ok || delay != 0 {
			t.Error("the owner is locked out by others")
		}
		if _, ok := admitted(t, f, attempt("198.51.100.2", "user", "guess")); ok {
			t.Error("others are not locked out")
		}
		for i := range accountPenalty.max {
			f.fail(attempt("192.0.2.1", "user", fmt.Sprint("guess", i)))
		}
		if _, ok := admitted(t, f, home); ok {
			t.Error("a known address may guess for ever")
		}
	})
}

func TestALoginForgetsWrongPasswords(t *testing.T) {
	f := newFailures(config.Limits{})
	for i := range accountPenalty.max {
		f.fail(attempt("192.0.2.1", "user", fmt.Sprint("guess", i)))
	}
	f.fail(attempt("192.0.2.1", "other", "pw"))
	f.succeed(attempt("192.0.2.9", "user", "right"))
	f.succeed(attempt("192.0.2.1", "user", "right"))
	for _, from := range []string{"192.0.2.1", "192.0.2.3"} {
		if delay, ok := admitted(t, f, attempt(from, "user", "right")); !ok || delay > patience/2 {
			t.Errorf("from %s the account still answers for old failures", from)
		}
	}
	if n := f.addresses.get(clientNetwork(netip.MustParseAddr("192.0.2.1"))).count(time.Now()); n != 1 {
		t.Errorf("the address has %d failures, want the other account's one", n)
	}
}

func TestDelaysAreBoundedInNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFailures(config.Limits{})
		for i := range accountPenalty.free {
			f.fail(attempt("192.0.2.1", "user", fmt.Sprint("guess", i)))
		}
		results := make(chan bool, maxRecordDelays)
		for range maxRecordDelays {
			go func() {
				results <- f.admit(t.Context(), attempt("192.0.2.1", "user", "pw")) == nil
			}()
		}
		synctest.Wait()
		if delay, ok := admitted(t, f, attempt("192.0.2.1", "user", "pw")); ok || delay != 0 {
			t.Error("delays pile up")
		}
		for range maxRecordDelays {
			if !<-results {
				t.Error("a delayed login was refused")
			}
		}
		if f.delayed != 0 {
			t.Errorf("%d delays are still counted", f.delayed)
		}
	})
}

func TestADelayEndsWithItsContext(t *testing.T) {
	f := newFailures(config.Limits{})
	for i := range accountPenalty.free {
		f.fail(attempt("192.0.2.1", "user", fmt.Sprint("guess", i)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.admit(ctx, attempt("192.0.2.1", "user", "pw")); upstream.OutcomeOf(err) != upstream.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestFailureMemoryIsBounded(t *testing.T) {
	f := newFailures(config.Limits{})
	for i := range maxRecords + 1000 {
		a := attempt("192.0.2.1", fmt.Sprint("user", i), "pw")
		f.fail(a)
	}
	if n := len(f.accounts.items); n != maxRecords || f.accounts.order.Len() != n {
		t.Errorf("%d records", n)
	}
	r := f.addresses.get(clientNetwork(netip.MustParseAddr("192.0.2.1")))
	if len(r.failures) != addressPenalty.max {
		t.Errorf("%d failures in one record", len(r.failures))
	}
}

// TestASetPasswordEndsTheMemoryOfWrongOnes: what was wrong before may be right
// on the target. Progress of the copy gives a guesser nothing.
func TestASetPasswordEndsTheMemoryOfWrongOnes(t *testing.T) {
	changes := make(chan store.Change)
	s := &Server{changes: changes, failures: newFailures(config.Limits{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.followChanges(ctx)
	}()
	right := attempt("192.0.2.1", "user", "pw")
	guess := func() {
		for i := range accountPenalty.max {
			s.failures.fail(attempt("192.0.2.1", "user", fmt.Sprint("guess", i)))
		}
	}
	for _, step := range []struct {
		state    store.State
		admitted bool
	}{
		{store.Provisioning, false}, {store.Copying, true}, {store.Copying, false}, {store.Active, true}, {store.Active, false},
	} {
		guess()
		for range 2 { // when the second is taken, the first has been heard
			changes <- store.Change{AccountID: 1, Address: "other@example.com", State: step.state}
			changes <- store.Change{AccountID: 2, Address: "user@example.com", State: step.state}
		}
		changes <- store.Change{AccountID: 3, Address: "x@example.com", State: step.state}
		if err := s.failures.admit(ctx, right); (err == nil) != step.admitted {
			t.Errorf("%+v: %v", step, err)
		}
	}
	if n := s.failures.addresses.get(clientNetwork(right.Client.Remote.Addr())).count(time.Now()); n != accountPenalty.max {
		t.Errorf("%d failures of the address, which were those of the account", n)
	}
	close(changes)
	cancel()
	<-done
}

func TestWhatCountsAsAFailure(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{&upstream.Error{Outcome: upstream.Miss}, true},
		{fmt.Errorf("asking: %w", &upstream.Error{Outcome: upstream.Miss}), true},
		{&upstream.Error{Outcome: upstream.Unavailable, Err: errors.Join(errMissed, errors.New("source away"))}, true},
		{&upstream.Error{Outcome: upstream.Unavailable, Err: errors.New("source away")}, false},
		{&upstream.Error{Outcome: upstream.Refused}, false},
		{&upstream.Error{Outcome: upstream.Limited}, false},
		{context.DeadlineExceeded, false},
	} {
		if got := failureCounts(test.err); got != test.want {
			t.Errorf("%v: got %v", test.err, got)
		}
	}
}

func TestPlacesAreGivenBack(t *testing.T) {
	o := newOccupancy(config.Limits{PerAddress: 2, PerAccount: 2})
	a := attempt("192.0.2.1", "user", "pw")
	var leaves []func()
	for range 2 {
		leaveAddress, ok1 := o.connect(a.Client.Remote.Addr())
		leaveAccount, ok2 := o.login(a)
		if !ok1 || !ok2 {
			t.Fatal("no place although there is one")
		}
		leaves = append(leaves, leaveAddress, leaveAccount)
	}
	_, ok1 := o.connect(a.Client.Remote.Addr())
	_, ok2 := o.login(a)
	if ok1 || ok2 {
		t.Error("more places than the limits give")
	}
	for _, leave := range leaves {
		leave()
	}
	if len(o.connections)+len(o.sessions) != 0 {
		t.Error("places are not given back")
	}
}

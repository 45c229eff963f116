package proxy

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

const (
	// failureWindow is how long a wrong password is remembered after it was
	// last tried.
	failureWindow = 15 * time.Minute
	// knownWindow is how long after a login an account's address is not locked
	// out by what others try.
	knownWindow = 7 * 24 * time.Hour
	// Records that are remembered of each kind; the oldest are forgotten.
	maxRecords = 10_000
	maxKnown   = 50_000
	// Logins that are slowed down at the same time: in all, and of one record.
	// More are refused at once, so that delays cannot be used to pile up work.
	maxDelays       = 256
	maxRecordDelays = 8
)

// errTooManyFailures says what the log needs to know about a limited login.
var errTooManyFailures = errors.New("too many wrong passwords; it ends by itself 15 minutes after the last new one, or exempt the network with limits.trusted_networks")

// penalty is what wrong passwords cost: none until free, then growing delays,
// from max on the login is refused without asking anybody.
type penalty struct {
	free, max   int
	first, most time.Duration
}

var (
	// An account has one owner, who mistypes a few times.
	accountPenalty = penalty{free: 3, max: 15, first: 500 * time.Millisecond, most: 8 * time.Second}
	// An address may be a whole office's.
	addressPenalty = penalty{free: 10, max: 60, first: 500 * time.Millisecond, most: 8 * time.Second}
)

// delay is for the next login after n failures.
func (p penalty) delay(n int) time.Duration {
	if n < p.free {
		return 0
	}
	d := p.first
	for ; n > p.free && d < p.most; n-- {
		d *= 2
	}
	return min(d, p.most)
}

// pair is an account as seen from one client network.
type pair struct {
	account string
	network netip.Prefix
}

// failure is one wrong password of one account. Only a hash is kept, with a key
// that never leaves the memory of this process.
type failure struct {
	digest  [16]byte
	account string
	at      time.Time
}

// record holds the failures of an address, an account or a pair.
type record struct {
	penalty  penalty
	failures []failure
	delayed  int         // logins being slowed down because of it
	state    store.State // of an account, when changed last saw it
}

// count drops what is too old and returns how many failures there are.
func (r *record) count(now time.Time) int {
	kept := r.failures[:0]
	for _, f := range r.failures {
		if now.Sub(f.at) < failureWindow {
			kept = append(kept, f)
		}
	}
	r.failures = kept
	return len(kept)
}

// add counts a failure, the same wrong password only once.
func (r *record) add(f failure) {
	r.count(f.at)
	for i := range r.failures {
		if r.failures[i].digest == f.digest {
			r.failures[i].at = f.at
			return
		}
	}
	if len(r.failures) >= r.penalty.max {
		r.failures = r.failures[1:]
	}
	r.failures = append(r.failures, f)
}

// forget drops the failures of one account.
func (r *record) forget(account string) {
	r.failures = slices.DeleteFunc(r.failures, func(x failure) bool { return x.account == account })
}

// failures slows down and then refuses whoever guesses passwords. A client
// that keeps trying one outdated password is not a guesser.
type failures struct {
	trusted []config.Network // exempt from the limits of addresses
	key     [32]byte

	mu        sync.Mutex
	addresses *lru[netip.Prefix, *record]
	accounts  *lru[string, *record]
	pairs     *lru[pair, *record]
	known     *lru[pair, time.Time] // last login
	delayed   int
}

func newFailures(l config.Limits) *failures {
	f := &failures{
		trusted:   l.TrustedNetworks,
		addresses: newLRU[netip.Prefix, *record](maxRecords),
		accounts:  newLRU[string, *record](maxRecords),
		pairs:     newLRU[pair, *record](maxRecords),
		known:     newLRU[pair, time.Time](maxKnown),
	}
	rand.Read(f.key[:]) // never fails: crypto/rand ends the process instead
	return f
}

// admit waits as long as the attempt has to, and returns an *upstream.Error
// where it may not be made at all, or where ctx ends first.
func (f *failures) admit(ctx context.Context, a *Attempt) error {
	limited := &upstream.Error{Outcome: upstream.Limited, Err: errTooManyFailures}
	f.mu.Lock()
	defer f.mu.Unlock()
	records := f.judges(a)
	delay, ok := verdictOf(records)
	if !ok {
		return limited
	}
	if delay == 0 {
		return nil
	}
	if f.delayed >= maxDelays {
		return limited
	}
	for _, r := range records {
		if r.delayed >= maxRecordDelays {
			return limited
		}
	}
	f.hold(records, 1)
	f.mu.Unlock()
	err := wait(ctx, delay)
	f.mu.Lock()
	f.hold(records, -1)
	if err != nil {
		return &upstream.Error{Outcome: upstream.Unavailable, Err: err}
	}
	// Others may have failed meanwhile.
	if _, ok = verdictOf(records); !ok {
		return limited
	}
	return nil
}

func (f *failures) hold(records []*record, n int) {
	f.delayed += n
	for _, r := range records {
		r.delayed += n
	}
}

// verdictOf gives the longest delay of the records; ok is false where one of
// them admits nothing.
func verdictOf(records []*record) (delay time.Duration, ok bool) {
	now := time.Now()
	for _, r := range records {
		n := r.count(now)
		if n >= r.penalty.max {
			return 0, false
		}
		delay = max(delay, r.penalty.delay(n))
	}
	return delay, true
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// judges are the records that speak about an attempt. An account that logged in
// from this address lately answers for itself alone.
func (f *failures) judges(a *Attempt) []*record {
	p := pairOf(a)
	if at := f.known.get(p); !at.IsZero() && time.Since(at) < knownWindow {
		return present(f.pairs.get(p))
	}
	var address, account *record
	if !isTrusted(f.trusted, a.Client.Remote.Addr()) {
		address = f.addresses.get(p.network)
	}
	if a.Identity != (config.Identity{}) {
		account = f.accounts.get(p.account)
	}
	return present(address, account)
}

func present(records ...*record) []*record {
	kept := records[:0]
	for _, r := range records {
		if r != nil {
			kept = append(kept, r)
		}
	}
	return kept
}

func pairOf(a *Attempt) pair {
	return pair{accountKey(a), clientNetwork(a.Client.Remote.Addr())}
}

// fail counts a wrong password.
func (f *failures) fail(a *Attempt) {
	p := pairOf(a)
	mac := hmac.New(sha256.New, f.key[:])
	io.WriteString(mac, p.account+"\x00"+a.Password.Reveal()) // a hash never fails
	x := failure{account: p.account, at: time.Now()}
	copy(x.digest[:], mac.Sum(nil))

	f.mu.Lock()
	defer f.mu.Unlock()
	recordOf(f.pairs, p, accountPenalty).add(x)
	if !isTrusted(f.trusted, a.Client.Remote.Addr()) {
		recordOf(f.addresses, p.network, addressPenalty).add(x)
	}
	if a.Identity != (config.Identity{}) {
		recordOf(f.accounts, p.account, accountPenalty).add(x)
	}
}

func recordOf[K comparable](l *lru[K, *record], key K, p penalty) *record {
	r := l.get(key)
	if r == nil {
		r = &record{penalty: p}
		l.put(key, r)
	}
	return r
}

// succeed remembers from where the account logged in and forgets its wrong
// passwords: one that was wrong may be right from now on.
func (f *failures) succeed(a *Attempt) {
	p := pairOf(a)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known.put(p, time.Now())
	for _, r := range present(f.pairs.get(p), f.accounts.get(p.account), f.addresses.get(p.network)) {
		r.forget(p.account)
	}
}

// changed forgets the wrong passwords of an account that the migration has
// given its password on the target, or that has flipped. Progress in the same
// state changes no password, and must not give a guesser a fresh start.
func (f *failures) changed(c store.Change) {
	switch c.State {
	case store.Copying, store.Active, store.Finished:
	default:
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.accounts.get(c.Address)
	if r == nil || r.state == c.State {
		return
	}
	r.state = c.State
	r.forget(c.Address)
	for a := range f.addresses.values() {
		a.forget(c.Address)
	}
	for p := range f.pairs.values() {
		p.forget(c.Address)
	}
}

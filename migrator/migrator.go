// Package migrator moves accounts: provision, copy, compare, flip. Its workers
// take what is due from the store and put every decision back into it, so that
// a crash at any point costs only time.
package migrator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"migproxy/aliasresolve"
	"migproxy/config"
	"migproxy/provision"
	"migproxy/store"
	"migproxy/upstream"
)

const (
	lease = time.Minute
	// lookAgain bounds how long a due account can go unseen when a notice of
	// it was lost, or when another process died with it.
	lookAgain = 30 * time.Second
	// storePause is how long to leave a store alone that failed.
	storePause = time.Second
	// ioTimeout is how long a server may stay silent during the copy: to commit
	// a batch on a busy disk takes a while.
	ioTimeout = 2 * time.Minute
	// loginTimeout bounds one login on a server.
	loginTimeout = time.Minute
	// putDownTimeout bounds the commit that ends the work on an account.
	putDownTimeout = 10 * time.Second
)

// Options are what a Migrator works with.
type Options struct {
	Store   *store.Store
	Domains map[string]*upstream.Domain
	Drivers map[string]provision.Driver // by domain
	Owner   string                      // this process, the same after a restart
	// Concurrency is how many accounts are moved at a time.
	Concurrency int
	// CatchUp is how often accounts that have flipped are looked at on the source.
	CatchUp time.Duration
	// SettleQuiet is how long a target's UIDNEXT must have been still before an
	// interrupted batch is settled.
	SettleQuiet time.Duration
	// Grace is how long a batch or a command under way may go on after the end
	// was asked for.
	Grace time.Duration
	// CredentialsMaxAge is how long a sealed password is kept after its last use.
	CredentialsMaxAge time.Duration
	// AfterAccount is the command, with its arguments, that is run after each
	// account; empty for none.
	AfterAccount []string
	// Aliases says how further addresses of accounts are found, by domain. Those of
	// a domain without an entry are not looked for.
	Aliases map[string]*Aliases
	// Rate bounds what is taken from each source server.
	Rate    config.Rate
	Log     *zap.Logger
	Metrics prometheus.Registerer
	// Step, if set, is called at the named steps of the work (see Steps), in the
	// goroutine that does it; several folders of an account may be worked on at a
	// time. Tests kill the process there.
	Step func(name string)
}

// Migrator moves accounts.
type Migrator struct {
	o         Options
	metrics   *metrics
	memory    *memory
	hosts     *hosts
	after     *after // nil where no command is to be run
	wake      chan struct{}
	own       aliasresolve.Domains
	names     map[string]string // of the domains, by their A-labels
	lanes     int               // at most
	ioTimeout time.Duration
	pop       popTimes
	pause     func(attempts int) time.Duration
	bulkLook  time.Duration
	// doubtPause, holdWait and flipTime bound the flip of an account that is parked
	// on the source.
	doubtPause, holdWait, flipTime time.Duration
}

// New prepares a Migrator. The error says which option is missing.
func New(o Options) (*Migrator, error) {
	switch {
	case o.Store == nil:
		return nil, errors.New("migrator: a store is needed")
	case o.Owner == "":
		return nil, errors.New("migrator: the owner needs a name that is the same after a restart")
	case o.Concurrency < 1:
		return nil, errors.New("migrator: migration.concurrency must be 1 or more")
	case o.CatchUp <= 0:
		return nil, errors.New("migrator: migration.catch_up must be more than 0")
	case o.SettleQuiet <= 0:
		return nil, errors.New("migrator: migration.settle_quiet must be more than 0")
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	metrics, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, fmt.Errorf("migrator: metrics: %w", err)
	}
	own, names := aliasresolve.Domains{}, map[string]string{}
	for name := range o.Domains {
		for ascii := range aliasresolve.NewDomains(name) {
			own[ascii], names[ascii] = true, name
		}
	}
	after, err := newAfter(o)
	if err != nil {
		return nil, err
	}
	return &Migrator{o: o, own: own, names: names, after: after, metrics: metrics, memory: newMemory(), hosts: newHosts(o.Rate), ioTimeout: ioTimeout,
		pop: defaultPopTimes, pause: pause, bulkLook: bulkLook, lanes: maxLanes,
		doubtPause: doubtPause, holdWait: holdWait, flipTime: flipTime,
		wake: make(chan struct{}, o.Concurrency)}, nil
}

// Run works until the context ends, and returns when every worker has put its
// account down.
func (m *Migrator) Run(ctx context.Context) error {
	err := m.o.Store.TakeBack(ctx, m.o.Owner)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("take back the work of the process before: %w", err)
	}
	for domain := range m.o.Domains {
		m.settleCompletion(ctx, domain)
	}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { m.watch(ctx) })
	all.Go(func() { m.janitor(ctx) })
	all.Go(func() { m.lookout(ctx) })
	if m.after != nil {
		for range afterConcurrency {
			all.Go(func() { m.runAfter(ctx) })
		}
	}
	for range m.o.Concurrency {
		all.Go(func() { m.worker(ctx) })
	}
	<-ctx.Done()
	return nil
}

// watch wakes the workers when an account is due, until the context ends.
func (m *Migrator) watch(ctx context.Context) {
	changes, cancel := m.o.Store.Subscribe(false)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case c, open := <-changes:
			if !open {
				return // the store was closed
			}
			switch c.State {
			case store.Provisioning, store.Copying, store.Waiting, store.Failed, store.Active, store.Finished:
			default:
				continue
			}
		case <-timer.C:
		}
		next := lookAgain
		due, err := m.o.Store.NextDue(ctx)
		switch {
		case err != nil:
			next = storePause
		case !due.IsZero():
			next = min(next, time.Until(due))
		}
		if err == nil && next <= 0 {
			m.wakeOne()
			next = storePause
		}
		timer.Reset(next)
	}
}

func (m *Migrator) wakeOne() {
	select {
	case m.wake <- struct{}{}:
	default: // every worker has a wake-up to come already
	}
}

// worker moves one account after the other, until the context ends.
func (m *Migrator) worker(ctx context.Context) {
	for {
		claim, err := m.o.Store.ClaimNext(ctx, m.o.Owner, lease)
		if ctx.Err() != nil && claim == nil {
			return
		}
		if err != nil {
			m.o.Log.Error("no work can be taken from the store", zap.Error(err))
			m.metrics.errors.WithLabelValues(errorInternal).Inc()
			if wait(ctx, storePause) != nil {
				return
			}
			continue
		}
		if claim != nil {
			m.wakeOne() // there may be more
			m.work(ctx, claim)
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		}
	}
}

// work moves one account as far as it can be moved now, and puts it down.
func (m *Migrator) work(ctx context.Context, claim *store.Claim) {
	m.metrics.inWork.Inc()
	defer m.metrics.inWork.Dec()
	hard, cancel := m.outlasting(ctx)
	defer cancel(nil)
	var renewal sync.WaitGroup
	defer renewal.Wait()
	ended := make(chan struct{})
	defer close(ended)
	renewal.Go(func() { m.renew(hard, claim, ended, cancel) })

	claim.RunAfter = m.after != nil
	j := m.newJob(ctx, claim)
	defer j.disconnect()
	j.putDown(hard, j.run(hard))
	m.settleCompletion(hard, j.id.Domain)
	m.after.wakeOne()
}

// outlasting is a context for what may go on for Grace after ctx has ended; then
// its cause is errStopped.
func (m *Migrator) outlasting(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	hard, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(m.o.Grace, func() { cancel(errStopped) })
		context.AfterFunc(hard, func() { t.Stop() })
	})
	context.AfterFunc(hard, func() { stop() })
	return hard, cancel
}

// settleCompletion ends the completion of a domain if this was its last
// account. What cannot be written now is written at the next start.
func (m *Migrator) settleCompletion(ctx context.Context, domain string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putDownTimeout)
	defer cancel()
	if err := m.o.Store.SettleCompletion(ctx, domain); err != nil {
		m.o.Log.Error("what became of the completion could not be written", zap.String("domain", domain), zap.Error(err))
	}
}

// renew prolongs the lease until the work has ended. A claim that was lost
// ends the work.
func (m *Migrator) renew(ctx context.Context, claim *store.Claim, ended <-chan struct{}, lost context.CancelCauseFunc) {
	t := time.NewTicker(lease / 4)
	defer t.Stop()
	for {
		select {
		case <-ended:
			return
		case <-ctx.Done():
			return
		case <-t.C:
		}
		err := claim.Renew(ctx, lease)
		if errors.Is(err, store.ErrFenced) {
			lost(err)
			return
		}
		if err != nil {
			m.o.Log.Warn("a lease could not be renewed", zap.Error(err))
		}
	}
}

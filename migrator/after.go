package migrator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/provision/command"
	"migproxy/store"
)

const (
	// afterTimeout is how long the command after an account may take.
	afterTimeout = 30 * time.Second
	// afterConcurrency is how many of them run at a time, each for another
	// account.
	afterConcurrency = 2
	// afterTries is how often one is begun that the end of the process
	// interrupts: it may be what ends it.
	afterTries = 5
)

// after runs the administrator's command once an account has flipped, and once
// it is finished. What is to be run is in the store, written with the flip, and
// leaves it when the command has ended, however that was. So it is run at least
// once, again after a crash, and nothing of the account depends on it.
type after struct {
	command *command.Command
	wake    chan struct{}

	mu    sync.Mutex
	taken map[int64]bool // accounts for which it runs now
}

// newAfter returns nil where no command is to be run.
func newAfter(o Options) (*after, error) {
	if len(o.AfterAccount) == 0 {
		return nil, nil
	}
	c, err := command.New(o.AfterAccount, afterTimeout)
	if err != nil {
		return nil, fmt.Errorf("migration.after_account: %w", err)
	}
	return &after{command: c, wake: make(chan struct{}, 1), taken: map[int64]bool{}}, nil
}

// wakeOne has one goroutine look for a run. A nil after has none.
func (a *after) wakeOne() {
	if a == nil {
		return
	}
	select {
	case a.wake <- struct{}{}:
	default: // one is to look already
	}
}

// take takes the oldest run whose account has none under way; nil where there
// is none.
func (a *after) take(ctx context.Context, s *store.Store) (*store.AfterRun, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// Those under way take two rows each at most.
	runs, err := s.AfterRuns(ctx, 2*afterConcurrency+1)
	if err != nil {
		return nil, err
	}
	for _, r := range runs {
		if !a.taken[r.AccountID] {
			a.taken[r.AccountID] = true
			return &r, nil
		}
	}
	return nil, nil
}

func (a *after) putBack(r *store.AfterRun) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.taken, r.AccountID)
}

// runAfter runs what is to be run, one after the other, until the context ends.
func (m *Migrator) runAfter(ctx context.Context) {
	for ctx.Err() == nil {
		r, err := m.after.take(ctx, m.o.Store)
		if r != nil {
			m.after.wakeOne() // there may be more
			err = m.runAfterAccount(ctx, *r)
			m.after.putBack(r)
		}
		switch {
		case ctx.Err() != nil:
		case err != nil:
			m.o.Log.Error("the store fails the command after an account", zap.Error(err))
			_ = wait(ctx, storePause) // it ends with the context, which is looked at next
		case r == nil:
			select {
			case <-ctx.Done():
			case <-m.after.wake:
			}
		}
	}
}

// runAfterAccount runs the command for one account. Its error is the store's;
// what the command came to is an event.
func (m *Migrator) runAfterAccount(ctx context.Context, r store.AfterRun) error {
	hard, cancel := m.outlasting(ctx)
	defer cancel(nil)
	a, altered, err := m.o.Store.BeginAfterRun(hard, r)
	if err != nil {
		return err
	}
	address := a.Identity.Address()
	what := fmt.Sprintf("after_account for '%s' (%s)", address, r.State)
	log := m.o.Log.With(zap.String("account", address), zap.String("state", string(r.State)))
	m.step(stepAfterBegun)
	text := what + ": done"
	if r.Tries >= afterTries {
		err = fmt.Errorf("migproxy ended %d times while it ran", r.Tries)
	} else {
		var input []byte
		aliases, failed := m.o.Store.AccountAliases(hard, a.ID)
		if failed != nil {
			return failed
		}
		if input, err = afterInput(r, a, aliases, altered); err == nil {
			err = m.after.command.Run(hard, input, config.Secret{})
		}
	}
	switch {
	case err != nil && errors.Is(context.Cause(hard), errStopped):
		log.Info("the command after the account was stopped with the process, and is run again at the next start")
		return nil
	case err != nil:
		log.Warn("the command after the account has failed; the account is as it is", zap.Error(err))
		text = fmt.Sprintf("%s failed and is not run again: %s", what, err)
	}
	m.step(stepAfterEnded)
	end, stop := context.WithTimeout(context.WithoutCancel(hard), putDownTimeout)
	defer stop()
	return m.o.Store.EndAfterRun(end, r, address, text)
}

// afterInput is what the command reads on standard input. No password is in it.
func afterInput(r store.AfterRun, a store.Account, aliases []store.Alias, altered int64) ([]byte, error) {
	there := []string{}
	for _, l := range aliases {
		if l.State == store.AliasCreated {
			there = append(there, l.Address)
		}
	}
	type counts struct {
		Messages int64 `json:"messages"`
		Bytes    int64 `json:"bytes"`
		SetAside int64 `json:"set_aside"`
		Altered  int64 `json:"altered"`
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(struct {
		Address   string       `json:"address"`
		Domain    string       `json:"domain"`
		Aliases   []string     `json:"aliases"`
		State     store.State  `json:"state"`
		Origin    store.Origin `json:"origin"`
		FlippedAt time.Time    `json:"flipped_at"`
		Counts    counts       `json:"counts"`
	}{a.Identity.Address(), a.Identity.Domain, there, r.State, a.Origin, a.FlippedAt,
		counts{a.Messages, a.Bytes, a.SetAside, altered}})
	return b.Bytes(), err
}

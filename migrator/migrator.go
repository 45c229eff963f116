// Package migrator moves accounts: provision, copy, compare, flip. Its workers
// take what is due from the store and put every decision back into it, so that
// a crash at any point costs only time.
package migrator

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"migproxy/provision"
	"migproxy/store"
	"migproxy/upstream"
)

// Options are what a Migrator works with.
type Options struct {
	Store   *store.Store
	Domains map[string]*upstream.Domain
	Drivers map[string]provision.Driver // by domain
	Owner   string                      // this process, the same after a restart
	// Concurrency is how many accounts are moved at a time.
	Concurrency int
	// SettleQuiet is how long a target's UIDNEXT must have been still before an
	// interrupted batch is settled.
	SettleQuiet time.Duration
	// CredentialsMaxAge is how long a sealed password is kept after its last use.
	CredentialsMaxAge time.Duration
	Log               *zap.Logger
	Metrics           prometheus.Registerer
	// Step, if set, is called at the named steps of the work (see Steps), in
	// the worker's own goroutine. Tests kill the process there.
	Step func(name string)
}

// Migrator moves accounts.
type Migrator struct{}

// New prepares a Migrator.
func New(o Options) (*Migrator, error) { return nil, errors.ErrUnsupported }

// Run works until the context ends, and returns when every worker has put its
// account down.
func (m *Migrator) Run(ctx context.Context) error { return errors.ErrUnsupported }

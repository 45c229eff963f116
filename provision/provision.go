// Package provision creates accounts on a target. A driver is one way to do
// that; all drivers keep the same contract and pass the same suite of tests.
package provision

import (
	"context"
	"errors"

	"migproxy/config"
)

// ErrTaken says that the account or address exists and was not made by
// migproxy: nothing was changed.
var ErrTaken = errors.New("taken")

// Driver creates accounts on a target. Every operation is idempotent, so that
// it can be repeated after a crash. Every wait ends with the context. An error
// other than ErrTaken means that the operation may or may not have happened.
type Driver interface {
	// Lookup returns nil when the account's address is free, ErrTaken when it
	// is there.
	Lookup(ctx context.Context, account config.Identity) error
	// Ensure creates the account with this password. The caller has committed
	// that the name was free before: an account of that name is ours.
	Ensure(ctx context.Context, account config.Identity, password config.Secret) error
	// SetPassword sets the password of an account that is there.
	SetPassword(ctx context.Context, account config.Identity, password config.Secret) error
	// AddAlias makes alias (local@domain) an address of the account.
	AddAlias(ctx context.Context, account config.Identity, alias string) error
	// RemoveAlias takes it away again.
	RemoveAlias(ctx context.Context, account config.Identity, alias string) error
}

// New returns the driver that the settings name.
func New(cfg config.Provision) (Driver, error) { return nil, errors.ErrUnsupported }

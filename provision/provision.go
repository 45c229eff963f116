// Package provision creates accounts on a target. A driver is one way to do
// that; all drivers keep the same contract and pass the same suite of tests.
package provision

import (
	"context"
	"errors"
	"fmt"

	"migproxy/config"
)

// Errors that callers tell apart.
var (
	// ErrTaken says that the account or address exists and was not made by
	// migproxy: nothing was changed.
	ErrTaken = errors.New("taken")
	// ErrNoAccount says that the account, whose password was to be set, is not
	// there: nothing was changed.
	ErrNoAccount = errors.New("there is no such account on the target")
	// ErrNoAliases says that the driver knows no addresses beside the account's
	// own: nothing was changed, and nothing ever will be.
	ErrNoAliases = errors.New("a passwd-file holds no aliases; use the driver exec to create them")
)

// Driver creates accounts on a target. Every operation is idempotent, so that
// it can be repeated after a crash. Every wait ends with the context. An error
// other than the three above means that the operation may or may not have
// happened.
type Driver interface {
	// Lookup returns nil when the account's address is free, ErrTaken when it
	// is there.
	Lookup(ctx context.Context, account config.Identity) error
	// Ensure creates the account with this password. The caller has committed
	// that the name was free before: an account of that name is ours.
	Ensure(ctx context.Context, account config.Identity, password config.Secret) error
	// SetPassword sets the password of an account that is there. It is the
	// caller who knows that this account's password may be set.
	SetPassword(ctx context.Context, account config.Identity, password config.Secret) error
	// AddAlias makes alias (local@domain) an address of the account.
	AddAlias(ctx context.Context, account config.Identity, alias string) error
	// RemoveAlias takes it away again.
	RemoveAlias(ctx context.Context, account config.Identity, alias string) error
}

// New returns the driver that the settings name, and nil for the driver none.
// The error says which setting is wrong.
func New(cfg config.Provision) (Driver, error) {
	switch cfg.Driver {
	case config.DriverExec:
		return newExec(cfg)
	case config.DriverPasswdFile:
		return newPasswdFile(cfg)
	case config.DriverNone:
		return nil, nil
	default:
		return nil, fmt.Errorf("provision.driver: %q is not known; write exec, passwd-file or none", cfg.Driver)
	}
}

package migrator_test

import (
	"context"
	"errors"

	"migproxy/config"
	"migproxy/provision"
)

// fakeDriver creates the user of a fake server.
type fakeDriver struct {
	f       *fakeServer
	fail    error // answered by every call
	calls   []string
	aliases map[string]error // what adding one comes to
	there   map[string]bool  // aliases that were added
	stuck   error            // answered to RemoveAlias
}

func (d *fakeDriver) call(name string) error {
	d.calls = append(d.calls, name)
	return d.fail
}

func (d *fakeDriver) Lookup(context.Context, config.Identity) error {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	if err := d.call("lookup"); err != nil {
		return err
	}
	if d.f.exists {
		return provision.ErrTaken
	}
	return nil
}

func (d *fakeDriver) Ensure(_ context.Context, _ config.Identity, p config.Secret) error {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	if !d.f.exists {
		d.f.exists, d.f.password = true, p.Reveal()
	}
	return d.call("ensure")
}

func (d *fakeDriver) SetPassword(_ context.Context, _ config.Identity, p config.Secret) error {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	d.f.password = p.Reveal()
	return d.call("set_password")
}

func (d *fakeDriver) AddAlias(_ context.Context, _ config.Identity, alias string) error {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	if err := d.call("add_alias " + alias); err != nil {
		return err
	}
	if err := d.aliases[alias]; err != nil {
		return err
	}
	if d.there == nil {
		d.there = map[string]bool{}
	}
	d.there[alias] = true
	return nil
}

func (d *fakeDriver) RemoveAlias(_ context.Context, _ config.Identity, alias string) error {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	if err := d.call("remove_alias " + alias); err != nil || d.stuck != nil {
		return errors.Join(err, d.stuck)
	}
	delete(d.there, alias)
	return nil
}

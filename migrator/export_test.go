package migrator

import (
	"context"
	"time"

	"migproxy/provision/command"
)

// Hasten makes pauses and patience short, for tests.
func (m *Migrator) Hasten(pause, io time.Duration) {
	m.pause = func(int) time.Duration { return pause }
	m.ioTimeout = io
	m.bulkLook = pause
}

// LookAtDomain is the look at a domain, as if it were now.
func (m *Migrator) LookAtDomain(ctx context.Context, domain string, now time.Time) error {
	return m.lookAtDomain(ctx, domain, now)
}

// HastenAfter bounds the command after an account.
func (m *Migrator) HastenAfter(timeout time.Duration) {
	c, err := command.New(m.o.AfterAccount, timeout)
	if err != nil {
		panic(err)
	}
	m.after.command = c
}

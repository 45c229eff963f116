package migrator

import (
	"context"
	"time"
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

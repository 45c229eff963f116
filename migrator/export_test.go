package migrator

import (
	"context"
	"time"

	"migproxy/provision/command"
)

// OneLane has folders copied one after the other, for tests that end the worker's
// goroutine, or count what a server is asked.
func (m *Migrator) OneLane() { m.lanes = 1 }

// Hasten makes pauses and patience short, for tests.
func (m *Migrator) Hasten(pause, io time.Duration) {
	m.pause = func(int) time.Duration { return pause }
	m.ioTimeout = io
	m.pop.pause = pause
	m.bulkLook = pause
}

// HastenFlip bounds the waits of a flip of an account that is parked on the source.
func (m *Migrator) HastenFlip(doubt, hold, flip time.Duration) {
	m.doubtPause, m.holdWait, m.flipTime = doubt, hold, flip
}

// ShortSessions bounds the sessions over POP3, for tests.
func (m *Migrator) ShortSessions(session, idle time.Duration) {
	m.pop.session, m.pop.idle = session, idle
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

// LookAtBulk is one look at whether a bulk is over, and says what it was before.
func (m *Migrator) LookAtBulk(ctx context.Context, domain string, before bool) (over bool, err error) {
	return m.lookAtBulk(ctx, domain, before)
}

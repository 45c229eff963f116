package migrator

import "time"

// OneLane has folders copied one after the other, for tests that end the worker's
// goroutine, or count what a server is asked.
func (m *Migrator) OneLane() { m.lanes = 1 }

// Hasten makes pauses and patience short, for tests.
func (m *Migrator) Hasten(pause, io time.Duration) {
	m.pause = func(int) time.Duration { return pause }
	m.ioTimeout = io
	m.pop.pause = pause
}

// ShortSessions bounds the sessions over POP3, for tests.
func (m *Migrator) ShortSessions(session, idle time.Duration) {
	m.pop.session, m.pop.idle = session, idle
}

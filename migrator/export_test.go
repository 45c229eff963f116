package migrator

import "time"

// OneLane has folders copied one after the other, for tests that end the worker's
// goroutine, or count what a server is asked.
func (m *Migrator) OneLane() { m.lanes = 1 }

// Hasten makes pauses and patience short, for tests.
func (m *Migrator) Hasten(pause, io time.Duration) {
	m.pause = func(int) time.Duration { return pause }
	m.ioTimeout = io
}

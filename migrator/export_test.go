package migrator

import "time"

// Hasten makes pauses and patience short, for tests.
func (m *Migrator) Hasten(pause, io time.Duration) {
	m.pause = func(int) time.Duration { return pause }
	m.ioTimeout = io
}

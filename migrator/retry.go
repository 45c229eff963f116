package migrator

import (
	"context"
	"math/rand/v2"
	"time"
)

// pauses between tries that made no progress: seconds first, because most
// faults are a restart or a cut connection, then minutes.
var pauses = []time.Duration{
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 15 * time.Minute,
}

// pause is how long to wait after a number of tries without progress. It
// varies by a fifth, so that accounts that failed together do not come back
// together.
func pause(attempts int) time.Duration {
	p := pauses[min(max(attempts, 0), len(pauses)-1)]
	return p - p/5 + rand.N(2*p/5)
}

// wait waits for a time or for the end of the context.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

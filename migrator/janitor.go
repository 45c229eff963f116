package migrator

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// janitorPause is how often passwords that nobody used are looked for.
const janitorPause = time.Hour

// janitor erases sealed passwords that were not used for CredentialsMaxAge,
// until the context ends.
func (m *Migrator) janitor(ctx context.Context) {
	if m.o.CredentialsMaxAge <= 0 {
		return
	}
	for {
		m.eraseUnused(ctx)
		if wait(ctx, janitorPause) != nil {
			return
		}
	}
}

func (m *Migrator) eraseUnused(ctx context.Context) {
	n, err := m.o.Store.EraseUnused(ctx, time.Now().Add(-m.o.CredentialsMaxAge))
	if err == nil && n > 0 {
		err = m.o.Store.Event(ctx, "", fmt.Sprintf("%d passwords erased that were not used for %s: these accounts go on at their users' next login", n, m.o.CredentialsMaxAge))
	}
	if err != nil && ctx.Err() == nil {
		m.o.Log.Error("unused passwords could not be erased; trying again in an hour", zap.Error(err))
	}
}

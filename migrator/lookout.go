package migrator

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"migproxy/store"
)

const (
	// bulkLook is how often it is looked whether a bulk is over. It must be so at
	// two looks: accounts of a list begin one after the other.
	bulkLook = 5 * time.Second
	// watchLook is how often it is looked whether a migration was left active or
	// stands still.
	watchLook = time.Minute
	// minute is how the log shows a time.
	minute = "2006-01-02 15:04 MST"
)

// lookout says what becomes of the migration as a whole, until the context
// ends.
func (m *Migrator) lookout(ctx context.Context) {
	over := map[string]bool{} // at the last look, by domain
	var watched time.Time
	for {
		now := time.Now()
		watch := now.Sub(watched) >= watchLook
		if watch {
			watched = now
		}
		for domain := range m.o.Domains {
			var err error
			if over[domain], err = m.lookAtBulk(ctx, domain, over[domain]); err == nil && watch {
				err = m.lookAtDomain(ctx, domain, now)
			}
			if err != nil && ctx.Err() == nil {
				m.o.Log.Error("the store cannot be asked how the migration goes", zap.String("domain", domain), zap.Error(err))
			}
		}
		if wait(ctx, m.bulkLook) != nil {
			return
		}
	}
}

// lookAtBulk ends the bulk of a domain that is over, and was over before.
func (m *Migrator) lookAtBulk(ctx context.Context, domain string, before bool) (over bool, err error) {
	if over, err = m.o.Store.BulkOver(ctx, domain); err != nil || !over || !before {
		return over, err
	}
	bulk, ended, err := m.o.Store.EndBulk(ctx, domain)
	if ended {
		m.o.Log.Info("Bulk migration finished", zap.String("domain", domain),
			zap.Int64("accounts", bulk.Accounts), zap.Int64("migrated", bulk.Migrated))
	}
	return false, err
}

// lookAtDomain says loudly, once a day, that a migration was left active or
// stands still.
func (m *Migrator) lookAtDomain(ctx context.Context, domain string, now time.Time) error {
	w, err := m.o.Store.Watch(ctx, domain)
	if err != nil {
		return err
	}
	if since, left := w.LeftActive(now); left {
		if err := m.warn(ctx, domain, store.WarnLeftActive, now, fmt.Sprintf(
			"THE MIGRATION OF %s IS STILL ACTIVE, and since %s no account has begun. If the move is over: `migproxy stop --domain %s`. If not, `migproxy start` says so",
			domain, since.Format(minute), domain)); err != nil {
			return err
		}
	}
	if since, still := w.StandsStill(now); still {
		return m.warn(ctx, domain, store.WarnStandstill, now, fmt.Sprintf(
			"THE MIGRATION OF %s STANDS STILL: %d accounts are to be moved, and since %s none has made progress. `migproxy accounts` says why",
			domain, w.ToMove, since.Format(minute)))
	}
	return nil
}

func (m *Migrator) warn(ctx context.Context, domain string, w store.Warning, now time.Time, text string) error {
	told, err := m.o.Store.Warn(ctx, domain, w, text, now)
	if told {
		m.o.Log.Warn(text, zap.String("domain", domain))
	}
	return err
}

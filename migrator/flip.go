package migrator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"migproxy/store"
)

// flip lets the account live on the target from now on, once the target has
// taken the newest password. A password sealed meanwhile is set and tried first.
func (j *job) flip(ctx context.Context) error {
	j.disconnect() // the target may count connections
	for {
		password, version, err := j.password(ctx)
		if err != nil {
			return err
		}
		// An account that was there keeps its own password; the one kept has
		// opened it in this run.
		if j.claim.Account.Origin != store.OriginAdopted {
			c, err := j.openTarget(ctx, password)
			if err != nil {
				return err
			}
			_ = c.Logout(ctx) // that it was let in is the whole answer
		}
		done, err := j.commitFlip(ctx, store.Active, version)
		if done || err != nil {
			return err
		}
		if j.stop.Err() != nil {
			return errStopped
		}
	}
}

// commitFlip ends the move. done is false when a newer password was sealed.
func (j *job) commitFlip(ctx context.Context, to store.State, version int64) (done bool, err error) {
	j.m.step(stepFlipBefore)
	n := j.claim.Account.Messages
	if err := j.claim.NoteSourceNext(ctx, j.settledNext()); err != nil {
		return false, err
	}
	err = j.claim.Flip(ctx, to, version, time.Now().Add(j.m.o.CatchUp))
	if errors.Is(err, store.ErrChanged) {
		if err := j.claim.Refresh(ctx); err != nil {
			return false, err
		}
		if j.claim.Account.PasswordVersion == version {
			return false, fmt.Errorf("the flip: %w", err)
		}
		return false, nil
	}
	if err != nil {
		return false, err
	}
	j.m.step(stepFlipped)
	j.m.memory.forget(j.claim.Account.ID)
	j.event(ctx, fmt.Sprintf("'%s' migrated, %d messages", j.address, n))
	j.log.Info("migrated", zap.Int64("messages", n))
	return true, nil
}

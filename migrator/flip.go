package migrator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

// flip lets the account live on the target from now on, once the target has
// taken the newest password. A password sealed meanwhile is set and tried first,
// if the source takes it: an administrator's need not be right.
func (j *job) flip(ctx context.Context) error {
	j.disconnect() // the target may count connections
	for {
		password, version, err := j.password(ctx)
		// An account that was there keeps its own password, which need not be
		// known; the one kept, or a master user, has opened it in this run.
		switch adopted := j.claim.Account.Origin == store.OriginAdopted; {
		case adopted && isHalt(err):
			version = j.claim.Account.PasswordVersion
		case isHalt(err) && j.domain.Source.Master != nil:
			return &halt{state: store.Waiting, retry: true, reason: errorPassword, err: errOwner}
		case err != nil:
			return err
		case !j.hasOpened(password) && !(adopted && j.sourceCreds.Master != nil):
			if err := j.proveNewest(ctx, password, version); err != nil {
				return err
			}
			continue // with what is the newest now
		case !adopted:
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

// hasOpened reports whether a password has opened the source in this run.
func (j *job) hasOpened(password config.Secret) bool {
	return j.sourceCreds.Master == nil && j.sourceCreds.Password.Reveal() == password.Reveal()
}

// proveNewest has the source try a password that was sealed during this run. If
// it does not take that, the one that has opened it takes its place again, as
// long as the source takes this one.
func (j *job) proveNewest(ctx context.Context, password config.Secret, version int64) error {
	err := j.trySource(ctx, password)
	if err == nil {
		j.sourceCreds = upstream.Credentials{Identity: j.id, Password: password}
		return nil
	}
	proved := j.sourceCreds.Password
	if !isPasswordHalt(err) || proved.IsZero() {
		return err
	}
	if err := j.trySource(ctx, proved); err != nil {
		return err
	}
	err = j.claim.SealAgain(ctx, proved, version)
	if err == nil {
		j.log.Info("a password that was given during the move is not taken by the source: the one before it is kept")
	}
	if errors.Is(err, store.ErrChanged) { // a newer one again
		return nil
	}
	return err
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

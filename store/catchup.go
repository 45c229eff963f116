package store

import (
	"context"
	"time"
)

// These methods belong to accounts that have flipped.

// RefusePassword notes that one side no longer takes the password kept for it:
// Password does not give it any more. KeepPassword says when it is tried again.
func (c *Claim) RefusePassword(ctx context.Context, side Side) error {
	return c.write(ctx, func(x *tx) error {
		_, err := x.exec("UPDATE credentials SET refused = TRUE WHERE account_id = $1 AND side = $2", c.id, side)
		return err
	})
}

// NeedPassword notes whether the account waits for its owner to log in on the
// target, see KeepPassword.
func (c *Claim) NeedPassword(ctx context.Context, needs bool) error {
	return c.update(ctx, nil, "needs_password = $3", needs)
}

// NoteSourceNext commits the UIDNEXT of the source's folders, by their ID,
// below which everything is settled.
func (c *Claim) NoteSourceNext(ctx context.Context, next map[int64]uint32) error {
	if len(next) == 0 {
		return nil
	}
	return c.write(ctx, func(x *tx) error {
		for id, uid := range next {
			if _, err := x.exec("UPDATE folders SET source_uidnext = $1 WHERE id = $2 AND account_id = $3", uid, id, c.id); err != nil {
				return err
			}
		}
		return nil
	})
}

// CaughtUp ends the claim on an active account for which the source has nothing
// new, and says when to look again. Where the account is to be finished
// meanwhile, or got a new password, it is due at once.
func (c *Claim) CaughtUp(ctx context.Context, due time.Time) error {
	return c.update(ctx, nil, `reason = '', attempts = 0, caught_up_at = $1, needs_password = FALSE,
		due = CASE WHEN woken OR finishing <> '' THEN $1 ELSE $3 END,
		woken = FALSE, owner = '', lease_until = 0, fence = fence + 1`, millis(due))
}

// Finish makes an active account finished and ends the claim: its passwords are
// erased, and its source is not asked for it again; what was decided of its
// aliases meanwhile is still carried out. Where it is no longer to be
// finished, or got a message set aside against which FinishWhole stands:
// ErrChanged.
func (c *Claim) Finish(ctx context.Context) error {
	return c.update(ctx, func(x *tx) error {
		a, err := x.accountByID(c.id)
		if err != nil {
			return err
		}
		if a.State != Active || a.Finishing == NotFinishing || a.Finishing == FinishWhole && a.SetAside > 0 {
			return ErrChanged
		}
		if err := c.noteAfter(x, Finished); err != nil {
			return err
		}
		return x.erasePasswords(c.id)
	}, `state = 'finished', finishing = '', reason = '', attempts = 0, caught_up_at = $1, needs_password = FALSE,
		due = CASE WHEN woken THEN $1 ELSE 0 END, woken = FALSE, owner = '', lease_until = 0, fence = fence + 1`)
}

// CatchUpNow makes an active account due, unless it was caught up after since
// or has a reason to wait. It is called at its owner's login.
func (s *Store) CatchUpNow(ctx context.Context, id int64, since time.Time) error {
	return s.write(ctx, func(x *tx) error {
		now := time.Now()
		n, err := x.exec(`UPDATE accounts SET due = $1 WHERE id = $2 AND state = 'active' AND due > $1
			AND reason = '' AND caught_up_at <= $3`, millis(now), id, millis(since))
		if err != nil || n == 0 {
			return err
		}
		_, err = x.written(id)
		return err
	})
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Claim is a worker's hold on one account. Every write through it checks the
// fencing number and returns ErrFenced when it was lost. It is safe for
// concurrent use, but for the fields Account and Stopped, which belong to the
// worker: the methods that write them are Refresh, SetOrigin, SetExpected, Release
// and Flip.
type Claim struct {
	Account Account // as it was when claimed; refreshed by the methods that write it
	// RunAfter: Flip and Finish note that the administrator's command is to be
	// run. It is set before the claim is used.
	RunAfter bool
	// MaxFailed is how many accounts of the domain may fail before Release stops
	// its migration; 0 is no limit. It is set before the claim is used.
	MaxFailed int
	// Stopped is why Release stopped the migration of the domain; empty where it
	// did not.
	Stopped string
	store   *Store
	id      int64 // the account's
	fence   int64
}

// TakeBack frees what a predecessor of this process held.
func (s *Store) TakeBack(ctx context.Context, owner string) error {
	return s.write(ctx, func(x *tx) error {
		_, err := x.exec(`UPDATE accounts SET owner = '', lease_until = 0, flipping = '',
			rolling_back = `+rollbackPutDown+`, fence = fence + 1 WHERE owner = $1`, owner)
		return err
	})
}

// catchUpPatience is how much longer than the others an active account may be
// due before it is its turn: whoever is being moved is waiting for it.
const catchUpPatience = 10 * time.Minute

// claimable: the source may still be asked for an account, or need not be, as
// nothing but its aliases on the target is left to see to.
const claimable = `(state IN ('finished', 'excluded') OR domain NOT IN (SELECT name FROM domains WHERE finished)
	OR state = 'active' AND ` + aliasesDue + `)`

// ClaimNext claims the account that has been due for longest, those that are to
// be caught up after those that are being moved, finished or taken back; nil when none is.
// owner must not be empty. A waiting or failed account goes on in the state in
// which its work stopped: provisioning or copying. One of a finished domain, whose
// source is not asked any more, is claimed for its aliases alone.
func (s *Store) ClaimNext(ctx context.Context, owner string, lease time.Duration) (*Claim, error) {
	if owner == "" {
		return nil, errors.New("a claim needs an owner")
	}
	var claim *Claim
	err := s.write(ctx, func(x *tx) error {
		now := time.Now()
		c := &Claim{store: s}
		err := x.get(`UPDATE accounts SET owner = $1, lease_until = $2, flipping = '',
			rolling_back = `+rollbackPutDown+`, fence = fence + 1, woken = FALSE,
			state = CASE WHEN state NOT IN ('waiting', 'failed') THEN state
				WHEN origin IN ('created', 'adopted') THEN 'copying' ELSE 'provisioning' END,
			updated_at = $3
			WHERE id = (SELECT id FROM accounts
				WHERE due > 0 AND due <= $3 AND (owner = '' OR lease_until < $3) AND `+claimable+`
				ORDER BY due + CASE WHEN state = 'active' AND finishing = '' AND rolling_back = '' THEN $4 ELSE 0 END, id LIMIT 1)
			RETURNING id, fence`,
			[]any{owner, millis(now.Add(lease)), millis(now), catchUpPatience.Milliseconds()}, &c.id, &c.fence)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		// What a predecessor did not finish to set aside is fetched again.
		if _, err := x.exec(`DELETE FROM quarantine WHERE NOT complete
			AND folder_id IN (SELECT id FROM folders WHERE account_id = $1)`, c.id); err != nil {
			return err
		}
		if c.Account, err = x.written(c.id); err == nil {
			claim = c
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return claim, nil
}

// NextDue is when the next unclaimed account that ClaimNext would claim is due;
// zero when none is. An account whose claim has run out counts as unclaimed.
func (s *Store) NextDue(ctx context.Context) (time.Time, error) {
	var due int64
	err := s.r.QueryRowContext(ctx, `SELECT COALESCE(MIN(due), 0) FROM accounts
		WHERE due > 0 AND (owner = '' OR lease_until < $1) AND `+claimable, time.Now().UnixMilli()).Scan(&due)
	return moment(due), dbError(err)
}

// write runs fn in a transaction that holds only while the claim does.
func (c *Claim) write(ctx context.Context, fn func(*tx) error) error {
	return c.store.write(ctx, func(x *tx) error {
		// An update, not a query: it locks the row against a new claim.
		n, err := x.exec("UPDATE accounts SET fence = fence WHERE id = $1 AND fence = $2", c.id, c.fence)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrFenced
		}
		return fn(x)
	})
}

// update writes columns of the account and refreshes c.Account.
func (c *Claim) update(ctx context.Context, prepare func(*tx) error, set string, args ...any) error {
	var a Account
	err := c.write(ctx, func(x *tx) error {
		if prepare != nil {
			if err := prepare(x); err != nil {
				return err
			}
		}
		_, err := x.exec("UPDATE accounts SET updated_at = $1, "+set+" WHERE id = $2",
			append([]any{time.Now().UnixMilli(), c.id}, args...)...)
		if err != nil {
			return err
		}
		a, err = x.written(c.id)
		return err
	})
	if err == nil {
		c.Account = a
	}
	return err
}

// Renew prolongs the lease.
func (c *Claim) Renew(ctx context.Context, lease time.Duration) error {
	return c.write(ctx, func(x *tx) error {
		_, err := x.exec("UPDATE accounts SET lease_until = $1 WHERE id = $2",
			time.Now().Add(lease).UnixMilli(), c.id)
		return err
	})
}

// Refresh reads the account again.
func (c *Claim) Refresh(ctx context.Context) error {
	a, err := scanAccount(c.store.r.QueryRowContext(ctx,
		"SELECT "+accountColumns+" FROM accounts WHERE id = $1 AND fence = $2", c.id, c.fence))
	if errors.Is(err, sql.ErrNoRows) {
		return ErrFenced
	}
	if err != nil {
		return dbError(err)
	}
	c.Account = a
	return nil
}

// SetOrigin commits how the account comes to be on the target; with
// OriginCreated and OriginAdopted the state becomes copying. With OriginCreated the
// password with which the account was created is erased, unless its owner's is not
// known yet.
func (c *Claim) SetOrigin(ctx context.Context, o Origin) error {
	return c.update(ctx, func(x *tx) error {
		if o != OriginCreated {
			return nil
		}
		n, err := x.exec(`DELETE FROM credentials WHERE account_id = $1 AND side = $2
			AND EXISTS (SELECT 1 FROM credentials WHERE account_id = $1 AND side = $3)`, c.id, SideTarget, SideSource)
		x.erased = x.erased || n > 0
		return err
	}, "origin = $3, state = $4", o, resumed(o))
}

// SetExpected commits how many messages the source has.
func (c *Claim) SetExpected(ctx context.Context, n int64) error {
	return c.update(ctx, nil, "expected = $3", n)
}

// finishTries is how often the last pass of an account is tried.
const finishTries = 3

// Release ends the claim and says when to look again: state (waiting, failed,
// conflict, or unchanged), the reason, and due (zero: never by itself).
// Attempts count up when failed is true, and start again from zero otherwise.
// An account that got a new password while it was claimed is due at once,
// whatever due says. The last pass of an account is given up where it has
// failed finishTries times, or where nothing but an administrator helps; not
// where it was asked for during this claim. An account that has failed may stop
// the migration of its domain: see countFailed.
func (c *Claim) Release(ctx context.Context, to State, reason string, due time.Time, failed bool) error {
	stopped := ""
	err := c.update(ctx, func(x *tx) (err error) {
		if stopped, err = c.countFailed(x, to, reason, failed); err != nil || !failed {
			return err
		}
		_, err = x.exec(`INSERT INTO counters (name, value) VALUES ('errors', 1)
			ON CONFLICT (name) DO UPDATE SET value = counters.value + 1`)
		return err
	}, `state = $3, reason = $4, due = CASE WHEN woken THEN $1 ELSE $5 END,
		finishing = CASE WHEN $6 AND NOT woken AND (attempts + 1 >= $7 OR $5 = 0) THEN '' ELSE finishing END,
		attempts = CASE WHEN $6 THEN attempts + 1 ELSE 0 END, rolling_back = `+rollbackPutDown+`,
		woken = FALSE, flipping = '', owner = '', lease_until = 0, fence = fence + 1`,
		to, plain(reason), millis(due), failed, finishTries)
	if err == nil {
		c.Stopped = stopped
	}
	return err
}

// Flip makes the account active, due for its first catch-up then, or at once where
// something was decided of its aliases meanwhile, or, in mode passwords, finished,
// and ends the claim; but only while PasswordVersion is still passwordVersion:
// otherwise ErrChanged, and the newer password is to be set and tried first. From
// now on each side has a sealed password of its own. What is finished needs none:
// they are erased with their keys.
func (c *Claim) Flip(ctx context.Context, to State, passwordVersion int64, due time.Time) error {
	return c.update(ctx, func(x *tx) error {
		a, err := x.accountByID(c.id)
		if err != nil {
			return err
		}
		if a.PasswordVersion != passwordVersion || a.Moved() {
			return ErrChanged
		}
		if err := c.noteAfter(x, to); err != nil {
			return err
		}
		if to == Finished {
			return x.erasePasswords(c.id)
		}
		// A stand-in. An account that was there before has its own.
		own, err := c.store.openPassword(x.QueryRowContext(x.ctx, selectPassword, c.id, SideTarget))
		if err != nil && !errors.Is(err, ErrNoPassword) {
			return err
		}
		if a.Origin != OriginAdopted || own.refused {
			if err := x.erasePassword(c.id, SideTarget); err != nil {
				return err
			}
		}
		_, err = x.exec(`INSERT INTO credentials (account_id, side, sealed_key, sealed, used_at, refused)
			SELECT account_id, $2, sealed_key, sealed, used_at, refused FROM credentials
			WHERE account_id = $1 AND side = $3
			AND NOT EXISTS (SELECT 1 FROM credentials WHERE account_id = $1 AND side = $2)`, c.id, SideTarget, SideSource)
		return err
	}, `state = $3, reason = '', attempts = 0, due = CASE WHEN `+aliasesDue+` THEN $1 ELSE $4 END, flipped_at = $1, progress_at = $1,
		failing = FALSE, woken = FALSE, flipping = '', owner = '', lease_until = 0, fence = fence + 1`, to, millis(due))
}

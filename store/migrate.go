package store

import (
	"context"
	"errors"
	"time"

	"migproxy/config"
)

// Migrate is Begin by the administrator's command, whatever the wave: it also
// makes an account go on that waits, failed or is in conflict, adopts with
// Adopt one that is native or in conflict, moves anew what was taken back, and
// notes aliases. Without a password
// the account is moved with the help of a master user. An account that has moved,
// or is excluded otherwise, is ErrChanged; begun is false for one that is being moved
// already.
func (s *Store) Migrate(ctx context.Context, n NewAccount) (a Account, begun bool, err error) {
	err = s.write(ctx, func(x *tx) error {
		now := time.Now()
		a, err = x.account(n.Identity.Address())
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		known := err == nil
		switch {
		case !known, a.State == AtSource, n.Adopt && (a.State == Native || a.State == Conflict):
			begun = true
			if !known {
				if a.ID, err = x.insertAccount(n.Identity, Provisioning, now); err != nil {
					return err
				}
			}
			err = s.begin(x, a.ID, n, now)
		case a.State == Provisioning, a.State == Copying:
			err = s.moreOf(x, a, n, now)
		case a.State == Excluded && !n.Adopt && n.Mode == config.ModeAccounts:
			begun = true
			if err = x.moveAnew(a, Copying, "", now); err == nil {
				err = s.moreOf(x, a, n, now)
			}
		case a.State == Waiting, a.State == Failed, a.State == Conflict:
			begun = true
			if err = s.moreOf(x, a, n, now); err == nil {
				err = errors.Join(x.retry(a), x.beginBulk(a.Identity.Domain, now))
			}
		default:
			return ErrChanged
		}
		if err != nil {
			return err
		}
		if err := x.giveAliases(a.ID, n.Identity.Address(), n.Aliases, now); err != nil {
			return err
		}
		a, err = x.written(a.ID)
		return err
	})
	return a, begun, err
}

// Adopt has the mail of an account in conflict copied into what the target has
// under its name, whose password is never set. Others, and those of a finished
// domain, are ErrChanged.
func (s *Store) Adopt(ctx context.Context, address string) (a Account, err error) {
	err = s.write(ctx, func(x *tx) error {
		if a, err = x.account(address); err != nil {
			return err
		}
		finished, err := x.finished(a.Identity.Domain)
		if err != nil {
			return err
		}
		if a.State != Conflict || finished {
			return ErrChanged
		}
		if _, err := x.exec(`UPDATE accounts SET state = $1, origin = $2, reason = '', attempts = 0, due = $3, updated_at = $3
			WHERE id = $4`, Copying, OriginAdopted, time.Now().UnixMilli(), a.ID); err != nil {
			return err
		}
		a, err = x.written(a.ID)
		return err
	})
	return a, err
}

// RetryWith is Retry with a new password, for an account that is not active and
// does not go on by itself. One that cannot be tried again is ErrChanged, and keeps
// the password that it has.
func (s *Store) RetryWith(ctx context.Context, address string, password config.Secret) (a Account, err error) {
	err = s.write(ctx, func(x *tx) error {
		if a, err = x.account(address); err != nil {
			return err
		}
		if a.State == Active || a.State == Provisioning || a.State == Copying {
			return ErrChanged
		}
		if err := x.retry(a); err != nil {
			return err
		}
		if _, err := s.sealNewest(x, a, password, time.Now()); err != nil {
			return err
		}
		a, err = x.written(a.ID)
		return err
	})
	return a, err
}

// moreOf seals a password that is given for an account that is being moved.
func (s *Store) moreOf(x *tx, a Account, n NewAccount, now time.Time) error {
	if n.Password.IsZero() {
		return nil
	}
	_, err := s.sealNewest(x, a, n.Password, now)
	return err
}

package store

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"migproxy/config"
)

// useGrain is how exactly the last use of a password is kept: to write it at
// every use would make each reading a commit.
const useGrain = time.Hour

// SealPassword keeps the newest password of an account that is being moved
// (provisioning, copying, waiting, failed), counts PasswordVersion up unless it
// is the one kept already, and makes the account due. In every other state, so
// after the flip, it returns ErrChanged.
func (s *Store) SealPassword(ctx context.Context, id int64, password config.Secret) (version int64, err error) {
	err = s.write(ctx, func(x *tx) error {
		a, err := x.accountByID(id)
		if err != nil {
			return err
		}
		switch a.State {
		case Provisioning, Copying, Waiting, Failed:
		default:
			return ErrChanged
		}
		if version, err = s.sealNewest(x, a, password, time.Now()); err != nil {
			return err
		}
		_, err = x.written(id)
		return err
	})
	return version, err
}

// sealNewest is SealPassword within a transaction, in any state.
func (s *Store) sealNewest(x *tx, a Account, password config.Secret, now time.Time) (version int64, err error) {
	version = a.PasswordVersion
	kept, err := s.openPassword(x.QueryRowContext(x.ctx, selectPassword, a.ID, SideSource))
	switch {
	case err != nil && !errors.Is(err, ErrNoPassword):
		return version, err
	case err == nil && kept.password.Reveal() == password.Reveal():
		err = x.usePassword(a.ID, SideSource, now)
	default:
		version++
		err = s.sealPassword(x, a.ID, SideSource, a.Identity.Address(), password, now)
	}
	if err != nil {
		return version, err
	}
	// woken: a worker that has the account now may have read the older
	// password; its Release must not put the account to rest.
	_, err = x.exec(`UPDATE accounts SET due = $1, woken = (woken OR $2), updated_at = $1 WHERE id = $3`,
		millis(now), version != a.PasswordVersion, a.ID)
	return version, err
}

// KeepPassword keeps a password for an active account that NeedsPassword, for
// each side that has none which it takes, and makes the account due, so that
// the servers are tried with it. proved says that it has just opened the target
// at a login; nothing says so of the source, which is tried once: a password
// that it has refused before is not tried there again. What has opened the
// target is tried there again, as the refusal was a mistake; so is on both sides
// what the administrator gives (proved is false). In any other case, and in a
// finished domain, it changes nothing.
func (s *Store) KeepPassword(ctx context.Context, id int64, password config.Secret, proved bool) error {
	return s.write(ctx, func(x *tx) error {
		a, err := x.accountByID(id)
		if err != nil || a.State != Active || !a.NeedsPassword {
			return err
		}
		if finished, err := x.finished(a.Identity.Domain); err != nil || finished {
			return err
		}
		now, news := time.Now(), false
		for _, side := range []Side{SideSource, SideTarget} {
			kept, err := s.openPassword(x.QueryRowContext(x.ctx, selectPassword, id, side))
			switch {
			case err != nil && !errors.Is(err, ErrNoPassword):
				return err
			case err == nil && kept.password.Reveal() == password.Reveal():
				if !kept.refused || proved && side == SideSource {
					continue
				}
				news = true
				if err := x.unrefusePassword(id, side, now); err != nil {
					return err
				}
				continue
			case err == nil && !kept.refused && !(proved && side == SideTarget):
				continue
			}
			news = true
			if err := s.sealPassword(x, id, side, a.Identity.Address(), password, now); err != nil {
				return err
			}
		}
		if !news {
			return nil
		}
		if _, err := x.exec(`UPDATE accounts SET due = $1, woken = TRUE, updated_at = $1 WHERE id = $2`, millis(now), id); err != nil {
			return err
		}
		_, err = x.written(id)
		return err
	})
}

// KeepTargetPassword keeps a password that has just opened the target, for an
// account that was there before and whose old mail is still being copied to it,
// and makes the account due, unless it is the one kept for the target already and
// not refused there since. In any other case it changes nothing.
func (s *Store) KeepTargetPassword(ctx context.Context, id int64, password config.Secret) error {
	return s.write(ctx, func(x *tx) error {
		a, err := x.accountByID(id)
		if err != nil || !a.CopiesIntoOwn() {
			return err
		}
		kept, err := s.openPassword(x.QueryRowContext(x.ctx, selectPassword, id, SideTarget))
		switch {
		case err != nil && !errors.Is(err, ErrNoPassword):
			return err
		case err == nil && !kept.refused && kept.password.Reveal() == password.Reveal():
			return nil
		}
		now := time.Now()
		if err := s.sealPassword(x, id, SideTarget, a.Identity.Address(), password, now); err != nil {
			return err
		}
		if _, err := x.exec(`UPDATE accounts SET due = $1, woken = TRUE, updated_at = $1 WHERE id = $2`, millis(now), id); err != nil {
			return err
		}
		_, err = x.written(id)
		return err
	})
}

// SealAgain keeps a password that the source has taken in place of one that it
// does not take, which has this version. If there is a newer one: ErrChanged.
func (c *Claim) SealAgain(ctx context.Context, password config.Secret, version int64) error {
	return c.write(ctx, func(x *tx) error {
		a, err := x.accountByID(c.id)
		if err != nil {
			return err
		}
		if a.PasswordVersion != version {
			return ErrChanged
		}
		return c.store.sealPassword(x, c.id, SideSource, a.Identity.Address(), password, time.Now())
	})
}

// SealStandIn keeps the password with which the account is created on the target,
// which is one of our own until its owner's is known.
func (c *Claim) SealStandIn(ctx context.Context, password config.Secret) error {
	return c.write(ctx, func(x *tx) error {
		a, err := x.accountByID(c.id)
		if err != nil {
			return err
		}
		return c.store.sealPassword(x, c.id, SideTarget, a.Identity.Address(), password, time.Now())
	})
}

// sealPassword keeps a password under a fresh key, in place of the one before,
// and counts the version up if it is that of the source.
func (s *Store) sealPassword(x *tx, id int64, side Side, address string, password config.Secret, now time.Time) error {
	if err := x.erasePassword(id, side); err != nil {
		return err
	}
	secret := make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(secret) // never fails (crypto/rand since Go 1.24)
	key, err := chacha20poly1305.NewX(secret)
	if err != nil {
		return err
	}
	if _, err := x.exec(`INSERT INTO credentials (account_id, side, sealed_key, sealed, used_at, refused)
		VALUES ($1, $2, $3, $4, $5, FALSE)`,
		id, side, seal(s.key, secret, address), seal(key, []byte(password.Reveal()), address), millis(now)); err != nil {
		return err
	}
	if side != SideSource {
		return nil
	}
	_, err = x.exec("UPDATE accounts SET password_version = password_version + 1 WHERE id = $1", id)
	return err
}

// erasePassword deletes the sealed password of one side and its key.
func (x *tx) erasePassword(id int64, side Side) error {
	n, err := x.exec("DELETE FROM credentials WHERE account_id = $1 AND side = $2", id, side)
	x.erased = x.erased || n > 0
	return err
}

// erasePasswords deletes the sealed passwords of an account and their keys.
func (x *tx) erasePasswords(id int64) error {
	return errors.Join(x.erasePassword(id, SideSource), x.erasePassword(id, SideTarget))
}

func (x *tx) usePassword(id int64, side Side, now time.Time) error {
	_, err := x.exec("UPDATE credentials SET used_at = $1 WHERE account_id = $2 AND side = $3", millis(now), id, side)
	return err
}

// unrefusePassword takes back that a side has refused the password kept for it.
func (x *tx) unrefusePassword(id int64, side Side, now time.Time) error {
	_, err := x.exec("UPDATE credentials SET refused = FALSE, used_at = $1 WHERE account_id = $2 AND side = $3", millis(now), id, side)
	return err
}

const selectPassword = `SELECT a.address, a.password_version, c.sealed_key, c.sealed, c.used_at, c.refused
	FROM credentials c JOIN accounts a ON a.id = c.account_id WHERE a.id = $1 AND c.side = $2`

type keptPassword struct {
	password config.Secret
	version  int64
	usedAt   time.Time
	refused  bool
}

// openPassword opens what selectPassword found, or returns ErrNoPassword.
func (s *Store) openPassword(row *sql.Row) (keptPassword, error) {
	var address string
	var sealedKey, sealed []byte
	var used int64
	var kept keptPassword
	err := row.Scan(&address, &kept.version, &sealedKey, &sealed, &used, &kept.refused)
	if errors.Is(err, sql.ErrNoRows) {
		return kept, ErrNoPassword
	}
	if err != nil {
		return kept, dbError(err)
	}
	secret, err := open(s.key, sealedKey, address)
	var text []byte
	if err == nil {
		var key cipher.AEAD
		if key, err = chacha20poly1305.NewX(secret); err == nil {
			text, err = open(key, sealed, address)
		}
	}
	if err != nil {
		return kept, fmt.Errorf("the sealed password of %s cannot be opened (was the database changed by hand?): %w", address, err)
	}
	kept.password, kept.usedAt = config.NewSecret(text), moment(used)
	return kept, nil
}

// Password opens the sealed password with which an account logs in on one
// side, or returns ErrNoPassword: one that this side has refused is none. Until
// the flip the same password counts for both sides, and only the source's is
// kept.
func (s *Store) Password(ctx context.Context, id int64, side Side) (password config.Secret, version int64, err error) {
	kept, err := s.openPassword(s.r.QueryRowContext(ctx, selectPassword, id, side))
	if err == nil && kept.refused {
		err = ErrNoPassword
	}
	if err != nil {
		return config.Secret{}, 0, err
	}
	if now := time.Now(); now.Sub(kept.usedAt) > useGrain {
		err = s.write(ctx, func(x *tx) error { return x.usePassword(id, side, now) })
	}
	return kept.password, kept.version, err
}

// Unused counts the accounts with passwords last used before a time, and says when the first
// of them was; zero where there are none.
func (s *Store) Unused(ctx context.Context, before time.Time) (n int64, first time.Time, err error) {
	var used int64
	err = s.r.QueryRowContext(ctx, "SELECT COUNT(DISTINCT account_id), COALESCE(MIN(used_at), 0) FROM credentials WHERE used_at < $1",
		millis(before)).Scan(&n, &used)
	return n, moment(used), dbError(err)
}

// EraseUnused erases, with their keys, the passwords last used before a time,
// and says how many there were. A use is known to the hour.
func (s *Store) EraseUnused(ctx context.Context, before time.Time) (int, error) {
	var n int64
	err := s.write(ctx, func(x *tx) error {
		var err error
		n, err = x.exec("DELETE FROM credentials WHERE used_at < $1", millis(before))
		x.erased = n > 0
		return err
	})
	return int(n), err
}

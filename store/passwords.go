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
		now := time.Now()
		version = a.PasswordVersion
		kept, err := s.openPassword(x.QueryRowContext(x.ctx, selectPassword, id))
		switch {
		case err != nil && !errors.Is(err, ErrNoPassword):
			return err
		case err == nil && kept.password.Reveal() == password.Reveal():
			_, err = x.exec("UPDATE credentials SET used_at = $1 WHERE account_id = $2", millis(now), id)
		default:
			version++
			x.erased = err == nil // the one before
			err = s.sealPassword(x, id, a.Identity.Address(), password, now)
		}
		if err != nil {
			return err
		}
		// woken: a worker that has the account now may have read the older
		// password; its Release must not put the account to rest.
		if _, err := x.exec(`UPDATE accounts SET due = $1, woken = (woken OR $2), updated_at = $1 WHERE id = $3`,
			millis(now), version != a.PasswordVersion, id); err != nil {
			return err
		}
		_, err = x.written(id)
		return err
	})
	return version, err
}

// sealPassword keeps a password under a fresh key and counts the version up.
func (s *Store) sealPassword(x *tx, id int64, address string, password config.Secret, now time.Time) error {
	secret := make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(secret) // never fails (crypto/rand since Go 1.24)
	key, err := chacha20poly1305.NewX(secret)
	if err != nil {
		return err
	}
	if _, err := x.exec(`INSERT INTO credentials (account_id, sealed_key, sealed, used_at)
		VALUES ($1, $2, $3, $4) ON CONFLICT (account_id) DO UPDATE
		SET sealed_key = excluded.sealed_key, sealed = excluded.sealed, used_at = excluded.used_at`,
		id, seal(s.key, secret, address), seal(key, []byte(password.Reveal()), address), millis(now)); err != nil {
		return err
	}
	_, err = x.exec("UPDATE accounts SET password_version = password_version + 1 WHERE id = $1", id)
	return err
}

// erasePassword deletes the sealed password of an account and its key.
func (x *tx) erasePassword(id int64) error {
	n, err := x.exec("DELETE FROM credentials WHERE account_id = $1", id)
	x.erased = x.erased || n > 0
	return err
}

const selectPassword = `SELECT a.address, a.password_version, c.sealed_key, c.sealed, c.used_at
	FROM credentials c JOIN accounts a ON a.id = c.account_id WHERE a.id = $1`

type keptPassword struct {
	password config.Secret
	version  int64
	usedAt   time.Time
}

// openPassword opens what selectPassword found, or returns ErrNoPassword.
func (s *Store) openPassword(row *sql.Row) (keptPassword, error) {
	var address string
	var sealedKey, sealed []byte
	var used int64
	var kept keptPassword
	err := row.Scan(&address, &kept.version, &sealedKey, &sealed, &used)
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

// Password opens the sealed password of an account, or returns ErrNoPassword.
func (s *Store) Password(ctx context.Context, id int64) (password config.Secret, version int64, err error) {
	kept, err := s.openPassword(s.r.QueryRowContext(ctx, selectPassword, id))
	if err != nil {
		return config.Secret{}, 0, err
	}
	if now := time.Now(); now.Sub(kept.usedAt) > useGrain {
		err = s.write(ctx, func(x *tx) error {
			_, err := x.exec("UPDATE credentials SET used_at = $1 WHERE account_id = $2", millis(now), id)
			return err
		})
	}
	return kept.password, kept.version, err
}

// Unused counts the passwords last used before a time, and says when the first
// of them was; zero where there are none.
func (s *Store) Unused(ctx context.Context, before time.Time) (n int64, first time.Time, err error) {
	var used int64
	err = s.r.QueryRowContext(ctx, "SELECT COUNT(*), COALESCE(MIN(used_at), 0) FROM credentials WHERE used_at < $1",
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

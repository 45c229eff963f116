// Package store keeps accounts, their work, sealed passwords, the ledger of
// what was copied, events and statistics. The account's row is the one truth:
// there is no queue beside it.
//
// SQL is written so that SQLite and PostgreSQL both take it.
package store

import (
	"context"
	"crypto/cipher"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"go.uber.org/zap"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"migproxy/config"
)

// Errors that callers tell apart.
var (
	// ErrNotFound: there is no such account.
	ErrNotFound = errors.New("no such account")
	// ErrFenced: the claim was lost to another worker; stop and write nothing.
	ErrFenced = errors.New("the claim on this account was lost")
	// ErrChanged: the account is no longer in a state from which this may be done.
	ErrChanged = errors.New("the account has changed meanwhile")
	// ErrNoPassword: there is no sealed password, or it was erased.
	ErrNoPassword = errors.New("no password is kept for this account")
	// ErrRecorded: the ledger or the quarantine has this message already;
	// nothing was written.
	ErrRecorded = errors.New("this message is recorded already")
	// ErrNoAlias: no account has this alias.
	ErrNoAlias = errors.New("no such alias")
	// ErrSeveral: more than one account has it, and none was named.
	ErrSeveral = errors.New("several accounts have this alias")
	// ErrHeld: the address is another account's already.
	ErrHeld = errors.New("another account has this address")
)

//go:embed migrations/sqlite/*.sql
var migrations embed.FS

const (
	// busyTimeout bounds the wait for another process that holds the database.
	busyTimeout = 10 * time.Second
	// readers bounds the connections that read.
	readers = 4
)

// Store is safe for concurrent use.
type Store struct {
	log  *zap.Logger
	key  cipher.AEAD // the key file's
	w, r *sql.DB     // one connection that writes, some that read
	hub  hub
	// writing is held from before a transaction begins until its changes are
	// published, so that they are published in the order of the commits.
	writing chan struct{}
}

// Open opens (and where needed creates and upgrades) the database of the
// settings and reads or makes the key file (32 random bytes, mode 0600;
// refused when others may read it). A key file that cannot be used is a
// *KeyError.
func Open(ctx context.Context, cfg config.State, log *zap.Logger) (*Store, error) {
	scheme, path, _ := strings.Cut(cfg.URL, "://")
	if scheme != "sqlite" || path == "" {
		// The rest of the URL may hold a password.
		return nil, fmt.Errorf("state.url begins with %q: write sqlite:///path/to/migproxy.db", scheme)
	}
	if err := createPrivate(path); err != nil {
		return nil, fmt.Errorf("state.url: %w", err)
	}
	s := &Store{log: log, writing: make(chan struct{}, 1)}
	var err error
	if s.w, err = openSQLite(path, "_txlock=immediate"); err != nil {
		return nil, err
	}
	s.w.SetMaxOpenConns(1)
	if s.r, err = openSQLite(path, "_pragma=query_only(on)"); err != nil {
		return nil, errors.Join(err, s.w.Close())
	}
	s.r.SetMaxOpenConns(readers)
	s.r.SetMaxIdleConns(readers)
	if err := s.prepare(ctx, cfg.KeyFile); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// prepare upgrades the schema and unlocks the sealed passwords.
func (s *Store) prepare(ctx context.Context, keyFile string) error {
	if err := migrate(ctx, s.w); err != nil {
		return err
	}
	if err := s.unlock(ctx, keyFile); err != nil {
		return err
	}
	// A crash may have come between an erasure and this.
	s.truncateLog(ctx)
	return nil
}

// openSQLite sets up a pool. WAL and synchronous=FULL: a commit that returned
// survives a power failure. secure_delete: what is erased is overwritten.
func openSQLite(path, option string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("state.url: %w", err)
	}
	query := strings.Join([]string{
		fmt.Sprintf("_pragma=busy_timeout(%d)", busyTimeout.Milliseconds()),
		"_pragma=journal_mode(wal)", "_pragma=synchronous(full)",
		"_pragma=secure_delete(on)", "_pragma=foreign_keys(on)", option,
	}, "&")
	u := url.URL{Scheme: "file", Path: abs, RawQuery: query}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, dbError(err)
	}
	return db, nil
}

// createPrivate makes sure that the database file exists and is its owner's
// alone; SQLite gives the files beside it the same mode.
func createPrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

// migrationsOf is what brings a database up to a version of the schema.
func migrationsOf(db *sql.DB) (*goose.Provider, error) {
	dir, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		return nil, err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir)
	return p, dbError(err)
}

// migrate brings the schema up to this version's.
func migrate(ctx context.Context, db *sql.DB) error {
	p, err := migrationsOf(db)
	if err != nil {
		return err
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return dbError(err)
	}
	if have > want {
		return fmt.Errorf("the state database has schema %d and this migproxy knows %d: run the newer migproxy that wrote it", have, want)
	}
	if _, err := p.Up(ctx); err != nil {
		return dbError(err)
	}
	return nil
}

// Close ends all subscriptions and closes the database.
func (s *Store) Close() error {
	s.hub.close()
	return errors.Join(s.r.Close(), s.w.Close())
}

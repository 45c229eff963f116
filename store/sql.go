package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"
)

// dbError says where an error of the database came from.
func dbError(err error) error {
	if err == nil || errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return fmt.Errorf("state database: %w", err)
}

// tx is one writing transaction.
type tx struct {
	*sql.Tx
	ctx     context.Context
	changes []Change // to publish after the commit
	erased  bool     // a password was erased: leave no copy of it in the log
}

// write runs fn in a transaction and publishes its changes once it is
// committed. After an error nothing was written.
func (s *Store) write(ctx context.Context, fn func(*tx) error) error {
	select {
	case s.writing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.writing }()
	t, err := s.w.BeginTx(ctx, nil)
	if err != nil {
		return dbError(err)
	}
	x := &tx{Tx: t, ctx: ctx}
	if err := fn(x); err != nil {
		// The cause counts; a rollback fails only where the connection is gone.
		_ = t.Rollback()
		return err
	}
	if err := t.Commit(); err != nil {
		return dbError(err)
	}
	s.hub.publish(x.changes)
	if x.erased {
		s.truncateLog(ctx)
	}
	return nil
}

// truncateLog empties SQLite's write-ahead log, where the pages of an erased
// password are still to be found. The commit has happened already, so this goes
// on when the caller does not; while another process reads, the next checkpoint
// does it.
func (s *Store) truncateLog(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), busyTimeout)
	defer cancel()
	var busy, frames, moved int64
	err := s.w.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved)
	if err != nil || busy != 0 {
		s.log.Warn("an erased password stays in the state database's log until its next checkpoint", zap.Error(err))
	}
}

// exec runs a statement and returns the number of rows that it changed.
func (x *tx) exec(query string, args ...any) (int64, error) {
	res, err := x.ExecContext(x.ctx, query, args...)
	if err != nil {
		return 0, dbError(err)
	}
	n, err := res.RowsAffected()
	return n, dbError(err)
}

// get reads one row; without one the error is sql.ErrNoRows.
func (x *tx) get(query string, args []any, into ...any) error {
	return dbError(x.QueryRowContext(x.ctx, query, args...).Scan(into...))
}

// querier is a transaction or a pool.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// list reads all rows.
func list[T any](ctx context.Context, q querier, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, dbError(err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, dbError(err)
		}
		all = append(all, v)
	}
	return all, dbError(rows.Err())
}

// millis is how a time is stored; the zero time is 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// moment reads a stored time.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// plain makes text that a server may have sent fit for a TEXT column:
// PostgreSQL takes neither NUL nor invalid UTF-8.
func plain(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

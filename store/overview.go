package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"
)

// SeedActive records the settings' value at the first start; later it changes
// nothing. It returns the value in force.
func (s *Store) SeedActive(ctx context.Context, domain string, active bool) (bool, error) {
	err := s.write(ctx, func(x *tx) error {
		if _, err := x.exec("INSERT INTO domains (name, active) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING", domain, active); err != nil {
			return err
		}
		// Also where an older version, which did not keep the time, had started it.
		if _, err := x.exec("UPDATE domains SET active_since = $1 WHERE name = $2 AND active AND active_since = 0",
			time.Now().UnixMilli(), domain); err != nil {
			return err
		}
		return x.get("SELECT active FROM domains WHERE name = $1", []any{domain}, &active)
	})
	return active, err
}

// SetActive starts or stops the migration of a domain. Either ends what is said of
// one that stopped by itself; what has failed before a start no longer counts. A
// finished domain is not started again, nor one that is being completed:
// ErrChanged.
func (s *Store) SetActive(ctx context.Context, domain string, active bool) error {
	return s.write(ctx, func(x *tx) error {
		var since int64
		if active {
			since = time.Now().UnixMilli()
		}
		n, err := x.exec(`INSERT INTO domains (name, active, active_since) VALUES ($1, $2, $3)
			ON CONFLICT (name) DO UPDATE SET active = excluded.active, active_since = excluded.active_since, stopped_because = ''
			WHERE NOT excluded.active OR (NOT domains.finished AND domains.completing = '')`, domain, active, since)
		if err == nil && n == 0 {
			err = ErrChanged
		}
		if err == nil && active {
			_, err = x.exec("UPDATE accounts SET failing = FALSE WHERE domain = $1 AND failing", domain)
		}
		return err
	})
}

// ignoreNone leaves values as they are where there is no row.
func ignoreNone(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return dbError(err)
}

// Event appends a line to the migration's log; address may be empty.
func (s *Store) Event(ctx context.Context, address, text string) error {
	return s.write(ctx, func(x *tx) error { return x.event(address, text) })
}

func (x *tx) event(address, text string) error {
	_, err := x.exec("INSERT INTO events (at, address, text) VALUES ($1, $2, $3)",
		time.Now().UnixMilli(), address, plain(text))
	x.changes = append(x.changes, Change{Address: address})
	return err
}

const selectEvents = "SELECT id, at, address, text FROM events WHERE "

func scanEvent(rows *sql.Rows) (e Event, err error) {
	var at int64
	err = rows.Scan(&e.ID, &at, &e.Address, &e.Text)
	e.At = moment(at)
	return e, err
}

// Events lists events with an ID above after, oldest first, at most limit;
// address "" is all.
func (s *Store) Events(ctx context.Context, address string, after int64, limit int) ([]Event, error) {
	if address == "" {
		return list(ctx, s.r, scanEvent, selectEvents+"id > $1 ORDER BY id LIMIT $2", after, limit)
	}
	return list(ctx, s.r, scanEvent, selectEvents+"address = $1 AND id > $2 ORDER BY id LIMIT $3", address, after, limit)
}

// LastEvents lists the last n events of an account, oldest first.
func (s *Store) LastEvents(ctx context.Context, address string, n int) ([]Event, error) {
	events, err := list(ctx, s.r, scanEvent, selectEvents+"address = $1 ORDER BY id DESC LIMIT $2", address, n)
	slices.Reverse(events)
	return events, err
}

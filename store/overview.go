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
		return x.get("SELECT active FROM domains WHERE name = $1", []any{domain}, &active)
	})
	return active, err
}

// SetActive starts or stops the migration of a domain. A finished domain is not
// started again, nor one that is being completed: ErrChanged.
func (s *Store) SetActive(ctx context.Context, domain string, active bool) error {
	return s.write(ctx, func(x *tx) error {
		n, err := x.exec(`INSERT INTO domains (name, active) VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET active = excluded.active
			WHERE NOT excluded.active OR (NOT domains.finished AND domains.completing = '')`, domain, active)
		if err == nil && n == 0 {
			err = ErrChanged
		}
		return err
	})
}

// Statistics are the figures of `migproxy status`, over all domains.
type Statistics struct {
	StartedAt             time.Time       `json:"started_at"`         // when the first account began; zero before
	MailboxesSeen         int64           `json:"mailboxes_seen"`     // accounts that have a row
	MailboxesMigrated     int64           `json:"mailboxes_migrated"` // accounts that have flipped
	MailboxesFailed       int64           `json:"mailboxes_failed"`   // accounts in state failed
	MessagesMigrated      int64           `json:"messages_migrated"`  // copied or recognised
	BytesMigrated         int64           `json:"bytes_migrated"`     // octets copied
	AliasesCreated        int64           `json:"aliases_created"`    // accounts that have flipped, whose own name counts as one, and aliases
	LastMailbox           string          `json:"last_mailbox"`       // the one that flipped last
	LastMailboxMigratedAt time.Time       `json:"last_mailbox_migrated_at"`
	Errors                int64           `json:"errors"`                    // attempts that failed
	NeedPassword          int64           `json:"accounts_needing_password"` // active ones that cannot be caught up
	Accounts              map[State]int64 `json:"accounts"`                  // every state has an entry
}

// Statistics counts.
func (s *Store) Statistics(ctx context.Context) (Statistics, error) {
	st := Statistics{Accounts: make(map[State]int64)}
	for _, state := range States() {
		st.Accounts[state] = 0
	}
	// One transaction, so that the figures agree with each other.
	t, err := s.r.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return st, dbError(err)
	}
	defer func() { _ = t.Rollback() }() // nothing was written
	rows, err := t.QueryContext(ctx, `SELECT state, COUNT(*), SUM(messages), SUM(bytes),
		SUM(CASE WHEN flipped_at > 0 THEN 1 ELSE 0 END), SUM(CASE WHEN needs_password THEN 1 ELSE 0 END)
		FROM accounts GROUP BY state`)
	if err != nil {
		return st, dbError(err)
	}
	defer rows.Close()
	for rows.Next() {
		var state State
		var accounts, messages, bytes, flipped, needing int64
		if err := rows.Scan(&state, &accounts, &messages, &bytes, &flipped, &needing); err != nil {
			return st, dbError(err)
		}
		st.Accounts[state] = accounts
		st.MailboxesSeen += accounts
		st.MailboxesMigrated += flipped
		st.NeedPassword += needing
		st.MessagesMigrated += messages
		st.BytesMigrated += bytes
	}
	if err := rows.Err(); err != nil {
		return st, dbError(err)
	}
	st.MailboxesFailed = st.Accounts[Failed]
	if err := t.QueryRowContext(ctx, "SELECT COUNT(*) FROM aliases WHERE state = 'created'").Scan(&st.AliasesCreated); err != nil {
		return st, dbError(err)
	}
	st.AliasesCreated += st.MailboxesMigrated

	var started, last int64
	if err := t.QueryRowContext(ctx, "SELECT COALESCE(MIN(began_at), 0) FROM accounts WHERE began_at > 0").Scan(&started); err != nil {
		return st, dbError(err)
	}
	if err := ignoreNone(t.QueryRowContext(ctx, "SELECT value FROM counters WHERE name = 'errors'").Scan(&st.Errors)); err != nil {
		return st, err
	}
	err = ignoreNone(t.QueryRowContext(ctx, `SELECT address, flipped_at FROM accounts WHERE flipped_at > 0
		ORDER BY flipped_at DESC, id DESC LIMIT 1`).Scan(&st.LastMailbox, &last))
	st.StartedAt, st.LastMailboxMigratedAt = moment(started), moment(last)
	return st, err
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

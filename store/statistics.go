package store

import (
	"context"
	"database/sql"
	"time"
)

// Statistics are the figures of `migproxy status`, over all domains.
type Statistics struct {
	StartedAt             time.Time       `json:"started_at"`         // when the first account began; zero before
	MailboxesSeen         int64           `json:"mailboxes_seen"`     // accounts that have a row
	MailboxesMigrated     int64           `json:"mailboxes_migrated"` // accounts that have flipped
	MailboxesFailed       int64           `json:"mailboxes_failed"`   // accounts in state failed
	MessagesMigrated      int64           `json:"messages_migrated"`  // copied or recognised, each once, whatever became of them and of their account
	BytesMigrated         int64           `json:"bytes_migrated"`     // octets copied
	AliasesCreated        int64           `json:"aliases_created"`    // accounts that have flipped, whose own name counts as one, and aliases
	LastMailbox           string          `json:"last_mailbox"`       // the one that flipped last
	LastMailboxMigratedAt time.Time       `json:"last_mailbox_migrated_at"`
	Errors                int64           `json:"errors"`                    // attempts that failed
	NeedPassword          int64           `json:"accounts_needing_password"` // active ones that cannot be caught up
	Accounts              map[State]int64 `json:"accounts"`                  // every state has an entry
	Rate                  Rate            `json:"rate"`
	Remaining             Remaining       `json:"remaining"`
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
	if err != nil {
		return st, err
	}
	st.StartedAt, st.LastMailboxMigratedAt = moment(started), moment(last)
	if st.Rate, err = readRate(ctx, t, time.Now()); err != nil {
		return st, err
	}
	st.Remaining, err = readRemaining(ctx, t, st.Rate)
	return st, err
}

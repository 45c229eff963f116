package store

import (
	"context"
	"database/sql"
	"math"
	"time"
)

const (
	// paceMinutes is over how long the rate of the copy is taken.
	paceMinutes = 10
	// paceSlots is how many minutes have a row: more than are read.
	paceSlots = 16
)

// Rate is how fast mail of accounts that are being moved is copied: over those
// of the last ten minutes in which any was. Such a minute counts as a whole, and
// the present one as far as it has gone, so that the rate is too low in the
// first minutes rather than too high. It is kept in the database; catch-ups do
// not count.
type Rate struct {
	Messages float64 `json:"messages_per_second"`
	Bytes    float64 `json:"bytes_per_second"` // octets
	Seconds  int64   `json:"over_seconds"`     // of copying; 0: nothing was copied lately
}

// pace notes what was copied just now.
func (x *tx) pace(messages, bytes int64, now time.Time) error {
	minute := now.Unix() / 60
	_, err := x.exec(`INSERT INTO pace (slot, minute, messages, bytes) VALUES ($1, $2, $3, $4)
		ON CONFLICT (slot) DO UPDATE SET
			messages = excluded.messages + CASE WHEN pace.minute = excluded.minute THEN pace.messages ELSE 0 END,
			bytes = excluded.bytes + CASE WHEN pace.minute = excluded.minute THEN pace.bytes ELSE 0 END,
			minute = excluded.minute`,
		minute%paceSlots, minute, messages, bytes)
	return err
}

// readRate reads the rate as of now.
func readRate(ctx context.Context, q querier, now time.Time) (r Rate, err error) {
	present := now.Unix() / 60
	type minute struct{ minute, messages, bytes int64 }
	minutes, err := list(ctx, q, func(rows *sql.Rows) (m minute, err error) {
		err = rows.Scan(&m.minute, &m.messages, &m.bytes)
		return m, err
	}, "SELECT minute, messages, bytes FROM pace WHERE minute > $1 AND minute <= $2", present-paceMinutes, present)
	if err != nil || len(minutes) == 0 {
		return r, err
	}
	var messages, bytes int64
	for _, m := range minutes {
		messages, bytes = messages+m.messages, bytes+m.bytes
		if m.minute == present {
			r.Seconds += max(1, now.Unix()%60)
		} else {
			r.Seconds += 60
		}
	}
	r.Messages, r.Bytes = float64(messages)/float64(r.Seconds), float64(bytes)/float64(r.Seconds)
	return r, nil
}

// beingMoved are the states of accounts that have begun, have not flipped, and
// are to.
var beingMoved = []State{Provisioning, Copying, Waiting, Failed}

// Remaining is what is still to be copied of accounts that have begun. Those of
// whom nobody has logged in yet are not known, and those in conflict are for the
// administrator.
type Remaining struct {
	Accounts int64 `json:"accounts"`
	// Uncounted are those of the accounts whose messages were not counted yet, or
	// that have none.
	Uncounted int64 `json:"accounts_uncounted"`
	// Messages of the accounts that were counted, when they were.
	Messages int64 `json:"messages"`
	// Seconds that these messages take at the present rate; left out where
	// nothing was copied lately.
	Seconds int64 `json:"seconds,omitempty"`
}

// readRemaining counts what remains.
func readRemaining(ctx context.Context, t *sql.Tx, at Rate) (r Remaining, err error) {
	err = t.QueryRowContext(ctx, `SELECT COUNT(*),
		COALESCE(SUM(CASE WHEN expected = 0 AND mode <> 'passwords' THEN 1 ELSE 0 END), 0),
		COALESCE(SUM(CASE WHEN expected > messages + set_aside THEN expected - messages - set_aside ELSE 0 END), 0)
		FROM accounts WHERE state IN (`+quoted(beingMoved)+`)
		AND domain NOT IN (SELECT name FROM domains WHERE finished)`).Scan(&r.Accounts, &r.Uncounted, &r.Messages)
	if at.Messages > 0 {
		r.Seconds = int64(math.Ceil(float64(r.Messages) / at.Messages))
	}
	return r, dbError(err)
}

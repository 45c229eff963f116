package store

import (
	"context"
	"database/sql"
)

// AfterRun is a run of the administrator's command after an account, from the
// flip, or the end, that makes it due until it has ended.
type AfterRun struct {
	ID        int64
	AccountID int64
	State     State // what the account became: active or finished
	Tries     int   // how often it was begun
}

// noteAfter commits, with what the account becomes, that the command is to be
// run.
func (c *Claim) noteAfter(x *tx, became State) error {
	if !c.RunAfter {
		return nil
	}
	_, err := x.exec("INSERT INTO after_runs (account_id, state) VALUES ($1, $2)", c.id, became)
	return err
}

// AfterRuns lists the runs that have not ended, oldest first, at most limit. An
// account has two at most.
func (s *Store) AfterRuns(ctx context.Context, limit int) ([]AfterRun, error) {
	return list(ctx, s.r, func(rows *sql.Rows) (r AfterRun, err error) {
		err = rows.Scan(&r.ID, &r.AccountID, &r.State, &r.Tries)
		return r, err
	}, "SELECT id, account_id, state, tries FROM after_runs ORDER BY id LIMIT $1", limit)
}

// BeginAfterRun counts a try, which is to be committed before the command is
// started, and reads what the command is told: the account as it is now, and
// how many of its messages the target has altered.
func (s *Store) BeginAfterRun(ctx context.Context, r AfterRun) (a Account, altered int64, err error) {
	err = s.write(ctx, func(x *tx) error {
		if _, err := x.exec("UPDATE after_runs SET tries = tries + 1 WHERE id = $1", r.ID); err != nil {
			return err
		}
		if a, err = x.accountByID(r.AccountID); err != nil {
			return err
		}
		return x.get("SELECT COUNT(*) FROM altered WHERE folder_id IN (SELECT id FROM folders WHERE account_id = $1)",
			[]any{r.AccountID}, &altered)
	})
	return a, altered, err
}

// EndAfterRun ends a run, with an event that says how.
func (s *Store) EndAfterRun(ctx context.Context, r AfterRun, address, text string) error {
	return s.write(ctx, func(x *tx) error {
		if _, err := x.exec("DELETE FROM after_runs WHERE id = $1", r.ID); err != nil {
			return err
		}
		return x.event(address, text)
	})
}

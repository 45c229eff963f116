package store

import (
	"context"
	"fmt"
	"time"
)

const (
	// LeftActiveAfter is how long a migration may be active without an account
	// beginning before it looks forgotten.
	LeftActiveAfter = 14 * 24 * time.Hour
	// StandstillAfter is how long accounts may be to be moved without one of
	// them making progress.
	StandstillAfter = time.Hour
	// tellAgain is how often the log says the same of a domain.
	tellAgain = 24 * time.Hour
)

// Watch is what a domain is watched by. Times that have not come are zero.
type Watch struct {
	// ActiveSince is when the migration was last started; zero where it is not
	// active.
	ActiveSince time.Time
	// LastBegun is when an account last began to move.
	LastBegun time.Time
	// ToMove counts the accounts that have begun, have not flipped and are to.
	ToMove int64
	// LastProgress is, where accounts are to be moved, when one last had
	// something settled or flipped, or when the first of those that are to be
	// moved began, if that is later. Catch-ups are no progress of a move.
	LastProgress time.Time
}

// LeftActive reports whether the migration looks forgotten, and since when no
// account has begun; starting it again is the administrator's word that it is
// not.
func (w Watch) LeftActive(now time.Time) (since time.Time, left bool) {
	if since = w.ActiveSince; w.LastBegun.After(since) {
		since = w.LastBegun
	}
	return since, !w.ActiveSince.IsZero() && now.Sub(since) >= LeftActiveAfter
}

// StandsStill reports whether accounts are to be moved and none makes progress,
// and since when.
func (w Watch) StandsStill(now time.Time) (since time.Time, still bool) {
	return w.LastProgress, w.ToMove > 0 && now.Sub(w.LastProgress) >= StandstillAfter
}

// Watch reads what a domain is watched by. In a finished domain nothing is to
// be moved any more.
func (s *Store) Watch(ctx context.Context, domain string) (w Watch, err error) {
	var active, begun, oldest, progress int64
	err = s.r.QueryRowContext(ctx, `SELECT
		COALESCE((SELECT active_since FROM domains WHERE name = $1 AND active), 0),
		COALESCE(MAX(began_at), 0),
		COALESCE(SUM(CASE WHEN moving THEN 1 ELSE 0 END), 0),
		COALESCE(MIN(CASE WHEN moving THEN began_at END), 0),
		COALESCE(MAX(CASE WHEN flipped_at > 0 THEN flipped_at WHEN progress_at > began_at THEN progress_at END), 0)
		FROM (SELECT began_at, flipped_at, progress_at, state IN (`+quoted(beingMoved)+`)
			AND NOT EXISTS (SELECT 1 FROM domains WHERE name = $1 AND finished) AS moving
			FROM accounts WHERE domain = $1) AS a`, domain).
		Scan(&active, &begun, &w.ToMove, &oldest, &progress)
	if err != nil {
		return w, dbError(err)
	}
	w.ActiveSince, w.LastBegun = moment(active), moment(begun)
	if w.ToMove > 0 {
		w.LastProgress = moment(max(oldest, progress))
	}
	return w, nil
}

// Warning is something that the log says loudly of a domain.
type Warning string

// The values of Warning.
const (
	WarnLeftActive Warning = "left_active"
	WarnStandstill Warning = "standstill"
)

// Warn writes a warning to the migration's log and returns true, unless it did
// so for this domain within the last day.
func (s *Store) Warn(ctx context.Context, domain string, w Warning, text string, now time.Time) (told bool, err error) {
	err = s.write(ctx, func(x *tx) error {
		column := string(w) + "_told_at"
		n, err := x.exec("UPDATE domains SET "+column+" = $1 WHERE name = $2 AND "+column+" <= $3",
			millis(now), domain, millis(now.Add(-tellAgain)))
		if err != nil || n == 0 {
			return err
		}
		told = true
		return x.event("", text)
	})
	return told && err == nil, err
}

// beginBulk notes that an account of a domain has begun. A bulk is what begins
// while nothing is being moved, and what begins until nothing is again.
func (x *tx) beginBulk(domain string, now time.Time) error {
	_, err := x.exec("UPDATE domains SET bulk_since = $1 WHERE name = $2 AND bulk_since = 0", millis(now), domain)
	return err
}

// bulkOver is true of a domain in which a bulk is under way and none of its
// accounts is being moved, or will be tried again by itself.
const bulkOver = `name = $1 AND bulk_since > 0 AND NOT EXISTS (SELECT 1 FROM accounts WHERE domain = domains.name
	AND (state IN ('provisioning', 'copying') OR state IN ('waiting', 'failed') AND due > 0))`

// BulkOver reports whether the bulk of a domain is over, as far as it has begun.
func (s *Store) BulkOver(ctx context.Context, domain string) (over bool, err error) {
	err = s.r.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM domains WHERE "+bulkOver+")", domain).Scan(&over)
	return over, dbError(err)
}

// Bulk is a bulk that is over.
type Bulk struct {
	Accounts int64 // that began
	Migrated int64 // of these
}

// EndBulk ends the bulk of a domain if it is over, and says so in the
// migration's log if it was one of several accounts: the login of a single user
// is none. Otherwise ended is false.
func (s *Store) EndBulk(ctx context.Context, domain string) (b Bulk, ended bool, err error) {
	err = s.write(ctx, func(x *tx) error {
		var since int64
		err := x.get("SELECT bulk_since FROM domains WHERE "+bulkOver, []any{domain}, &since)
		if err != nil {
			return ignoreNone(err)
		}
		if err := x.get(`SELECT COUNT(*), COALESCE(SUM(CASE WHEN flipped_at > 0 THEN 1 ELSE 0 END), 0)
			FROM accounts WHERE domain = $1 AND began_at >= $2`, []any{domain, since}, &b.Accounts, &b.Migrated); err != nil {
			return err
		}
		if _, err := x.exec("UPDATE domains SET bulk_since = 0 WHERE name = $1", domain); err != nil || b.Accounts < 2 {
			return err
		}
		ended = true
		text := fmt.Sprintf("Bulk migration finished: %d accounts of %s migrated", b.Migrated, domain)
		if rest := b.Accounts - b.Migrated; rest > 0 {
			text += fmt.Sprintf(", %d not, see `migproxy accounts`", rest)
		}
		return x.event("", text)
	})
	return b, ended && err == nil, err
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Completing says how a domain that is being completed ends.
type Completing string

// The values of Completing.
const (
	NotCompleting Completing = ""
	// CompleteWhole: the domain is finished if every account has moved.
	CompleteWhole Completing = "whole"
	// CompleteForced: it is finished whatever is left; the administrator said so.
	CompleteForced Completing = "forced"
)

// DomainState is where the migration of a domain stands.
type DomainState struct {
	// Active: new accounts may begin.
	Active bool
	// Finished: its source is never asked again.
	Finished bool
	// Completing: the last passes over its accounts are going on.
	Completing Completing
	// StoppedBecause is why it stopped by itself; empty where it did not.
	StoppedBecause string
}

// DomainState reads where a domain's migration stands; one that was never
// started is not active.
func (s *Store) DomainState(ctx context.Context, domain string) (d DomainState, err error) {
	err = s.r.QueryRowContext(ctx, "SELECT active, finished, completing, stopped_because FROM domains WHERE name = $1", domain).
		Scan(&d.Active, &d.Finished, &d.Completing, &d.StoppedBecause)
	return d, ignoreNone(err)
}

// unfinished are the states that keep a domain from being finished: the source
// is still needed. An active account is in its last pass, or that has failed; an
// excluded one has no other mailbox.
var unfinished = []State{Provisioning, Copying, Active, AtSource, Conflict, Waiting, Failed, Excluded}

// Unfinished lists the accounts of a domain that keep it from being finished,
// by address, after one address, at most limit.
func (s *Store) Unfinished(ctx context.Context, domain, after string, limit int) ([]Account, error) {
	return list(ctx, s.r, func(rows *sql.Rows) (Account, error) { return scanAccount(rows) },
		"SELECT "+accountColumns+` FROM accounts WHERE domain = $1 AND address > $2 AND state IN (`+quoted(unfinished)+`)
		ORDER BY address LIMIT $3`, domain, after, limit)
}

// CountUnfinished counts the accounts that Unfinished lists.
func (s *Store) CountUnfinished(ctx context.Context, domain string) (n int64, err error) {
	err = s.r.QueryRowContext(ctx, "SELECT COUNT(*) FROM accounts WHERE domain = $1 AND state IN ("+quoted(unfinished)+")", domain).Scan(&n)
	return n, dbError(err)
}

func quoted(states []State) string {
	names := make([]string, len(states))
	for i, s := range states {
		names[i] = "'" + string(s) + "'"
	}
	return strings.Join(names, ", ")
}

// Complete begins the last pass over every active account of a stopped domain;
// those with messages set aside are left out unless without is true, and so are
// those that are being taken back. An active
// or finished domain is ErrChanged. Where there is none, this ends the
// completion as SettleCompletion does.
func (s *Store) Complete(ctx context.Context, domain string, how Completing, without bool) error {
	return s.write(ctx, func(x *tx) error {
		n, err := x.exec("UPDATE domains SET completing = $1 WHERE name = $2 AND NOT active AND NOT finished", how, domain)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrChanged
		}
		finishing := FinishWhole
		if without {
			finishing = FinishWithout
		}
		// woken: a catch-up that is under way must not put the account to rest.
		_, err = x.exec(`UPDATE accounts SET finishing = $1, due = $2, attempts = 0, woken = TRUE, updated_at = $2
			WHERE domain = $3 AND state = 'active' AND rolling_back = '' AND (set_aside = 0 OR $4)`,
			finishing, time.Now().UnixMilli(), domain, without)
		if err != nil {
			return err
		}
		var first int64 // whoever watches for work is told of one, and finds the others
		err = x.get("SELECT id FROM accounts WHERE domain = $1 AND finishing <> '' LIMIT 1", []any{domain}, &first)
		if errors.Is(err, sql.ErrNoRows) {
			return x.settleCompletion(domain)
		}
		if err == nil {
			_, err = x.written(first)
		}
		return err
	})
}

// Finishing counts the accounts of a domain whose last pass has not ended.
func (s *Store) Finishing(ctx context.Context, domain string) (n int64, err error) {
	err = s.r.QueryRowContext(ctx, "SELECT COUNT(*) FROM accounts WHERE domain = $1 AND finishing <> ''", domain).Scan(&n)
	return n, dbError(err)
}

// SettleCompletion ends the completion of a domain when no last pass goes on
// any more, and writes what became of it to the migration's log. The domain is
// finished if nothing is left to move, or if the administrator forced it: then
// no password is kept, and nothing in it is due again but for its aliases.
func (s *Store) SettleCompletion(ctx context.Context, domain string) error {
	if d, err := s.DomainState(ctx, domain); err != nil || d.Completing == NotCompleting {
		return err
	}
	return s.write(ctx, func(x *tx) error { return x.settleCompletion(domain) })
}

func (x *tx) settleCompletion(domain string) error {
	var how Completing
	var finishing, left int64
	if err := x.get(`SELECT completing,
		(SELECT COUNT(*) FROM accounts WHERE domain = domains.name AND finishing <> ''),
		(SELECT COUNT(*) FROM accounts WHERE domain = domains.name AND state IN (`+quoted(unfinished)+`))
		FROM domains WHERE name = $1`, []any{domain}, &how, &finishing, &left); err != nil {
		return err
	}
	if how == NotCompleting || finishing > 0 {
		return nil
	}
	finished := left == 0 || how == CompleteForced
	if _, err := x.exec("UPDATE domains SET completing = '', finished = $1 WHERE name = $2", finished, domain); err != nil {
		return err
	}
	text := fmt.Sprintf("The migration of '%s' is not finished: %d accounts are left, see `migproxy complete --dry-run`", domain, left)
	if finished {
		text = fmt.Sprintf("The migration of '%s' is finished: its old server is never asked again", domain)
		if err := x.forgetDomain(domain); err != nil {
			return err
		}
	}
	return x.event("", text)
}

// finished reports whether a domain is finished.
func (x *tx) finished(domain string) (finished bool, err error) {
	err = x.get("SELECT finished FROM domains WHERE name = $1", []any{domain}, &finished)
	return finished, ignoreNone(err)
}

// forgetDomain erases the passwords of a domain, needs none any more, ends the
// work in it for which the source is asked, and has it published. What is left to
// do about aliases stays due: one that was withdrawn is not to stay on the target.
func (x *tx) forgetDomain(domain string) error {
	x.changes = append(x.changes, Change{Finished: domain})
	n, err := x.exec("DELETE FROM credentials WHERE account_id IN (SELECT id FROM accounts WHERE domain = $1)", domain)
	if err != nil {
		return err
	}
	x.erased = x.erased || n > 0
	_, err = x.exec(`UPDATE accounts SET due = CASE WHEN state IN ('active', 'finished') AND `+aliasesDue+` THEN $2 ELSE 0 END,
		woken = FALSE, needs_password = FALSE, rolling_back = '', owner = '', lease_until = 0, fence = fence + 1
		WHERE domain = $1 AND (rolling_back <> '' OR state NOT IN ('finished', 'excluded') AND (due > 0 OR owner <> '' OR needs_password))`,
		domain, time.Now().UnixMilli())
	return err
}

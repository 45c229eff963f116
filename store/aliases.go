package store

import (
	"context"
	"database/sql"
	"slices"
	"time"
)

// Alias is a further address of an account.
type Alias struct {
	AccountID int64
	Account   string // its canonical address
	Address   string // local@domain, lower case
	Origin    AliasOrigin
	State     AliasState
	// Reason is why the alias was withdrawn, or is not there; empty otherwise.
	Reason string
	// Evidence is what speaks for an alias that was found, as JSON.
	Evidence  string
	There     bool // the target may have it
	UpdatedAt time.Time
}

// AliasOrigin says who named an alias.
type AliasOrigin string

// The values of AliasOrigin.
const (
	AliasGiven AliasOrigin = "given" // by the administrator
	AliasFound AliasOrigin = "found" // in the mailbox
)

// AliasState is what has become of an alias.
type AliasState string

// The states of an alias.
const (
	AliasProposed  AliasState = "proposed"  // for the administrator to decide
	AliasApproved  AliasState = "approved"  // to be created on the target
	AliasCreated   AliasState = "created"   // is there
	AliasTaken     AliasState = "taken"     // the target has this address already
	AliasFailed    AliasState = "failed"    // it could not be created; Reason says why
	AliasRejected  AliasState = "rejected"  // by the administrator
	AliasWithdrawn AliasState = "withdrawn" // somebody else's, or not enough speaks for it; see Reason
)

const (
	// aliasesToRemove selects accounts with aliases that are to be taken away from
	// the target. What was there before migproxy is not changed.
	aliasesToRemove = `(accounts.origin = 'created' AND EXISTS (SELECT 1 FROM aliases l
		WHERE l.account_id = accounts.id AND l.there AND l.state IN ('rejected', 'withdrawn')))`
	// aliasesDue selects those with any that are to be taken away or created.
	aliasesDue = `(accounts.origin = 'created' AND EXISTS (SELECT 1 FROM aliases l
		WHERE l.account_id = accounts.id AND (l.state = 'approved' OR l.there AND l.state IN ('rejected', 'withdrawn'))))`
)

const selectAliases = `SELECT l.account_id, a.address, l.address, l.origin, l.state, l.reason, l.evidence, l.there, l.updated_at
	FROM aliases l JOIN accounts a ON a.id = l.account_id WHERE `

func scanAlias(rows *sql.Rows) (l Alias, err error) {
	var updated int64
	err = rows.Scan(&l.AccountID, &l.Account, &l.Address, &l.Origin, &l.State, &l.Reason, &l.Evidence, &l.There, &updated)
	l.UpdatedAt = moment(updated)
	return l, err
}

// AccountAliases lists the aliases of an account, by address.
func (s *Store) AccountAliases(ctx context.Context, accountID int64) ([]Alias, error) {
	return list(ctx, s.r, scanAlias, selectAliases+"l.account_id = $1 ORDER BY l.address", accountID)
}

// giveAliases notes aliases that the administrator names. What was decided of
// one before is overruled; one that was found and is there is his word from now on.
func (x *tx) giveAliases(id int64, own string, aliases []string, now time.Time) error {
	for _, address := range slices.Compact(slices.Sorted(slices.Values(aliases))) {
		if address == own {
			continue
		}
		if _, err := x.exec(`INSERT INTO aliases (account_id, address, origin, state, reason, evidence, updated_at)
			VALUES ($1, $2, $3, $4, '', '', $5)
			ON CONFLICT (account_id, address) DO UPDATE SET origin = excluded.origin, reason = '', updated_at = excluded.updated_at,
			state = CASE WHEN aliases.state = $6 THEN aliases.state ELSE excluded.state END`,
			id, plain(address), AliasGiven, AliasApproved, millis(now), AliasCreated); err != nil {
			return err
		}
	}
	return nil
}

// AliasesToCreate lists the approved aliases of the account, by address.
func (c *Claim) AliasesToCreate(ctx context.Context) ([]Alias, error) {
	return list(ctx, c.store.r, scanAlias, selectAliases+"l.account_id = $1 AND l.state = $2 ORDER BY l.address", c.id, AliasApproved)
}

// AliasesToRemove lists the aliases of the account that are to be taken away
// from the target, by address.
func (c *Claim) AliasesToRemove(ctx context.Context) ([]Alias, error) {
	return list(ctx, c.store.r, scanAlias, selectAliases+"l.account_id = $1 AND l.there AND l.state IN ($2, $3) ORDER BY l.address",
		c.id, AliasRejected, AliasWithdrawn)
}

// BeginAlias commits that the target may have an approved alias of the account
// from now on. It reports false where that is no longer approved.
func (c *Claim) BeginAlias(ctx context.Context, address string) (begun bool, err error) {
	err = c.write(ctx, func(x *tx) error {
		n, err := x.exec("UPDATE aliases SET there = TRUE WHERE account_id = $1 AND address = $2 AND state = $3", c.id, address, AliasApproved)
		begun = n > 0
		return err
	})
	return begun, err
}

// NoteAlias commits what has become of an alias of the account that was begun.
// One that was decided against meanwhile stays so, and is taken away.
func (c *Claim) NoteAlias(ctx context.Context, address string, state AliasState, reason string) error {
	return c.write(ctx, func(x *tx) error {
		_, err := x.exec(`UPDATE aliases SET there = $1, updated_at = $2, reason = CASE WHEN state = $3 THEN $4 ELSE reason END,
			state = CASE WHEN state = $3 THEN $5 ELSE state END WHERE account_id = $6 AND address = $7`,
			state != AliasTaken, time.Now().UnixMilli(), AliasApproved, plain(reason), state, c.id, address)
		return err
	})
}

// NoteAliasRemoved commits that the target does not have an alias of the
// account any more, and why. One that was approved meanwhile stays so.
func (c *Claim) NoteAliasRemoved(ctx context.Context, address, reason string) error {
	return c.write(ctx, func(x *tx) error {
		_, err := x.exec("UPDATE aliases SET there = FALSE, reason = $1, updated_at = $2 WHERE account_id = $3 AND address = $4 AND state IN ($5, $6)",
			plain(reason), time.Now().UnixMilli(), c.id, address, AliasRejected, AliasWithdrawn)
		return err
	})
}

// NoteAliasStuck commits why an alias that is to be taken away is still there.
func (c *Claim) NoteAliasStuck(ctx context.Context, address, reason string) error {
	return c.write(ctx, func(x *tx) error {
		_, err := x.exec("UPDATE aliases SET reason = $1, updated_at = $2 WHERE account_id = $3 AND address = $4 AND state IN ($5, $6)",
			plain(reason), time.Now().UnixMilli(), c.id, address, AliasRejected, AliasWithdrawn)
		return err
	})
}

// AliasStates lists the states of an alias, in the order of its life.
func AliasStates() []AliasState {
	return []AliasState{AliasProposed, AliasApproved, AliasCreated, AliasTaken, AliasFailed, AliasRejected, AliasWithdrawn}
}

// Aliases lists the aliases of all accounts, or of those of one domain, in one
// state or all, by address and account: at most limit after one of them.
func (s *Store) Aliases(ctx context.Context, domain string, state AliasState, after Alias, limit int) ([]Alias, error) {
	return list(ctx, s.r, scanAlias, selectAliases+`(l.address > $1 OR l.address = $1 AND l.account_id > $2)
		AND ($3 = '' OR a.domain = $3) AND ($4 = '' OR l.state = $4) ORDER BY l.address, l.account_id LIMIT $5`,
		after.Address, after.AccountID, domain, state, limit)
}

// ApproveAlias has an alias created: one that was proposed, one that could not be
// created, or, as the administrator's own word, one that was rejected or
// withdrawn. account may be empty where only one has it proposed. The errors are
// ErrNoAlias, ErrSeveral, and ErrHeld where the address is another account's.
func (s *Store) ApproveAlias(ctx context.Context, address, account string) (Alias, error) {
	return s.judgeAlias(ctx, address, account, func(x *tx, a Alias, now time.Time) error {
		switch a.State {
		case AliasApproved, AliasCreated:
			return nil
		}
		var others int64
		if err := x.get(`SELECT (SELECT COUNT(*) FROM accounts WHERE address = $1) +
			(SELECT COUNT(*) FROM login_aliases WHERE name = $1 AND account_id <> $2) +
			(SELECT COUNT(*) FROM aliases WHERE address = $1 AND account_id <> $2 AND (there OR state IN ('approved', 'created')))`,
			[]any{address, a.AccountID}, &others); err != nil {
			return err
		}
		if others > 0 {
			return ErrHeld
		}
		origin := a.Origin
		if a.State == AliasRejected || a.State == AliasWithdrawn {
			origin = AliasGiven
		}
		return x.setAlias(a, origin, AliasApproved, now)
	})
}

// RejectAlias decides against an alias for good: it is taken away from the
// target, and not proposed again. Errors are those of ApproveAlias but ErrHeld.
func (s *Store) RejectAlias(ctx context.Context, address, account string) (Alias, error) {
	return s.judgeAlias(ctx, address, account, func(x *tx, a Alias, now time.Time) error {
		return x.setAlias(a, a.Origin, AliasRejected, now)
	})
}

func (x *tx) setAlias(a Alias, origin AliasOrigin, state AliasState, now time.Time) error {
	if _, err := x.exec("UPDATE aliases SET origin = $1, state = $2, reason = '', updated_at = $3 WHERE account_id = $4 AND address = $5",
		origin, state, millis(now), a.AccountID, a.Address); err != nil {
		return err
	}
	return x.wakeForAliases(a.AccountID, now)
}

// FindAlias gives the alias that is meant by an address. account may be empty
// where only one has it proposed. The errors are ErrNoAlias and ErrSeveral.
func (s *Store) FindAlias(ctx context.Context, address, account string) (Alias, error) {
	return findAlias(ctx, s.r, address, account)
}

func findAlias(ctx context.Context, q querier, address, account string) (Alias, error) {
	all, err := list(ctx, q, scanAlias, selectAliases+"l.address = $1 AND ($2 = '' OR a.address = $2) ORDER BY l.account_id", address, account)
	switch {
	case err != nil:
		return Alias{}, err
	case len(all) == 0:
		return Alias{}, ErrNoAlias
	case len(all) == 1:
		return all[0], nil
	}
	all = slices.DeleteFunc(all, func(a Alias) bool { return a.State != AliasProposed })
	if len(all) != 1 {
		return Alias{}, ErrSeveral
	}
	return all[0], nil
}

// judgeAlias has the administrator's word on an alias written.
func (s *Store) judgeAlias(ctx context.Context, address, account string, judge func(*tx, Alias, time.Time) error) (a Alias, err error) {
	err = s.write(ctx, func(x *tx) error {
		meant, err := findAlias(ctx, x, address, account)
		if err != nil {
			return err
		}
		if err := judge(x, meant, time.Now()); err != nil {
			return err
		}
		a, err = findAlias(ctx, x, address, meant.Account)
		return err
	})
	return a, err
}

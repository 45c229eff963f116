package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"
)

// AliasRuling is what was decided of one address that an account shows.
type AliasRuling struct {
	Address string
	State   AliasState // proposed, approved or withdrawn
	Reason  string     // why it is withdrawn
	// Others: it is withdrawn because somebody else may have it. Only this takes
	// back what was approved.
	Others   bool
	Evidence string // JSON
}

// AliasRulings are what was decided of an account.
type AliasRulings struct {
	Aliases []AliasRuling
	// Shown are the addresses that this account shows: other accounts may not
	// claim them any more.
	Shown []string
}

// AliasesDecided reports whether the aliases of the account were decided by
// these rules, and nothing was seen since.
func (c *Claim) AliasesDecided(ctx context.Context, rules string) (bool, error) {
	var decided string
	err := ignoreNone(c.store.r.QueryRowContext(ctx, "SELECT decided FROM tallies WHERE account_id = $1", c.id).Scan(&decided))
	return decided == rules, err
}

// DecideAliases has the aliases of the account decided and commits what comes of
// it, in one transaction: of two accounts that show the same address, the one
// that is decided later sees the other. What the administrator gave or rejected
// stays. Claims of others on what this account shows are withdrawn, and those
// whose alias may be on the target are made due. It returns the aliases of the
// account that have another state now.
func (c *Claim) DecideAliases(ctx context.Context, rules string, decide func(*AliasEvidence) (AliasRulings, error)) (changed []Alias, err error) {
	err = c.write(ctx, func(x *tx) error {
		changed = nil
		e, err := c.aliasEvidence(ctx, x)
		if err != nil {
			return err
		}
		rulings, err := decide(e)
		if err != nil {
			return err
		}
		a, err := x.accountByID(c.id)
		if err != nil {
			return err
		}
		now := time.Now()
		for _, r := range rulings.Aliases {
			is, err := c.rule(x, e.Aliases, r, now)
			if err != nil {
				return err
			}
			if is {
				changed = append(changed, Alias{AccountID: c.id, Account: a.Identity.Address(), Address: r.Address,
					Origin: AliasFound, State: r.State, Reason: r.Reason, Evidence: r.Evidence, UpdatedAt: now})
			}
		}
		reason := "shown by another mailbox as well: " + a.Identity.Address()
		for _, address := range rulings.Shown {
			if err := x.withdrawOthers(c.id, address, reason, now); err != nil {
				return err
			}
		}
		_, err = x.exec(`INSERT INTO tallies (account_id, forgotten, decided) VALUES ($1, 0, $2)
			ON CONFLICT (account_id) DO UPDATE SET decided = excluded.decided`, c.id, rules)
		return err
	})
	return changed, err
}

// rule writes one ruling, and reports whether the alias has another state now.
func (c *Claim) rule(x *tx, aliases []Alias, r AliasRuling, now time.Time) (changed bool, err error) {
	at := slices.IndexFunc(aliases, func(a Alias) bool { return a.Address == r.Address })
	if at < 0 {
		_, err = x.exec(`INSERT INTO aliases (account_id, address, origin, state, reason, evidence, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`, c.id, r.Address, AliasFound, r.State, plain(r.Reason), r.Evidence, millis(now))
		return true, err
	}
	is := aliases[at]
	if is.Origin != AliasFound {
		return false, nil
	}
	state, reason := r.State, r.Reason
	switch is.State {
	case AliasProposed, AliasWithdrawn:
	case AliasRejected:
		state, reason = is.State, is.Reason
	default: // approved, or what has become of it
		if r.State != AliasWithdrawn || !r.Others {
			state, reason = is.State, is.Reason
		}
	}
	if state == is.State && reason == is.Reason && r.Evidence == is.Evidence {
		return false, nil
	}
	_, err = x.exec("UPDATE aliases SET state = $1, reason = $2, evidence = $3, updated_at = $4 WHERE account_id = $5 AND address = $6",
		state, plain(reason), r.Evidence, millis(now), c.id, r.Address)
	return state != is.State, err
}

// claims are the states of an alias in which its account has it, or may get it.
const claims = "('proposed', 'approved', 'created', 'taken', 'failed')"

// withdrawOthers withdraws an address that was found in other accounts than this
// one from them. What the administrator gave by name stays.
func (x *tx) withdrawOthers(id int64, address, reason string, now time.Time) error {
	type holder struct {
		id    int64
		there bool
	}
	holders, err := list(x.ctx, x, func(rows *sql.Rows) (h holder, err error) {
		err = rows.Scan(&h.id, &h.there)
		return h, err
	}, `UPDATE aliases SET state = $1, reason = $2, updated_at = $3 WHERE address = $4 AND account_id <> $5
		AND origin = 'found' AND state IN `+claims+` RETURNING account_id, there`,
		AliasWithdrawn, plain(reason), millis(now), address, id)
	if err != nil {
		return err
	}
	for _, h := range holders {
		a, err := x.accountByID(h.id)
		if err != nil {
			return err
		}
		if err := x.event(a.Identity.Address(), fmt.Sprintf("'%s': alias %s withdrawn: %s", a.Identity.Address(), address, reason)); err != nil {
			return err
		}
		if h.there {
			if err := x.wakeForAliases(h.id, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// withdrawForLogin withdraws an address from others under which the owner of an
// account logs in.
func (x *tx) withdrawForLogin(id int64, address, account string) error {
	return x.withdrawOthers(id, address, "somebody's login: "+account, time.Now())
}

// wakeForAliases makes an account that has moved due, for what is to be done
// about its aliases on the target; where one is to be taken away, which somebody
// may wait for, also an account that has stopped or does not move. Those that are
// being moved come to it by themselves.
func (x *tx) wakeForAliases(id int64, now time.Time) error {
	n, err := x.exec(`UPDATE accounts SET due = $1, woken = TRUE, updated_at = $1 WHERE id = $2
		AND (state IN ('active', 'finished') OR state IN ('waiting', 'failed', 'excluded') AND `+aliasesToRemove+`)`, millis(now), id)
	if err == nil && n > 0 {
		_, err = x.written(id)
	}
	return err
}

const (
	// othersClaim selects accounts other than $2 in which the address $3 was found.
	othersClaim = "address = $3 AND account_id <> $2 AND origin = 'found' AND state IN " + claims
	// ownWithdrawn selects account $2 if the address $3 was withdrawn from it.
	ownWithdrawn = "address = $3 AND account_id = $2 AND origin = 'found' AND state = 'withdrawn'"
)

// decideAnew has the aliases of some accounts decided anew. Those that have moved
// are made due for it; the others come to it before they move.
func (x *tx) decideAnew(which string, id int64, address string) error {
	accounts, err := list(x.ctx, x, scanID, `UPDATE tallies SET decided = '' WHERE decided <> $1
		AND account_id IN (SELECT account_id FROM aliases WHERE `+which+`) RETURNING account_id`, "", id, address)
	if err != nil {
		return err
	}
	for _, account := range accounts {
		n, err := x.exec("UPDATE accounts SET due = $1, woken = TRUE, updated_at = $1 WHERE id = $2 AND state IN ('active', 'finished')",
			time.Now().UnixMilli(), account)
		if err == nil && n > 0 {
			_, err = x.written(account)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ReclaimName withdraws from others an alias that is the account's own address,
// which is given in normal form. It reports false where one may still be on the
// target: the work on its account, which is due, takes it away.
func (c *Claim) ReclaimName(ctx context.Context, address string) (free bool, err error) {
	const of = "SELECT COUNT(*) FROM aliases WHERE address = $1 AND account_id <> $2 AND origin = 'found' AND "
	var n int64
	err = c.store.r.QueryRowContext(ctx, of+"(there OR state IN "+claims+")", address, c.id).Scan(&n)
	if err != nil || n == 0 {
		return n == 0, dbError(err)
	}
	err = c.write(ctx, func(x *tx) error {
		if err := x.withdrawForLogin(c.id, address, c.Account.Identity.Address()); err != nil {
			return err
		}
		return x.get(of+"there", []any{address, c.id}, &n)
	})
	return n == 0, err
}

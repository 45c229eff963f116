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

const selectAliases = `SELECT l.account_id, a.address, l.address, l.origin, l.state, l.reason, l.evidence, l.updated_at
	FROM aliases l JOIN accounts a ON a.id = l.account_id WHERE `

func scanAlias(rows *sql.Rows) (l Alias, err error) {
	var updated int64
	err = rows.Scan(&l.AccountID, &l.Account, &l.Address, &l.Origin, &l.State, &l.Reason, &l.Evidence, &updated)
	l.UpdatedAt = moment(updated)
	return l, err
}

// AccountAliases lists the aliases of an account, by address.
func (s *Store) AccountAliases(ctx context.Context, accountID int64) ([]Alias, error) {
	return list(ctx, s.r, scanAlias, selectAliases+"l.account_id = $1 ORDER BY l.address", accountID)
}

// giveAliases notes aliases that the administrator names. What was decided of
// one before is overruled, unless it is there.
func (x *tx) giveAliases(id int64, own string, aliases []string, now time.Time) error {
	for _, address := range slices.Compact(slices.Sorted(slices.Values(aliases))) {
		if address == own {
			continue
		}
		if _, err := x.exec(`INSERT INTO aliases (account_id, address, origin, state, reason, evidence, updated_at)
			VALUES ($1, $2, $3, $4, '', '', $5)
			ON CONFLICT (account_id, address) DO UPDATE SET origin = excluded.origin, state = excluded.state,
			reason = '', updated_at = excluded.updated_at WHERE aliases.state <> $6`,
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

// NoteAlias commits what has become of an alias of the account.
func (c *Claim) NoteAlias(ctx context.Context, address string, state AliasState, reason string) error {
	return c.write(ctx, func(x *tx) error {
		_, err := x.exec("UPDATE aliases SET state = $1, reason = $2, updated_at = $3 WHERE account_id = $4 AND address = $5",
			state, plain(reason), time.Now().UnixMilli(), c.id, address)
		return err
	})
}

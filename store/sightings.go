package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
)

// maxSeen is how many addresses of an account are kept, more than a person has.
// Up to twice as many are counted before the lightest are forgotten.
const maxSeen = 1024

// Sighting is an address that a message showed, and all headers that did.
type Sighting struct {
	Address string
	Headers string // by name
	// Weighs: it could lead to a claim on the address, or forbid one.
	Weighs bool
}

// SightingCount is how many messages of an account showed an address in exactly
// these headers.
type SightingCount struct {
	Address  string
	Headers  string
	Messages int64
}

// see counts what messages showed. It is one transaction with their ledger: each
// counts once, however often it was read. Others who claim an address that shows for
// the first time are decided anew: this account may never come to be decided.
func (c *Claim) see(x *tx, done []Message) error {
	counts := map[Sighting]int64{}
	for _, m := range done {
		for _, s := range m.Shows {
			counts[s]++
		}
	}
	if len(counts) == 0 {
		return nil
	}
	for _, s := range slices.SortedFunc(maps.Keys(counts), func(a, b Sighting) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.Headers, b.Headers))
	}) {
		var messages int64
		if err := x.get(`INSERT INTO sightings (account_id, address, headers, weighs, messages) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (account_id, address, headers) DO UPDATE SET messages = sightings.messages + excluded.messages RETURNING messages`,
			[]any{c.id, s.Address, s.Headers, s.Weighs, counts[s]}, &messages); err != nil {
			return err
		}
		if s.Weighs && messages == counts[s] {
			if err := x.decideAnew(othersClaim, c.id, s.Address); err != nil {
				return err
			}
		}
	}
	forgotten, err := c.forgetSightings(x)
	if err != nil {
		return err
	}
	_, err = x.exec(`INSERT INTO tallies (account_id, forgotten, decided) VALUES ($1, $2, '')
		ON CONFLICT (account_id) DO UPDATE SET forgotten = tallies.forgotten + excluded.forgotten, decided = ''`, c.id, forgotten)
	return err
}

// forgetSightings keeps the addresses that weigh most, if there are too many.
func (c *Claim) forgetSightings(x *tx) (forgotten int64, err error) {
	var n int64
	if err := x.get("SELECT COUNT(DISTINCT address) FROM sightings WHERE account_id = $1", []any{c.id}, &n); err != nil || n <= 2*maxSeen {
		return 0, err
	}
	_, err = x.exec(`DELETE FROM sightings WHERE account_id = $1 AND address NOT IN (
		SELECT address FROM sightings WHERE account_id = $1 GROUP BY address
		ORDER BY SUM(CASE WHEN weighs THEN messages ELSE 0 END) DESC, SUM(messages) DESC, address LIMIT $2)`, c.id, maxSeen)
	return n - maxSeen, err
}

// AliasEvidence is what decides about the aliases of an account. It is valid
// within one call of DecideAliases.
type AliasEvidence struct {
	Counts    []SightingCount // of the account, by address
	Forgotten int64           // addresses of which there were too many
	Aliases   []Alias         // of the account, by address
	x         *tx
	id        int64
}

// AccountOf gives the account for which an address is a login, its own or a login
// alias, by its canonical one; "" where there is none. login is how an account of
// this address would be called. An account that was seen on the target alone is none
// while the address is an alias of this account there: some servers let one in
// under his aliases.
func (e *AliasEvidence) AccountOf(address, login string) (account string, err error) {
	err = e.x.get(`SELECT address FROM accounts WHERE address = $1 AND NOT (state = 'native' AND EXISTS
			(SELECT 1 FROM aliases WHERE account_id = $2 AND address = $3 AND there))
		UNION ALL SELECT a.address FROM login_aliases l JOIN accounts a ON a.id = l.account_id WHERE l.name = $1`,
		[]any{login, e.id, address}, &account)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return account, err
}

// AliasOf gives another account whose alias an address is, by its canonical one:
// the target may have it as such, or the administrator gave it; "" where there is
// none.
func (e *AliasEvidence) AliasOf(address string) (account string, err error) {
	err = e.x.get(`SELECT a.address FROM aliases l JOIN accounts a ON a.id = l.account_id
		WHERE l.address = $1 AND l.account_id <> $2 AND (l.there OR l.origin = 'given' AND l.state IN ('approved', 'created'))
		ORDER BY l.account_id LIMIT 1`, []any{address, e.id}, &account)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return account, err
}

// maxShownBy is how many accounts are named that show the same address: info@
// may be shown by everybody.
const maxShownBy = 3

// ShownBy names some other accounts that show an address in headers that count.
func (e *AliasEvidence) ShownBy(address string, counts func(headers string) bool) (accounts []string, err error) {
	rows, err := e.x.QueryContext(e.x.ctx, `SELECT a.address, s.headers FROM sightings s JOIN accounts a ON a.id = s.account_id
		WHERE s.address = $1 AND s.weighs AND s.account_id <> $2`, address, e.id)
	if err != nil {
		return nil, dbError(err)
	}
	defer rows.Close()
	for rows.Next() && len(accounts) < maxShownBy {
		var account, headers string
		if err := rows.Scan(&account, &headers); err != nil {
			return nil, dbError(err)
		}
		if counts(headers) && !slices.Contains(accounts, account) {
			accounts = append(accounts, account)
		}
	}
	return accounts, dbError(rows.Err())
}

// aliasEvidence reads what is known of the account.
func (c *Claim) aliasEvidence(ctx context.Context, x *tx) (*AliasEvidence, error) {
	e := &AliasEvidence{x: x, id: c.id}
	err := ignoreNone(x.QueryRowContext(ctx, "SELECT forgotten FROM tallies WHERE account_id = $1", c.id).Scan(&e.Forgotten))
	if err != nil {
		return nil, err
	}
	e.Counts, err = list(ctx, x, func(rows *sql.Rows) (n SightingCount, err error) {
		err = rows.Scan(&n.Address, &n.Headers, &n.Messages)
		return n, err
	}, "SELECT address, headers, messages FROM sightings WHERE account_id = $1 ORDER BY address, headers", c.id)
	if err != nil {
		return nil, err
	}
	e.Aliases, err = list(ctx, x, scanAlias, selectAliases+"l.account_id = $1 ORDER BY l.address", c.id)
	return e, err
}

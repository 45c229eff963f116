package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Removed is published as the state of an account whose row is gone, as its name
// has become a login alias. No account has it.
const Removed State = "removed"

// LoginAlias is a further name under which the owner of an account logs in.
type LoginAlias struct {
	// Name is local@domain in lower case or, where it is no plain address, the
	// login as typed, in lower case.
	Name      string
	Origin    AliasOrigin
	CreatedAt time.Time
}

// removedAccount is the counter with the highest id of an account that was removed.
const removedAccount = "removed_account"

// NameTakenError says why a name cannot be a login alias of an account.
type NameTakenError struct {
	Name  string
	Owner string // whose login alias it is; empty: it is an account of its own
	State State  // of that account
}

func (e *NameTakenError) Error() string {
	if e.Owner != "" {
		return fmt.Sprintf("%s is a login alias of %s: remove it there first, with `migproxy account alias %s %s --remove`", e.Name, e.Owner, e.Owner, e.Name)
	}
	return fmt.Sprintf("%s is an account of its own (%s), with which the move has begun: two mailboxes are not made one", e.Name, e.State)
}

// ErrOwnName: the name given as a login alias is the account's address itself.
var ErrOwnName = errors.New("this is the account's own address")

// LoginAlias returns the account of which a name is a login alias, or
// ErrNotFound.
func (s *Store) LoginAlias(ctx context.Context, name string) (Account, error) {
	a, err := scanAccount(s.r.QueryRowContext(ctx,
		"SELECT "+accountColumns+" FROM accounts WHERE id = (SELECT account_id FROM login_aliases WHERE name = $1)", name))
	return a, found(err)
}

// LoginAliases lists the login aliases of an account, by name.
func (s *Store) LoginAliases(ctx context.Context, accountID int64) ([]LoginAlias, error) {
	return list(ctx, s.r, func(rows *sql.Rows) (l LoginAlias, err error) {
		var created int64
		err = rows.Scan(&l.Name, &l.Origin, &created)
		l.CreatedAt = moment(created)
		return l, err
	}, "SELECT name, origin, created_at FROM login_aliases WHERE account_id = $1 ORDER BY name", accountID)
}

// GiveLoginAlias makes a name a login alias of the account with this address.
// One that is so already stays as it is. A name with an account of its own is
// taken as long as nothing was done for it beyond noting it; else, and where it
// is the login alias of another account, the error is a *NameTakenError.
func (s *Store) GiveLoginAlias(ctx context.Context, name, address string) error {
	return s.write(ctx, func(x *tx) error {
		owner, err := x.account(address)
		switch {
		case err != nil:
			return err
		case name == address:
			return ErrOwnName
		}
		switch is, err := x.aliasOwner(name); {
		case err == nil && is.ID == owner.ID:
			return nil
		case err == nil:
			return &NameTakenError{Name: name, Owner: is.Identity.Address()}
		case !errors.Is(err, ErrNotFound):
			return err
		}
		other, err := x.account(name)
		switch {
		case errors.Is(err, ErrNotFound):
			return x.addLoginAlias(name, owner, AliasGiven)
		case err != nil:
			return err
		}
		untouched, err := x.untouched(other)
		if err != nil {
			return err
		}
		if !untouched {
			return &NameTakenError{Name: name, State: other.State}
		}
		return x.becomeAlias(other, owner, AliasGiven)
	})
}

// RemoveLoginAlias takes a login alias from the account with this address, or
// returns ErrNotFound.
func (s *Store) RemoveLoginAlias(ctx context.Context, name, address string) error {
	return s.write(ctx, func(x *tx) error {
		n, err := x.exec("DELETE FROM login_aliases WHERE name = $1 AND account_id = (SELECT id FROM accounts WHERE address = $2)", name, address)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
}

// BecomeAlias makes the name of the claimed account, for which nothing has been
// done on the target, a login alias of another account, whose mailbox it opens:
// the account's row and password go, and the claim with them. ErrChanged: one of
// the two is no longer what it was.
func (c *Claim) BecomeAlias(ctx context.Context, ownerID int64) error {
	return c.write(ctx, func(x *tx) error {
		a, err := x.accountByID(c.id)
		if err != nil {
			return err
		}
		owner, err := x.accountByID(ownerID)
		if errors.Is(err, ErrNotFound) {
			return ErrChanged
		}
		if err != nil {
			return err
		}
		if a.Origin != OriginUnknown || a.Moved() || a.ID == owner.ID || a.Identity.Domain != owner.Identity.Domain {
			return ErrChanged
		}
		return x.becomeAlias(a, owner, AliasFound)
	})
}

// untouched: nothing has been done for the account beyond noting it.
func (x *tx) untouched(a Account) (bool, error) {
	switch a.State {
	case AtSource, Waiting, Failed, Conflict:
	default:
		return false, nil
	}
	if a.Origin != OriginUnknown || !a.FlippedAt.IsZero() {
		return false, nil
	}
	var folders int64
	err := x.get("SELECT COUNT(*) FROM folders WHERE account_id = $1", []any{a.ID}, &folders)
	return folders == 0, err
}

// becomeAlias makes the name of one account a login alias of another. What was
// given for the one counts for the other.
func (x *tx) becomeAlias(a, owner Account, origin AliasOrigin) error {
	if err := x.erasePasswords(a.ID); err != nil {
		return err
	}
	for _, q := range []string{
		"UPDATE login_aliases SET account_id = $2 WHERE account_id = $1",
		`INSERT INTO aliases (account_id, address, origin, state, reason, evidence, updated_at)
			SELECT CAST($2 AS BIGINT), address, origin, state, reason, evidence, updated_at FROM aliases WHERE account_id = $1
			AND address <> (SELECT address FROM accounts WHERE id = $2)
			ON CONFLICT (account_id, address) DO NOTHING`,
	} {
		if _, err := x.exec(q, a.ID, owner.ID); err != nil {
			return err
		}
	}
	for _, table := range []string{"aliases", "uidls", "source_marks"} {
		if _, err := x.exec("DELETE FROM "+table+" WHERE account_id = $1", a.ID); err != nil {
			return err
		}
	}
	if _, err := x.exec("DELETE FROM accounts WHERE id = $1", a.ID); err != nil {
		return err
	}
	if _, err := x.exec(`INSERT INTO counters (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE
		SET value = CASE WHEN counters.value > excluded.value THEN counters.value ELSE excluded.value END`,
		removedAccount, a.ID); err != nil {
		return err
	}
	x.changes = append(x.changes, Change{AccountID: a.ID, Address: a.Identity.Address(), State: Removed})
	return x.addLoginAlias(a.Identity.Address(), owner, origin)
}

// addLoginAlias makes a name, which has no account, a login alias, and withdraws it
// from other accounts that claim it as an alias. Whether it is one of the owner's is
// decided anew where it was not.
func (x *tx) addLoginAlias(name string, owner Account, origin AliasOrigin) error {
	if _, err := x.exec("INSERT INTO login_aliases (name, account_id, origin, created_at) VALUES ($1, $2, $3, $4)",
		plain(name), owner.ID, origin, time.Now().UnixMilli()); err != nil {
		return err
	}
	if err := x.withdrawForLogin(owner.ID, name, owner.Identity.Address()); err != nil {
		return err
	}
	// It may have been withdrawn from the owner as somebody else's.
	return x.decideAnew(ownWithdrawn, owner.ID, name)
}

// aliasOwner is Store.LoginAlias within a transaction.
func (x *tx) aliasOwner(name string) (Account, error) {
	a, err := scanAccount(x.QueryRowContext(x.ctx,
		"SELECT "+accountColumns+" FROM accounts WHERE id = (SELECT account_id FROM login_aliases WHERE name = $1)", name))
	return a, found(err)
}

// freeName makes sure that a name that is to get an account is not a login alias.
func (x *tx) freeName(name string) error {
	owner, err := x.aliasOwner(name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		err = &NameTakenError{Name: name, Owner: owner.Identity.Address()}
	}
	return err
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"migproxy/config"
)

const accountColumns = `id, login, local, domain, state, origin, mode, reason,
	messages, bytes, expected, set_aside, attempts, password_version,
	COALESCE((SELECT MAX(used_at) FROM credentials WHERE account_id = accounts.id), 0),
	needs_password, finishing, due, created_at, updated_at, progress_at, flipped_at, caught_up_at,
	flipping, rolling_back, rolled_back_at`

func scanAccount(row interface{ Scan(...any) error }) (Account, error) {
	var a Account
	var used, due, created, updated, progress, flipped, caughtUp, rolledBack int64
	err := row.Scan(&a.ID, &a.Identity.Login, &a.Identity.Local, &a.Identity.Domain,
		&a.State, &a.Origin, &a.Mode, &a.Reason,
		&a.Messages, &a.Bytes, &a.Expected, &a.SetAside, &a.Attempts, &a.PasswordVersion,
		&used, &a.NeedsPassword, &a.Finishing, &due, &created, &updated, &progress, &flipped, &caughtUp,
		&a.Flipping, &a.RollingBack, &rolledBack)
	a.HasPassword, a.PasswordUsedAt = used != 0, moment(used)
	a.Due, a.CreatedAt, a.UpdatedAt = moment(due), moment(created), moment(updated)
	a.ProgressAt, a.FlippedAt, a.CaughtUpAt = moment(progress), moment(flipped), moment(caughtUp)
	a.RolledBackAt = moment(rolledBack)
	return a, err
}

// found turns the lack of a row into ErrNotFound.
func found(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return dbError(err)
}

// account reads an account within a transaction, or returns ErrNotFound.
func (x *tx) account(address string) (Account, error) {
	a, err := scanAccount(x.QueryRowContext(x.ctx,
		"SELECT "+accountColumns+" FROM accounts WHERE address = $1", address))
	return a, found(err)
}

// accountByID reads an account within a transaction, or returns ErrNotFound.
func (x *tx) accountByID(id int64) (Account, error) {
	a, err := scanAccount(x.QueryRowContext(x.ctx,
		"SELECT "+accountColumns+" FROM accounts WHERE id = $1", id))
	return a, found(err)
}

// written reads an account after it was written, and has it published.
func (x *tx) written(id int64) (Account, error) {
	a, err := x.accountByID(id)
	if err == nil {
		x.changes = append(x.changes, Change{AccountID: a.ID, Address: a.Identity.Address(), State: a.State, Origin: a.Origin,
			Flipping: a.Flipping, RollingBack: a.RollingBack})
	}
	return a, err
}

// Account returns the account with this canonical address, or ErrNotFound.
func (s *Store) Account(ctx context.Context, address string) (Account, error) {
	a, err := scanAccount(s.r.QueryRowContext(ctx,
		"SELECT "+accountColumns+" FROM accounts WHERE address = $1", address))
	return a, found(err)
}

// Accounts lists the accounts whose address comes after one, in the order of
// their addresses, at most limit; state "" is all. A caller pages by the last
// address, so that no read of the database waits for whoever reads the list.
func (s *Store) Accounts(ctx context.Context, state State, after string, limit int) ([]Account, error) {
	// One walk along the addresses, whatever the state: to pick by the state
	// first would sort all that have it again for each page.
	return list(ctx, s.r, func(rows *sql.Rows) (Account, error) { return scanAccount(rows) },
		"SELECT "+accountColumns+` FROM accounts WHERE address > $1 AND ($2 = '' OR state = $2)
		ORDER BY address LIMIT $3`, after, state, limit)
}

// NewAccount is what Begin writes.
type NewAccount struct {
	Identity config.Identity
	Password config.Secret
	Mode     config.Mode
	Adopt    bool // the target lets this user in already: copy into what is there
	// Aliases that the administrator names, local@domain in lower case.
	Aliases []string
}

// Begin commits an account as provisioning, with its sealed password and due
// at once, if it has no row or is at_source; the account's row and the sealed
// password are one transaction. With Adopt there is nothing to provision: the
// account is copying, its origin adopted. Where another login was first, it
// writes nothing and returns that account with begun false.
func (s *Store) Begin(ctx context.Context, n NewAccount) (a Account, begun bool, err error) {
	err = s.write(ctx, func(x *tx) error {
		now := time.Now()
		a, err = x.account(n.Identity.Address())
		switch {
		case errors.Is(err, ErrNotFound):
			if a.ID, err = x.insertAccount(n.Identity, Provisioning, now); err != nil {
				return err
			}
		case err != nil || a.State != AtSource:
			return err
		}
		if err := s.begin(x, a.ID, n, now); err != nil {
			return err
		}
		a, err = x.written(a.ID)
		begun = err == nil
		return err
	})
	if err != nil {
		return Account{}, false, err
	}
	return a, begun, nil
}

// begin makes an account provisioning, or copying into what is there, due at
// once.
func (s *Store) begin(x *tx, id int64, n NewAccount, now time.Time) error {
	if err := x.beginBulk(n.Identity.Domain, now); err != nil {
		return err
	}
	state, origin := Provisioning, OriginUnknown
	if n.Adopt {
		state, origin = Copying, OriginAdopted
	}
	if _, err := x.exec(`UPDATE accounts SET login = $1, state = $2, origin = $3, mode = $4, reason = '',
		attempts = 0, due = $5, began_at = $5, progress_at = $5, updated_at = $5 WHERE id = $6`,
		n.Identity.Login, state, origin, n.Mode, millis(now), id); err != nil {
		return err
	}
	if n.Password.IsZero() {
		return nil
	}
	return s.sealPassword(x, id, SideSource, n.Identity.Address(), n.Password, now)
}

// insertAccount makes a row. A name that is a login alias gets none: the error is
// a *NameTakenError. The id of a row that was removed is not given again, as
// claims and logins may still hold it.
func (x *tx) insertAccount(id config.Identity, state State, now time.Time) (int64, error) {
	if err := x.freeName(id.Address()); err != nil {
		return 0, err
	}
	var rowID int64
	err := x.get(`INSERT INTO accounts (id, address, login, local, domain, state, created_at, updated_at)
		VALUES (1 + (SELECT COALESCE(MAX(used), 0) FROM
			(SELECT MAX(id) AS used FROM accounts UNION ALL SELECT value FROM counters WHERE name = $7) AS ids),
			$1, $2, $3, $4, $5, $6, $6) RETURNING id`,
		[]any{id.Address(), id.Login, id.Local, id.Domain, state, millis(now), removedAccount}, &rowID)
	return rowID, err
}

// settleState ends all work on an account, but for aliases that are to be taken
// away from the target, and puts it into a state in which its password is not
// needed: the password is erased, a claim is fenced off. An
// account without a row gets one, and one that has this state already is left
// alone. Where the state may not follow: the account as it is, and ErrChanged.
func (s *Store) settleState(ctx context.Context, id config.Identity, to State, may func(Account) bool) (a Account, err error) {
	err = s.write(ctx, func(x *tx) error {
		now := time.Now()
		a, err = x.account(id.Address())
		switch {
		case errors.Is(err, ErrNotFound):
			if a.ID, err = x.insertAccount(id, to, now); err != nil {
				return err
			}
			if err := x.reclaimSettled(a.ID, id, to); err != nil {
				return err
			}
			a, err = x.written(a.ID)
			return err
		case err != nil || a.State == to:
			return err
		case !may(a):
			return ErrChanged
		}
		if err := x.reclaimSettled(a.ID, id, to); err != nil {
			return err
		}
		if err := x.erasePasswords(a.ID); err != nil {
			return err
		}
		if _, err := x.exec(`UPDATE accounts SET state = $1, reason = '', attempts = 0, woken = FALSE, failing = FALSE, flipping = '',
			due = CASE WHEN `+aliasesToRemove+` THEN $2 ELSE 0 END,
			owner = '', lease_until = 0, fence = fence + 1, updated_at = $2 WHERE id = $3`,
			to, millis(now), a.ID); err != nil {
			return err
		}
		a, err = x.written(a.ID)
		return err
	})
	return a, err
}

// reclaimSettled withdraws the name of an account that stays at the source, where it
// is somebody's login, from others who claim it as an alias. One that begins to move
// is first looked at, whether it is another name of theirs (see Claim.ReclaimName);
// and what the target lets in under the name of an alias that it has is that alias.
func (x *tx) reclaimSettled(id int64, of config.Identity, to State) error {
	if to == Native {
		return nil
	}
	return x.withdrawForLogin(id, of.Address(), of.Address())
}

// Note writes native or at_source for an account that has no row, or whose
// state is one of from; otherwise it returns the account as it is and
// ErrChanged. An account that is what it is to become is left alone: of several
// logins at once, one writes and all succeed. Work on the account is ended and
// its password erased.
func (s *Store) Note(ctx context.Context, id config.Identity, to State, from ...State) (Account, error) {
	if to != Native && to != AtSource {
		return Account{}, fmt.Errorf("only %s and %s are noted, not %s", Native, AtSource, to)
	}
	return s.settleState(ctx, id, to, func(a Account) bool { return slices.Contains(from, a.State) })
}

// Exclude keeps an account that has not flipped at the source; an unknown one
// gets a row. A claim on it is fenced off and its password erased. After the
// flip: ErrChanged.
func (s *Store) Exclude(ctx context.Context, id config.Identity) (Account, error) {
	return s.settleState(ctx, id, Excluded, func(a Account) bool { return !a.Moved() })
}

// Retry makes a waiting, failed or conflicting account due at once, back in
// the state in which its work stopped, and so one whose move is only put off. An
// active one is due for another pass, with what is set aside tried anew. A
// conflicting account is looked up anew. One that was taken back from the target
// moves anew, at its owner's next login.
// Others return ErrChanged.
func (s *Store) Retry(ctx context.Context, address string) (a Account, err error) {
	err = s.write(ctx, func(x *tx) error {
		if a, err = x.account(address); err != nil {
			return err
		}
		if err := x.retry(a); err != nil {
			return err
		}
		a, err = x.written(a.ID)
		return err
	})
	return a, err
}

// Revive makes a waiting or failed account, for which its owner has just given a
// new password, due at once, back in the state in which its work stopped. It keeps
// the reason: only Retry, which the administrator says, answers what he is asked
// there. Others return ErrChanged.
func (s *Store) Revive(ctx context.Context, address string) (a Account, err error) {
	err = s.write(ctx, func(x *tx) error {
		if a, err = x.account(address); err != nil {
			return err
		}
		if a.State != Waiting && a.State != Failed {
			return ErrChanged
		}
		if err := x.resume(a, resumed(a.Origin), a.Origin, a.Reason); err != nil {
			return err
		}
		a, err = x.written(a.ID)
		return err
	})
	return a, err
}

// retry is Retry within a transaction.
func (x *tx) retry(a Account) error {
	origin, to := a.Origin, resumed(a.Origin)
	switch a.State {
	case Waiting, Failed:
	case Provisioning, Copying:
		if a.Reason == "" {
			return ErrChanged // nothing holds it up
		}
		to = a.State
	case Conflict:
		origin, to = OriginUnknown, Provisioning
	case Active:
		to = Active
		if _, err := x.exec(`UPDATE quarantine SET again = TRUE WHERE complete AND folder_id IN
			(SELECT id FROM folders WHERE account_id = $1)`, a.ID); err != nil {
			return err
		}
	case Excluded:
		return x.moveAnew(a, Waiting, "it was taken back, and moves anew at its owner's next login", time.Time{})
	default:
		return ErrChanged
	}
	return x.resume(a, to, origin, "")
}

// resume makes an account due at once.
func (x *tx) resume(a Account, to State, origin Origin, reason string) error {
	_, err := x.exec(`UPDATE accounts SET state = $1, origin = $2, reason = $3, attempts = 0, failing = FALSE,
		due = $4, woken = TRUE, updated_at = $4 WHERE id = $5`,
		to, origin, reason, time.Now().UnixMilli(), a.ID)
	return err
}

// resumed is the state in which the work on an account goes on.
func resumed(o Origin) State {
	if o == OriginCreated || o == OriginAdopted {
		return Copying
	}
	return Provisioning
}

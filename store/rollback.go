package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"migproxy/config"
)

// rollbackPutDown is the rolling_back of an account on which no worker is at work
// any more: logins go to the target again until the next try.
const rollbackPutDown = "CASE WHEN rolling_back = '' THEN '' ELSE 'wanted' END"

// AskRollback has an account taken back from the target to its source, as soon as
// a worker has time for it. One for which that was asked already is due at once.
// Only an account that migproxy created and copied can be; any other, one in its
// last pass, and one of a finished domain is ErrChanged.
func (s *Store) AskRollback(ctx context.Context, address string) (a Account, err error) {
	err = s.write(ctx, func(x *tx) error {
		if a, err = x.account(address); err != nil {
			return err
		}
		finished, err := x.finished(a.Identity.Domain)
		if err != nil {
			return err
		}
		if !a.CanRollBack() || a.Finishing != NotFinishing || finished {
			return ErrChanged
		}
		// woken: a catch-up that is under way must not put the account to rest.
		if _, err := x.exec(`UPDATE accounts SET rolling_back = CASE WHEN rolling_back = '' THEN $1 ELSE rolling_back END,
			reason = '', attempts = 0, due = $2, woken = TRUE, updated_at = $2 WHERE id = $3`,
			RollbackWanted, time.Now().UnixMilli(), a.ID); err != nil {
			return err
		}
		a, err = x.written(a.ID)
		return err
	})
	return a, err
}

// CanRollBack reports whether the account is one that can be taken back to its
// source: it lives on the target, where migproxy created it and copied its mail.
func (a Account) CanRollBack() bool {
	return (a.State == Active || a.State == Finished) && a.Origin == OriginCreated && a.Mode == config.ModeAccounts
}

// These methods of a claim belong to an account for which AskRollback was called.

// BeginRollback has logins held from now on, and published that they are.
func (c *Claim) BeginRollback(ctx context.Context) error {
	return c.update(ctx, func(x *tx) error {
		a, err := x.accountByID(c.id)
		if err == nil && a.RollingBack == NotRollingBack {
			err = ErrChanged
		}
		return err
	}, "rolling_back = $3", RollbackUnderWay)
}

// EndRollback ends the claim on an account of which everything is on the source:
// it is excluded, and the target is not asked for it any more. Its passwords are
// erased. It stays due for aliases that are to be taken away from the target.
func (c *Claim) EndRollback(ctx context.Context) error {
	return c.update(ctx, func(x *tx) error {
		a, err := x.accountByID(c.id)
		if err != nil {
			return err
		}
		if a.RollingBack != RollbackUnderWay || !a.CanRollBack() {
			return ErrChanged
		}
		return x.erasePasswords(c.id)
	}, `state = 'excluded', rolling_back = '', rolled_back_at = $1, flipped_at = 0, caught_up_at = 0,
		finishing = '', needs_password = FALSE, reason = '', attempts = 0,
		due = CASE WHEN `+aliasesToRemove+` THEN $1 ELSE 0 END, woken = FALSE,
		owner = '', lease_until = 0, fence = fence + 1`)
}

// GiveUpRollback ends the claim on an account that stays on the target, and says
// why and when to look at it again: at once, where something is to be done about its
// aliases.
func (c *Claim) GiveUpRollback(ctx context.Context, reason string, due time.Time) error {
	return c.update(ctx, nil, `rolling_back = '', reason = $3, attempts = 0,
		due = CASE WHEN `+aliasesDue+` THEN $1 ELSE $4 END, woken = FALSE,
		owner = '', lease_until = 0, fence = fence + 1`, plain(reason), millis(due))
}

// moveAnew makes an account that was taken back one that moves once more; any
// other is ErrChanged. Its ledger is to be rebased first, see Rebase. A claim for its
// aliases is fenced off: its end would put the account back.
func (x *tx) moveAnew(a Account, to State, reason string, due time.Time) error {
	if a.State != Excluded || a.RolledBackAt.IsZero() {
		return ErrChanged
	}
	now := time.Now()
	if err := x.beginBulk(a.Identity.Domain, now); err != nil {
		return err
	}
	_, err := x.exec(`UPDATE accounts SET state = $1, reason = $2, attempts = 0,
		due = CASE WHEN `+aliasesToRemove+` THEN $4 ELSE $3 END, began_at = $4,
		progress_at = $4, updated_at = $4, owner = '', lease_until = 0, fence = fence + 1 WHERE id = $5`, to, reason, millis(due), millis(now), a.ID)
	return err
}

// SourceRun is a Run with the UIDVALIDITY under which SourceFirst counts.
type SourceRun struct {
	Run
	SourceUIDValidity uint32
}

// Runs lists a folder's runs under all UIDVALIDITYs.
func (s *Store) Runs(ctx context.Context, folderID int64) ([]SourceRun, error) {
	return list(ctx, s.r, func(rows *sql.Rows) (r SourceRun, err error) {
		var digests []byte
		if err := rows.Scan(&r.SourceUIDValidity, &r.SourceFirst, &r.TargetFirst, &r.TargetUIDValidity, &r.Octets, &r.Appended, &digests); err != nil {
			return r, err
		}
		if len(digests)%len(Digest{}) != 0 {
			return r, fmt.Errorf("the run at UID %d of folder %d is damaged", r.SourceFirst, folderID)
		}
		for d := range slices.Chunk(digests, len(Digest{})) {
			r.Digests = append(r.Digests, Digest(d))
		}
		return r, nil
	}, `SELECT source_uidvalidity, source_first, target_first, target_uidvalidity, octets, appended, digests
		FROM runs WHERE folder_id = $1 ORDER BY source_uidvalidity, source_first`, folderID)
}

// RollbackIntent is a batch of messages that is about to be appended to a folder of
// the source. It is committed before the first octet of it leaves.
type RollbackIntent struct {
	ID                int64
	FolderID          int64
	SourceUIDValidity uint32
	SourceUIDNext     uint32
	TargetUIDValidity uint32
	Messages          []RollbackMessage // in the order in which they are sent
}

// RollbackMessage is one message of a RollbackIntent.
type RollbackMessage struct {
	TargetUID uint32
	Octets    int64
	Digest    Digest
}

// rollbackMessageSize is what one takes in an intent's row: UID, octets, digest;
// big endian.
const rollbackMessageSize = 4 + 8 + len(Digest{})

// OpenRollbackIntent commits an intent and sets its ID.
func (c *Claim) OpenRollbackIntent(ctx context.Context, i *RollbackIntent) error {
	packed := make([]byte, 0, len(i.Messages)*rollbackMessageSize)
	for _, m := range i.Messages {
		packed = binary.BigEndian.AppendUint32(packed, m.TargetUID)
		packed = binary.BigEndian.AppendUint64(packed, uint64(m.Octets))
		packed = append(packed, m.Digest[:]...)
	}
	var id int64
	err := c.write(ctx, func(x *tx) error {
		if _, err := c.folder(x, i.FolderID); err != nil {
			return err
		}
		return x.get(`INSERT INTO rollback_intents (folder_id, source_uidvalidity, source_uidnext, target_uidvalidity, messages)
			VALUES ($1, $2, $3, $4, $5) RETURNING id`,
			[]any{i.FolderID, i.SourceUIDValidity, i.SourceUIDNext, i.TargetUIDValidity, packed}, &id)
	})
	if err == nil {
		i.ID = id
	}
	return err
}

// RollbackIntents lists the account's intents that were not settled, oldest first.
func (c *Claim) RollbackIntents(ctx context.Context) ([]RollbackIntent, error) {
	return list(ctx, c.store.r, func(rows *sql.Rows) (i RollbackIntent, err error) {
		var packed []byte
		if err := rows.Scan(&i.ID, &i.FolderID, &i.SourceUIDValidity, &i.SourceUIDNext, &i.TargetUIDValidity, &packed); err != nil {
			return i, err
		}
		if len(packed)%rollbackMessageSize != 0 {
			return i, fmt.Errorf("an intent of %d bytes is damaged", len(packed))
		}
		for m := range slices.Chunk(packed, rollbackMessageSize) {
			i.Messages = append(i.Messages, RollbackMessage{TargetUID: binary.BigEndian.Uint32(m),
				Octets: int64(binary.BigEndian.Uint64(m[4:])), Digest: Digest(m[12:])})
		}
		return i, nil
	}, `SELECT i.id, i.folder_id, i.source_uidvalidity, i.source_uidnext, i.target_uidvalidity, i.messages
		FROM rollback_intents i JOIN folders f ON f.id = i.folder_id WHERE f.account_id = $1 ORDER BY i.id`, c.id)
}

// SettleRollback ends an intent with those of its messages that are on the source:
// from now on the ledger accounts for them, as for messages that were recognised,
// so that they are not copied to the target again.
func (c *Claim) SettleRollback(ctx context.Context, i RollbackIntent, done []Message) error {
	done = slices.Clone(done)
	slices.SortFunc(done, func(a, b Message) int { return int(int64(a.SourceUID) - int64(b.SourceUID)) })
	return c.write(ctx, func(x *tx) error {
		n, err := x.exec("DELETE FROM rollback_intents WHERE id = $1 AND folder_id = $2", i.ID, i.FolderID)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrChanged
		}
		f := Folder{ID: i.FolderID, SourceUIDValidity: i.SourceUIDValidity, TargetUIDValidity: i.TargetUIDValidity}
		for _, r := range split(done) {
			if err := x.addRun(f, r); err != nil {
				return err
			}
		}
		if len(done) == 0 {
			return nil
		}
		return c.progress(x, done, 0)
	})
}

// Rebased is a folder of which the ledger is made to say again what is on the
// target.
type Rebased struct {
	// Folder is written as by PutFolder; what is added counts under its
	// UIDVALIDITYs.
	Folder Folder
	// Changed are the runs of which something is forgotten, or counts as appended.
	Changed []RebasedRun
	// Added are messages that are accounted for in another way than before.
	Added []Message
	// Strays are messages of the target that the source does not have there: they
	// count as copied under the UIDVALIDITY 0, which no folder of the source has.
	Strays []Message
	// Altered are messages of other octets on the two sides.
	Altered []Altered
}

// RebasedRun is what is left of a run.
type RebasedRun struct {
	SourceRun
	Kept []Message
}

// Rebase ends the rollback for good: the ledger of an account that moves anew says
// what is on the target by now, in one transaction with that it does.
func (c *Claim) Rebase(ctx context.Context, folders []Rebased) error {
	return c.update(ctx, func(x *tx) error {
		for _, f := range folders {
			if err := c.rebaseFolder(x, f); err != nil {
				return err
			}
		}
		messages, err := c.countCopied(x)
		if err == nil {
			_, err = x.exec("UPDATE accounts SET messages = $1 WHERE id = $2", messages, c.id)
		}
		return err
	}, "rolled_back_at = 0")
}

// countCopied counts the messages of the target that the ledger has, each once:
// under several UIDVALIDITYs of the source, runs overlap there.
func (c *Claim) countCopied(x *tx) (n int64, err error) {
	type span struct{ folder, validity, first, messages int64 }
	runs, err := list(x.ctx, x, func(rows *sql.Rows) (s span, err error) {
		err = rows.Scan(&s.folder, &s.validity, &s.first, &s.messages)
		return s, err
	}, `SELECT r.folder_id, r.target_uidvalidity, r.target_first, r.messages FROM runs r JOIN folders f ON f.id = r.folder_id
		WHERE f.account_id = $1 AND r.target_first > 0 ORDER BY 1, 2, 3`, c.id)
	var last span
	counted := int64(0) // up to which UID
	for _, r := range runs {
		if r.folder != last.folder || r.validity != last.validity {
			counted = 0
		}
		last = r
		end := r.first + r.messages
		n += max(0, end-max(r.first, counted))
		counted = max(counted, end)
	}
	return n, err
}

func (c *Claim) rebaseFolder(x *tx, r Rebased) error {
	f := r.Folder
	if _, err := c.folder(x, f.ID); err != nil {
		return err
	}
	if _, err := x.exec(`UPDATE folders SET source_uidvalidity = $1, target_uidvalidity = $2, matched = $3, source_uidnext = 0
		WHERE id = $4`, f.SourceUIDValidity, f.TargetUIDValidity, f.Matched, f.ID); err != nil {
		return err
	}
	for _, run := range r.Changed { // all of them first: what is added may become part of a run before it
		if _, err := x.exec("DELETE FROM runs WHERE folder_id = $1 AND source_uidvalidity = $2 AND source_first = $3",
			f.ID, run.SourceUIDValidity, run.SourceFirst); err != nil {
			return err
		}
	}
	for _, run := range r.Changed {
		was := Folder{ID: f.ID, SourceUIDValidity: run.SourceUIDValidity, TargetUIDValidity: run.TargetUIDValidity}
		if err := x.addRuns(was, run.Kept); err != nil {
			return err
		}
	}
	if err := x.addRuns(f, r.Added); err != nil {
		return err
	}
	if err := x.addRuns(Folder{ID: f.ID, TargetUIDValidity: f.TargetUIDValidity}, r.Strays); err != nil {
		return err
	}
	for _, a := range r.Altered {
		if err := x.noteAltered(f, a); err != nil {
			return err
		}
	}
	return c.see(x, r.Added)
}

// addRuns writes messages into a folder's ledger, in any order.
func (x *tx) addRuns(f Folder, messages []Message) error {
	slices.SortFunc(messages, func(a, b Message) int { return cmp.Compare(a.SourceUID, b.SourceUID) })
	for _, run := range split(messages) {
		if err := x.addRun(f, run); err != nil {
			return err
		}
	}
	return nil
}

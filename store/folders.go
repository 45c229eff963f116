package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

const folderColumns = `f.id, f.account_id, f.source, f.target, f.selectable, f.subscribed, f.special_use,
	f.source_uidvalidity, f.target_uidvalidity, f.matched, f.source_uidnext`

// scanFolder reads folderColumns and what else was selected after them.
func scanFolder(rows *sql.Rows, more ...any) (Folder, error) {
	var f Folder
	var source, target []byte
	err := rows.Scan(append([]any{&f.ID, &f.AccountID, &source, &target, &f.Selectable, &f.Subscribed, &f.SpecialUse,
		&f.SourceUIDValidity, &f.TargetUIDValidity, &f.Matched, &f.SourceUIDNext}, more...)...)
	f.Source, f.Target = string(source), string(target)
	return f, err
}

// Folders lists the account's folders in the order in which they were put.
func (c *Claim) Folders(ctx context.Context) ([]Folder, error) {
	return list(ctx, c.store.r, func(rows *sql.Rows) (Folder, error) { return scanFolder(rows) },
		"SELECT "+folderColumns+" FROM folders f WHERE f.account_id = $1 ORDER BY f.id", c.id)
}

// Folders lists an account's folders, in the order in which they were put, and
// what has become of their messages so far.
func (s *Store) Folders(ctx context.Context, accountID int64) ([]FolderCounts, error) {
	return list(ctx, s.r, func(rows *sql.Rows) (c FolderCounts, err error) {
		c.Folder, err = scanFolder(rows, &c.Messages, &c.SetAside, &c.Altered)
		return c, err
	}, "SELECT "+folderColumns+`,
		(SELECT COALESCE(SUM(messages), 0) FROM runs r
			WHERE r.folder_id = f.id AND r.source_uidvalidity = f.source_uidvalidity AND r.target_first > 0),
		(SELECT COUNT(*) FROM quarantine q WHERE q.folder_id = f.id AND q.complete),
		(SELECT COUNT(*) FROM altered a WHERE a.folder_id = f.id)
		FROM folders f WHERE f.account_id = $1 ORDER BY f.id`, accountID)
}

// PutFolder adds a folder to the mapping (ID 0; it is set) or writes its
// UIDVALIDITYs, subscription, Matched and SourceUIDNext. Two folders of an account never share
// a source or a target name: such a folder is refused.
func (c *Claim) PutFolder(ctx context.Context, f *Folder) error {
	id := f.ID
	err := c.write(ctx, func(x *tx) error {
		if f.ID == 0 {
			return x.get(`INSERT INTO folders (account_id, source, target, selectable, subscribed,
				special_use, source_uidvalidity, target_uidvalidity, matched)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id`,
				[]any{c.id, []byte(f.Source), []byte(f.Target), f.Selectable, f.Subscribed,
					plain(f.SpecialUse), f.SourceUIDValidity, f.TargetUIDValidity, f.Matched}, &id)
		}
		if _, err := c.folder(x, f.ID); err != nil {
			return err
		}
		_, err := x.exec(`UPDATE folders SET subscribed = $1, source_uidvalidity = $2,
			target_uidvalidity = $3, matched = $4, source_uidnext = $5 WHERE id = $6`,
			f.Subscribed, f.SourceUIDValidity, f.TargetUIDValidity, f.Matched, f.SourceUIDNext, f.ID)
		return err
	})
	if err == nil {
		f.ID, f.AccountID = id, c.id
	}
	return err
}

// folder reads the UIDVALIDITYs of one of the account's folders.
func (c *Claim) folder(x *tx, id int64) (Folder, error) {
	f := Folder{ID: id, AccountID: c.id}
	err := x.get("SELECT source_uidvalidity, target_uidvalidity FROM folders WHERE id = $1 AND account_id = $2",
		[]any{id, c.id}, &f.SourceUIDValidity, &f.TargetUIDValidity)
	if errors.Is(err, sql.ErrNoRows) {
		return f, fmt.Errorf("account %d has no folder %d", c.id, id)
	}
	return f, err
}

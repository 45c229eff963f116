package store

import (
	"context"
	"database/sql"
)

// Refusal is a message that the target refused. It may be set aside once it was
// refused alone and another message was accepted after a refusal of it.
type Refusal struct {
	FolderID          int64
	SourceUIDValidity uint32
	SourceUID         uint32
	Alone             bool // not only together with others
	Outlived          bool // another message was accepted afterwards
	Reason            string
}

const accountFolders = " folder_id IN (SELECT id FROM folders WHERE account_id = $1)"

// NoteRefusals records refusals, under the present SourceUIDValidity of their
// folders. What is known of a message already stays true.
func (c *Claim) NoteRefusals(ctx context.Context, refusals ...Refusal) error {
	return c.write(ctx, func(x *tx) error {
		for _, r := range refusals {
			f, err := c.folder(x, r.FolderID)
			if err != nil {
				return err
			}
			if _, err := x.exec(`INSERT INTO refusals (folder_id, source_uidvalidity, source_uid, alone, outlived, reason)
				VALUES ($1, $2, $3, $4, $5, $6)
				ON CONFLICT (folder_id, source_uidvalidity, source_uid) DO UPDATE SET
				alone = (refusals.alone OR excluded.alone), outlived = (refusals.outlived OR excluded.outlived),
				reason = excluded.reason`,
				f.ID, f.SourceUIDValidity, r.SourceUID, r.Alone, r.Outlived, plain(r.Reason)); err != nil {
				return err
			}
		}
		return nil
	})
}

// OutliveRefusals records that the target accepted a message after the
// refusals noted so far.
func (c *Claim) OutliveRefusals(ctx context.Context) error {
	return c.write(ctx, func(x *tx) error {
		_, err := x.exec("UPDATE refusals SET outlived = TRUE WHERE"+accountFolders, c.id)
		return err
	})
}

// ForgetRefusals drops the refusals that were not outlived: they may have been
// the target's fault.
func (c *Claim) ForgetRefusals(ctx context.Context) error {
	return c.write(ctx, func(x *tx) error {
		_, err := x.exec("DELETE FROM refusals WHERE NOT outlived AND"+accountFolders, c.id)
		return err
	})
}

// Refusals lists the account's refusals, by folder and UID, with those under
// former UIDVALIDITIES of the source.
func (c *Claim) Refusals(ctx context.Context) ([]Refusal, error) {
	return list(ctx, c.store.r, func(rows *sql.Rows) (r Refusal, err error) {
		err = rows.Scan(&r.FolderID, &r.SourceUIDValidity, &r.SourceUID, &r.Alone, &r.Outlived, &r.Reason)
		return r, err
	}, `SELECT folder_id, source_uidvalidity, source_uid, alone, outlived, reason FROM refusals
		WHERE`+accountFolders+" ORDER BY folder_id, source_uidvalidity, source_uid", c.id)
}

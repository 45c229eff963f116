package store

import (
	"context"
	"database/sql"
)

// Rename is a folder that was renamed on the source, with the names that it is to
// have on both sides.
type Rename struct {
	FolderID       int64
	Source, Target string
	// Renamed: it has these names, on the target as well. What is left is to look
	// whether its messages kept their UIDs.
	Renamed bool
}

// BeginRename commits that a folder and those below it are about to be renamed on
// the target.
func (c *Claim) BeginRename(ctx context.Context, renames []Rename) error {
	return c.write(ctx, func(x *tx) error {
		for _, r := range renames {
			if _, err := c.folder(x, r.FolderID); err != nil {
				return err
			}
			if _, err := x.exec("INSERT INTO folder_renames (folder_id, source, target, renamed) VALUES ($1, $2, $3, FALSE)",
				r.FolderID, []byte(r.Source), []byte(r.Target)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Renames lists the renamings that have not ended, the folder itself before those
// below it.
func (c *Claim) Renames(ctx context.Context) ([]Rename, error) { return c.renames(ctx, c.store.r) }

func (c *Claim) renames(ctx context.Context, q querier) ([]Rename, error) {
	return list(ctx, q, func(rows *sql.Rows) (r Rename, err error) {
		var source, target []byte
		err = rows.Scan(&r.FolderID, &source, &target, &r.Renamed)
		r.Source, r.Target = string(source), string(target)
		return r, err
	}, `SELECT r.folder_id, r.source, r.target, r.renamed FROM folder_renames r JOIN folders f ON f.id = r.folder_id
		WHERE f.account_id = $1 ORDER BY LENGTH(r.target), r.folder_id`, c.id)
}

// Renamed gives the folders of all renamings their new names, without a
// subscription, once the target has renamed them.
func (c *Claim) Renamed(ctx context.Context) error {
	return c.write(ctx, func(x *tx) error {
		all, err := c.renames(ctx, x)
		if err != nil {
			return err
		}
		for _, r := range all {
			if r.Renamed {
				continue
			}
			if _, err := x.exec("UPDATE folders SET source = $1, target = $2, subscribed = FALSE WHERE id = $3",
				[]byte(r.Source), []byte(r.Target), r.FolderID); err != nil {
				return err
			}
			if _, err := x.exec("UPDATE folder_renames SET renamed = TRUE WHERE folder_id = $1", r.FolderID); err != nil {
				return err
			}
		}
		return nil
	})
}

// EndRename ends the renaming of a folder. validity is the target's UIDVALIDITY by
// now; if that is another one and same is true, the ledger's UIDs count under it,
// otherwise what the ledger has of the folder is forgotten, and is recognised anew.
func (c *Claim) EndRename(ctx context.Context, folderID int64, validity uint32, same bool) error {
	return c.write(ctx, func(x *tx) error {
		f, err := c.folder(x, folderID)
		if err != nil {
			return err
		}
		if validity != f.TargetUIDValidity && same {
			if _, err := x.exec("UPDATE runs SET target_uidvalidity = $1 WHERE folder_id = $2 AND target_uidvalidity = $3",
				validity, f.ID, f.TargetUIDValidity); err != nil {
				return err
			}
			if _, err := x.exec("UPDATE folders SET target_uidvalidity = $1 WHERE id = $2", validity, f.ID); err != nil {
				return err
			}
		} else if validity != f.TargetUIDValidity {
			if err := c.forgetFolder(x, f.ID); err != nil {
				return err
			}
		}
		_, err = x.exec("DELETE FROM folder_renames WHERE folder_id = $1", f.ID)
		return err
	})
}

// GiveUpRenames forgets renamings that the target has not done.
func (c *Claim) GiveUpRenames(ctx context.Context) error {
	return c.write(ctx, func(x *tx) error {
		_, err := x.exec(`DELETE FROM folder_renames WHERE NOT renamed
			AND folder_id IN (SELECT id FROM folders WHERE account_id = $1)`, c.id)
		return err
	})
}

// BeginRemoval commits that an empty folder is about to be removed on the target,
// since the source has it no more. It stays in the mapping as one of which nothing
// is known but its names and its subscription.
func (c *Claim) BeginRemoval(ctx context.Context, folderID int64) error {
	return c.write(ctx, func(x *tx) error {
		f, err := c.folder(x, folderID)
		if err != nil {
			return err
		}
		if err := c.forgetFolder(x, f.ID); err != nil {
			return err
		}
		_, err = x.exec("UPDATE folders SET source_uidvalidity = 0 WHERE id = $1", f.ID)
		return err
	})
}

// ForgetFolder is for a folder that was removed on both sides: it leaves the
// mapping. Where something is set aside from it, that keeps its place there, as of
// a new one.
func (c *Claim) ForgetFolder(ctx context.Context, folderID int64) error {
	return c.write(ctx, func(x *tx) error {
		f, err := c.folder(x, folderID)
		if err != nil {
			return err
		}
		if err := c.forgetFolder(x, f.ID); err != nil {
			return err
		}
		if _, err := x.exec("UPDATE folders SET subscribed = FALSE, source_uidvalidity = 0 WHERE id = $1", f.ID); err != nil {
			return err
		}
		_, err = x.exec(`DELETE FROM folders WHERE id = $1
			AND NOT EXISTS (SELECT 1 FROM quarantine q WHERE q.folder_id = $1)
			AND NOT EXISTS (SELECT 1 FROM intents i WHERE i.folder_id = $1)`, f.ID)
		return err
	})
}

// forgetFolder forgets what the ledger has of a folder.
func (c *Claim) forgetFolder(x *tx, id int64) error {
	if err := c.uncount(x, id); err != nil {
		return err
	}
	for _, statement := range []string{"DELETE FROM runs WHERE folder_id = $1", "DELETE FROM altered WHERE folder_id = $1",
		"DELETE FROM refusals WHERE folder_id = $1",
		"UPDATE folders SET target_uidvalidity = 0, matched = FALSE, source_uidnext = 0 WHERE id = $1"} {
		if _, err := x.exec(statement, id); err != nil {
			return err
		}
	}
	return nil
}

// uncount takes a folder's messages out of the account's count, in which each of
// the target's is once.
func (c *Claim) uncount(x *tx, id int64) error {
	type message struct{ validity, uid uint32 }
	counted := map[message]bool{}
	rows, err := list(x.ctx, x, func(rows *sql.Rows) (r [3]uint32, err error) {
		err = rows.Scan(&r[0], &r[1], &r[2])
		return r, err
	}, "SELECT target_uidvalidity, target_first, messages FROM runs WHERE folder_id = $1 AND target_first > 0", id)
	if err != nil {
		return err
	}
	for _, r := range rows {
		for n := range r[2] {
			counted[message{r[0], r[1] + n}] = true
		}
	}
	if _, err := x.exec("UPDATE accounts SET messages = messages - $1 WHERE id = $2", len(counted), c.id); err != nil {
		return err
	}
	_, err = x.written(c.id)
	return err
}

package store

import (
	"context"
	"database/sql"
	"slices"
)

// Forgotten is a message of the target that is there no more, since the source has
// it no more either.
type Forgotten struct {
	TargetUID uint32
	Shows     []Sighting // counted with it; they are taken out of the count
}

// Forget takes messages of a folder out of the ledger that were removed on the
// target, under its present TargetUIDValidity, whatever UIDVALIDITY of the source
// they were copied under: none of them is counted as copied any more, and what is
// equal to one is copied like any other. sizes is what the target shows of the
// others. Nothing is committed before the removal: until this is, it is repeated.
func (c *Claim) Forget(ctx context.Context, folderID int64, gone []Forgotten, sizes func(targetUID uint32) int64) error {
	if len(gone) == 0 {
		return nil
	}
	uids := make([]uint32, len(gone))
	for i, m := range gone {
		uids[i] = m.TargetUID
	}
	slices.Sort(uids)
	return c.write(ctx, func(x *tx) error {
		f, err := c.folder(x, folderID)
		if err != nil {
			return err
		}
		type row struct {
			Run
			validity uint32 // of the source
			messages uint32
		}
		rows, err := list(ctx, x, func(rows *sql.Rows) (r row, err error) {
			err = rows.Scan(&r.validity, &r.SourceFirst, &r.TargetFirst, &r.Appended, &r.messages)
			return r, err
		}, `SELECT source_uidvalidity, source_first, target_first, appended, messages FROM runs
			WHERE folder_id = $1 AND target_uidvalidity = $2 AND target_first BETWEEN 1 AND $3 AND target_first + messages > $4`,
			f.ID, f.TargetUIDValidity, uids[len(uids)-1], uids[0])
		if err != nil {
			return err
		}
		forgotten := map[uint32]bool{}
		for _, r := range rows {
			at, _ := slices.BinarySearch(uids, r.TargetFirst)
			if at == len(uids) || uids[at]-r.TargetFirst >= r.messages {
				continue
			}
			for ; at < len(uids) && uids[at]-r.TargetFirst < r.messages; at++ {
				forgotten[uids[at]] = true
			}
			under := f
			under.SourceUIDValidity = r.validity
			if err := x.cutRun(under, r.Run, uids, sizes); err != nil {
				return err
			}
		}
		for _, m := range gone {
			if !forgotten[m.TargetUID] {
				continue
			}
			for _, s := range m.Shows {
				if _, err := x.exec(`UPDATE sightings SET messages = messages - 1
					WHERE account_id = $1 AND address = $2 AND headers = $3 AND messages > 0`, c.id, s.Address, s.Headers); err != nil {
					return err
				}
			}
		}
		if _, err := x.exec("UPDATE accounts SET messages = messages - $1 WHERE id = $2", len(forgotten), c.id); err != nil {
			return err
		}
		_, err = x.written(c.id)
		return err
	})
}

// cutRun replaces a run by what is left of it without these UIDs of the target.
func (x *tx) cutRun(f Folder, r Run, uids []uint32, sizes func(uint32) int64) error {
	var digests []byte
	key := []any{f.ID, f.SourceUIDValidity, r.SourceFirst}
	const where = " WHERE folder_id = $1 AND source_uidvalidity = $2 AND source_first = $3"
	if err := x.get("SELECT digests FROM runs"+where, key, &digests); err != nil {
		return err
	}
	if _, err := x.exec("DELETE FROM runs"+where, key...); err != nil {
		return err
	}
	var left []Message
	n := uint32(0)
	for d := range slices.Chunk(digests, len(Digest{})) {
		m := Message{SourceUID: r.SourceFirst + n, TargetUID: r.TargetFirst + n, Digest: Digest(d), Appended: r.Appended}
		n++
		if _, gone := slices.BinarySearch(uids, m.TargetUID); !gone {
			m.Octets = sizes(m.TargetUID)
			left = append(left, m)
			continue
		}
		if _, err := x.exec("DELETE FROM altered WHERE folder_id = $1 AND source_uidvalidity = $2 AND source_uid = $3",
			f.ID, f.SourceUIDValidity, m.SourceUID); err != nil {
			return err
		}
	}
	for _, piece := range split(left) {
		if err := x.addRun(f, piece); err != nil {
			return err
		}
	}
	return nil
}

// ForgetStanding takes those messages out of the ledger that are accounted for by
// others: they are copied like any that is new.
func (c *Claim) ForgetStanding(ctx context.Context) error {
	return c.write(ctx, func(x *tx) error {
		_, err := x.exec("DELETE FROM runs WHERE target_first = 0 AND folder_id IN (SELECT id FROM folders WHERE account_id = $1)", c.id)
		return err
	})
}

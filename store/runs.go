package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

// maxRun bounds the digests in one row, so that extending a run rewrites
// little: 16 KiB.
const maxRun = 1024

// Ledger lists a folder's runs of its present SourceUIDValidity, by SourceFirst.
func (c *Claim) Ledger(ctx context.Context, folderID int64) ([]Run, error) {
	return c.runs(ctx, "r.source_uidvalidity = f.source_uidvalidity", folderID)
}

// PastLedger lists a folder's runs of all other SourceUIDValidities: what was
// copied before the source gave its messages new UIDs. Its digests say what
// must not be copied again.
func (c *Claim) PastLedger(ctx context.Context, folderID int64) ([]Run, error) {
	return c.runs(ctx, "r.source_uidvalidity <> f.source_uidvalidity", folderID)
}

func (c *Claim) runs(ctx context.Context, where string, folderID int64) ([]Run, error) {
	return list(ctx, c.store.r, func(rows *sql.Rows) (Run, error) {
		var r Run
		var digests []byte
		if err := rows.Scan(&r.SourceFirst, &r.TargetFirst, &r.TargetUIDValidity, &r.Octets, &r.Appended, &digests); err != nil {
			return r, err
		}
		if len(digests)%len(Digest{}) != 0 {
			return r, fmt.Errorf("the run at UID %d of folder %d is damaged", r.SourceFirst, folderID)
		}
		for d := range slices.Chunk(digests, len(Digest{})) {
			r.Digests = append(r.Digests, Digest(d))
		}
		return r, nil
	}, `SELECT r.source_first, r.target_first, r.target_uidvalidity, r.octets, r.appended, r.digests
		FROM runs r JOIN folders f ON f.id = r.folder_id
		WHERE f.id = $1 AND f.account_id = $2 AND `+where+`
		ORDER BY r.source_uidvalidity, r.source_first`, folderID, c.id)
}

// Settle ends an intent (nil where there was none, for messages recognised on
// the target) with the messages of it that are on the target, in source order:
// one transaction with the ledger, the account's counts, what the messages
// showed, and ProgressAt. An intent that was settled before is ErrChanged; a
// message that the ledger has already is ErrRecorded. What was set aside and is
// on the target now leaves the quarantine.
func (c *Claim) Settle(ctx context.Context, folderID int64, i *Intent, done []Message) error {
	done = slices.Clone(done)
	slices.SortFunc(done, func(a, b Message) int { return int(int64(a.SourceUID) - int64(b.SourceUID)) })
	return c.write(ctx, func(x *tx) error {
		f, err := c.folder(x, folderID)
		if err != nil {
			return err
		}
		if i != nil {
			n, err := x.exec("DELETE FROM intents WHERE id = $1 AND folder_id = $2", i.ID, folderID)
			if err != nil {
				return err
			}
			if n == 0 {
				return ErrChanged
			}
			// What was sent belongs to the UIDVALIDITY of then.
			f.SourceUIDValidity, f.TargetUIDValidity = i.SourceUIDValidity, i.TargetUIDValidity
		}
		if len(done) == 0 {
			return nil
		}
		known, err := x.countKnown(f, done)
		if err != nil {
			return err
		}
		for _, r := range split(done) {
			if err := x.addRun(f, r); err != nil {
				return err
			}
		}
		if err := c.progress(x, done, known); err != nil {
			return err
		}
		if err := c.see(x, done); err != nil {
			return err
		}
		return c.takeOut(x, f, done)
	})
}

// takeOut takes messages that were settled out of the quarantine.
func (c *Claim) takeOut(x *tx, f Folder, done []Message) error {
	a, err := x.accountByID(c.id)
	if err != nil || a.SetAside == 0 {
		return err
	}
	var out int64
	for _, m := range done {
		n, err := x.exec(`DELETE FROM quarantine WHERE folder_id = $1 AND source_uidvalidity = $2 AND source_uid = $3
			AND complete AND $4 > 0`, f.ID, f.SourceUIDValidity, m.SourceUID, m.TargetUID)
		if err != nil {
			return err
		}
		// Its refusal has led to that, and is not to lead to it again.
		if _, err := x.exec("DELETE FROM refusals WHERE folder_id = $1 AND source_uidvalidity = $2 AND source_uid = $3",
			f.ID, f.SourceUIDValidity, m.SourceUID); err != nil {
			return err
		}
		out += n
	}
	if out == 0 {
		return nil
	}
	if _, err := x.exec("UPDATE accounts SET set_aside = set_aside - $1 WHERE id = $2", out, c.id); err != nil {
		return err
	}
	_, err = x.written(c.id)
	return err
}

// countKnown counts those messages, recognised on the target, that the ledger
// has under another UIDVALIDITY of the source already.
func (x *tx) countKnown(f Folder, done []Message) (known int64, err error) {
	var uids []uint32
	for _, m := range done {
		if m.TargetUID != 0 && !m.Appended {
			uids = append(uids, m.TargetUID)
		}
	}
	if len(uids) == 0 {
		return 0, nil
	}
	slices.Sort(uids)
	// Two ranges of the primary key instead of one inequality, which would read
	// the folder's whole ledger.
	past, err := list(x.ctx, x, func(rows *sql.Rows) (r [2]uint32, err error) {
		err = rows.Scan(&r[0], &r[1])
		return r, err
	}, `SELECT target_first, messages FROM runs WHERE folder_id = $1 AND source_uidvalidity < $2
			AND target_uidvalidity = $3 AND target_first BETWEEN 1 AND $4 AND target_first + messages > $5
		UNION ALL SELECT target_first, messages FROM runs WHERE folder_id = $1 AND source_uidvalidity > $2
			AND target_uidvalidity = $3 AND target_first BETWEEN 1 AND $4 AND target_first + messages > $5`,
		f.ID, f.SourceUIDValidity, f.TargetUIDValidity, uids[len(uids)-1], uids[0])
	if err != nil {
		return 0, err
	}
	seen := make([]bool, len(uids))
	for _, r := range past {
		first, n := r[0], r[1]
		for i, _ := slices.BinarySearch(uids, first); i < len(uids) && uids[i]-first < n; i++ {
			if !seen[i] {
				seen[i] = true
				known++
			}
		}
	}
	return known, nil
}

// progress counts what was settled: each message of the target once, of which
// known were counted before.
func (c *Claim) progress(x *tx, done []Message, known int64) error {
	messages, appended, bytes := -known, int64(0), int64(0)
	for _, m := range done {
		if m.TargetUID != 0 {
			messages++
		}
		if m.Appended {
			appended++
			bytes += m.Octets
		}
	}
	now := time.Now()
	if _, err := x.exec(`UPDATE accounts SET messages = messages + $1, bytes = bytes + $2,
		attempts = 0, failing = FALSE, progress_at = $3, updated_at = $3 WHERE id = $4`,
		messages, bytes, now.UnixMilli(), c.id); err != nil {
		return err
	}
	a, err := x.written(c.id)
	if err != nil || a.Moved() || appended == 0 {
		return err
	}
	return x.pace(appended, bytes, now)
}

// split makes runs of messages that are sorted by source UID.
func split(done []Message) []Run {
	var runs []Run
	for _, m := range done {
		if n := len(runs); n == 0 || !runs[n-1].continues(m) || len(runs[n-1].Digests) == maxRun {
			runs = append(runs, Run{SourceFirst: m.SourceUID, TargetFirst: m.TargetUID, Appended: m.Appended})
		}
		r := &runs[len(runs)-1]
		r.Digests = append(r.Digests, m.Digest)
		r.Octets += m.Octets
	}
	return runs
}

// continues reports whether m comes next after the run, on both sides.
func (r *Run) continues(m Message) bool {
	n := uint64(len(r.Digests))
	next := uint64(r.TargetFirst) + n
	if r.TargetFirst == 0 {
		next = 0
	}
	return uint64(m.SourceUID) == uint64(r.SourceFirst)+n && uint64(m.TargetUID) == next && m.Appended == r.Appended
}

// addRun writes a run, into the row before it as far as it continues that one.
func (x *tx) addRun(f Folder, r Run) error {
	before := Run{}
	var count, next int64
	key := []any{f.ID, f.SourceUIDValidity, r.SourceFirst}
	err := x.get(`SELECT source_first, target_first, target_uidvalidity, messages, appended FROM runs
		WHERE folder_id = $1 AND source_uidvalidity = $2 AND source_first <= $3
		ORDER BY source_first DESC LIMIT 1`, key,
		&before.SourceFirst, &before.TargetFirst, &before.TargetUIDValidity, &count, &before.Appended)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if int64(before.SourceFirst)+count > int64(r.SourceFirst) {
		return ErrRecorded
	}
	if err := x.get(`SELECT COUNT(*) FROM runs WHERE folder_id = $1 AND source_uidvalidity = $2
		AND source_first > $3 AND source_first < $4`,
		append(key, int64(r.SourceFirst)+int64(len(r.Digests))), &next); err != nil {
		return err
	}
	if next > 0 {
		return ErrRecorded
	}
	contiguous := count > 0 && before.TargetUIDValidity == f.TargetUIDValidity && before.Appended == r.Appended &&
		int64(before.SourceFirst)+count == int64(r.SourceFirst) &&
		(int64(before.TargetFirst)+count == int64(r.TargetFirst) || before.TargetFirst == 0 && r.TargetFirst == 0) &&
		(before.TargetFirst == 0) == (r.TargetFirst == 0)
	if contiguous && count+int64(len(r.Digests)) <= maxRun {
		return x.extendRun(f, before, r)
	}
	_, err = x.exec(`INSERT INTO runs (folder_id, source_uidvalidity, source_first, target_uidvalidity,
		target_first, messages, octets, appended, digests) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		f.ID, f.SourceUIDValidity, r.SourceFirst, f.TargetUIDValidity, r.TargetFirst,
		len(r.Digests), r.Octets, r.Appended, pack(r.Digests))
	return err
}

// extendRun adds r to the row that it continues.
func (x *tx) extendRun(f Folder, before, r Run) error {
	key := []any{f.ID, f.SourceUIDValidity, before.SourceFirst}
	const where = " WHERE folder_id = $1 AND source_uidvalidity = $2 AND source_first = $3"
	var digests []byte
	if err := x.get("SELECT digests FROM runs"+where, key, &digests); err != nil {
		return err
	}
	_, err := x.exec("UPDATE runs SET messages = messages + $4, octets = octets + $5, digests = $6"+where,
		append(key, len(r.Digests), r.Octets, append(digests, pack(r.Digests)...))...)
	return err
}

func pack(digests []Digest) []byte {
	packed := make([]byte, 0, len(digests)*len(Digest{}))
	for _, d := range digests {
		packed = append(packed, d[:]...)
	}
	return packed
}

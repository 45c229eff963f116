package store

import (
	"context"
	"database/sql"
	"errors"
)

// LedgerRun is a Run without its digests, under any UIDVALIDITY of the source:
// the source UIDs SourceFirst .. SourceFirst+Messages-1 are, in this order, the
// target UIDs TargetFirst .. TargetFirst+Messages-1. With a TargetFirst of 0
// they are none of this folder's, see Run.
type LedgerRun struct {
	SourceUIDValidity uint32
	SourceFirst       uint32
	TargetUIDValidity uint32
	TargetFirst       uint32
	Messages          uint32
}

// Evidence is what is known of the messages of one folder, as of one moment.
type Evidence struct {
	// Runs are all of the ledger, by SourceUIDValidity and SourceFirst.
	Runs []LedgerRun
	// SetAside are the messages in quarantine (ID, SourceUID, Octets and Reason
	// are set), and Altered those that the target changed; both under
	// SourceUIDValidity and by SourceUID.
	SourceUIDValidity uint32
	SetAside          []SetAside
	Altered           []Altered
}

// Evidence reads what is known of a folder, without a claim on its account. A
// copy may be going on meanwhile.
func (s *Store) Evidence(ctx context.Context, folderID int64) (e Evidence, err error) {
	t, err := s.r.BeginTx(ctx, nil) // one view of all tables
	if err != nil {
		return e, dbError(err)
	}
	defer func() { err = errors.Join(err, dbError(t.Rollback())) }()
	err = t.QueryRowContext(ctx, "SELECT source_uidvalidity FROM folders WHERE id = $1", folderID).Scan(&e.SourceUIDValidity)
	if err != nil {
		return e, dbError(err)
	}
	e.Runs, err = list(ctx, t, func(rows *sql.Rows) (r LedgerRun, err error) {
		err = rows.Scan(&r.SourceUIDValidity, &r.SourceFirst, &r.TargetUIDValidity, &r.TargetFirst, &r.Messages)
		return r, err
	}, `SELECT source_uidvalidity, source_first, target_uidvalidity, target_first, messages
		FROM runs WHERE folder_id = $1 ORDER BY source_uidvalidity, source_first`, folderID)
	if err != nil {
		return e, err
	}
	e.SetAside, err = list(ctx, t, func(rows *sql.Rows) (m SetAside, err error) {
		m.FolderID = folderID
		err = rows.Scan(&m.ID, &m.SourceUID, &m.Octets, &m.Reason)
		return m, err
	}, `SELECT id, source_uid, octets, reason FROM quarantine
		WHERE folder_id = $1 AND source_uidvalidity = $2 AND complete ORDER BY source_uid`, folderID, e.SourceUIDValidity)
	if err != nil {
		return e, err
	}
	e.Altered, err = list(ctx, t, func(rows *sql.Rows) (Altered, error) {
		a := Altered{FolderID: folderID}
		var source, target []byte
		err := rows.Scan(&a.SourceUID, &a.TargetUID, &source, &target, &a.SourceOctets, &a.TargetOctets)
		copy(a.SourceSHA256[:], source)
		copy(a.TargetSHA256[:], target)
		return a, err
	}, `SELECT source_uid, target_uid, source_sha256, target_sha256, source_octets, target_octets
		FROM altered WHERE folder_id = $1 AND source_uidvalidity = $2 ORDER BY source_uid`, folderID, e.SourceUIDValidity)
	return e, err
}

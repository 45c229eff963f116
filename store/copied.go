package store

import (
	"context"
	"errors"
	"slices"
)

// CopiedMessage is one message of the ledger, or of the quarantine, of any
// folder of an account.
type CopiedMessage struct {
	Digest            Digest
	FolderID          int64
	Source            string // the folder's name on the source
	SourceUIDValidity uint32
	SourceUID         uint32
	TargetUIDValidity uint32
	TargetUID         uint32 // 0: it is accounted for by another folder's message, or set aside
	SetAside          bool
	// Present is true under the folder's present SourceUIDValidity.
	Present bool
}

// Copied lists those messages that were copied, recognised or set aside whose
// digest is wanted. It reads the account's whole ledger, run by run.
func (c *Claim) Copied(ctx context.Context, wanted func(Digest) bool) (copied []CopiedMessage, err error) {
	rows, err := c.store.r.QueryContext(ctx, `SELECT f.id, f.source, r.source_uidvalidity, r.source_first,
			r.target_uidvalidity, r.target_first, r.digests, FALSE, r.source_uidvalidity = f.source_uidvalidity
			FROM runs r JOIN folders f ON f.id = r.folder_id WHERE f.account_id = $1
		UNION ALL SELECT f.id, f.source, q.source_uidvalidity, q.source_uid,
			0, 0, q.digest, TRUE, q.source_uidvalidity = f.source_uidvalidity
			FROM quarantine q JOIN folders f ON f.id = q.folder_id WHERE f.account_id = $1 AND q.complete`, c.id)
	if err != nil {
		return nil, dbError(err)
	}
	defer func() { err = errors.Join(err, dbError(rows.Close())) }()
	for rows.Next() {
		var m CopiedMessage
		var source, digests []byte
		if err := rows.Scan(&m.FolderID, &source, &m.SourceUIDValidity, &m.SourceUID,
			&m.TargetUIDValidity, &m.TargetUID, &digests, &m.SetAside, &m.Present); err != nil {
			return nil, dbError(err)
		}
		for d := range slices.Chunk(digests, len(Digest{})) {
			if m.Digest = Digest(d); wanted(m.Digest) {
				m.Source = string(source)
				copied = append(copied, m)
			}
			m.SourceUID++
			if m.TargetUID != 0 {
				m.TargetUID++
			}
		}
	}
	return copied, dbError(rows.Err())
}

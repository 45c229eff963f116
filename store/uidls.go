package store

import (
	"context"
	"database/sql"
)

// UIDL says how POP3 names a message of INBOX, and which UID it has.
type UIDL struct {
	// Name is the unique-id that the server gives (RFC 1939 section 7). Where it
	// gives none, or gave it to several messages, a NUL and the message's Digest
	// follow, since no unique-id has a NUL.
	Name string
	// Occurrence counts the messages of one Name from 0, in the order of the
	// maildrop.
	Occurrence int64
	// SourceUIDValidity and SourceUID are those of the ledger.
	SourceUIDValidity uint32
	SourceUID         uint32
}

// UIDLs lists what POP3 names the account's messages under one UIDVALIDITY,
// also those that have left the maildrop, by UID.
func (c *Claim) UIDLs(ctx context.Context, validity uint32) ([]UIDL, error) {
	return c.store.UIDLs(ctx, c.id, validity)
}

// UIDLs is Claim.UIDLs, without a claim on the account. A copy may be going on
// meanwhile.
func (s *Store) UIDLs(ctx context.Context, accountID int64, validity uint32) ([]UIDL, error) {
	return list(ctx, s.r, func(rows *sql.Rows) (UIDL, error) {
		u := UIDL{SourceUIDValidity: validity}
		var name []byte
		err := rows.Scan(&name, &u.Occurrence, &u.SourceUID)
		u.Name = string(name)
		return u, err
	}, `SELECT uidl, occurrence, source_uid FROM uidls
		WHERE account_id = $1 AND source_uidvalidity = $2 ORDER BY source_uid, uidl, occurrence`, accountID, validity)
}

// PutUIDLs commits names of messages, all or none of them: of a maildrop whose
// server has named everything anew, a part of the new names would look like that
// many messages which stayed, and the others like new ones. One that is known
// gets another UID.
func (c *Claim) PutUIDLs(ctx context.Context, uidls []UIDL) error {
	if len(uidls) == 0 {
		return nil
	}
	return c.write(ctx, func(x *tx) error {
		put, err := x.PrepareContext(ctx, `INSERT INTO uidls (account_id, uidl, occurrence, source_uidvalidity, source_uid)
			VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (account_id, uidl, occurrence) DO UPDATE
			SET source_uidvalidity = excluded.source_uidvalidity, source_uid = excluded.source_uid`)
		if err != nil {
			return dbError(err)
		}
		defer put.Close()
		for _, u := range uidls {
			if _, err := put.ExecContext(ctx, c.id, []byte(u.Name), u.Occurrence, u.SourceUIDValidity, u.SourceUID); err != nil {
				return dbError(err)
			}
		}
		return nil
	})
}

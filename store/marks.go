package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"slices"
	"strings"
)

// Mark is what the source's mailbox of an account is recognised by: its INBOX
// and some messages of it.
type Mark struct {
	// UIDLs: the source is read over POP3, so that UIDValidity and the UIDs are
	// this account's own (see UIDL), and messages are compared by their names.
	UIDLs       bool
	UIDValidity uint32
	UIDNext     uint32        // 0: not known
	Messages    []MarkMessage // none: INBOX is empty
}

// MarkMessage is one message of a Mark.
type MarkMessage struct {
	UID    uint32
	Digest Digest
}

// Alike lists the accounts of the same domain whose mailbox on the source seems
// to be the claimed account's, the oldest first: those that know every message
// of the mark under the same UID, or UIDL, and none that this mailbox cannot
// have, and those that bore the same mark before anything of them was copied.
// Where there is none, the mark is committed for the accounts that come after.
func (c *Claim) Alike(ctx context.Context, m Mark) (others []Account, err error) {
	err = c.write(ctx, func(x *tx) error {
		a, err := x.accountByID(c.id)
		if err != nil {
			return err
		}
		ids, err := x.known(a, m)
		if err != nil {
			return err
		}
		mark, err := x.mark(a, m)
		if err != nil {
			return err
		}
		marked, err := list(ctx, x, scanID, `SELECT a.id FROM source_marks s JOIN accounts a ON a.id = s.account_id
			WHERE s.mark = $1 AND a.domain = $2 AND a.id <> $3`, mark, a.Identity.Domain, a.ID)
		if err != nil {
			return err
		}
		ids = append(ids, marked...)
		slices.Sort(ids)
		for _, id := range slices.Compact(ids) {
			other, err := x.accountByID(id)
			if err != nil {
				return err
			}
			others = append(others, other)
		}
		if len(others) > 0 {
			return nil
		}
		_, err = x.exec(`INSERT INTO source_marks (account_id, mark) VALUES ($1, $2)
			ON CONFLICT (account_id) DO UPDATE SET mark = excluded.mark`, a.ID, mark)
		return err
	})
	return others, err
}

func scanID(rows *sql.Rows) (id int64, err error) {
	err = rows.Scan(&id)
	return id, err
}

// inKnown selects the folders f that know a message: $4 is its UID there, $5 its
// digest.
const inKnown = `(EXISTS (SELECT 1 FROM runs r WHERE r.folder_id = f.id AND r.source_uidvalidity = f.source_uidvalidity
		AND r.source_first <= %[1]s AND r.source_first + r.messages > %[1]s
		AND substr(r.digests, CAST((%[1]s - r.source_first) * 16 + 1 AS INTEGER), 16) = $5)
	OR EXISTS (SELECT 1 FROM quarantine q WHERE q.folder_id = f.id AND q.source_uidvalidity = f.source_uidvalidity
		AND q.source_uid = %[1]s AND q.complete AND q.digest = $5))`

var (
	alikeByUID = `SELECT f.account_id, f.source FROM folders f JOIN accounts a ON a.id = f.account_id
		WHERE f.source_uidvalidity = $1 AND a.domain = $2 AND a.id <> $3 AND ` + strings.ReplaceAll(inKnown, "%[1]s", "$4")
	alikeByUIDL = `SELECT f.account_id, f.source FROM uidls m
		JOIN uidls o ON o.uidl = m.uidl AND o.occurrence = m.occurrence AND o.account_id <> m.account_id
		JOIN accounts a ON a.id = o.account_id
		JOIN folders f ON f.account_id = a.id AND f.source_uidvalidity = o.source_uidvalidity
		WHERE m.source_uidvalidity = $1 AND a.domain = $2 AND m.account_id = $3 AND m.source_uid = $4 AND ` +
		strings.ReplaceAll(inKnown, "%[1]s", "o.source_uid")
)

const (
	// alikeEmpty selects those whose INBOX was empty when they flipped.
	alikeEmpty = `SELECT f.account_id, f.source FROM folders f JOIN accounts a ON a.id = f.account_id
		WHERE f.source_uidvalidity = $1 AND a.domain = $2 AND a.id <> $3 AND a.flipped_at > 0
		AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.folder_id = f.id AND r.source_uidvalidity = f.source_uidvalidity)
		AND NOT EXISTS (SELECT 1 FROM quarantine q WHERE q.folder_id = f.id AND q.source_uidvalidity = f.source_uidvalidity)`
	// beyond selects those that know a message with a UID of $2 or more.
	beyond = `SELECT f.account_id FROM folders f JOIN runs r ON r.folder_id = f.id AND r.source_uidvalidity = f.source_uidvalidity
		WHERE f.id IN (SELECT id FROM folders WHERE account_id = $1 AND source = $3) AND r.source_first + r.messages > $2 LIMIT 1`
)

// known lists the accounts that know every message of a mark.
func (x *tx) known(a Account, m Mark) (ids []int64, err error) {
	args := []any{m.UIDValidity, a.Identity.Domain, a.ID}
	if len(m.Messages) == 0 {
		return x.inboxes(alikeEmpty, m.UIDNext, args...)
	}
	query, next := alikeByUID, m.UIDNext
	if m.UIDLs {
		query, next = alikeByUIDL, 0 // the UIDs are each account's own
	}
	for i, message := range m.Messages {
		some, err := x.inboxes(query, next, append(args[:3:3], message.UID, message.Digest[:])...)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			some = slices.DeleteFunc(some, func(id int64) bool { return !slices.Contains(ids, id) })
		}
		if ids = some; len(ids) == 0 {
			return nil, nil
		}
	}
	return ids, nil
}

// inboxes lists the accounts of the INBOXes that a query selects, but for those
// that know a message which a mailbox with this UIDNEXT has never had.
func (x *tx) inboxes(query string, next uint32, args ...any) (ids []int64, err error) {
	type inbox struct {
		id   int64
		name []byte
	}
	all, err := list(x.ctx, x, func(rows *sql.Rows) (i inbox, err error) {
		err = rows.Scan(&i.id, &i.name)
		return i, err
	}, query, args...)
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if !strings.EqualFold(string(i.name), "INBOX") {
			continue
		}
		if next != 0 {
			more, err := list(x.ctx, x, scanID, beyond, i.id, next, i.name)
			if err != nil {
				return nil, err
			}
			if len(more) > 0 {
				continue
			}
		}
		ids = append(ids, i.id)
	}
	return ids, nil
}

// mark is what two mailboxes that show the same have in common.
func (x *tx) mark(a Account, m Mark) ([]byte, error) {
	var b bytes.Buffer
	number := func(n uint32) { b.Write(binary.BigEndian.AppendUint32(nil, n)) }
	number(m.UIDValidity)
	if len(m.Messages) == 0 {
		number(m.UIDNext)
	}
	for _, message := range m.Messages {
		number(message.UID)
		b.Write(message.Digest[:])
		if !m.UIDLs {
			continue
		}
		names, err := list(x.ctx, x, func(rows *sql.Rows) (name []byte, err error) {
			err = rows.Scan(&name)
			return name, err
		}, "SELECT uidl FROM uidls WHERE account_id = $1 AND source_uidvalidity = $2 AND source_uid = $3 ORDER BY uidl",
			a.ID, m.UIDValidity, message.UID)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			number(uint32(len(name)))
			b.Write(name)
		}
	}
	sum := sha256.Sum256(b.Bytes())
	return sum[:], nil
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"strings"
	"time"
)

// chunkSize is how much of a message in quarantine one row holds.
const chunkSize = 256 << 10

// NoteAltered records messages that the target changed, under the present
// SourceUIDValidity of their folders; noted again, the last word counts.
func (c *Claim) NoteAltered(ctx context.Context, altered ...Altered) error {
	return c.write(ctx, func(x *tx) error {
		for _, a := range altered {
			f, err := c.folder(x, a.FolderID)
			if err != nil {
				return err
			}
			if err := x.noteAltered(f, a); err != nil {
				return err
			}
		}
		return nil
	})
}

func (x *tx) noteAltered(f Folder, a Altered) error {
	_, err := x.exec(`INSERT INTO altered (folder_id, source_uidvalidity, source_uid, target_uid,
		source_sha256, target_sha256, source_octets, target_octets)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (folder_id, source_uidvalidity, source_uid) DO UPDATE SET
		target_uid = excluded.target_uid,
		source_sha256 = excluded.source_sha256, target_sha256 = excluded.target_sha256,
		source_octets = excluded.source_octets, target_octets = excluded.target_octets`,
		f.ID, f.SourceUIDValidity, a.SourceUID, a.TargetUID,
		a.SourceSHA256[:], a.TargetSHA256[:], a.SourceOctets, a.TargetOctets)
	return err
}

// AlteredMessages lists what the target changed, of an account, at most limit.
func (s *Store) AlteredMessages(ctx context.Context, accountID int64, limit int) ([]Altered, error) {
	return list(ctx, s.r, func(rows *sql.Rows) (Altered, error) {
		var a Altered
		var name, source, target []byte
		err := rows.Scan(&a.FolderID, &name, &a.SourceUID, &a.TargetUID, &source, &target, &a.SourceOctets, &a.TargetOctets)
		a.FolderName = string(name)
		copy(a.SourceSHA256[:], source)
		copy(a.TargetSHA256[:], target)
		return a, err
	}, `SELECT a.folder_id, f.source, a.source_uid, a.target_uid, a.source_sha256, a.target_sha256, a.source_octets, a.target_octets
		FROM altered a JOIN folders f ON f.id = a.folder_id WHERE f.account_id = $1
		ORDER BY a.folder_id, a.source_uidvalidity, a.source_uid LIMIT $2`, accountID, limit)
}

// PutAside keeps a message that the target refused, reading its octets to the
// end without holding them in memory, and sets ID, SourceUIDValidity, Octets and At. The other
// fields of m are read after the last octet, so that a reader may compute the
// digest on the way. After an error nothing is in quarantine. The source is
// slow: no transaction waits for it.
func (c *Claim) PutAside(ctx context.Context, m *SetAside, octets io.Reader) error {
	id, err := c.beginAside(ctx, m)
	if err != nil {
		return err
	}
	n, err := c.copyAside(ctx, id, octets)
	if err == nil {
		err = c.endAside(ctx, id, n, m)
	}
	if err != nil {
		// Where this fails too, the next claim clears away what is incomplete.
		undo := c.write(context.WithoutCancel(ctx), func(x *tx) error {
			_, err := x.exec("DELETE FROM quarantine WHERE id = $1 AND NOT complete", id)
			return err
		})
		return errors.Join(err, undo)
	}
	return nil
}

// beginAside adds the incomplete row.
func (c *Claim) beginAside(ctx context.Context, m *SetAside) (id int64, err error) {
	err = c.write(ctx, func(x *tx) error {
		f, err := c.folder(x, m.FolderID)
		if err != nil {
			return err
		}
		m.SourceUIDValidity = f.SourceUIDValidity
		err = x.get(`INSERT INTO quarantine (folder_id, source_uidvalidity, source_uid, complete, digest,
			octets, flags, date_seconds, date_zone, reason, at)
			VALUES ($1, $2, $3, FALSE, $4, 0, $4, 0, 0, '', 0)
			ON CONFLICT (folder_id, source_uidvalidity, source_uid) DO NOTHING RETURNING id`,
			[]any{f.ID, f.SourceUIDValidity, m.SourceUID, []byte{}}, &id)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrRecorded
		}
		return err
	})
	return id, err
}

// copyAside writes the octets, a chunk a transaction.
func (c *Claim) copyAside(ctx context.Context, id int64, octets io.Reader) (total int64, err error) {
	chunk := make([]byte, chunkSize)
	for position := 0; ; position++ {
		n, err := fill(chunk, octets)
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return total, err
		}
		if n > 0 {
			if err := c.write(ctx, func(x *tx) error {
				_, err := x.exec("INSERT INTO quarantine_chunks (quarantine_id, position, octets) VALUES ($1, $2, $3)",
					id, position, chunk[:n])
				return err
			}); err != nil {
				return total, err
			}
			total += int64(n)
		}
		if last {
			return total, nil
		}
	}
}

// fill reads until buf is full or r ends. Unlike io.ReadFull it never makes an
// end of r out of an io.ErrUnexpectedEOF that r itself reports.
func fill(buf []byte, r io.Reader) (n int, err error) {
	for n < len(buf) && err == nil {
		var got int
		got, err = r.Read(buf[n:])
		n += got
	}
	return n, err
}

// endAside makes the row complete and counts it. It takes the place of the same
// message under a former UIDVALIDITY of the source.
func (c *Claim) endAside(ctx context.Context, id, octets int64, m *SetAside) error {
	now := time.Now()
	seconds, zone := splitDate(m.Date)
	err := c.write(ctx, func(x *tx) error {
		if _, err := x.exec(`UPDATE quarantine SET complete = TRUE, digest = $1, octets = $2, flags = $3,
			date_seconds = $4, date_zone = $5, reason = $6, at = $7 WHERE id = $8`,
			m.Digest[:], octets, []byte(strings.Join(m.Flags, " ")), seconds, zone,
			plain(m.Reason), millis(now), id); err != nil {
			return err
		}
		// It is set aside now, so that its refusal has nothing more to say.
		if _, err := x.exec(`DELETE FROM refusals WHERE (folder_id, source_uidvalidity, source_uid) =
			(SELECT folder_id, source_uidvalidity, source_uid FROM quarantine WHERE id = $1)`, id); err != nil {
			return err
		}
		before, err := x.exec(`DELETE FROM quarantine WHERE id = (SELECT o.id FROM quarantine o
			JOIN quarantine n ON n.folder_id = o.folder_id AND n.digest = o.digest AND n.octets = o.octets
			WHERE n.id = $1 AND o.complete AND o.source_uidvalidity <> n.source_uidvalidity
			ORDER BY o.id LIMIT 1)`, id)
		if err != nil {
			return err
		}
		if _, err := x.exec(`UPDATE accounts SET set_aside = set_aside + $1, attempts = 0, failing = FALSE,
			progress_at = $2, updated_at = $2 WHERE id = $3`, 1-before, millis(now), c.id); err != nil {
			return err
		}
		_, err = x.written(c.id)
		return err
	})
	if err == nil {
		m.ID, m.Octets, m.At = id, octets, moment(millis(now))
	}
	return err
}

// SetAsideUIDs lists the source UIDs of a folder that are in quarantine, under
// its present SourceUIDValidity.
func (c *Claim) SetAsideUIDs(ctx context.Context, folderID int64) ([]uint32, error) {
	return list(ctx, c.store.r, func(rows *sql.Rows) (uid uint32, err error) {
		err = rows.Scan(&uid)
		return uid, err
	}, `SELECT q.source_uid FROM quarantine q JOIN folders f ON f.id = q.folder_id
		WHERE f.id = $1 AND f.account_id = $2 AND q.complete AND q.source_uidvalidity = f.source_uidvalidity
		ORDER BY q.source_uid`, folderID, c.id)
}

const selectAside = `SELECT q.id, q.folder_id, f.source, q.source_uidvalidity, q.source_uid, q.digest, q.octets, q.flags,
	q.date_seconds, q.date_zone, q.reason, q.at
	FROM quarantine q JOIN folders f ON f.id = q.folder_id WHERE f.account_id = $1 AND q.complete`

func scanAside(rows *sql.Rows) (SetAside, error) {
	var m SetAside
	var name, digest, flags []byte
	var seconds, at int64
	var zone int
	err := rows.Scan(&m.ID, &m.FolderID, &name, &m.SourceUIDValidity, &m.SourceUID, &digest, &m.Octets, &flags, &seconds, &zone, &m.Reason, &at)
	copy(m.Digest[:], digest)
	m.FolderName, m.Flags = string(name), strings.Fields(string(flags))
	m.Date, m.At = joinDate(seconds, zone), moment(at)
	return m, err
}

// SetAside lists the messages in quarantine of an account.
func (s *Store) SetAside(ctx context.Context, accountID int64) ([]SetAside, error) {
	return list(ctx, s.r, scanAside, selectAside+" ORDER BY q.id", accountID)
}

// TriedAgain lists those messages in quarantine that are to be offered to the
// target again, see Retry.
func (c *Claim) TriedAgain(ctx context.Context) ([]SetAside, error) {
	return list(ctx, c.store.r, scanAside, selectAside+" AND q.again ORDER BY q.id", c.id)
}

// RefusedAgain notes that the target refuses a message still, and why.
func (c *Claim) RefusedAgain(ctx context.Context, id int64, reason string) error {
	return c.write(ctx, func(x *tx) error {
		_, err := x.exec("UPDATE quarantine SET again = FALSE, reason = $2 WHERE id = $3 AND"+accountFolders, c.id, plain(reason), id)
		return err
	})
}

// SetAsideOctets writes the octets of a message in quarantine.
func (s *Store) SetAsideOctets(ctx context.Context, id int64, w io.Writer) error {
	var octets int64
	err := s.r.QueryRowContext(ctx, "SELECT octets FROM quarantine WHERE id = $1 AND complete", id).Scan(&octets)
	if err != nil {
		return found(err)
	}
	for position := int64(0); position*chunkSize < octets; position++ {
		var chunk []byte
		// A chunk a query: whoever reads w may be slow.
		err := s.r.QueryRowContext(ctx, `SELECT octets FROM quarantine_chunks
			WHERE quarantine_id = $1 AND position = $2`, id, position).Scan(&chunk)
		if err != nil {
			return dbError(err)
		}
		if _, err := w.Write(chunk); err != nil {
			return err
		}
	}
	return nil
}

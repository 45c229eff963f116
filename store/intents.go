package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"time"
)

// intentMessageSize is what one message takes in an intent's row: UID, size,
// date in seconds since 1970, its zone in seconds east of UTC; big endian.
const intentMessageSize = 4 + 8 + 8 + 4

// OpenIntent commits an intent and sets its ID.
func (c *Claim) OpenIntent(ctx context.Context, i *Intent) error {
	var id int64
	err := c.write(ctx, func(x *tx) error {
		if _, err := c.folder(x, i.FolderID); err != nil {
			return err
		}
		return x.get(`INSERT INTO intents (folder_id, source_uidvalidity, target_uidvalidity, target_uidnext, messages)
			VALUES ($1, $2, $3, $4, $5) RETURNING id`,
			[]any{i.FolderID, i.SourceUIDValidity, i.TargetUIDValidity, i.TargetUIDNext, packIntent(i.Messages)}, &id)
	})
	if err == nil {
		i.ID = id
	}
	return err
}

// Intents lists the account's intents that were not settled, oldest first.
// Dates are exact to the second.
func (c *Claim) Intents(ctx context.Context) ([]Intent, error) {
	return list(ctx, c.store.r, func(rows *sql.Rows) (Intent, error) {
		var i Intent
		var packed []byte
		err := rows.Scan(&i.ID, &i.FolderID, &i.SourceUIDValidity, &i.TargetUIDValidity, &i.TargetUIDNext, &packed)
		if err != nil {
			return i, err
		}
		i.Messages, err = unpackIntent(packed)
		return i, err
	}, `SELECT i.id, i.folder_id, i.source_uidvalidity, i.target_uidvalidity, i.target_uidnext, i.messages
		FROM intents i JOIN folders f ON f.id = i.folder_id WHERE f.account_id = $1 ORDER BY i.id`, c.id)
}

func packIntent(messages []IntentMessage) []byte {
	packed := make([]byte, 0, len(messages)*intentMessageSize)
	for _, m := range messages {
		seconds, zone := splitDate(m.Date)
		packed = binary.BigEndian.AppendUint32(packed, m.SourceUID)
		packed = binary.BigEndian.AppendUint64(packed, uint64(m.Size))
		packed = binary.BigEndian.AppendUint64(packed, uint64(seconds))
		packed = binary.BigEndian.AppendUint32(packed, uint32(int32(zone)))
	}
	return packed
}

func unpackIntent(packed []byte) ([]IntentMessage, error) {
	if len(packed)%intentMessageSize != 0 {
		return nil, fmt.Errorf("an intent of %d bytes is damaged", len(packed))
	}
	messages := make([]IntentMessage, 0, len(packed)/intentMessageSize)
	for ; len(packed) > 0; packed = packed[intentMessageSize:] {
		messages = append(messages, IntentMessage{
			SourceUID: binary.BigEndian.Uint32(packed),
			Size:      int64(binary.BigEndian.Uint64(packed[4:])),
			Date: joinDate(int64(binary.BigEndian.Uint64(packed[12:])),
				int(int32(binary.BigEndian.Uint32(packed[20:])))),
		})
	}
	return messages, nil
}

// splitDate keeps what an IMAP date has: the second and the zone.
func splitDate(t time.Time) (seconds int64, zone int) {
	_, zone = t.Zone()
	return t.Unix(), zone
}

func joinDate(seconds int64, zone int) time.Time {
	t := time.Unix(seconds, 0).UTC()
	if zone == 0 {
		return t
	}
	return t.In(time.FixedZone("", zone))
}

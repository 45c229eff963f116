package store

import "time"

// Digest recognises a message: the first 16 bytes of the SHA-256 of its
// canonical form (line ends and NUL folded).
type Digest [16]byte

// Folder is one folder of the source and the folder of the target that it
// becomes. The mapping is computed once for each account and then kept.
type Folder struct {
	ID        int64
	AccountID int64
	// Source and Target are mailbox names as they go over the wire: modified
	// UTF-7, with each server's own separator and prefix.
	Source string
	Target string
	// Selectable is false for a folder that only holds others (\Noselect).
	Selectable bool
	Subscribed bool
	SpecialUse string // \Sent, \Drafts, ... (RFC 6154); empty for none

	SourceUIDValidity uint32 // 0 before the first pass
	TargetUIDValidity uint32
	// Matched is set once what was in the target's folder before the first
	// append has been matched.
	Matched bool
	// SourceUIDNext is the source's UIDNEXT when the last pass had left nothing
	// of the folder over: what it shows below is settled. 0 is not known.
	SourceUIDNext uint32
}

// FolderCounts is a folder and what has become of its messages.
type FolderCounts struct {
	Folder
	Messages int64 // copied or recognised, under the present SourceUIDValidity
	SetAside int64
	Altered  int64
}

// Run says that the source UIDs SourceFirst .. SourceFirst+len(Digests)-1 are,
// in this order, the target UIDs TargetFirst .. TargetFirst+len(Digests)-1.
// With a TargetFirst of 0 they are none of this folder's: they were copied from
// another folder of the source, or under UIDs that the target has no more.
type Run struct {
	SourceFirst uint32
	TargetFirst uint32
	// TargetUIDValidity is the one under which TargetFirst counts.
	TargetUIDValidity uint32
	Digests           []Digest
	// Octets is the sum of RFC822.SIZE that the target is expected to show.
	Octets int64
	// Appended is false for messages that were on the target already and were
	// recognised.
	Appended bool
}

// Message is one message that was appended to or recognised on the target.
type Message struct {
	SourceUID uint32
	TargetUID uint32 // 0: see Run
	Digest    Digest
	Octets    int64 // as the target is expected to show them
	Appended  bool
	Shows     []Sighting // counted with it; none where it was counted before
}

// Intent is a batch that is about to be sent. It is committed before the first
// octet of it leaves, and settled after the target's answer, or after looking.
type Intent struct {
	ID                int64
	FolderID          int64
	SourceUIDValidity uint32
	TargetUIDValidity uint32
	TargetUIDNext     uint32
	Messages          []IntentMessage // in the order in which they are sent
}

// IntentMessage is one message of an Intent.
type IntentMessage struct {
	SourceUID uint32
	Size      int64 // RFC822.SIZE of the source, which may be wrong
	Date      time.Time
}

// Altered is a message that the target took but changed. Both digests are the
// whole SHA-256, of the octets as fetched from each server.
type Altered struct {
	FolderID     int64
	FolderName   string // the source's; AlteredMessages sets it
	SourceUID    uint32
	TargetUID    uint32
	SourceSHA256 [32]byte
	TargetSHA256 [32]byte
	SourceOctets int64
	TargetOctets int64
}

// SetAside is a message that the target refused. Its octets are in the store.
type SetAside struct {
	ID         int64
	FolderID   int64
	FolderName string // the source's
	// SourceUIDValidity is the one under which SourceUID counts. PutAside takes
	// the folder's present one.
	SourceUIDValidity uint32
	SourceUID         uint32
	Digest            Digest
	Octets            int64
	Flags             []string
	Date              time.Time
	Reason            string
	At                time.Time
}

// Event is one line of the migration's log.
type Event struct {
	ID      int64
	At      time.Time
	Address string // empty for what concerns no single account
	Text    string
}

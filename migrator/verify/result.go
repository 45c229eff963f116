// Package verify compares what the source has with what the target has,
// message by message, by the ledger of the copy. Both sides are read by
// go-imap, which is not the copier's reader, and nothing is written on either:
// EXAMINE and BODY.PEEK alone. What go-imap cannot read, or leaves out, is read
// by the copier's reader, and the result says so; so is a source over POP3.
package verify

import (
	"cmp"
	"strconv"
	"strings"
	"time"
)

// Kind says what is wrong with a message, or what is to be known of it.
type Kind string

// The kinds. The last two are accounted for: a message that the target keeps
// otherwise than it was given, as was noted when it was copied, and one that it
// refused and migproxy keeps.
const (
	Missing   Kind = "missing"    // copied, and not on the target
	Octets    Kind = "octets"     // other octets on the target
	Flags     Kind = "flags"      // other flags on the target
	Date      Kind = "date"       // another internal date on the target
	Doubled   Kind = "doubled"    // once more on the target
	NotCopied Kind = "not_copied" // on the source, and not yet copied
	Unread    Kind = "unread"     // a server lists it and does not give it
	Altered   Kind = "altered"    // altered by the target, which was noted
	SetAside  Kind = "set_aside"  // refused by the target
)

// Kinds lists them, those that are wrong first.
func Kinds() []Kind {
	return []Kind{Missing, Octets, Flags, Date, Doubled, NotCopied, Unread, Altered, SetAside}
}

// Wrong reports whether a message of this kind is not as it should be.
func (k Kind) Wrong() bool { return k != Altered && k != SetAside }

// Words name a kind for people, after a number of messages.
func (k Kind) Words() string {
	return map[Kind]string{Missing: "missing", Octets: "with other octets", Flags: "with other flags", Date: "with another date",
		Doubled: "doubled", NotCopied: "not copied yet", Unread: "not given by a server",
		Altered: "altered by the target", SetAside: "set aside"}[k]
}

// Owner is the reservation under which whatever differs is reported.
const Owner = "What its owner deleted, moved, copied or marked on the target after the account had moved cannot be told from a fault of the copy."

// Difference is one message of which there is something to say. A UID is 0
// where that side does not have the message; a digest is empty where the
// message was not read.
type Difference struct {
	Kind         Kind   `json:"kind"`
	SourceUID    uint32 `json:"source_uid,omitempty"`
	TargetUID    uint32 `json:"target_uid,omitempty"`
	Text         string `json:"text"`
	SourceSHA256 string `json:"source_sha256,omitempty"`
	TargetSHA256 string `json:"target_sha256,omitempty"`
}

// Side is what one server shows.
type Side struct {
	Messages int64 `json:"messages"`
	Octets   int64 `json:"octets"` // as the server says; some count wrong
}

// Counts are messages, of a folder or of an account.
type Counts struct {
	// SourceSide and TargetSide are what the servers show.
	SourceSide Side `json:"source_side"`
	TargetSide Side `json:"target_side"`

	Same   int64 `json:"same"`   // on both sides, in everything that was compared
	Digest int64 `json:"digest"` // messages whose octets were compared, by SHA-256

	Missing   int64 `json:"missing"`
	Octets    int64 `json:"octets"`
	Flags     int64 `json:"flags"`
	Dates     int64 `json:"dates"`
	Doubled   int64 `json:"doubled"`
	NotCopied int64 `json:"not_copied"`
	Unread    int64 `json:"unread"`

	Altered  int64 `json:"altered"`
	SetAside int64 `json:"set_aside"`
	// Moved counts messages that the source has here and that were copied before,
	// out of another folder, which accounts for them.
	Moved int64 `json:"moved"`
	// NotPermitted counts messages that lack nothing but flags which the target's
	// folder does not permit.
	NotPermitted int64 `json:"flags_not_permitted"`
	// Gone counts messages that were copied and have left the source since.
	Gone int64 `json:"gone"`
	// Surplus counts what the target has beside the copy, such as deliveries.
	Surplus int64 `json:"surplus"`
	// Unlisted counts the differences that are counted and not listed.
	Unlisted int64 `json:"unlisted,omitempty"`
}

// Of is how many messages there are of a kind.
func (c *Counts) Of(k Kind) int64 {
	return *map[Kind]*int64{Missing: &c.Missing, Octets: &c.Octets, Flags: &c.Flags, Date: &c.Dates, Doubled: &c.Doubled,
		NotCopied: &c.NotCopied, Unread: &c.Unread, Altered: &c.Altered, SetAside: &c.SetAside}[k]
}

// Wrong counts what is missing or differs; a message may do so in more than one
// way.
func (c *Counts) Wrong() (n int64) {
	for _, k := range Kinds() {
		if k.Wrong() {
			n += c.Of(k)
		}
	}
	return n
}

// Remarks say in words what there is beside the messages that are the same.
func (c *Counts) Remarks() string {
	var all []string
	count := func(n int64, words string) {
		if n > 0 {
			all = append(all, strconv.FormatInt(n, 10)+" "+words)
		}
	}
	for _, k := range Kinds() {
		count(c.Of(k), k.Words())
	}
	count(c.Moved, "moved on the source")
	count(c.NotPermitted, "with flags not permitted")
	count(c.Gone, "gone from the source")
	count(c.Surplus, "on the target only")
	return strings.Join(all, ", ")
}

// Add adds the counts of a part.
func (c *Counts) Add(part *Counts) {
	to, from := c.all(), part.all()
	for i := range to {
		*to[i] += *from[i]
	}
}

func (c *Counts) all() []*int64 {
	return []*int64{&c.SourceSide.Messages, &c.SourceSide.Octets, &c.TargetSide.Messages, &c.TargetSide.Octets,
		&c.Same, &c.Digest, &c.Missing, &c.Octets, &c.Flags, &c.Dates, &c.Doubled, &c.NotCopied, &c.Unread,
		&c.Altered, &c.SetAside, &c.Moved, &c.NotPermitted, &c.Gone, &c.Surplus, &c.Unlisted}
}

// Folder is the result for one folder. Names are as on the wire; Target is
// empty for a folder that the copy does not know yet, and Source for one that only
// the target has, of which the messages are counted and nothing else is known.
type Folder struct {
	Source string `json:"source"`
	Target string `json:"target"`
	Counts
	// Problem is why the folder could not be compared; empty if it was.
	Problem string `json:"problem,omitempty"`
	// Notes are about how it was read.
	Notes []string `json:"notes,omitempty"`
	// Differences lists the first of them.
	Differences []Difference `json:"differences,omitempty"`
}

// Name is what the folder is called on the source, or on the target where the
// source has none.
func (f *Folder) Name() string { return cmp.Or(f.Source, f.Target) }

// OK reports whether everything in it is on the target, the same.
func (f *Folder) OK() bool { return f.Problem == "" && f.Wrong() == 0 }

// What is listed is bounded, of each kind in a folder and of all in an account;
// the counts have all.
const (
	maxDifferences = 100
	maxListed      = 2000
)

// Account is the result for one account.
type Account struct {
	Address string `json:"address"`
	State   string `json:"state"`
	// FlippedAt is since when it lives on the target; zero before.
	FlippedAt time.Time `json:"flipped_at,omitzero"`
	Source    string    `json:"source_server"` // host:port; empty where it was not reached
	Target    string    `json:"target_server"`
	// Deep is true where the octets of every message were compared.
	Deep    bool      `json:"deep"`
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended"`
	Folders []Folder  `json:"folders"`
	Total   Counts    `json:"total"`
	// Notes are about how it was read.
	Notes []string `json:"notes,omitempty"`
	// Problem is why the account could not be verified to the end; empty if it was.
	Problem string `json:"problem,omitempty"`
}

// OK reports whether everything of the source is on the target, the same.
func (a *Account) OK() bool { return a.Problem == "" && a.Total.Wrong() == 0 }

// Progress is how far an account has been read, in messages of both sides; with
// deep each counts once when it is listed and once when it is read. Total is
// guessed from the ledger for folders that have not been opened.
type Progress struct {
	Address string `json:"address"`
	Folder  string `json:"folder"` // its Name, as on the wire
	Read    int64  `json:"read"`
	Total   int64  `json:"total"`
}

package verify

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// noDate is the date of a message whose internal date a server does not tell,
// or tells wrong.
const noDate = math.MinInt64

// message is what one side shows of a message. A folder may have hundreds of
// thousands of them: it has 24 octets.
type message struct {
	uid    uint32
	flags  uint32 // the index of its set in the view
	octets int64
	date   int64 // Unix seconds
}

// view is what one side shows of a folder.
type view struct {
	uidValidity uint32
	messages    []message // by UID
	// bare says that it came over POP3, which tells neither flags nor dates, and
	// often wrong sizes.
	bare bool
	// sets are the different sets of flags.
	sets  []string
	index map[string]uint32
	// permits are the flags that the folder keeps (PERMANENTFLAGS, RFC 9051
	// 7.1), folded; nil where it keeps all, or where the server does not tell.
	permits map[string]bool
	// knows are the flags of which the folder says that they are in use (FLAGS).
	knows []string
	// sums are the SHA-256 of messages' octets, by index; zero where a message
	// was not read, and nil where none was.
	sums [][32]byte
}

// add adds a message; a zero date is an unknown one.
func (v *view) add(uid uint32, octets int64, date time.Time, flags []string) {
	m := message{uid: uid, octets: octets, date: noDate, flags: v.intern(flagSet(flags))}
	if !date.IsZero() {
		m.date = date.Unix()
	}
	v.messages = append(v.messages, m)
}

func (v *view) intern(set string) uint32 {
	if v.index == nil {
		v.index = map[string]uint32{}
	}
	i, known := v.index[set]
	if !known {
		i = uint32(len(v.sets))
		v.sets, v.index[set] = append(v.sets, set), i
	}
	return i
}

// order sorts the messages, and reports whether each UID is there once.
func (v *view) order() bool {
	byUID := func(a, b message) int { return cmp.Compare(a.uid, b.uid) }
	slices.SortFunc(v.messages, byUID)
	n := len(v.messages)
	v.messages = slices.CompactFunc(v.messages, func(a, b message) bool { return a.uid == b.uid })
	return len(v.messages) == n && (n == 0 || v.messages[0].uid > 0)
}

// find returns the index of a UID, or -1.
func (v *view) find(uid uint32) int32 {
	i, found := slices.BinarySearchFunc(v.messages, uid, func(m message, uid uint32) int { return cmp.Compare(m.uid, uid) })
	if !found {
		return -1
	}
	return int32(i)
}

func (v *view) side() Side {
	s := Side{Messages: int64(len(v.messages))}
	for i := range v.messages {
		s.Octets += v.messages[i].octets
	}
	return s
}

// read notes the SHA-256 of a message.
func (v *view) read(i int32, sum [32]byte) {
	if v.sums == nil {
		v.sums = make([][32]byte, len(v.messages))
	}
	v.sums[i] = sum
}

// sum is the SHA-256 of a message, if it was read.
func (v *view) sum(i int32) (sum [32]byte, ok bool) {
	if v.sums == nil {
		return sum, false
	}
	return v.sums[i], v.sums[i] != [32]byte{}
}

// known are the flags that the folder knows, folded.
func (v *view) known() map[string]bool {
	known := map[string]bool{}
	for _, f := range slices.Concat(v.knows, strings.Fields(strings.Join(v.sets, " "))) {
		known[strings.ToLower(f)] = true
	}
	return known
}

func (v *view) flags(i int32) string { return v.sets[v.messages[i].flags] }

func (v *view) describe(i int32) string {
	return fmt.Sprintf("%d octets of %s", v.messages[i].octets, showDate(v.messages[i].date))
}

func showDate(unix int64) string {
	if unix == noDate {
		return "an unknown date"
	}
	return time.Unix(unix, 0).UTC().Format("2006-01-02 15:04:05Z")
}

// flagSet is a message's flags in one order, without \Recent, which is the
// server's own (RFC 3501 2.3.2).
func flagSet(flags []string) string {
	flags = slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return strings.EqualFold(f, `\Recent`) })
	slices.SortFunc(flags, func(a, b string) int { return cmp.Compare(strings.ToLower(a), strings.ToLower(b)) })
	return strings.Join(slices.CompactFunc(flags, strings.EqualFold), " ")
}

// permitted is PERMANENTFLAGS as a view has it. Many servers tell an empty list
// of a folder that was opened for reading only: that tells nothing.
func permitted(flags []string) map[string]bool {
	if len(flags) == 0 || slices.Contains(flags, `\*`) {
		return nil
	}
	permits := map[string]bool{}
	for _, f := range flags {
		permits[strings.ToLower(f)] = true
	}
	return permits
}

// flagDifference lists what the target lacks and what it has beside.
func flagDifference(source, target string) (lacks, has []string) {
	if strings.EqualFold(source, target) {
		return nil, nil
	}
	s, t := strings.Fields(source), strings.Fields(target)
	without := func(all, others []string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(f string) bool {
			return slices.ContainsFunc(others, func(o string) bool { return strings.EqualFold(f, o) })
		})
	}
	return without(s, t), without(t, s)
}

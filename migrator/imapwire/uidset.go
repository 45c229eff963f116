package imapwire

import (
	"slices"
	"strconv"
	"strings"
)

// maxSet bounds the sequence set of one command, in octets, so that its line
// stays below the 8000 octets that RFC 7162 section 4 has servers take.
const maxSet = 7000

// appendSet writes as many UIDs as fit into maxSet octets as a sequence set
// (RFC 9051 section 9) and returns how many they were. uids are ascending and
// without repetition.
func appendSet(b []byte, uids []uint32) ([]byte, int) {
	start := len(b)
	for i := 0; i < len(uids); {
		end := i
		for end+1 < len(uids) && uids[end+1] == uids[end]+1 {
			end++
		}
		if len(b)-start > maxSet-22 { // ",4294967295:4294967295"
			return b, i
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(uids[i]), 10)
		if end > i {
			b = strconv.AppendUint(append(b, ':'), uint64(uids[end]), 10)
		}
		i = end + 1
	}
	return b, len(uids)
}

// parseUIDSet reads the uid-set of APPENDUID (RFC 4315 section 3), in its
// order. It must hold exactly count UIDs, none of them twice; a range is
// ascending whichever way it is written.
func parseUIDSet(set string, count int) ([]uint32, bool) {
	if count <= 0 {
		return nil, false
	}
	uids := make([]uint32, 0, min(count, 1<<16))
	for part := range strings.SplitSeq(set, ",") {
		from, to, isRange := strings.Cut(part, ":")
		first, ok := parseUID(from)
		if !ok {
			return nil, false
		}
		last := first
		if isRange {
			if last, ok = parseUID(to); !ok {
				return nil, false
			}
		}
		if first > last {
			first, last = last, first
		}
		if uint64(last-first)+1 > uint64(count-len(uids)) {
			return nil, false
		}
		for uid := first; ; uid++ {
			uids = append(uids, uid)
			if uid == last {
				break
			}
		}
	}
	sorted := slices.Sorted(slices.Values(uids))
	if len(slices.Compact(sorted)) != count {
		return nil, false
	}
	return uids, true
}

func parseUID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n > 0
}

// seenSet remembers UIDs as ascending ranges. Messages nearly always come in
// order and without large gaps, so it stays small whatever the mailbox's size.
type seenSet []uidRange

type uidRange struct{ first, last uint32 }

// add reports whether the UID is new.
func (s *seenSet) add(uid uint32) bool {
	set := *s
	i := len(set) // ranges before i begin at or below uid
	if i > 0 && set[i-1].first > uid {
		i, _ = slices.BinarySearchFunc(set, uid, func(r uidRange, uid uint32) int {
			if r.first > uid {
				return 1
			}
			return -1
		})
	}
	if i > 0 && uid <= set[i-1].last {
		return false
	}
	joinsBefore := i > 0 && set[i-1].last+1 == uid
	joinsAfter := i < len(set) && uid+1 == set[i].first
	switch {
	case joinsBefore && joinsAfter:
		set[i-1].last = set[i].last
		*s = slices.Delete(set, i, i+1)
	case joinsBefore:
		set[i-1].last = uid
	case joinsAfter:
		set[i].first = uid
	default:
		*s = slices.Insert(set, i, uidRange{uid, uid})
	}
	return true
}

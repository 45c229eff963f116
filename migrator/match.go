package migrator

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"migproxy/store"
)

// candidate is a message on the target that nothing in the ledger accounts for.
type candidate struct {
	uid    uint32
	octets int64     // RFC822.SIZE; zero where the target does not show it any more
	date   time.Time // INTERNALDATE, of arrivals
	sum    digests
}

// original is a message of the source, with the digests of its octets.
type original struct {
	uid   uint32
	sum   digests
	shows []store.Sighting
}

// pair is a message of the source and the one of the target that holds it.
type pair struct {
	original  original
	candidate candidate
}

// pool holds candidates for matching, each of which is given away once. It is
// sorted by digest, and so takes no more memory than they do.
type pool struct {
	candidates []candidate
	taken      []bool
}

// newPool takes the candidates over. Of equal ones those come first that the
// target shows, then those with the lower UID.
func newPool(candidates []candidate) *pool {
	slices.SortFunc(candidates, func(a, b candidate) int {
		return cmp.Or(bytes.Compare(a.sum.canonical[:], b.sum.canonical[:]), cmp.Compare(min(b.octets, 1), min(a.octets, 1)), cmp.Compare(a.uid, b.uid))
	})
	return &pool{candidates, make([]bool, len(candidates))}
}

// take finds a candidate for an original: one whose octets are exactly those of
// the original or, if altered ones may be taken, one of the same canonical form.
func (p *pool) take(o original, altered bool) (candidate, bool) {
	first, _ := slices.BinarySearchFunc(p.candidates, o, func(c candidate, o original) int {
		return bytes.Compare(c.sum.canonical[:], o.sum.canonical[:])
	})
	for i := first; i < len(p.candidates) && p.candidates[i].sum.canonical == o.sum.canonical; i++ {
		if !p.taken[i] && (altered || p.candidates[i].sum.full == o.sum.full) {
			p.taken[i] = true
			return p.candidates[i], true
		}
	}
	return candidate{}, false
}

// match pairs messages by canonical digest, as multisets: of n equal originals
// and m equal candidates, min(n, m) are paired, in the order of the originals
// and of the candidates' UIDs. Those whose octets are the same are paired
// first, so that no original takes what another one has become. left are the
// originals without one.
func (p *pool) match(originals []original) (pairs []pair, left []original) {
	found := make(map[int]candidate, len(originals))
	for _, altered := range []bool{false, true} {
		for i, o := range originals {
			if _, done := found[i]; done {
				continue
			}
			if c, ok := p.take(o, altered); ok {
				found[i] = c
			}
		}
	}
	for i, o := range originals {
		if c, ok := found[i]; ok {
			pairs = append(pairs, pair{o, c})
		} else {
			left = append(left, o)
		}
	}
	return pairs, left
}

// match pairs messages once, see pool.
func match(originals []original, candidates []candidate) []pair {
	pairs, _ := newPool(slices.Clone(candidates)).match(originals)
	return pairs
}

// plausible reports whether messages of these sizes can have the same
// canonical form: a line end is one octet or two. A size of zero is one that
// the server does not know.
func plausible(a, b int64) bool {
	return a == 0 || b == 0 || (a <= 2*b && b <= 2*a)
}

// ledger answers what is settled of one folder.
type ledger struct {
	bySource, byTarget []store.Run
}

// newLedger makes a ledger of a folder's runs. Runs under another UIDVALIDITY
// of the target say nothing of the UIDs that it has now, nor do those of
// messages that are in another folder.
func newLedger(runs []store.Run, targetValidity uint32) *ledger {
	l := &ledger{bySource: slices.Clone(runs), byTarget: slices.Clone(runs)}
	l.byTarget = slices.DeleteFunc(l.byTarget, func(r store.Run) bool {
		return r.TargetFirst == 0 || r.TargetUIDValidity != targetValidity
	})
	slices.SortFunc(l.bySource, func(a, b store.Run) int { return cmp.Compare(a.SourceFirst, b.SourceFirst) })
	slices.SortFunc(l.byTarget, func(a, b store.Run) int { return cmp.Compare(a.TargetFirst, b.TargetFirst) })
	return l
}

// hasSource reports whether the source message with this UID is settled.
func (l *ledger) hasSource(uid uint32) bool {
	i, exact := slices.BinarySearchFunc(l.bySource, uid, func(r store.Run, uid uint32) int { return cmp.Compare(r.SourceFirst, uid) })
	return exact || i > 0 && uid-l.bySource[i-1].SourceFirst < uint32(len(l.bySource[i-1].Digests))
}

// hasTarget reports whether the target message with this UID is accounted for.
func (l *ledger) hasTarget(uid uint32) bool {
	i, exact := slices.BinarySearchFunc(l.byTarget, uid, func(r store.Run, uid uint32) int { return cmp.Compare(r.TargetFirst, uid) })
	return exact || i > 0 && uid-l.byTarget[i-1].TargetFirst < uint32(len(l.byTarget[i-1].Digests))
}

package migrator

import (
	"cmp"
	"slices"

	"migproxy/store"
)

// candidate is a message on the target that nothing in the ledger accounts for.
type candidate struct {
	uid    uint32
	octets int64 // RFC822.SIZE
	sum    digests
}

// original is a message of the source, with the digests of its octets.
type original struct {
	uid uint32
	sum digests
}

// pair is a message of the source and the one of the target that holds it.
type pair struct {
	original  original
	candidate candidate
}

// match pairs messages by canonical digest, as multisets: of n equal originals
// and m equal candidates, min(n, m) are paired, in the order of the originals
// and of the candidates' UIDs. A candidate whose octets are exactly those of
// the original is preferred to one that was altered.
func match(originals []original, candidates []candidate) []pair {
	sorted := slices.SortedFunc(slices.Values(candidates), func(a, b candidate) int { return cmp.Compare(a.uid, b.uid) })
	byDigest := make(map[store.Digest][]candidate, len(sorted))
	for _, c := range sorted {
		byDigest[c.sum.canonical] = append(byDigest[c.sum.canonical], c)
	}
	pairs := make([]pair, 0, min(len(originals), len(candidates)))
	for _, o := range originals {
		left := byDigest[o.sum.canonical]
		if len(left) == 0 {
			continue
		}
		at := max(0, slices.IndexFunc(left, func(c candidate) bool { return c.sum.full == o.sum.full }))
		pairs = append(pairs, pair{o, left[at]})
		byDigest[o.sum.canonical] = slices.Delete(left, at, at+1)
	}
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

func newLedger(runs []store.Run) *ledger {
	l := &ledger{bySource: slices.Clone(runs), byTarget: slices.Clone(runs)}
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

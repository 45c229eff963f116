package verify

import (
	"cmp"
	"fmt"
	"slices"

	"migproxy/store"
)

// pair is a message on both sides: the indices into their views.
type pair struct{ source, target int32 }

// absence is a message of the ledger that the target does not show. source is
// -1 where the source has it no more either.
type absence struct {
	source               int32
	sourceUID, targetUID uint32
	// claimed is true where the target has this UID, and the ledger has it for
	// another message as well: one message cannot be two.
	claimed bool
}

// comparison compares one folder, in two steps: match says by the ledger which
// message is which, and conclude what is wrong, when the messages that toRead
// named have been read.
type comparison struct {
	evidence       store.Evidence
	source, target *view
	deep           bool
	// known are the keywords that are not the target's own; nil where none is.
	known map[string]bool

	pairs  []pair
	absent []absence
	fresh  []int32 // of the source, that the ledger does not know
	// Of the target: gone are those whose originals have left the source, past
	// those that the ledger knows from earlier UIDs of the source, and surplus
	// those that it does not know.
	gone, past, surplus []int32

	f *Folder
}

// compare begins the comparison of a folder whose names f has.
func compare(f *Folder, evidence store.Evidence, source, target *view, deep bool) *comparison {
	c := &comparison{evidence: evidence, source: source, target: target, deep: deep, f: f}
	f.SourceSide, f.TargetSide = source.side(), target.side()
	c.match()
	return c
}

// match applies the ledger.
func (c *comparison) match() {
	inSource, inTarget := make([]bool, len(c.source.messages)), make([]bool, len(c.target.messages))
	for _, r := range c.evidence.Runs {
		if r.SourceUIDValidity != c.source.uidValidity {
			continue
		}
		for n := range r.Messages {
			s := c.source.find(r.SourceFirst + n)
			if s >= 0 {
				inSource[s] = true
			}
			c.matchOne(r, n, s, inTarget)
		}
	}
	for _, r := range c.evidence.Runs {
		if r.SourceUIDValidity == c.source.uidValidity {
			continue
		}
		for n := range r.Messages {
			if t := c.inTarget(r, n); t >= 0 && !inTarget[t] {
				inTarget[t] = true
				c.past = append(c.past, t)
			}
		}
	}
	for t := range inTarget {
		if !inTarget[t] {
			c.surplus = append(c.surplus, int32(t))
		}
	}
	for s := range inSource {
		if !inSource[s] && !c.setAside(c.source.messages[s].uid) {
			c.fresh = append(c.fresh, int32(s))
		}
	}
}

// matchOne applies one message of a run; s is its index in the source, or -1.
func (c *comparison) matchOne(r store.LedgerRun, n uint32, s int32, inTarget []bool) {
	if r.TargetFirst == 0 { // copied out of another folder, which accounts for it
		if s >= 0 {
			c.f.Moved++
		}
		return
	}
	t := c.inTarget(r, n)
	claimed := t >= 0 && inTarget[t]
	if t < 0 || claimed {
		c.absent = append(c.absent, absence{s, r.SourceFirst + n, r.TargetFirst + n, claimed})
		return
	}
	inTarget[t] = true
	if s < 0 {
		c.gone = append(c.gone, t)
		return
	}
	c.pairs = append(c.pairs, pair{s, t})
}

// inTarget is the index of a run's message in the target, or -1.
func (c *comparison) inTarget(r store.LedgerRun, n uint32) int32 {
	if r.TargetFirst == 0 || r.TargetUIDValidity != c.target.uidValidity {
		return -1
	}
	return c.target.find(r.TargetFirst + n)
}

// setAside reports whether a message of the source is in quarantine, and lists
// it.
func (c *comparison) setAside(uid uint32) bool {
	if c.evidence.SourceUIDValidity != c.source.uidValidity {
		return false
	}
	i, found := slices.BinarySearchFunc(c.evidence.SetAside, uid, func(m store.SetAside, uid uint32) int { return cmp.Compare(m.SourceUID, uid) })
	if found {
		m := c.evidence.SetAside[i]
		c.f.SetAside++
		c.add(SetAside, Difference{SourceUID: uid, Text: fmt.Sprintf(
			"was refused by the target; migproxy keeps its %d octets as message %d of `migproxy account show --export`: %s", m.Octets, m.ID, m.Reason)})
	}
	return found
}

// altered returns what was noted of a message that the target changed.
func (c *comparison) altered(source, target uint32) (store.Altered, bool) {
	if c.evidence.SourceUIDValidity != c.source.uidValidity {
		return store.Altered{}, false
	}
	i, found := slices.BinarySearchFunc(c.evidence.Altered, source, func(a store.Altered, uid uint32) int { return cmp.Compare(a.SourceUID, uid) })
	if !found || c.evidence.Altered[i].TargetUID != target {
		return store.Altered{}, false
	}
	return c.evidence.Altered[i], true
}

// explained reports whether the sizes of a pair are the same, or what was noted
// of it.
func (c *comparison) explained(p pair) bool {
	s, t := &c.source.messages[p.source], &c.target.messages[p.target]
	noted, ok := c.altered(s.uid, t.uid)
	return s.octets == t.octets || ok && t.octets == noted.TargetOctets
}

// toRead says which messages of either side must be read, by index and in
// order. Where not all of them are, it is those whose sizes differ without an
// explanation, since servers report sizes wrong; and what the ledger does not
// pair, beside all that has the same size: these may be messages that are on the
// target twice, or under other UIDs than the ledger says.
func (c *comparison) toRead() (source, target []int32) {
	if c.deep {
		return indices(len(c.source.messages)), indices(len(c.target.messages))
	}
	surplus, loose := bySize(c.target, c.surplus), bySize(c.target, c.loose())
	seen := map[int64]bool{}
	if unpaired := c.unpaired(); c.source.bare && len(unpaired) > 0 {
		source, target = unpaired, c.loose()
	}
	for _, s := range c.unpaired() {
		size := c.source.messages[s].octets
		if len(loose[size]) > 0 {
			source = append(source, s)
		}
		if !seen[size] {
			seen[size] = true
			target = append(target, loose[size]...)
		}
	}
	doubled := map[int64]bool{}
	suspect := func(t int32) {
		size := c.target.messages[t].octets
		if len(surplus[size]) == 0 {
			return
		}
		target = append(target, t)
		if !doubled[size] {
			doubled[size] = true
			target = append(target, surplus[size]...)
		}
	}
	for _, p := range c.pairs {
		suspect(p.target)
		if !c.explained(p) {
			source, target = append(source, p.source), append(target, p.target)
		}
	}
	for _, t := range c.gone {
		suspect(t)
	}
	slices.Sort(source)
	slices.Sort(target)
	return slices.Compact(source), slices.Compact(target)
}

// loose are the messages of the target that may be one of the source which the
// ledger does not pair. A source without UIDs of its own has named a message anew
// where the ledger has it as gone.
func (c *comparison) loose() []int32 {
	if c.source.bare {
		return slices.Concat(c.past, c.surplus, c.gone)
	}
	return slices.Concat(c.past, c.surplus)
}

// unpaired are the messages of the source for which the ledger names none of
// the target that is there.
func (c *comparison) unpaired() []int32 {
	list := slices.Clone(c.fresh)
	for _, a := range c.absent {
		if a.source >= 0 {
			list = append(list, a.source)
		}
	}
	return list
}

func bySize(v *view, list []int32) map[int64][]int32 {
	sizes := map[int64][]int32{}
	for _, i := range list {
		sizes[v.messages[i].octets] = append(sizes[v.messages[i].octets], i)
	}
	return sizes
}

func indices(n int) []int32 {
	all := make([]int32, n)
	for i := range all {
		all[i] = int32(i)
	}
	return all
}

// matchByOctets pairs what the ledger does not, such as the messages of a source
// that has given them new UIDs, as a multiset.
func (c *comparison) matchByOctets() {
	free := map[[32]byte][]int32{}
	for _, t := range c.loose() {
		if sum, ok := c.target.sum(t); ok {
			free[sum] = append(free[sum], t)
		}
	}
	taken := map[int32]bool{}
	take := func(s int32) bool {
		if s < 0 {
			return false
		}
		sum, ok := c.source.sum(s)
		if !ok || len(free[sum]) == 0 {
			return false
		}
		t := free[sum][0]
		free[sum] = free[sum][1:]
		taken[t] = true
		c.pairs = append(c.pairs, pair{s, t})
		return true
	}
	c.absent = slices.DeleteFunc(c.absent, func(a absence) bool { return take(a.source) })
	c.fresh = slices.DeleteFunc(c.fresh, take)
	if len(taken) == 0 {
		return
	}
	left := func(t int32) bool { return taken[t] }
	c.past, c.surplus, c.gone = slices.DeleteFunc(c.past, left), slices.DeleteFunc(c.surplus, left), slices.DeleteFunc(c.gone, left)
	c.f.Notes = append(c.f.Notes, fmt.Sprintf("%d messages were recognised by their octets: the ledger has other UIDs for them, or none.", len(taken)))
}

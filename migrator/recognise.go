package migrator

import (
	"cmp"
	"context"
	"slices"

	"migproxy/store"
)

// recogniseChunk is how many messages are recognised in one commit.
const recogniseChunk = 500

// copiedBefore lists what was copied or recognised before the source gave its
// messages new UIDs, and is not in the present ledger: by target UID, with the canonical digest alone.
func (j *job) copiedBefore(ctx context.Context, f *folder) ([]candidate, error) {
	runs, err := j.claim.PastLedger(ctx, f.ID)
	if err != nil || len(runs) == 0 {
		return nil, err
	}
	present, err := j.claim.Ledger(ctx, f.ID)
	if err != nil {
		return nil, err
	}
	known := newLedger(present, f.TargetUIDValidity)
	var past []candidate
	for _, r := range runs {
		if r.TargetFirst == 0 || r.TargetUIDValidity != f.TargetUIDValidity {
			continue // in another folder, or in one that its owner has removed
		}
		for i, d := range r.Digests {
			if uid := r.TargetFirst + uint32(i); !known.hasTarget(uid) {
				past = append(past, candidate{uid: uid, sum: digests{canonical: d}})
			}
		}
	}
	slices.SortFunc(past, func(a, b candidate) int { return cmp.Compare(a.uid, b.uid) })
	return slices.CompactFunc(past, func(a, b candidate) bool { return a.uid == b.uid }), nil
}

func findCopied(past []candidate, uid uint32) (at int, found bool) {
	return slices.BinarySearchFunc(past, uid, func(c candidate, uid uint32) int { return cmp.Compare(c.uid, uid) })
}

// recognise settles those missing messages that were copied before, under a
// former UIDVALIDITY, and those that are on the target and that nothing in the
// ledger accounts for: mail of an adopted account. It returns the UIDs that are
// still missing.
func (c *copier) recognise(ctx context.Context, missing []uint32) ([]uint32, error) {
	if c.f.Matched {
		return missing, nil
	}
	there, err := c.arrivals(ctx, c.f, 1)
	if err != nil {
		return nil, err
	}
	past, err := c.copiedBefore(ctx, c.f)
	if err != nil {
		return nil, err
	}
	if c.mirrors() {
		// Nobody but the mirror has deleted anything there yet: what the target has no
		// more was to be removed, and what is equal to it is copied.
		past = slices.DeleteFunc(past, func(p candidate) bool {
			return !slices.ContainsFunc(there, func(t candidate) bool { return t.uid == p.uid })
		})
	}
	if len(there) > 0 || len(past) > 0 {
		if missing, err = c.matchAll(ctx, missing, there, past); err != nil {
			return nil, err
		}
	}
	c.f.Matched = true
	if err := c.claim.PutFolder(ctx, &c.f.Folder); err != nil {
		return nil, err
	}
	c.m.step(stepMatched)
	return missing, nil
}

// matchAll reads of the missing messages, and of those on the target that can be
// equal to one by their size, and settles the pairs. What was copied before
// needs no reading on the target, and need not be there any more: its owner may
// have deleted it.
func (c *copier) matchAll(ctx context.Context, missing []uint32, there []candidate, past []candidate) ([]uint32, error) {
	there = slices.DeleteFunc(there, func(t candidate) bool {
		at, found := findCopied(past, t.uid)
		if found {
			past[at].octets = t.octets
		}
		return found
	})
	there, err := c.readPlausible(ctx, missing, there)
	if err != nil {
		return nil, err
	}
	before, arrived := newPool(past), newPool(there)
	var left []uint32
	for uids := range slices.Chunk(missing, recogniseChunk) {
		if c.stop.Err() != nil {
			return nil, errStopped
		}
		originals, err := c.digestSource(ctx, c.f, uids)
		if err != nil {
			return nil, err
		}
		var done []store.Message
		again, originals := before.match(originals)
		for _, p := range again {
			done = append(done, store.Message{SourceUID: p.original.uid, TargetUID: p.candidate.uid,
				Digest: p.original.sum.canonical, Octets: cmp.Or(p.candidate.octets, p.original.sum.octets)})
		}
		pairs, _ := arrived.match(originals)
		matched, err := c.noteMatches(ctx, c.f, pairs, false)
		if err != nil {
			return nil, err
		}
		if done = append(done, matched...); len(done) > 0 {
			if err := c.settled(ctx, c.f, nil, done); err != nil {
				return nil, err
			}
		}
		settled := make(map[uint32]bool, len(done))
		for _, m := range done {
			settled[m.SourceUID] = true
		}
		for _, uid := range uids {
			if !settled[uid] {
				left = append(left, uid)
			}
		}
	}
	return left, nil
}

// readPlausible reads those messages of the target that can be equal to a
// missing one by their size.
func (c *copier) readPlausible(ctx context.Context, missing []uint32, there []candidate) ([]candidate, error) {
	if len(there) == 0 {
		return nil, nil
	}
	sizes := make([]int64, 0, len(missing))
	for uids := range slices.Chunk(missing, window) {
		metas, err := c.list(ctx, uids)
		if err != nil {
			return nil, err
		}
		for _, m := range metas {
			sizes = append(sizes, m.Size)
		}
	}
	slices.Sort(sizes)
	sizes = slices.Compact(sizes)
	there = slices.DeleteFunc(there, func(t candidate) bool { return !anyPlausible(sizes, t.octets) })
	return c.digestTarget(ctx, c.f, there)
}

// anyPlausible reports whether a message of this size can be one of a sorted
// list of sizes.
func anyPlausible(sizes []int64, size int64) bool {
	if len(sizes) == 0 {
		return false
	}
	i, _ := slices.BinarySearch(sizes, (size+1)/2)
	return plausible(sizes[0], size) || size == 0 || i < len(sizes) && plausible(sizes[i], size)
}

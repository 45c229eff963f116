package migrator

import (
	"cmp"
	"context"
	"slices"

	"migproxy/store"
)

// recogniseChunk is how many messages are recognised in one commit.
const recogniseChunk = 500

// copied is a message of the target that the ledger has under a former
// UIDVALIDITY of the source.
type copied struct {
	uid    uint32
	digest store.Digest
	octets int64 // zero: the target does not show it any more
}

// copiedBefore lists what was copied or recognised before the source gave its
// messages new UIDs, and is not in the present ledger: by target UID.
func (j *job) copiedBefore(ctx context.Context, f *folder) ([]copied, error) {
	runs, err := j.claim.PastLedger(ctx, f.ID)
	if err != nil || len(runs) == 0 {
		return nil, err
	}
	present, err := j.claim.Ledger(ctx, f.ID)
	if err != nil {
		return nil, err
	}
	known := newLedger(present)
	var past []copied
	for _, r := range runs {
		for i, d := range r.Digests {
			if uid := r.TargetFirst + uint32(i); !known.hasTarget(uid) {
				past = append(past, copied{uid: uid, digest: d})
			}
		}
	}
	slices.SortFunc(past, func(a, b copied) int { return cmp.Compare(a.uid, b.uid) })
	return slices.CompactFunc(past, func(a, b copied) bool { return a.uid == b.uid }), nil
}

func findCopied(past []copied, uid uint32) (at int, found bool) {
	return slices.BinarySearchFunc(past, uid, func(c copied, uid uint32) int { return cmp.Compare(c.uid, uid) })
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
func (c *copier) matchAll(ctx context.Context, missing []uint32, there []candidate, past []copied) ([]uint32, error) {
	there = slices.DeleteFunc(there, func(t candidate) bool {
		at, found := findCopied(past, t.uid)
		if found {
			past[at].octets = t.octets
		}
		return found
	})
	byDigest := map[store.Digest][]copied{}
	for _, p := range past {
		byDigest[p.digest] = append(byDigest[p.digest], p)
	}
	for _, twins := range byDigest { // those that are still there first
		slices.SortStableFunc(twins, func(a, b copied) int { return cmp.Compare(min(b.octets, 1), min(a.octets, 1)) })
	}
	there, err := c.readPlausible(ctx, missing, there)
	if err != nil {
		return nil, err
	}
	var left []uint32
	for uids := range slices.Chunk(missing, recogniseChunk) {
		if c.stop.Err() != nil {
			return nil, errStopped
		}
		originals, err := c.digestSource(ctx, c.f, uids)
		if err != nil {
			return nil, err
		}
		done := takeCopied(byDigest, originals)
		again := make(map[uint32]bool, len(uids))
		for _, m := range done {
			again[m.SourceUID] = true
		}
		originals = slices.DeleteFunc(originals, func(o original) bool { return again[o.uid] })
		pairs := match(originals, there)
		matched, err := c.noteMatches(ctx, c.f, pairs, false)
		if err != nil {
			return nil, err
		}
		if done = append(done, matched...); len(done) > 0 {
			if err := c.settled(ctx, c.f, nil, done); err != nil {
				return nil, err
			}
		}
		taken := make(map[uint32]bool, len(pairs))
		for _, p := range pairs {
			taken[p.candidate.uid], again[p.original.uid] = true, true
		}
		there = slices.DeleteFunc(there, func(t candidate) bool { return taken[t.uid] })
		for _, uid := range uids {
			if !again[uid] {
				left = append(left, uid)
			}
		}
	}
	return left, nil
}

// takeCopied takes out of what was copied before, as a multiset, what the
// source shows again.
func takeCopied(byDigest map[store.Digest][]copied, originals []original) (done []store.Message) {
	for _, o := range originals {
		twins := byDigest[o.sum.canonical]
		if len(twins) == 0 {
			continue
		}
		byDigest[o.sum.canonical] = twins[1:]
		done = append(done, store.Message{SourceUID: o.uid, TargetUID: twins[0].uid,
			Digest: o.sum.canonical, Octets: cmp.Or(twins[0].octets, o.sum.octets)})
	}
	return done
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

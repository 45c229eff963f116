package migrator

import (
	"context"
	"slices"
)

// recogniseChunk is how many messages are recognised in one commit.
const recogniseChunk = 500

// recognise settles those missing messages that are on the target already and
// that nothing in the ledger accounts for: mail of an adopted account, or of a
// folder whose UIDVALIDITY changed. It returns the UIDs that are still missing.
func (c *copier) recognise(ctx context.Context, missing []uint32) ([]uint32, error) {
	if c.f.Matched {
		return missing, nil
	}
	there, err := c.arrivals(ctx, c.f, 1)
	if err != nil {
		return nil, err
	}
	if len(there) > 0 {
		if missing, err = c.matchAll(ctx, missing, there); err != nil {
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

// matchAll reads, on both sides, what can be equal by its size, and settles
// the pairs.
func (c *copier) matchAll(ctx context.Context, missing []uint32, there []candidate) ([]uint32, error) {
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
	var err error
	if there, err = c.digestTarget(ctx, c.f, there); err != nil {
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
		pairs := match(originals, there)
		done, err := c.noteMatches(ctx, c.f, pairs, false)
		if err != nil {
			return nil, err
		}
		if len(done) > 0 {
			if err := c.settled(ctx, c.f, nil, done); err != nil {
				return nil, err
			}
		}
		taken := make(map[uint32]bool, len(pairs))
		matched := make(map[uint32]bool, len(pairs))
		for _, p := range pairs {
			taken[p.candidate.uid], matched[p.original.uid] = true, true
		}
		there = slices.DeleteFunc(there, func(t candidate) bool { return taken[t.uid] })
		for _, uid := range uids {
			if !matched[uid] {
				left = append(left, uid)
			}
		}
	}
	return left, nil
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

package migrator

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// maxSurplus bounds how many messages that are on the target beyond the ledger
// are read, to see whether they are copies.
const maxSurplus = 1000

// compare holds both sides against the ledger: each message that the source
// shows is settled or set aside, and each that was copied is on the target, in
// its size, with its present flags and only once. complete is false when mail has arrived meanwhile.
func (j *job) compare(ctx context.Context, folders []*folder) (complete bool, err error) {
	var mu sync.Mutex
	var changed []int64
	err = j.inLanes(ctx, folders, false, func(l *job, f *folder) error {
		same, err := l.compareFolder(ctx, f)
		if !same {
			mu.Lock()
			defer mu.Unlock()
			changed = append(changed, f.ID)
		}
		return err
	})
	for _, id := range changed {
		delete(j.unchanged, id)
	}
	return len(changed) == 0 && err == nil, err
}

// compareFolder reports false where mail has arrived meanwhile.
func (j *job) compareFolder(ctx context.Context, f *folder) (complete bool, err error) {
	if !f.listed {
		return true, nil
	}
	opened, err := j.source.Examine(ctx, f.Source)
	if err != nil {
		_, err := j.sourceRefuses(ctx, f, err)
		return false, err
	}
	if max(1, opened.UIDValidity) != f.SourceUIDValidity {
		return false, nil
	}
	flags := newSourceFlags()
	missing, err := j.missing(ctx, f, opened.Exists, 1, func(m imapwire.Meta, _ bool) { flags.add(m) })
	if err != nil || len(missing) > 0 {
		return false, err
	}
	return true, j.compareTarget(ctx, f, flags)
}

// tally is what the target shows of one run of the ledger.
type tally struct {
	messages int
	octets   int64
}

// compareTarget holds one folder of the target against the ledger, and gives
// what was copied the flags that it has on the source by now. An adopted account
// keeps what its owner has made of it.
func (j *job) compareTarget(ctx context.Context, f *folder, flags *sourceFlags) error {
	runs, err := j.claim.Ledger(ctx, f.ID)
	// Another folder's message accounts for these.
	runs = slices.DeleteFunc(runs, func(r store.Run) bool { return r.TargetFirst == 0 })
	if err != nil || len(runs) == 0 {
		return err
	}
	slices.SortFunc(runs, func(a, b store.Run) int { return cmp.Compare(a.TargetFirst, b.TargetFirst) })
	opened, err := j.eye.Select(ctx, f.Target)
	if err != nil {
		return again(errorTarget, fmt.Errorf("the target's folder %s: %w", f.Target, err))
	}
	j.viewed = f.Target
	if max(1, opened.UIDValidity) != f.TargetUIDValidity {
		return j.replaced(f)
	}
	past, err := j.copiedBefore(ctx, f)
	if err != nil {
		return err
	}
	late := &lateFlags{source: flags, permits: newFlagFilter(opened.PermanentFlags), changes: map[string][]uint32{}}
	tallies := make([]tally, len(runs))
	var surplus []candidate
	err = j.eye.FetchMeta(ctx, 1, 0, func(m imapwire.Meta) error {
		i, exact := slices.BinarySearchFunc(runs, m.UID, func(r store.Run, uid uint32) int { return cmp.Compare(r.TargetFirst, uid) })
		if !exact {
			i--
		}
		if i >= 0 && m.UID-runs[i].TargetFirst < uint32(len(runs[i].Digests)) {
			tallies[i].messages++
			tallies[i].octets += m.Size
			late.note(runs[i], m)
		} else if _, before := findCopied(past, m.UID); !before && len(surplus) < maxSurplus {
			surplus = append(surplus, candidate{uid: m.UID, octets: m.Size})
		}
		return nil
	})
	if err != nil {
		return again(errorTarget, fmt.Errorf("list the target's folder %s: %w", f.Target, err))
	}
	if j.claim.Account.Origin == store.OriginAdopted {
		return nil // its owner lives there, and may remove and copy what he likes
	}
	for i, r := range runs {
		if t := tallies[i]; t.messages != len(r.Digests) || t.octets != r.Octets {
			return &halt{state: store.Failed, reason: errorCompare,
				err: fmt.Errorf("the target's folder %s shows %d messages of %d octets from UID %d on, and %d of %d were copied: see what changed them there, then retry",
					f.Target, t.messages, t.octets, r.TargetFirst, len(r.Digests), r.Octets)}
		}
	}
	if err := j.noCopies(ctx, f, runs, surplus); err != nil {
		return err
	}
	return j.storeFlags(ctx, f, late)
}

// noCopies makes sure that what the target has beyond the ledger is deliveries
// and not more copies of what the source has.
func (j *job) noCopies(ctx context.Context, f *folder, runs []store.Run, surplus []candidate) error {
	if len(surplus) == 0 {
		return nil
	}
	known := map[store.Digest]uint32{}
	for _, r := range runs {
		for i, d := range r.Digests {
			known[d] = r.TargetFirst + uint32(i)
		}
	}
	read, err := j.digestTarget(ctx, f, surplus)
	if err != nil {
		return err
	}
	standing, err := j.standing(ctx, read)
	if err != nil {
		return err
	}
	for _, c := range read {
		if standing[c.sum.canonical] > 0 { // for a message of another folder
			standing[c.sum.canonical]--
			continue
		}
		if of, double := known[c.sum.canonical]; double {
			return &halt{state: store.Failed, reason: errorCompare,
				err: fmt.Errorf("the target's folder %s has UID %d once more as UID %d, and the source has no second one: remove UID %d, then retry", f.Target, of, c.uid, c.uid)}
		}
	}
	return nil
}

// standing counts, by digest, the messages of the target that the ledger has under
// no UID, since they account for messages of other folders. Where the source shows
// a message in several folders, those that account for others have one.
func (j *job) standing(ctx context.Context, of []candidate) (map[store.Digest]int, error) {
	count := map[store.Digest]int{}
	if j.labels != nil {
		return count, nil
	}
	wanted := make(map[store.Digest]bool, len(of))
	for _, c := range of {
		wanted[c.sum.canonical] = true
	}
	copied, err := j.claim.Copied(ctx, func(d store.Digest) bool { return wanted[d] })
	for _, c := range copied {
		if c.TargetUID == 0 && !c.SetAside {
			count[c.Digest]++
		}
	}
	return count, err
}

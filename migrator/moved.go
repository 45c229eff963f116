package migrator

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// known is a message of the source that is new by its UID, with what it is
// recognised by.
type known struct {
	uid    uint32
	digest store.Digest
	octets int64
}

// recogniseMoved settles those missing messages that were copied before, under
// a former UIDVALIDITY or in another folder which they have left, and returns
// the UIDs of the others. On the target nothing is looked at: what was copied
// counts, wherever its owner has it by now, and if he has deleted it.
func (j *job) recogniseMoved(ctx context.Context, f *folder, missing []uint32) (left []uint32, err error) {
	var fresh []known
	for uids := range slices.Chunk(missing, recogniseChunk) {
		if j.stop.Err() != nil {
			return nil, errStopped
		}
		originals, err := j.digestSource(ctx, f, uids)
		if err != nil {
			return nil, err
		}
		for _, o := range originals { // those that did not come are gone, or asked for again
			fresh = append(fresh, known{o.uid, o.sum.canonical, o.sum.octets})
		}
	}
	var done []store.Message
	if f.ID != 0 {
		if fresh, done, err = j.recogniseRenumbered(ctx, f, fresh); err != nil {
			return nil, err
		}
	}
	if fresh, done, err = j.recogniseElsewhere(ctx, f, fresh, done); err != nil {
		return nil, err
	}
	for _, k := range fresh {
		left = append(left, k.uid)
	}
	if len(done) > 0 {
		if err := j.placeFolder(ctx, f, len(left) > 0); err != nil {
			return nil, err
		}
		if err := j.settled(ctx, f, nil, done); err != nil {
			return nil, err
		}
		j.m.step(stepMoved)
	}
	return left, nil
}

// placeFolder gives a new folder of the source its place in the mapping. On the
// target it is created only if something is to be appended: a folder that was
// merely renamed on the source is there already, under its old name.
func (j *job) placeFolder(ctx context.Context, f *folder, create bool) error {
	if f.ID != 0 {
		return nil
	}
	if err := j.reachTarget(ctx); err != nil {
		return err
	}
	mapping, err := j.claim.Folders(ctx)
	if err != nil {
		return err
	}
	fresh := mapFolders(mapping, j.here, j.there)
	at := slices.IndexFunc(fresh, func(x store.Folder) bool { return x.Source == f.Source })
	if at < 0 {
		return fmt.Errorf("the source's folder %s is not in the mapping", f.Source)
	}
	validity := f.SourceUIDValidity
	if err := j.tellApart(ctx, append(mapping, fresh...), &fresh[at]); err != nil {
		return err
	}
	f.Folder = fresh[at]
	f.SourceUIDValidity = validity
	if create {
		return j.prepare(ctx, f, j.subscribed(ctx, f.Source))
	}
	return j.claim.PutFolder(ctx, &f.Folder)
}

// recogniseRenumbered finds what was copied of this folder before the source
// gave its messages new UIDs.
func (j *job) recogniseRenumbered(ctx context.Context, f *folder, fresh []known) (left []known, done []store.Message, err error) {
	past, err := j.copiedBefore(ctx, f)
	if err != nil || len(past) == 0 {
		return fresh, nil, err
	}
	before := newPool(past)
	for _, k := range fresh {
		c, ok := before.take(original{uid: k.uid, sum: digests{canonical: k.digest}}, true)
		if !ok {
			left = append(left, k)
			continue
		}
		done = append(done, store.Message{SourceUID: k.uid, TargetUID: c.uid, Digest: k.digest, Octets: k.octets})
	}
	return left, done, nil
}

// recogniseElsewhere finds what was copied from a place where the source has it
// no more. Digests are counted: of a message that was copied n times and that
// the source still has in m of those places, n-m are on the move.
func (j *job) recogniseElsewhere(ctx context.Context, f *folder, fresh []known, done []store.Message) ([]known, []store.Message, error) {
	wanted := make([]store.Digest, len(fresh))
	for i, k := range fresh {
		wanted[i] = k.digest
	}
	slices.SortFunc(wanted, compareDigests)
	wanted = slices.Compact(wanted)
	copied, err := j.claim.Copied(ctx, func(d store.Digest) bool {
		_, found := slices.BinarySearchFunc(wanted, d, compareDigests)
		return found
	})
	if err != nil || len(copied) == 0 {
		return fresh, done, err
	}
	fresh, labelled, err := j.recogniseLabels(ctx, f, fresh, copied)
	if err != nil || len(fresh) == 0 {
		return fresh, append(done, labelled...), err
	}
	homeless, err := j.homeless(ctx, f, copied)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range done { // they have taken their own places back
		if homeless[m.Digest] > 0 {
			homeless[m.Digest]--
		}
	}
	var left []known
	for _, k := range fresh {
		if homeless[k.digest] == 0 {
			left = append(left, k)
			continue
		}
		homeless[k.digest]--
		done = append(done, store.Message{SourceUID: k.uid, Digest: k.digest})
	}
	return left, append(done, labelled...), nil
}

func compareDigests(a, b store.Digest) int { return bytes.Compare(a[:], b[:]) }

// homeless counts, by digest, the copies whose original is no longer where it
// was copied from. f is open on the source, before and afterwards.
func (j *job) homeless(ctx context.Context, f *folder, copied []store.CopiedMessage) (map[store.Digest]int, error) {
	count := map[store.Digest]int{}
	type place struct {
		folder   int64
		validity uint32
		uid      uint32
	}
	copies := map[place]bool{} // on the target, or set aside
	at := map[string][]store.CopiedMessage{}
	for _, c := range copied {
		p := place{c.FolderID, c.TargetUIDValidity, c.TargetUID}
		if c.TargetUID != 0 && !copies[p] {
			copies[p] = true
			count[c.Digest]++
		}
		if c.SetAside {
			count[c.Digest]++
		}
		if c.Present {
			at[c.Source] = append(at[c.Source], c)
		}
	}
	for name, there := range at {
		shown, err := j.shown(ctx, name, there[0].SourceUIDValidity)
		if err != nil {
			return nil, err
		}
		for _, c := range there {
			if _, still := slices.BinarySearch(shown, c.SourceUID); still {
				count[c.Digest]--
			}
		}
	}
	if _, err := j.source.Examine(ctx, f.Source); err != nil {
		return nil, again(errorSource, fmt.Errorf("the source's folder %s: %w", f.Source, err))
	}
	for d, n := range count {
		count[d] = max(n, 0)
	}
	return count, nil
}

// shown lists the UIDs that the source shows in a folder, ascending; none where
// the folder is gone or has other UIDs by now.
func (j *job) shown(ctx context.Context, name string, validity uint32) ([]uint32, error) {
	opened, err := j.source.Examine(ctx, name)
	if err != nil {
		_, err := j.sourceRefuses(ctx, &folder{Folder: store.Folder{Source: name}}, err)
		return nil, err
	}
	if max(1, opened.UIDValidity) != validity || opened.Exists == 0 {
		return nil, nil
	}
	var uids []uint32
	err = j.source.FetchMeta(ctx, 1, 0, func(m imapwire.Meta) error { uids = append(uids, m.UID); return nil })
	if err != nil {
		return nil, again(errorSource, fmt.Errorf("list the messages of %s: %w", name, err))
	}
	slices.Sort(uids)
	return uids, nil
}

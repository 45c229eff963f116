package migrator

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// rebase makes the ledger of an account that was taken back, and moves anew, say
// again what is on the target: both sides have been lived in since. What the source
// shows is accounted for by one equal message of the target; where there is none, it
// is forgotten, and so copied once more. Where its owner works on the source until
// the flip, the equal message is in the same folder, and all that the source has, or
// had when the account was taken back, counts as copied by migproxy: the rollback has
// seen to it that the two are the same.
func (j *job) rebase(ctx context.Context) error {
	if j.claim.Account.RolledBackAt.IsZero() {
		return nil
	}
	if err := j.settleOld(ctx); err != nil {
		return err
	}
	folders, err := j.folders(ctx)
	if err != nil {
		return err
	}
	var all []*rebasing
	for _, f := range folders {
		if j.stop.Err() != nil {
			return errStopped
		}
		b, err := j.lookAtBoth(ctx, f)
		if err != nil {
			return err
		}
		b.sort(j.labels != nil)
		b.shrink()
		all = append(all, b)
	}
	others, err := j.beyondMapping(ctx, folders)
	if err != nil {
		return err
	}
	all = append(all, others...)
	if err := j.readSupply(ctx, all); err != nil {
		return err
	}
	if err := j.readNew(ctx, all); err != nil {
		return err
	}
	moved := matchRebased(all)
	if j.labels == nil {
		findStrays(all, moved)
	}
	if !j.mirrorsDeletions() {
		standIn(all)
	}
	var rebased []store.Rebased
	for _, b := range all {
		if b.f.ID == 0 && len(b.strays) > 0 {
			if err := j.claim.PutFolder(ctx, &b.f.Folder); err != nil {
				return err
			}
		}
		if b.f.ID != 0 {
			if err := j.readAltered(ctx, b); err != nil {
				return err
			}
			rebased = append(rebased, b.result())
		}
	}
	j.m.step(stepRebaseBefore)
	if err := j.claim.Rebase(ctx, rebased); err != nil {
		return err
	}
	j.m.step(stepRebased)
	return nil
}

// rebasing is a folder while its ledger is rebased.
type rebasing struct {
	f        *folder
	validity uint32           // of the target's folder
	sizes    map[uint32]int64 // what the target shows, by UID
	source   map[uint32]int64 // what the source shows, by UID
	aside    []uint32
	runs     []store.SourceRun

	drop    map[[2]int]bool // the messages to be forgotten, by run and place in it
	wanting []*wanting
	supply  []*supply
	lost    []store.Digest // of what the target has no more where the ledger has it
	owned   bool           // all that the ledger has counts as copied by migproxy
	added   []store.Message
	strays  []store.Message // that are on the target where the source has no such message
	resized []store.Message // of another size on the source, and not appended by the copy
	altered []store.Altered
}

// wanting is a message that the source shows, and nothing where it was on the
// target.
type wanting struct {
	uid    uint32
	digest store.Digest
	shows  []store.Sighting
	known  bool // its digest
	done   bool
}

// supply is a message of the target that accounts for nothing that the source
// shows.
type supply struct {
	uid    uint32
	digest store.Digest
	run    [2]int // where the ledger has it; known
	known  bool
	taken  bool
}

// lookAtBoth lists one folder on both sides.
func (j *job) lookAtBoth(ctx context.Context, f *folder) (b *rebasing, err error) {
	b = &rebasing{f: f, owned: j.mirrorsDeletions(), sizes: map[uint32]int64{}, source: map[uint32]int64{}, drop: map[[2]int]bool{}}
	if b.runs, err = j.m.o.Store.Runs(ctx, f.ID); err != nil {
		return nil, err
	}
	if b.aside, err = j.claim.SetAsideUIDs(ctx, f.ID); err != nil {
		return nil, err
	}
	if f.listed {
		opened, err := j.source.Examine(ctx, f.Source)
		if err != nil {
			return nil, again(errorSource, fmt.Errorf("the source's folder %s: %w", f.Source, err))
		}
		f.SourceUIDValidity = max(1, opened.UIDValidity)
		if opened.Exists > 0 {
			err = j.source.FetchMeta(ctx, 1, 0, func(m imapwire.Meta) error { b.source[m.UID] = m.Size; return nil })
		}
		if err != nil {
			return nil, again(errorSource, fmt.Errorf("list the messages of %s: %w", f.Source, err))
		}
	}
	if j.exists(f.Target) {
		return b, j.lookAtTarget(ctx, b)
	}
	return b, nil
}

// lookAtTarget lists one folder of the target.
func (j *job) lookAtTarget(ctx context.Context, b *rebasing) error {
	j.viewed = ""
	opened, err := j.eye.Examine(ctx, b.f.Target)
	if err != nil {
		return again(errorTarget, fmt.Errorf("the target's folder %s: %w", b.f.Target, err))
	}
	b.validity = max(1, opened.UIDValidity)
	if opened.Exists == 0 {
		return nil
	}
	err = j.eye.FetchMeta(ctx, 1, 0, func(m imapwire.Meta) error { b.sizes[m.UID] = m.Size; return nil })
	if err != nil {
		return again(errorTarget, fmt.Errorf("list the target's folder %s: %w", b.f.Target, err))
	}
	return nil
}

// beyondMapping lists the folders that only the target has, with the names that
// they would have on the source: their owner may have moved mail there.
func (j *job) beyondMapping(ctx context.Context, folders []*folder) ([]*rebasing, error) {
	known := make([]store.Folder, len(folders))
	for i, f := range folders {
		known[i] = f.Folder
	}
	var all []*rebasing
	for _, f := range mapBack(known, j.here, j.there) {
		if !f.Selectable {
			continue
		}
		f.SourceUIDValidity = 1 // any one: should the source have this folder some day, it is seen for the first time
		b := &rebasing{f: &folder{Folder: f}, sizes: map[uint32]int64{}}
		if err := j.lookAtTarget(ctx, b); err != nil {
			return nil, err
		}
		b.sort(j.labels != nil)
		b.shrink()
		all = append(all, b)
	}
	return all, nil
}

// sort finds out which of the ledger's messages still are what it says, and what
// is left over on both sides. Where the source shows a message in several folders,
// what is new or stands for others there is found out by the copy.
func (b *rebasing) sort(labels bool) {
	shown := func(run store.SourceRun, n int) bool {
		_, is := b.sizes[run.TargetFirst+uint32(n)]
		return is && run.TargetFirst != 0 && run.TargetUIDValidity == b.validity
	}
	present := func(run store.SourceRun, n int) bool {
		_, is := b.source[run.SourceFirst+uint32(n)]
		return is && run.SourceUIDValidity == b.f.SourceUIDValidity
	}
	settled := map[uint32]bool{} // UIDs of the source
	live := map[uint32]bool{}    // UIDs of the target
	for _, run := range b.runs {
		for n := range run.Digests {
			if present(run, n) && shown(run, n) {
				uid := run.TargetFirst + uint32(n)
				live[uid] = true
				if source := run.SourceFirst + uint32(n); !run.Appended && b.source[source] != b.sizes[uid] {
					b.resized = append(b.resized, store.Message{SourceUID: source, TargetUID: uid})
				}
			}
		}
	}
	spare := map[uint32]bool{}
	elsewhere := map[spot]bool{} // under several UIDVALIDITYs of the source
	for i, run := range b.runs {
		for n, d := range run.Digests {
			uid := run.TargetFirst + uint32(n)
			if present(run, n) {
				settled[run.SourceFirst+uint32(n)] = true
			}
			if at := (spot{validity: run.TargetUIDValidity, uid: uid}); run.TargetFirst != 0 && !shown(run, n) && !elsewhere[at] {
				elsewhere[at] = true
				b.lost = append(b.lost, d)
			}
			switch {
			case shown(run, n) && present(run, n):
			case shown(run, n) && live[uid]: // under a former UIDVALIDITY
			case shown(run, n):
				if !spare[uid] {
					spare[uid] = true
					b.supply = append(b.supply, &supply{uid: uid, digest: d, run: [2]int{i, n}, known: true})
				} else {
					b.drop[[2]int{i, n}] = true
				}
			case run.TargetFirst == 0 && labels:
			case present(run, n):
				b.wanting = append(b.wanting, &wanting{uid: run.SourceFirst + uint32(n), digest: d, known: true})
				b.drop[[2]int{i, n}] = true
			default:
				b.drop[[2]int{i, n}] = true
			}
		}
	}
	for uid := range b.sizes {
		if !live[uid] && !spare[uid] {
			b.supply = append(b.supply, &supply{uid: uid})
		}
	}
	for uid := range b.source {
		if !settled[uid] && !labels && !slices.Contains(b.aside, uid) {
			b.wanting = append(b.wanting, &wanting{uid: uid})
		}
	}
	slices.SortFunc(b.supply, func(x, y *supply) int { return cmp.Compare(x.uid, y.uid) })
	slices.SortFunc(b.wanting, func(x, y *wanting) int { return cmp.Compare(x.uid, y.uid) })
}

// shrink lets go of what cannot change any more: most folders, as a rule.
func (b *rebasing) shrink() {
	sizes, source := map[uint32]int64{}, map[uint32]int64{}
	var runs []store.SourceRun
	index := map[int]int{} // of the runs that stay
	keep := func(i int) {
		if _, kept := index[i]; kept {
			return
		}
		index[i] = len(runs)
		runs = append(runs, b.runs[i])
		for n := range b.runs[i].Digests {
			uid := b.runs[i].TargetFirst + uint32(n)
			if size, shown := b.sizes[uid]; shown {
				sizes[uid] = size
			}
		}
	}
	drop := make(map[[2]int]bool, len(b.drop))
	for i, run := range b.runs {
		if b.owned && !run.Appended {
			keep(i)
		}
	}
	for at := range b.drop {
		keep(at[0])
		drop[[2]int{index[at[0]], at[1]}] = true
	}
	for _, s := range b.supply {
		if s.known {
			keep(s.run[0])
			s.run[0] = index[s.run[0]]
		}
		sizes[s.uid] = b.sizes[s.uid]
	}
	for _, w := range b.wanting {
		source[w.uid] = b.source[w.uid]
	}
	b.sizes, b.source, b.runs, b.drop = sizes, source, runs, drop
}

// readSupply reads what the target has beyond the ledger.
func (j *job) readSupply(ctx context.Context, all []*rebasing) error {
	for _, b := range all {
		var unread []candidate
		for _, s := range b.supply {
			if !s.known {
				unread = append(unread, candidate{uid: s.uid})
			}
		}
		if len(unread) == 0 {
			continue
		}
		if err := openAgain(ctx, j.eye, b.f.Target, b.validity); err != nil {
			return err
		}
		read, err := j.digestTarget(ctx, b.f, unread)
		if err != nil {
			return err
		}
		sums := make(map[uint32]store.Digest, len(read))
		for _, c := range read {
			sums[c.uid] = c.sum.canonical
		}
		b.supply = slices.DeleteFunc(b.supply, func(s *supply) bool {
			digest, came := sums[s.uid]
			if came {
				s.digest = digest
			}
			return !s.known && !came
		})
	}
	return nil
}

// readNew reads those messages that the ledger does not know and the source shows
// which by their size can be equal to one that is left over on the target.
func (j *job) readNew(ctx context.Context, all []*rebasing) error {
	var sizes []int64
	for _, b := range all {
		for _, s := range b.supply {
			sizes = append(sizes, b.sizes[s.uid])
		}
	}
	slices.Sort(sizes)
	sizes = slices.Compact(sizes)
	for _, b := range all {
		byUID := map[uint32]*wanting{}
		var uids []uint32
		for _, w := range b.wanting {
			if !w.known && anyPlausible(sizes, b.source[w.uid]) {
				byUID[w.uid] = w
				uids = append(uids, w.uid)
			}
		}
		if len(uids) == 0 {
			continue
		}
		if _, err := j.source.Examine(ctx, b.f.Source); err != nil {
			return again(errorSource, fmt.Errorf("the source's folder %s: %w", b.f.Source, err))
		}
		for some := range slices.Chunk(uids, recogniseChunk) {
			if j.stop.Err() != nil {
				return errStopped
			}
			read, err := j.digestSource(ctx, b.f, some)
			if err != nil {
				return err
			}
			for _, o := range read {
				w := byUID[o.uid]
				w.digest, w.shows, w.known = o.sum.canonical, o.shows, true
			}
		}
	}
	return nil
}

// matchRebased pairs what the source shows with what is left over on the target,
// within each folder, as multisets of digests. moved counts what may be anywhere else
// on the target, under no entry of the ledger.
func matchRebased(all []*rebasing) (moved map[store.Digest]int) {
	moved = map[store.Digest]int{}
	for _, b := range all {
		here := map[store.Digest][]*supply{}
		for _, s := range b.supply {
			here[s.digest] = append(here[s.digest], s)
		}
		for _, w := range b.wanting {
			if !w.known || len(here[w.digest]) == 0 {
				continue
			}
			s := here[w.digest][0]
			here[w.digest] = here[w.digest][1:]
			s.taken, w.done = true, true
			appended := b.owned
			if s.known {
				b.drop[s.run] = true
				appended = appended || b.runs[s.run[0]].Appended
			} else {
				moved[s.digest]--
			}
			b.added = append(b.added, store.Message{SourceUID: w.uid, TargetUID: s.uid, Digest: w.digest, Octets: b.sizes[s.uid],
				Appended: appended, Shows: w.shows})
		}
		for _, d := range b.lost {
			moved[d]++
		}
	}
	return moved
}

// findStrays finds what is on the target under no entry of the ledger and is equal to
// what is no more where the ledger has it: its owner has moved it there. What is
// beyond that is mail of the target alone, and stays.
func findStrays(all []*rebasing, moved map[store.Digest]int) {
	for _, b := range all {
		for _, s := range b.supply {
			if s.known || s.taken || moved[s.digest] <= 0 {
				continue
			}
			moved[s.digest]--
			b.strays = append(b.strays, store.Message{SourceUID: s.uid, TargetUID: s.uid, Digest: s.digest, Octets: b.sizes[s.uid], Appended: true})
		}
	}
}

// standIn has what is left over on the target account for what the source shows in
// another folder, where nothing is removed on the target.
func standIn(all []*rebasing) {
	left := map[store.Digest]int{}
	for _, b := range all {
		for _, s := range b.supply {
			if !s.taken {
				left[s.digest]++
			}
		}
	}
	for _, b := range all {
		for _, w := range b.wanting {
			if w.done || !w.known || left[w.digest] == 0 {
				continue
			}
			left[w.digest]--
			b.added = append(b.added, store.Message{SourceUID: w.uid, Digest: w.digest, Shows: w.shows})
		}
	}
}

// readAltered reads what has other octets on the two sides: the source may have
// altered what was copied back to it.
func (j *job) readAltered(ctx context.Context, b *rebasing) error {
	for _, m := range b.added {
		if m.TargetUID != 0 && b.source[m.SourceUID] != b.sizes[m.TargetUID] {
			b.resized = append(b.resized, m)
		}
	}
	if len(b.resized) == 0 {
		return nil
	}
	if _, err := j.source.Examine(ctx, b.f.Source); err != nil {
		return again(errorSource, fmt.Errorf("the source's folder %s: %w", b.f.Source, err))
	}
	if err := openAgain(ctx, j.eye, b.f.Target, b.validity); err != nil {
		return err
	}
	slices.SortFunc(b.resized, func(x, y store.Message) int { return cmp.Compare(x.SourceUID, y.SourceUID) })
	for some := range slices.Chunk(b.resized, recogniseChunk) {
		if j.stop.Err() != nil {
			return errStopped
		}
		uids, there := make([]uint32, len(some)), make([]candidate, len(some))
		for i, m := range some {
			uids[i], there[i] = m.SourceUID, candidate{uid: m.TargetUID}
		}
		originals, err := j.digestSource(ctx, b.f, uids)
		if err != nil {
			return err
		}
		copies, err := j.digestTarget(ctx, b.f, there)
		if err != nil {
			return err
		}
		for _, o := range originals {
			at, _ := slices.BinarySearch(uids, o.uid)
			for _, c := range copies {
				if c.uid == there[at].uid && c.sum.full != o.sum.full {
					b.altered = append(b.altered, alteredMessage(b.f, o.uid, c.uid, o.sum, c.sum))
				}
			}
		}
	}
	return nil
}

// result is what the ledger is to say of the folder.
func (b *rebasing) result() store.Rebased {
	f := b.f.Folder
	f.TargetUIDValidity, f.Matched = b.validity, true
	r := store.Rebased{Folder: f, Added: b.added, Strays: b.strays, Altered: b.altered}
	for i, run := range b.runs {
		changed, same := store.RebasedRun{SourceRun: run}, true
		for n, d := range run.Digests {
			if b.drop[[2]int{i, n}] {
				continue
			}
			m := store.Message{SourceUID: run.SourceFirst + uint32(n), Digest: d, Appended: run.Appended || b.owned && run.TargetFirst != 0}
			same = same && m.Appended == run.Appended
			if run.TargetFirst != 0 {
				m.TargetUID = run.TargetFirst + uint32(n)
				m.Octets = b.sizes[m.TargetUID]
			}
			changed.Kept = append(changed.Kept, m)
		}
		if !same || len(changed.Kept) < len(run.Digests) {
			r.Changed = append(r.Changed, changed)
		}
	}
	return r
}

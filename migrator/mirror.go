package migrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"migproxy/config"
	"migproxy/migrator/imapwire"
	"migproxy/store"
)

const (
	// doubtAbove is how many messages an account must have for it to be doubted
	// that most of them were deleted; a store that is not mounted looks like that.
	doubtAbove = 100
	// doubtPause is when it is looked again.
	doubtPause = time.Minute
	// laneFolders is how many folders there must be for the last pass to take more
	// connections.
	laneFolders = 20
)

// mirrors reports whether the owner of the account works on the source until the
// flip, so that what he does there is to be carried over.
func (j *job) mirrors() bool {
	a := j.claim.Account
	return j.domain.Config.Parking.Mode == config.ParkSource && a.Origin != store.OriginAdopted &&
		a.Mode != config.ModePasswords && !a.Moved()
}

// mirrorsDeletions reports whether that holds for what he deletes too. A POP3
// server may hide what was read once; and where folders are labels, a message
// that leaves one of them is not deleted.
func (j *job) mirrorsDeletions() bool {
	return j.mirrors() && wired(j.source) && j.labels == nil
}

// change is what a pass over a mailbox in use has found.
type change struct {
	messages int   // that are new or gone, and folders renamed or removed
	octets   int64 // of new messages
	flags    int   // messages of which flags were to be changed on the target
	others   int   // messages with other flags that are not migproxy's to change
}

// follow copies and mirrors until a pass finds no more than may be left for the
// flip.
func (j *job) follow(ctx context.Context) error {
	j.labels = newLabels(j.source)
	if j.mirrorsDeletions() && !j.dest.Has("UIDPLUS") {
		return &halt{state: store.Waiting, retry: true, reason: errorTarget,
			err: errors.New("the target does not offer UIDPLUS, which parking on the source needs to carry deletions over: set domains[].parking.mode to another mode")}
	}
	if j.mirrorsDeletions() {
		// What accounts for messages of other folders could be removed.
		if err := j.claim.ForgetStanding(ctx); err != nil {
			return err
		}
	}
	most := j.domain.Config.Parking.Flip
	for n := range maxPasses {
		found, err := j.mirrorPass(ctx)
		if err != nil {
			return err
		}
		if found.messages > most.Messages || found.octets > int64(most.Octets) {
			continue
		}
		// The first pass leaves witnesses to the second, and what was refused needs
		// more passes.
		if found.messages > 0 && (n == 0 || len(j.suspects)+len(j.withheld) > 0) {
			continue
		}
		if err := j.noteUIDLs(ctx); err != nil {
			return err
		}
		return j.tooManyAside()
	}
	return errArrivesFaster
}

// mirrorPass copies what is new and carries over what else has changed.
func (j *job) mirrorPass(ctx context.Context) (found change, err error) {
	before := j.octets
	j.renamed = 0
	folders, err := j.folders(ctx)
	if err != nil {
		return found, err
	}
	if err := j.foresee(ctx, folders); err != nil {
		return found, err
	}
	copied, err := j.pass(ctx, folders)
	if err != nil {
		return found, err
	}
	if copied == 0 {
		if err := j.confirmLast(ctx, folders); err != nil {
			return found, err
		}
		if err := j.unresolved(); err != nil {
			return found, err
		}
	}
	if found, err = j.mirror(ctx, folders); err != nil {
		return found, err
	}
	found.messages += copied + j.renamed
	found.octets = j.octets - before
	return found, j.claim.Refresh(ctx)
}

// mirror holds both sides against the ledger, as compare does, with one list of
// each folder on either side, and removes on the target what the source has no
// more. A message that was moved is new in one folder and gone from the other;
// which of these is seen first does not matter, since another pass follows.
func (j *job) mirror(ctx context.Context, folders []*folder) (found change, err error) {
	var mu sync.Mutex
	var gone []*mirrored
	var changed []int64
	left := 0
	err = j.inLanes(ctx, folders, j.mirrorsInLanes(folders), func(l *job, f *folder) error {
		r, err := l.mirrorFolder(ctx, f)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if r.again {
			changed = append(changed, f.ID)
			found.messages += max(1, r.missing)
		}
		found.flags += r.flags
		found.others += r.others
		left += r.left
		if len(r.gone)+len(r.lost) > 0 {
			gone = append(gone, r)
		}
		return nil
	})
	for _, id := range changed {
		delete(j.unchanged, id)
	}
	if err != nil {
		return found, err
	}
	if err := j.believe(ctx, gone); err != nil {
		return found, err
	}
	of := make([]*folder, len(gone))
	for i, r := range gone {
		of[i] = r.f
	}
	err = j.inLanes(ctx, of, false, func(l *job, f *folder) error {
		r := gone[slices.Index(of, f)]
		removed, err := l.remove(ctx, r)
		mu.Lock()
		defer mu.Unlock()
		found.messages += removed
		left += len(r.gone) + len(r.lost) - removed
		return err
	})
	j.left = left
	if err != nil {
		return found, err
	}
	removed, err := j.removeFolders(ctx, folders)
	found.messages += removed
	return found, err
}

// mirrorsInLanes reports whether more connections are worth their logins. They are
// while logins wait: the owner's sessions have left room for them then.
func (j *job) mirrorsInLanes(folders []*folder) bool {
	return j.held && len(folders) >= laneFolders && wired(j.source) && j.labels == nil && j.eye != j.dest &&
		!j.m.memory.isNarrow(j.claim.Account.ID)
}

// believe puts the work off, the first time that most of the account's messages
// seem to have been deleted. The source is the master, but a store that is not
// mounted shows nothing either.
func (j *job) believe(ctx context.Context, gone []*mirrored) error {
	var n int64
	for _, r := range gone {
		n += int64(len(r.gone))
	}
	if err := j.claim.Refresh(ctx); err != nil {
		return err
	}
	a := j.claim.Account
	most := a.Messages > doubtAbove && 2*n > a.Messages
	if j.m.memory.doubt(a.ID, most, j.m.doubtPause) {
		return nil
	}
	return &later{pause: j.m.doubtPause, why: fmt.Sprintf("the source does not show %d of %d messages any more: it is looked at again before they are removed on the target", n, a.Messages)}
}

// doubt notes whether most of an account's messages seem to be deleted, and
// reports whether that may be believed: it was so before, and since then.
func (m *memory) doubt(account int64, most bool, pause time.Duration) (believed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !most {
		delete(m.doubted, account)
		return true
	}
	since, before := m.doubted[account]
	if !before {
		m.doubted[account] = time.Now()
	}
	return before && time.Since(since) >= pause
}

// mirrored is what the mirror has seen of a folder.
type mirrored struct {
	f       *folder
	missing int  // messages of the source that are not copied yet
	again   bool // it has changed since the pass began, so that another one is needed
	flags   int
	others  int
	shown   []shown // on the target
	// What the source has no more: gone are messages that migproxy has appended,
	// with the digests of the ledger, lost those that the target has no more either,
	// and left counts others, which are not touched.
	gone []candidate
	lost []uint32
	left int
}

// shown is a message that the target shows.
type shown struct {
	uid  uint32
	size int64
}

func (r *mirrored) find(uid uint32) (size int64, there bool) {
	at, there := slices.BinarySearchFunc(r.shown, uid, func(s shown, uid uint32) int { return cmp.Compare(s.uid, uid) })
	if !there {
		return 0, false
	}
	return r.shown[at].size, true
}

func (r *mirrored) size(uid uint32) int64 {
	size, _ := r.find(uid)
	return size
}

// onSource reports whether the source has listed a name, at the start of the pass.
func (j *job) onSource(name string) bool {
	return slices.ContainsFunc(j.here.mailboxes, func(b imapwire.Mailbox) bool { return b.Name == name })
}

// mirrorFolder compares one folder, brings flags up to date, and says what is to
// be removed.
func (j *job) mirrorFolder(ctx context.Context, f *folder) (*mirrored, error) {
	r := &mirrored{f: f}
	flags, whole := newSourceFlags(), true
	if f.listed {
		opened, err := j.source.Examine(ctx, f.Source)
		if err != nil {
			_, err := j.sourceRefuses(ctx, f, err)
			r.again = true
			return r, err
		}
		if max(1, opened.UIDValidity) != f.SourceUIDValidity {
			r.again = true
			return r, nil
		}
		missing, err := j.missing(ctx, f, opened.Exists, 1, func(m imapwire.Meta, _ bool) { flags.add(m) })
		if err != nil {
			return r, err
		}
		// What is not listed is only gone if all was listed.
		whole = len(flags.shown) >= int(opened.Exists)
		r.missing, r.again = len(missing), len(missing) > 0 || !whole
		j.keywords.see(f.ID, opened.Flags)
		for _, set := range flags.sets {
			j.keywords.see(f.ID, set)
		}
	} else if at := slices.IndexFunc(j.here.mailboxes, func(b imapwire.Mailbox) bool { return b.Name == f.Source }); at >= 0 && selectable(j.here.mailboxes[at]) {
		r.again = true // it went after it was listed
		return r, nil
	} else if !j.exists(f.Target) {
		return r, nil
	}
	return r, j.mirrorTarget(ctx, r, flags, whole)
}

// mirrorTarget is mirrorFolder on the target. Of the source's folder it knows the
// flags; whole says that these are of all its messages.
func (j *job) mirrorTarget(ctx context.Context, r *mirrored, flags *sourceFlags, whole bool) error {
	f := r.f
	present, past, err := j.bothLedgers(ctx, f)
	if err != nil || len(present)+len(past) == 0 {
		return err
	}
	opened, err := j.eye.Select(ctx, f.Target)
	if err != nil {
		return again(errorTarget, fmt.Errorf("the target's folder %s: %w", f.Target, err))
	}
	j.viewed = f.Target
	if max(1, opened.UIDValidity) != f.TargetUIDValidity {
		return j.replaced(f)
	}
	known, before := newLedger(present, f.TargetUIDValidity), targetsOf(past)
	ours := targetsOf(slices.DeleteFunc(slices.Concat(present, past), func(r store.Run) bool { return !r.Appended }))
	late := &lateFlags{source: flags, permits: newFlagFilter(opened.PermanentFlags), changes: map[string][]uint32{},
		keywords: j.keywords.of(f.ID)}
	var surplus []candidate
	err = j.eye.FetchMeta(ctx, 1, 0, func(m imapwire.Meta) error {
		r.shown = append(r.shown, shown{m.UID, m.Size})
		if run, is := known.ofTarget(m.UID); is {
			run.Appended = ours.has(m.UID)
			late.note(run, m)
		} else if !before.has(m.UID) && len(surplus) < maxSurplus {
			surplus = append(surplus, candidate{uid: m.UID, octets: m.Size})
		}
		return nil
	})
	if err != nil {
		return again(errorTarget, fmt.Errorf("list the target's folder %s: %w", f.Target, err))
	}
	slices.SortFunc(r.shown, func(a, b shown) int { return cmp.Compare(a.uid, b.uid) })
	deletes := j.mirrorsDeletions() && whole
	if j.mirrorsDeletions() && !whole {
		present = nil // whether the target may lack a message, another pass says
	}
	for _, run := range present {
		if err := r.hold(run, flags, ours, deletes); err != nil {
			return err
		}
	}
	// What was copied under former UIDs of the source, and is nothing that it has
	// now: that is known once all it has now is accounted for.
	if deletes && (!f.listed || (f.Matched || r.missing == 0) && !j.withholdsIn(f)) {
		r.holdPast(past, known, ours)
	}
	byUID := func(a, b candidate) int { return cmp.Compare(a.uid, b.uid) }
	slices.SortFunc(r.gone, byUID)
	r.gone = slices.CompactFunc(r.gone, func(a, b candidate) bool { return a.uid == b.uid })
	slices.Sort(r.lost)
	r.lost = slices.Compact(r.lost)
	if !r.again && f.listed {
		if err := j.noCopies(ctx, f, present, surplus); err != nil {
			return err
		}
	}
	for _, uids := range late.changes {
		r.flags += len(uids)
	}
	r.others = late.others
	return j.storeFlags(ctx, f, late)
}

// bothLedgers lists what the ledger has in the target's folder as it is, under
// the present UIDVALIDITY of the source and under former ones.
func (j *job) bothLedgers(ctx context.Context, f *folder) (present, past []store.Run, err error) {
	if present, err = j.claim.Ledger(ctx, f.ID); err != nil {
		return nil, nil, err
	}
	if past, err = j.claim.PastLedger(ctx, f.ID); err != nil {
		return nil, nil, err
	}
	elsewhere := func(r store.Run) bool { return r.TargetFirst == 0 || r.TargetUIDValidity != f.TargetUIDValidity }
	return slices.DeleteFunc(present, elsewhere), slices.DeleteFunc(past, elsewhere), nil
}

// targets are UIDs of the target, ascending. Of several UIDVALIDITYs of the source
// runs may overlap there.
type targets []uint32

func targetsOf(runs []store.Run) (t targets) {
	for _, r := range runs {
		for n := range r.Digests {
			t = append(t, r.TargetFirst+uint32(n))
		}
	}
	slices.Sort(t)
	return slices.Compact(t)
}

func (t targets) has(uid uint32) bool {
	_, is := slices.BinarySearch(t, uid)
	return is
}

// ofTarget is the run that accounts for a message of the target.
func (l *ledger) ofTarget(uid uint32) (r store.Run, is bool) {
	i, exact := slices.BinarySearchFunc(l.byTarget, uid, func(r store.Run, uid uint32) int { return cmp.Compare(r.TargetFirst, uid) })
	if !exact {
		i--
	}
	if i < 0 || uid-l.byTarget[i].TargetFirst >= uint32(len(l.byTarget[i].Digests)) {
		return r, false
	}
	return l.byTarget[i], true
}

// hold holds one run of the ledger against both sides. Whatever the source shows
// must be on the target, and as large as it was.
func (r *mirrored) hold(run store.Run, source *sourceFlags, ours targets, deletes bool) error {
	var octets int64
	lost, missing := len(r.lost), 0
	for n, digest := range run.Digests {
		uid := run.TargetFirst + uint32(n)
		size, there := r.find(uid)
		octets += size
		_, here := source.of(run.SourceFirst + uint32(n))
		switch {
		case here || !deletes:
			if !there {
				missing++
			}
		case !there:
			r.lost = append(r.lost, uid) // removed before a crash
		case ours.has(uid):
			r.gone = append(r.gone, candidate{uid: uid, octets: size, sum: digests{canonical: digest}})
		default:
			r.left++
		}
	}
	if missing > 0 || octets != run.Octets && len(r.lost) == lost {
		return &halt{state: store.Failed, reason: errorCompare,
			err: fmt.Errorf("the target's folder %s lacks %d of %d messages from UID %d on, and shows %d octets of %d: see what changed them there, then retry",
				r.f.Target, missing, len(run.Digests), run.TargetFirst, octets, run.Octets)}
	}
	return nil
}

// holdPast finds what nothing in the present ledger accounts for.
func (r *mirrored) holdPast(past []store.Run, known *ledger, ours targets) {
	for _, run := range past {
		for n, digest := range run.Digests {
			uid := run.TargetFirst + uint32(n)
			size, there := r.find(uid)
			switch {
			case known.hasTarget(uid):
			case !there:
				r.lost = append(r.lost, uid)
			case ours.has(uid):
				r.gone = append(r.gone, candidate{uid: uid, octets: size, sum: digests{canonical: digest}})
			default:
				r.left++
			}
		}
	}
}

// withholdsIn reports whether the source does not give a message of a folder.
func (j *job) withholdsIn(f *folder) bool {
	for k := range j.withheld {
		if k.folderID == f.ID {
			return true
		}
	}
	return false
}

// remove removes messages on the target that the source has no more, those that
// are there as they were copied, and then takes them out of the ledger. A crash in
// between repeats it: what is removed already is found lost.
func (j *job) remove(ctx context.Context, r *mirrored) (removed int, err error) {
	f := r.f
	opened, err := j.eye.Select(ctx, f.Target)
	if err != nil {
		return 0, again(errorTarget, fmt.Errorf("the target's folder %s: %w", f.Target, err))
	}
	j.viewed = f.Target
	if max(1, opened.UIDValidity) != f.TargetUIDValidity {
		return 0, j.replaced(f)
	}
	lost := make([]store.Forgotten, len(r.lost))
	for i, uid := range r.lost {
		lost[i].TargetUID = uid
	}
	if err := j.claim.Forget(ctx, f.ID, lost, r.size); err != nil {
		return 0, err
	}
	removed = len(lost)
	for some := range slices.Chunk(r.gone, recogniseChunk) {
		if j.stop.Err() != nil {
			return removed, errStopped
		}
		gone, err := j.asCopied(ctx, f, some)
		if err != nil {
			return removed, err
		}
		if err := j.expunge(ctx, f, gone); err != nil {
			return removed, err
		}
		if err := j.claim.Forget(ctx, f.ID, gone, r.size); err != nil {
			return removed, err
		}
		j.m.step(stepMirrorForgotten)
		removed += len(gone)
	}
	return removed, nil
}

// asCopied reads messages of the target's folder that the eye has open, and
// returns those that are still what the ledger says.
func (j *job) asCopied(ctx context.Context, f *folder, some []candidate) (same []store.Forgotten, err error) {
	uids, want := make([]uint32, len(some)), make(map[uint32]store.Digest, len(some))
	for i, c := range some {
		uids[i], want[c.uid] = c.uid, c.sum.canonical
	}
	d := newDigester()
	err = j.eye.FetchBodies(ctx, uids, func(uid uint32, _ int64, body io.Reader) error {
		_, err := io.Copy(j.observer.over(d), body)
		shows := j.observer.shown(j.m.own, f)
		if sum := d.sum(); err == nil && sum.canonical == want[uid] {
			same = append(same, store.Forgotten{TargetUID: uid, Shows: shows})
		}
		return err
	})
	if err != nil && !isStatus(err) { // some of them may be gone
		return nil, again(errorTarget, fmt.Errorf("fetch from the target's folder %s: %w", f.Target, err))
	}
	slices.SortFunc(same, func(a, b store.Forgotten) int { return cmp.Compare(a.TargetUID, b.TargetUID) })
	return same, nil
}

// expunge removes messages of the target's folder that the eye has open, and
// looks whether they are gone.
func (j *job) expunge(ctx context.Context, f *folder, gone []store.Forgotten) error {
	if len(gone) == 0 {
		return nil
	}
	uids := make([]uint32, len(gone))
	for i, m := range gone {
		uids[i] = m.TargetUID
	}
	j.m.step(stepMirrorBefore)
	err := j.eye.Store(ctx, uids, "+FLAGS.SILENT", []string{`\Deleted`})
	if err == nil {
		err = j.eye.Expunge(ctx, uids)
	}
	if isStatus(err) {
		return &halt{state: store.Waiting, retry: true, reason: errorTarget,
			err: fmt.Errorf("the target refuses to remove messages of %s that the source has no more: give the user the right to delete there: %w", f.Target, err)}
	}
	still := false
	if err == nil {
		err = j.eye.FetchMeta(ctx, uids[0], uids[len(uids)-1], func(m imapwire.Meta) error {
			_, is := slices.BinarySearch(uids, m.UID)
			still = still || is
			return nil
		})
	}
	if err == nil && still {
		err = errors.New("it has acknowledged that, and shows them still")
	}
	if err != nil {
		return again(errorTarget, fmt.Errorf("remove messages of the target's folder %s: %w", f.Target, err))
	}
	j.m.step(stepMirrorDeleted)
	return nil
}

// keywords are those that the source knows, by folder: only these are taken away
// on the target, since servers set some of their own. Lanes share it.
type keywords struct {
	mu sync.Mutex
	by map[int64]map[string]bool
}

func (k *keywords) see(folder int64, flags []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.by == nil {
		k.by = map[int64]map[string]bool{}
	}
	if k.by[folder] == nil {
		k.by[folder] = map[string]bool{}
	}
	for _, f := range flags {
		if !strings.HasPrefix(f, `\`) {
			k.by[folder][strings.ToLower(f)] = true
		}
	}
}

// of is what is known of a folder; nobody else may look at that folder meanwhile.
func (k *keywords) of(folder int64) map[string]bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.by[folder]
}

package migrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// quietLimit bounds the wait for a folder of the target to come to rest, in
// multiples of SettleQuiet.
const quietLimit = 60

// settleOld settles what a crash or a cut left open. The cut connection's last
// batch may still be committed, so it waits until the target's folder is still.
func (j *job) settleOld(ctx context.Context) error {
	intents, err := j.claim.Intents(ctx)
	if err != nil || len(intents) == 0 {
		return err
	}
	folders, err := j.claim.Folders(ctx)
	if err != nil {
		return err
	}
	quiet := map[int64]bool{}
	read := map[int64]map[uint32]digests{} // by folder: of several intents each shows the others' messages
	for _, in := range intents {
		at := slices.IndexFunc(folders, func(f store.Folder) bool { return f.ID == in.FolderID })
		if at < 0 {
			return fmt.Errorf("intent %d is for folder %d, which is not in the mapping", in.ID, in.FolderID)
		}
		f := &folder{Folder: folders[at]}
		if !quiet[f.ID] {
			if err := j.waitQuiet(ctx, f); err != nil {
				return err
			}
			quiet[f.ID], read[f.ID] = true, map[uint32]digests{}
		}
		err := j.settleByLooking(ctx, f, in, read[f.ID])
		if errors.Is(err, errReplaced) && j.claim.Account.State == store.Active {
			err = j.matchAnew(ctx, f, in)
		}
		if err != nil {
			return err
		}
		folders[at] = f.Folder
	}
	return nil
}

// waitQuiet waits until the UIDNEXT of a target's folder has been still for
// SettleQuiet.
func (j *job) waitQuiet(ctx context.Context, f *folder) error {
	quiet := j.m.o.SettleQuiet
	ctx, cancel := context.WithTimeoutCause(ctx, quietLimit*quiet+time.Minute,
		fmt.Errorf("the target's folder %s does not come to rest", f.Target))
	defer cancel()
	var last uint32
	since := time.Now()
	for first := true; first || time.Since(since) < quiet; first = false {
		if j.stop.Err() != nil {
			return errStopped
		}
		if !first {
			if err := wait(ctx, max(quiet/10, 10*time.Millisecond)); err != nil {
				return again(errorTarget, err)
			}
		}
		st, err := j.dest.Status(ctx, f.Target)
		if err != nil {
			return j.targetRefuses(ctx, j.dest, f, err) // nothing can land in one that is not there
		}
		if st.UIDNext != last {
			last, since = st.UIDNext, time.Now()
		}
	}
	return nil
}

// targetRefuses is nil if the target does not open a folder because it is not
// there. Any other refusal may pass: it says nothing of what is in the folder.
func (j *job) targetRefuses(ctx context.Context, conn *imapwire.Conn, f *folder, cause error) error {
	if isStatusCode(cause, "NONEXISTENT", "TRYCREATE") {
		return nil
	}
	if isStatus(cause) {
		boxes, err := conn.List(ctx, f.Target)
		if err != nil {
			return again(errorTarget, fmt.Errorf("list the target's folder %s: %w", f.Target, err))
		}
		pattern := strings.ContainsAny(f.Target, "*%") // as which it shows others too
		if !slices.ContainsFunc(boxes, func(b imapwire.Mailbox) bool {
			return selectable(b) && (!pattern || strings.EqualFold(b.Name, f.Target))
		}) {
			return nil
		}
	}
	return again(errorTarget, fmt.Errorf("the target's folder %s: %w", f.Target, cause))
}

// settleByLooking ends an intent with those of its messages that are on the
// target, matched in order and as a multiset of digests.
func (j *job) settleByLooking(ctx context.Context, f *folder, in store.Intent, read map[uint32]digests) error {
	opened, err := j.source.Examine(ctx, f.Source)
	if err != nil && !isStatus(err) {
		return again(errorSource, fmt.Errorf("the source's folder %s: %w", f.Source, err))
	}
	renumbered := err != nil || max(1, opened.UIDValidity) != in.SourceUIDValidity
	aside, err := j.triedAside(ctx, f, in)
	if err != nil {
		return err
	}
	if renumbered && j.mirrorsDeletions() {
		return j.settleRenumbered(ctx, f, in, aside, read)
	}
	if renumbered && len(aside) == 0 {
		return j.matchAnew(ctx, f, in)
	}
	found, err := j.arrivals(ctx, f, in.TargetUIDNext)
	if err != nil {
		return err
	}
	var done []store.Message
	if len(found) > 0 {
		uids := make([]uint32, len(in.Messages))
		for i, m := range in.Messages {
			uids[i] = m.SourceUID
		}
		var originals []original
		if !renumbered {
			if originals, err = j.digestSource(ctx, f, uids); err != nil {
				return err
			}
		}
		if found, err = j.digestNew(ctx, f, found, read); err != nil {
			return err
		}
		shown := slices.Clone(originals)
		// No intent names a settled message but one that is set aside and tried
		// again; any other would end never.
		if !renumbered {
			runs, err := j.claim.Ledger(ctx, f.ID)
			if err != nil {
				return err
			}
			settled := newLedger(runs, f.TargetUIDValidity)
			originals = slices.DeleteFunc(originals, func(o original) bool { return settled.hasSource(o.uid) })
		}
		for _, o := range aside {
			if !slices.ContainsFunc(originals, func(x original) bool { return x.uid == o.uid }) {
				originals = append(originals, o)
			}
		}
		pairs := match(originals, found)
		if done, err = j.noteMatches(ctx, f, pairs, true); err != nil {
			return err
		}
		if j.mirrorsDeletions() {
			done = append(done, goneMeanwhile(in, shown, aside, pairs, found)...)
		}
	}
	j.m.step(stepLooked)
	if len(done) > 0 {
		// It was sent after every refusal that is noted: at a refusal nothing
		// else is under way.
		if err := j.claim.OutliveRefusals(ctx); err != nil {
			return err
		}
	}
	return j.settled(ctx, f, &in, done)
}

// settleRenumbered ends an intent whose folder its owner has renamed, removed or made
// anew on the source. What was appended belongs to the folder as it was.
func (j *job) settleRenumbered(ctx context.Context, f *folder, in store.Intent, aside []original, read map[uint32]digests) error {
	found, err := j.arrivals(ctx, f, in.TargetUIDNext)
	if err != nil {
		return err
	}
	if found, err = j.digestNew(ctx, f, found, read); err != nil {
		return err
	}
	pairs := match(aside, found)
	done, err := j.noteMatches(ctx, f, pairs, true)
	if err != nil {
		return err
	}
	done = append(done, goneMeanwhile(in, nil, aside, pairs, found)...)
	f.Matched = false
	if err := j.claim.PutFolder(ctx, &f.Folder); err != nil {
		return err
	}
	j.m.step(stepLooked)
	if len(done) > 0 {
		if err := j.claim.OutliveRefusals(ctx); err != nil {
			return err
		}
	}
	return j.settled(ctx, f, &in, done)
}

// goneMeanwhile finds what an intent has appended and its owner has removed from the
// source before it was settled, so that there is nothing to hold it against but its
// size and date. In the ledger it is what the mirror removes. What the target has
// altered has another size and stays: mail that was delivered there must not be
// taken for it.
func goneMeanwhile(in store.Intent, shown, aside []original, pairs []pair, found []candidate) (gone []store.Message) {
	found = slices.DeleteFunc(slices.Clone(found), func(c candidate) bool {
		return slices.ContainsFunc(pairs, func(p pair) bool { return p.candidate.uid == c.uid })
	})
	for _, m := range in.Messages {
		is := func(o original) bool { return o.uid == m.SourceUID }
		if slices.ContainsFunc(shown, is) || slices.ContainsFunc(aside, is) {
			continue
		}
		at := slices.IndexFunc(found, func(c candidate) bool { return c.date.Equal(m.Date) && c.octets == m.Size })
		if at >= 0 {
			gone = append(gone, store.Message{SourceUID: m.SourceUID, TargetUID: found[at].uid,
				Digest: found[at].sum.canonical, Octets: found[at].octets, Appended: true})
			found = slices.Delete(found, at, at+1)
		}
	}
	return gone
}

// matchAnew ends an intent whose UIDs, on either side, mean nothing any more:
// what is missing in the folder is matched with all that is there.
func (j *job) matchAnew(ctx context.Context, f *folder, in store.Intent) error {
	f.Matched = false
	if err := j.claim.PutFolder(ctx, &f.Folder); err != nil {
		return err
	}
	return j.settled(ctx, f, &in, nil)
}

// digestNew reads messages of the target that were not read before.
func (j *job) digestNew(ctx context.Context, f *folder, found []candidate, read map[uint32]digests) ([]candidate, error) {
	var fresh, all []candidate
	for _, c := range found {
		if sum, known := read[c.uid]; known {
			c.sum = sum
			all = append(all, c)
		} else {
			fresh = append(fresh, c)
		}
	}
	fresh, err := j.digestTarget(ctx, f, fresh)
	if err != nil {
		return nil, err
	}
	for _, c := range fresh {
		read[c.uid] = c.sum
	}
	return append(all, fresh...), nil
}

// noteMatches turns pairs into messages for the ledger, and records those that
// the target altered.
func (j *job) noteMatches(ctx context.Context, f *folder, pairs []pair, appended bool) ([]store.Message, error) {
	var done []store.Message
	var altered []store.Altered
	for _, p := range pairs {
		done = append(done, store.Message{SourceUID: p.original.uid, TargetUID: p.candidate.uid,
			Digest: p.original.sum.canonical, Octets: p.candidate.octets, Appended: appended,
			Shows: p.original.shows})
		if p.original.sum.full != p.candidate.sum.full {
			altered = append(altered, alteredMessage(f, p.original.uid, p.candidate.uid, p.original.sum, p.candidate.sum))
		}
	}
	if len(altered) > 0 {
		j.notKept.altered += len(altered)
		if err := j.claim.NoteAltered(ctx, altered...); err != nil {
			return nil, err
		}
	}
	return done, nil
}

func alteredMessage(f *folder, source, target uint32, was, is digests) store.Altered {
	return store.Altered{FolderID: f.ID, SourceUID: source, TargetUID: target,
		SourceSHA256: was.full, TargetSHA256: is.full, SourceOctets: was.octets, TargetOctets: is.octets}
}

// arrivals lists what is in a target's folder from a UID on and not in the
// ledger. It leaves out what other clients delivered only by the later match.
func (j *job) arrivals(ctx context.Context, f *folder, from uint32) ([]candidate, error) {
	runs, err := j.claim.Ledger(ctx, f.ID)
	if err != nil {
		return nil, err
	}
	known := newLedger(runs, f.TargetUIDValidity)
	j.viewed = ""
	opened, err := j.eye.Select(ctx, f.Target)
	if err != nil {
		return nil, j.targetRefuses(ctx, j.eye, f, err)
	}
	if opened.UIDValidity != 0 && f.TargetUIDValidity != 0 && opened.UIDValidity != f.TargetUIDValidity {
		return nil, j.replaced(f)
	}
	j.viewed = f.Target
	if opened.Exists == 0 {
		return nil, nil
	}
	var found []candidate
	err = j.eye.FetchMeta(ctx, from, 0, func(m imapwire.Meta) error {
		// n:* names the last message even where its UID is below n.
		if m.UID >= from && !known.hasTarget(m.UID) {
			found = append(found, candidate{uid: m.UID, octets: m.Size, date: m.Date})
		}
		return nil
	})
	if err != nil {
		return nil, again(errorTarget, fmt.Errorf("list the target's folder %s: %w", f.Target, err))
	}
	return found, nil
}

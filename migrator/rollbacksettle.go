package migrator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// settleReturns settles what a crash or a cut left open. The cut connection's last
// messages may still be committed, so it waits until the source's folder is still.
func (j *job) settleReturns(ctx context.Context, r *returner) error {
	intents, err := j.claim.RollbackIntents(ctx)
	if err != nil || len(intents) == 0 {
		return err
	}
	folders, err := j.claim.Folders(ctx)
	if err != nil {
		return err
	}
	still := map[int64]bool{}
	for _, in := range intents {
		at := slices.IndexFunc(folders, func(f store.Folder) bool { return f.ID == in.FolderID })
		if at < 0 {
			return fmt.Errorf("rollback intent %d is for folder %d, which is not in the mapping", in.ID, in.FolderID)
		}
		if !still[in.FolderID] {
			if err := j.waitStill(ctx, r, folders[at].Source); err != nil {
				return err
			}
			still[in.FolderID] = true
		}
		done, err := j.lookForReturned(ctx, r, folders[at], &in, nil)
		if err != nil {
			return err
		}
		if err := j.commitReturn(ctx, in, done); err != nil {
			return err
		}
	}
	return nil
}

// settleGivenUp settles what a rollback has left that was given up, before what it
// has added to the source looks like new mail there.
func (j *job) settleGivenUp(ctx context.Context) error {
	intents, err := j.claim.RollbackIntents(ctx)
	if err != nil || len(intents) == 0 {
		return err
	}
	if err := j.openFlippedSource(ctx); err != nil {
		return err
	}
	r := &returner{store: j.m.o.Store, account: j.claim.Account.ID, source: writable(j.source)}
	err = j.settleReturns(ctx, r)
	_ = j.source.Close() // the catch-up opens its own
	j.source = nil
	return err
}

func (j *job) commitReturn(ctx context.Context, in store.RollbackIntent, done []store.Message) error {
	j.m.step(stepReturnSettleBefore)
	if err := j.claim.SettleRollback(ctx, in, done); err != nil {
		return err
	}
	j.m.step(stepReturnSettled)
	return nil
}

// waitStill waits until the UIDNEXT of a source's folder has been still for
// SettleQuiet. One that is not there is.
func (j *job) waitStill(ctx context.Context, r *returner, name string) error {
	quiet := j.m.o.SettleQuiet
	ctx, cancel := context.WithTimeoutCause(ctx, quietLimit*quiet+time.Minute,
		fmt.Errorf("the source's folder %s does not come to rest", name))
	defer cancel()
	var last imapwire.Status
	since := time.Now()
	for first := true; first || time.Since(since) < quiet; first = false {
		if j.stop.Err() != nil {
			return errStopped
		}
		if !first {
			if err := wait(ctx, max(quiet/10, 10*time.Millisecond)); err != nil {
				return again(errorSource, err)
			}
		}
		st, err := r.source.Status(ctx, name)
		if err != nil {
			return r.gone(ctx, name, err)
		}
		if st.UIDNext != last.UIDNext || st.Messages != last.Messages {
			last, since = st, time.Now()
		}
	}
	return nil
}

// gone is nil if the source does not open a folder because it is not there.
func (r *returner) gone(ctx context.Context, name string, cause error) error {
	if isStatus(cause) {
		boxes, err := r.source.List(ctx, name)
		if err != nil {
			return again(errorSource, fmt.Errorf("list the source's folder %s: %w", name, err))
		}
		if !has(side{mailboxes: boxes}, name) {
			return nil
		}
	}
	return again(errorSource, fmt.Errorf("the source's folder %s: %w", name, cause))
}

// lookForReturned looks which messages of an intent are on the source: from its
// UIDNEXT on, matched in order and as a multiset of digests. Where the source
// numbered the folder anew since, in is made to say so.
func (j *job) lookForReturned(ctx context.Context, r *returner, f store.Folder, in *store.RollbackIntent, sent []sentBack) ([]store.Message, error) {
	opened, err := r.source.Examine(ctx, f.Source)
	if err != nil {
		return nil, r.gone(ctx, f.Source, err)
	}
	runs, err := r.store.Runs(ctx, f.ID)
	if err != nil {
		return nil, err
	}
	from, copies := in.SourceUIDNext, map[store.Digest]int{}
	if validity := max(1, opened.UIDValidity); validity != in.SourceUIDValidity {
		// Its UIDs mean nothing any more: what it has beyond the ledger has arrived.
		from = 1
		for _, run := range runs {
			for _, d := range run.Digests {
				if run.SourceUIDValidity == in.SourceUIDValidity {
					copies[d]++
				}
			}
		}
		in.SourceUIDValidity = validity
		f.SourceUIDValidity, f.Matched = validity, false
		if err := j.claim.PutFolder(ctx, &f); err != nil {
			return nil, err
		}
	}
	found, err := r.arrived(ctx, f, runs, opened.Exists, from, in.Messages)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(c candidate) bool {
		copies[c.sum.canonical]--
		return copies[c.sum.canonical] >= 0
	})
	j.m.step(stepReturnLooked)
	originals := make([]original, len(in.Messages))
	for i, m := range in.Messages {
		originals[i] = original{uid: m.TargetUID, sum: digests{canonical: m.Digest, octets: m.Octets}}
	}
	arrived := newPool(slices.Clone(found))
	pairs, left := arrived.match(originals)
	// What the source took and alters more than servers are known to is recognised
	// by its place.
	for _, o := range left {
		took := slices.ContainsFunc(sent, func(s sentBack) bool { return s.uid == o.uid && s.refused == nil })
		at := slices.IndexFunc(found, func(c candidate) bool {
			return plausible(c.octets, o.sum.octets) && !slices.ContainsFunc(pairs, func(p pair) bool { return p.candidate.uid == c.uid })
		})
		if took && at < 0 {
			return nil, again(errorSource, fmt.Errorf("the source acknowledged UID %d of the target's folder %s and does not show it", o.uid, f.Target))
		}
		if took {
			pairs = append(pairs, pair{o, found[at]})
		}
	}
	var done []store.Message
	for _, p := range pairs {
		done = append(done, store.Message{SourceUID: p.candidate.uid, TargetUID: p.original.uid,
			Digest: p.original.sum.canonical, Octets: p.original.sum.octets})
	}
	return done, nil
}

// arrived lists and reads those messages of the source's folder that is open, from
// a UID on, that are not in the ledger and can by their size be one of an intent.
func (r *returner) arrived(ctx context.Context, f store.Folder, runs []store.SourceRun, exists, from uint32, of []store.RollbackMessage) ([]candidate, error) {
	if exists == 0 {
		return nil, nil
	}
	var present []store.Run
	for _, run := range runs {
		if run.SourceUIDValidity == f.SourceUIDValidity {
			present = append(present, run.Run)
		}
	}
	settled := newLedger(present, f.TargetUIDValidity)
	var found []candidate
	err := r.source.FetchMeta(ctx, from, 0, func(m imapwire.Meta) error {
		if !settled.hasSource(m.UID) && slices.ContainsFunc(of, func(x store.RollbackMessage) bool { return plausible(m.Size, x.Octets) }) {
			found = append(found, candidate{uid: m.UID, octets: m.Size})
		}
		return nil
	})
	if err != nil {
		return nil, again(errorSource, fmt.Errorf("list the messages of %s: %w", f.Source, err))
	}
	slices.SortFunc(found, func(a, b candidate) int { return int(int64(a.uid) - int64(b.uid)) })
	uids := make([]uint32, len(found))
	for i, c := range found {
		uids[i] = c.uid
	}
	sums := make(map[uint32]digests, len(uids))
	if len(uids) > 0 {
		if err := r.source.FetchBodies(ctx, uids, digestInto(sums)); err != nil && !isStatus(err) { // some of them may be gone
			return nil, again(errorSource, fmt.Errorf("fetch from %s: %w", f.Source, err))
		}
	}
	read := found[:0]
	for _, c := range found {
		if sum, came := sums[c.uid]; came {
			c.sum = sum
			read = append(read, c)
		}
	}
	return read, nil
}

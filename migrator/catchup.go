package migrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// catchUp brings an account that lives on the target what has arrived on the
// source since, adding only. The last pass of all looks at every message and
// finishes the account.
func (j *job) catchUp(ctx context.Context) error {
	began, last := time.Now(), j.claim.Account.Finishing != store.NotFinishing
	if last {
		j.event(ctx, fmt.Sprintf("Finishing '%s' migration...", j.address))
	}
	j.m.step(stepCatchUp)
	if err := j.openFlippedSource(ctx); err != nil {
		return err
	}
	if err := j.catchUpWith(ctx, last); err != nil {
		return err
	}
	if err := j.claim.NoteSourceNext(ctx, j.settledNext()); err != nil {
		return err
	}
	if err := j.decideAliases(ctx); err != nil {
		return err
	}
	if err := j.carryOutAliases(ctx); err != nil {
		return err
	}
	if j.added > 0 || last {
		if err := j.noteUIDLs(ctx); err != nil {
			return err
		}
	}
	if last {
		return j.finish(ctx)
	}
	j.log.Debug("caught up", zap.Int64("messages", j.added), zap.Duration("took", time.Since(began)))
	if j.added > 0 {
		j.event(ctx, fmt.Sprintf("'%s' caught up, %d messages", j.address, j.added))
	}
	return j.claim.CaughtUp(ctx, time.Now().Add(j.m.o.CatchUp))
}

// catchUpWith passes over the source until nothing is new. The target is
// reached only if something is.
func (j *job) catchUpWith(ctx context.Context, whole bool) error {
	intents, err := j.claim.Intents(ctx)
	if err != nil {
		return err
	}
	again, err := j.claim.TriedAgain(ctx)
	if err != nil {
		return err
	}
	if len(intents)+len(again) > 0 {
		if err := j.openFlippedTarget(ctx); err != nil {
			return err
		}
		if err := j.settleOld(ctx); err != nil {
			return err
		}
		if err := j.deliverAside(ctx); err != nil {
			return err
		}
	}
	if err := j.recallRefusals(ctx); err != nil {
		return err
	}
	for range maxPasses {
		folders, err := j.changed(ctx, whole)
		if err != nil {
			return err
		}
		found := 0
		for _, f := range folders {
			if j.stop.Err() != nil {
				return errStopped
			}
			n, err := j.addNew(ctx, f, whole)
			if err != nil {
				return err
			}
			found += n
		}
		j.witness.over = true
		if err := j.putConfirmedAside(ctx, folders); err != nil {
			return err
		}
		if found > 0 {
			continue
		}
		if err := j.confirmLast(ctx, folders); err != nil {
			return err
		}
		return j.unresolved()
	}
	return errArrivesFaster
}

// changed lists the folders in which the source may have something new; all of
// them if whole is true. Those that it has numbered anew come first, since what
// is recognised in them is nothing that has moved to another.
func (j *job) changed(ctx context.Context, whole bool) ([]*folder, error) {
	var err error
	var status map[string]imapwire.Status
	if j.here, status, err = surveyStatus(ctx, j.source); err != nil {
		return nil, again(errorSource, fmt.Errorf("list the source's folders: %w", err))
	}
	if j.labels == nil {
		j.labels = newLabels(j.source)
	}
	if j.here.labels = j.labels != nil; j.here.labels {
		j.labels.pass++
	}
	known, err := j.claim.Folders(ctx)
	if err != nil {
		return nil, err
	}
	var all []*folder
	var renumbered []int64
	for _, box := range j.here.mailboxes {
		if !selectable(box) {
			continue
		}
		f := &folder{Folder: store.Folder{Source: box.Name}, listed: true}
		if at := slices.IndexFunc(known, func(k store.Folder) bool { return k.Source == box.Name }); at >= 0 {
			f.Folder = known[at]
		}
		var told bool
		if f.status, told = status[box.Name]; !told {
			if f.status, err = j.source.Status(ctx, box.Name); err != nil {
				if gone, err := j.sourceRefuses(ctx, f, err); err != nil {
					return nil, err
				} else if gone {
					continue
				}
			}
		}
		same := f.ID != 0 && f.status.UIDValidity == f.SourceUIDValidity
		next := f.SourceUIDNext
		if was, passed := j.unchanged[f.ID]; passed && was.UIDValidity == f.status.UIDValidity {
			next = was.UIDNext
		}
		if !whole && same && next != 0 && next == f.status.UIDNext {
			continue
		}
		if f.ID != 0 && !same {
			renumbered = append(renumbered, f.ID)
		}
		all = append(all, f)
	}
	j.byRank(all)
	slices.SortStableFunc(all, func(a, b *folder) int {
		first := func(f *folder) int {
			if slices.Contains(renumbered, f.ID) {
				return 0
			}
			return 1
		}
		return cmp.Compare(first(a), first(b))
	})
	return all, nil
}

// addNew copies what is new in one folder, and returns how many messages that
// were. What has moved within the source is recognised and stays as it is.
func (j *job) addNew(ctx context.Context, f *folder, whole bool) (found int, err error) {
	opened, err := j.source.Examine(ctx, f.Source)
	if err != nil {
		_, err := j.sourceRefuses(ctx, f, err)
		return 0, err
	}
	first := uint32(1)
	if validity := max(1, opened.UIDValidity); f.ID == 0 {
		f.SourceUIDValidity = validity
	} else if err := j.noteSourceValidity(ctx, f, validity); err != nil {
		return 0, err
	} else if !whole && f.SourceUIDNext > 0 {
		first = f.SourceUIDNext
	}
	missing, err := j.missing(ctx, f, opened.Exists, first, nil)
	if err != nil {
		return 0, err
	}
	missing, deferred, err := j.ownMessages(ctx, f, missing)
	if err != nil {
		return 0, err
	}
	if len(missing) > 0 {
		j.log.Debug("the source has messages that the ledger does not know", zap.String("folder", f.Source), zap.Int("messages", len(missing)))
		if missing, err = j.recogniseMoved(ctx, f, missing); err != nil {
			return 0, err
		}
	}
	if len(missing) == 0 {
		if f.ID != 0 && !deferred {
			j.noteUnchanged(f, f.status)
		}
		return 0, nil
	}
	if err := j.readyTarget(ctx, f); err != nil {
		return 0, err
	}
	if found, err = j.copyMissing(ctx, f, missing, nil); deferred {
		delete(j.unchanged, f.ID)
	}
	return found, err
}

// readyTarget makes sure that the folder is there to be appended to. Its owner
// may have removed it since the flip.
func (j *job) readyTarget(ctx context.Context, f *folder) error {
	if err := j.reachTarget(ctx); err != nil {
		return err
	}
	switch {
	case f.ID == 0:
		return j.placeFolder(ctx, f, true)
	case j.exists(f.Target):
		return nil
	}
	return j.createFolder(ctx, f)
}

// subscribed reports whether the source shows a folder as subscribed; a source
// that does not say so does not.
func (j *job) subscribed(ctx context.Context, name string) bool {
	names, err := j.source.Subscriptions(ctx, name)
	return err == nil && slices.Contains(names, name)
}

// reachTarget logs in on the target, unless that is done, and lists its folders.
func (j *job) reachTarget(ctx context.Context) (err error) {
	if j.dest == nil {
		if err := j.openFlippedTarget(ctx); err != nil {
			return err
		}
	}
	if j.there.mailboxes == nil {
		if j.there, err = survey(ctx, j.dest); err != nil {
			return again(errorTarget, fmt.Errorf("list the target's folders: %w", err))
		}
	}
	return nil
}

// settledNext is what the passes of this run have left nothing over of.
func (j *job) settledNext() map[int64]uint32 {
	next := make(map[int64]uint32, len(j.unchanged))
	for id, st := range j.unchanged {
		next[id] = st.UIDNext
	}
	return next
}

// finish ends the migration of an account after its last pass.
func (j *job) finish(ctx context.Context) error {
	j.m.step(stepFinishBefore)
	err := j.claim.Finish(ctx)
	if errors.Is(err, store.ErrChanged) {
		if err := j.claim.Refresh(ctx); err != nil {
			return err
		}
		if a := j.claim.Account; a.SetAside > 0 {
			return &halt{reason: errorRefused, err: fmt.Errorf("%d messages of this account are set aside, since the target refused them: look at them with `migproxy account show %s`; `migproxy account retry %s` offers them to the target again, `migproxy complete --accept-set-aside` finishes without them", a.SetAside, j.address, j.address)}
		}
		return fmt.Errorf("finish the account: %w", err)
	}
	if err != nil {
		return err
	}
	j.m.step(stepFinished)
	j.m.memory.forget(j.claim.Account.ID)
	j.event(ctx, fmt.Sprintf("'%s' migration finished, %d additional messages", j.address, j.added))
	j.log.Info("finished", zap.Int64("messages", j.added))
	return nil
}

package migrator

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// followRenames renames on the target what was renamed on the source, and returns
// the mapping as it is then. What is not sure to be a renaming, or cannot be done
// as one, is a folder that is new and one that is gone.
func (j *job) followRenames(ctx context.Context, known []store.Folder, status map[string]imapwire.Status) ([]store.Folder, error) {
	if err := j.settleRenames(ctx, known); err != nil {
		return nil, err
	}
	for {
		known, err := j.claim.Folders(ctx)
		if err != nil {
			return nil, err
		}
		renames, err := j.findRename(ctx, known, status)
		if err != nil || len(renames) == 0 {
			return known, err
		}
		if err := j.leaveFolders(ctx); err != nil {
			return nil, err
		}
		if err := j.claim.BeginRename(ctx, renames); err != nil {
			return nil, err
		}
		j.m.step(stepRenameCommitted)
		at := slices.IndexFunc(known, func(f store.Folder) bool { return f.ID == renames[0].FolderID })
		err = j.dest.Rename(ctx, known[at].Target, renames[0].Target)
		if isStatus(err) {
			j.log.Info("the target does not rename a folder: it is copied anew", zap.String("folder", known[at].Target), zap.Error(err))
			return known, j.claim.GiveUpRenames(ctx)
		}
		if err != nil {
			return nil, again(errorTarget, fmt.Errorf("rename the target's folder %s: %w", known[at].Target, err))
		}
		j.m.step(stepRenameDone)
		if err := j.finishRename(ctx, known); err != nil {
			return nil, err
		}
		j.renamed++
	}
}

// leaveFolders has no connection stand in a folder of the target that is about to be
// renamed or removed: some servers end such a one (RFC 9051 section 6.3.5).
func (j *job) leaveFolders(ctx context.Context) error {
	for _, c := range append([]*conns{&j.conns}, j.others...) {
		if c.viewed == "" || isInbox(c.viewed) {
			continue
		}
		if _, err := c.eye.Examine(ctx, "INBOX"); err != nil {
			return again(errorTarget, fmt.Errorf("open the target's INBOX: %w", err))
		}
		c.viewed = ""
	}
	return nil
}

// settleRenames ends a renaming that a crash left open. Whether the target has
// done it is seen there: the old name is gone, or another folder's by now.
func (j *job) settleRenames(ctx context.Context, known []store.Folder) error {
	open, err := j.claim.Renames(ctx)
	if err != nil || len(open) == 0 {
		return err
	}
	for _, r := range open { // the first that is another name on the target is that of the folder itself
		f := known[slices.IndexFunc(known, func(f store.Folder) bool { return f.ID == r.FolderID })]
		if r.Renamed || r.Target == f.Target {
			continue
		}
		is, err := j.validityOf(ctx, r.Target)
		if err != nil {
			return err
		}
		was, err := j.validityOf(ctx, f.Target)
		if err != nil {
			return err
		}
		if is == 0 || was != 0 && (was == f.TargetUIDValidity || is != f.TargetUIDValidity) {
			return j.claim.GiveUpRenames(ctx)
		}
		break
	}
	return j.finishRename(ctx, known)
}

// validityOf is the UIDVALIDITY of a folder of the target, 0 where it has none of
// this name.
func (j *job) validityOf(ctx context.Context, target string) (uint32, error) {
	st, err := j.dest.Status(ctx, target)
	if err == nil {
		return max(1, st.UIDValidity), nil
	}
	return 0, j.targetRefuses(ctx, j.dest, &folder{Folder: store.Folder{Target: target}}, err)
}

// finishRename commits new names, once the target has them. known are the folders
// as they were before. A target may give a folder that it renames another
// UIDVALIDITY: where the messages have their UIDs all the same, the ledger follows.
func (j *job) finishRename(ctx context.Context, known []store.Folder) (err error) {
	open, err := j.claim.Renames(ctx)
	if err != nil {
		return err
	}
	for _, r := range open {
		at := slices.IndexFunc(known, func(f store.Folder) bool { return f.ID == r.FolderID })
		if f := known[at]; !r.Renamed && f.Subscribed {
			if err := j.dest.Unsubscribe(ctx, f.Target); err != nil && !isStatus(err) {
				return again(errorTarget, fmt.Errorf("unsubscribe %s: %w", f.Target, err))
			}
		}
	}
	if err := j.claim.Renamed(ctx); err != nil {
		return err
	}
	for _, r := range open {
		f := &folder{Folder: known[slices.IndexFunc(known, func(f store.Folder) bool { return f.ID == r.FolderID })]}
		f.Target = r.Target
		validity, err := j.validityOf(ctx, f.Target)
		if err != nil {
			return err
		}
		if f.TargetUIDValidity == 0 { // nothing was copied into it
			validity = 0
		}
		same := validity != 0
		if same && validity != f.TargetUIDValidity {
			if same, err = j.sameUIDs(ctx, f); err != nil {
				return err
			}
		}
		if !same && !j.claim.Account.RolledBackAt.IsZero() {
			validity = f.TargetUIDValidity // rebase looks at what the ledger has of it
		}
		if err := j.claim.EndRename(ctx, f.ID, validity, same); err != nil {
			return err
		}
		delete(j.unchanged, f.ID)
	}
	j.m.step(stepRenameSettled)
	if j.there, err = survey(ctx, j.dest); err != nil {
		return again(errorTarget, fmt.Errorf("list the target's folders: %w", err))
	}
	return nil
}

// sameUIDs reports whether a folder of the target shows what the ledger has of it,
// by UIDs and sizes.
func (j *job) sameUIDs(ctx context.Context, f *folder) (bool, error) {
	present, past, err := j.bothLedgers(ctx, f)
	if err != nil {
		return false, err
	}
	r := &mirrored{f: f}
	j.viewed = f.Target
	if _, err = j.eye.Select(ctx, f.Target); err == nil {
		err = j.eye.FetchMeta(ctx, 1, 0, func(m imapwire.Meta) error {
			r.shown = append(r.shown, shown{m.UID, m.Size})
			return nil
		})
	}
	if err != nil {
		return false, again(errorTarget, fmt.Errorf("list the target's folder %s: %w", f.Target, err))
	}
	slices.SortFunc(r.shown, func(a, b shown) int { return cmp.Compare(a.uid, b.uid) })
	for _, run := range slices.Concat(present, past) {
		if r.hold(run, newSourceFlags(), nil, false) != nil {
			return false, nil
		}
	}
	return true, nil
}

// findRename looks for a folder that was renamed on the source, those above
// others first, and says what it and those below it are to be called.
func (j *job) findRename(ctx context.Context, known []store.Folder, status map[string]imapwire.Status) ([]store.Rename, error) {
	var fresh []string
	for _, b := range j.here.mailboxes {
		if selectable(b) && !slices.ContainsFunc(known, func(f store.Folder) bool { return f.Source == b.Name }) {
			fresh = append(fresh, b.Name)
		}
	}
	if len(fresh) == 0 {
		return nil, nil
	}
	var gone []store.Folder
	for _, f := range known {
		if f.SourceUIDValidity != 0 && !isInbox(f.Source) && !j.onSource(f.Source) && j.exists(f.Target) {
			gone = append(gone, f)
		}
	}
	slices.SortStableFunc(gone, func(a, b store.Folder) int {
		return cmp.Compare(len(j.here.components(a.Source)), len(j.here.components(b.Source)))
	})
	for _, f := range gone {
		for _, name := range fresh {
			st, told := status[name]
			if !told {
				var err error
				if st, err = j.source.Status(ctx, name); err != nil && !isStatus(err) {
					return nil, again(errorSource, fmt.Errorf("the source's folder %s: %w", name, err))
				}
			}
			if max(1, st.UIDValidity) != f.SourceUIDValidity {
				continue
			}
			renames := j.planRename(f, name, known)
			if len(renames) == 0 {
				continue
			}
			if is, err := j.isRenamed(ctx, f, name); err != nil {
				return nil, err
			} else if is {
				return renames, nil
			}
		}
	}
	return nil, nil
}

// isRenamed reports whether a folder of the source is one that had another name:
// messages that the ledger knows have their UIDs there. Two folders may have the
// same UIDVALIDITY, where it is the time at which they were made.
func (j *job) isRenamed(ctx context.Context, was store.Folder, name string) (bool, error) {
	f := &folder{Folder: was}
	runs, err := j.claim.Ledger(ctx, was.ID)
	if err != nil {
		return false, err
	}
	if len(runs) == 0 {
		st, err := j.dest.Status(ctx, was.Target)
		if err != nil && !isStatus(err) {
			return false, again(errorTarget, fmt.Errorf("the target's folder %s: %w", was.Target, err))
		}
		return err == nil && st.Messages == 0, nil
	}
	f.Source = name
	opened, err := j.source.Examine(ctx, name)
	if isStatus(err) || err == nil && opened.Exists == 0 {
		return false, nil
	}
	if err != nil {
		return false, again(errorSource, fmt.Errorf("the source's folder %s: %w", name, err))
	}
	settled := newLedger(runs, was.TargetUIDValidity)
	var both []uint32
	err = j.source.FetchMeta(ctx, 1, 0, func(m imapwire.Meta) error {
		if settled.hasSource(m.UID) {
			both = append(both, m.UID)
		}
		return nil
	})
	if err != nil {
		return false, again(errorSource, fmt.Errorf("list the messages of %s: %w", name, err))
	}
	if len(both) == 0 {
		return false, nil
	}
	slices.Sort(both)
	some := slices.Compact([]uint32{both[0], both[len(both)/2], both[len(both)-1]})
	read, err := j.digestSource(ctx, f, some)
	if err != nil {
		return false, err
	}
	for _, o := range read {
		if d, _ := settled.digest(o.uid); d != o.sum.canonical {
			return false, nil
		}
	}
	return len(read) == len(some), nil
}

// planRename says what a folder and those below it are to be called, or nothing
// where the target cannot simply rename it: a folder with a use is needed under
// its name, and no other may have the new names.
func (j *job) planRename(f store.Folder, name string, known []store.Folder) []store.Rename {
	below := func(h hierarchy, a, b string) bool { return h.delim != 0 && strings.HasPrefix(a, b+h.separator()) }
	moves := func(o store.Folder) bool {
		return o.ID == f.ID || below(j.here.hierarchy, o.Source, f.Source) || below(j.there.hierarchy, o.Target, f.Target)
	}
	at := slices.IndexFunc(j.there.mailboxes, func(b imapwire.Mailbox) bool { return b.Name == f.Target })
	if at < 0 || isInbox(f.Target) || hasUse(j.there.mailboxes[at]) {
		return nil
	}
	fresh := mapFolders(slices.DeleteFunc(slices.Clone(known), moves), j.here, j.there)
	to := slices.IndexFunc(fresh, func(o store.Folder) bool { return o.Source == name })
	if to < 0 {
		return nil
	}
	renames := []store.Rename{{FolderID: f.ID, Source: name, Target: fresh[to].Target}}
	for _, b := range j.there.mailboxes {
		if b.Name != f.Target && (b.Name == fresh[to].Target || sameButCase(b.Name, fresh[to].Target)) ||
			below(j.there.hierarchy, b.Name, f.Target) && !slices.ContainsFunc(known, func(o store.Folder) bool { return o.Target == b.Name }) {
			return nil
		}
	}
	for _, o := range known {
		if !moves(o) || o.ID == f.ID {
			continue
		}
		r := store.Rename{FolderID: o.ID, Source: o.Source, Target: o.Target}
		if below(j.here.hierarchy, o.Source, f.Source) {
			if j.onSource(o.Source) {
				return nil
			}
			r.Source = name + strings.TrimPrefix(o.Source, f.Source)
		}
		if below(j.there.hierarchy, o.Target, f.Target) {
			r.Target = fresh[to].Target + strings.TrimPrefix(o.Target, f.Target)
		}
		renames = append(renames, r)
	}
	for _, o := range known {
		if !moves(o) && slices.ContainsFunc(renames, func(r store.Rename) bool { return r.Source == o.Source || r.Target == o.Target }) {
			return nil
		}
	}
	return renames
}

// hasUse reports whether a folder has a use, and so is needed under its name.
func hasUse(b imapwire.Mailbox) bool {
	return slices.ContainsFunc(uses, func(use string) bool { return hasAttr(b, use) })
}

// unsubscribe takes subscriptions away that migproxy has made and that the source
// has no more.
func (j *job) unsubscribe(ctx context.Context, f *store.Folder, subscribed []string) error {
	if f.ID == 0 || !f.Subscribed || !j.tellsSubscribed || slices.Contains(subscribed, f.Source) {
		return nil
	}
	if err := j.dest.Unsubscribe(ctx, f.Target); err != nil && !isStatus(err) {
		return again(errorTarget, fmt.Errorf("unsubscribe %s: %w", f.Target, err))
	}
	f.Subscribed = false
	return j.claim.PutFolder(ctx, f)
}

// removeFolders removes folders on the target that the source has no more, those
// below others first, and returns how many.
func (j *job) removeFolders(ctx context.Context, folders []*folder) (removed int, err error) {
	if !j.mirrorsDeletions() {
		return 0, nil
	}
	gone := slices.DeleteFunc(slices.Clone(folders), func(f *folder) bool {
		return f.listed || isInbox(f.Source) || j.onSource(f.Source)
	})
	slices.SortStableFunc(gone, func(a, b *folder) int {
		return cmp.Compare(len(j.here.components(b.Source)), len(j.here.components(a.Source)))
	})
	for _, f := range gone {
		done, err := j.removeFolder(ctx, f)
		if err != nil {
			return removed, err
		}
		if done {
			removed++
		}
	}
	return removed, nil
}

// removeFolder removes a folder whose messages are removed already, unless there
// is something else in it, or it has a use. One with others below it has to wait
// for these. The ledger forgets it before the target is asked to remove it: after a
// crash, what has its name on either side may be another folder, and is begun anew.
func (j *job) removeFolder(ctx context.Context, f *folder) (done bool, err error) {
	at := slices.IndexFunc(j.there.mailboxes, func(b imapwire.Mailbox) bool { return b.Name == f.Target })
	if at >= 0 {
		if slices.ContainsFunc(j.there.mailboxes, func(b imapwire.Mailbox) bool {
			return j.there.delim != 0 && strings.HasPrefix(b.Name, f.Target+j.there.separator())
		}) {
			return false, nil
		}
		if err := j.claim.BeginRemoval(ctx, f.ID); err != nil {
			return false, err
		}
		j.m.step(stepRemoveCommitted)
		if f.Subscribed {
			if err := j.dest.Unsubscribe(ctx, f.Target); err != nil && !isStatus(err) {
				return false, again(errorTarget, fmt.Errorf("unsubscribe %s: %w", f.Target, err))
			}
		}
		if err := j.leaveFolders(ctx); err != nil {
			return false, err
		}
		st, err := j.dest.Status(ctx, f.Target)
		if err != nil && !isStatus(err) {
			return false, again(errorTarget, fmt.Errorf("the target's folder %s: %w", f.Target, err))
		}
		if err == nil && st.Messages == 0 && !hasUse(j.there.mailboxes[at]) && !isInbox(f.Target) {
			err := j.dest.Delete(ctx, f.Target)
			if err != nil && !isStatus(err) {
				return false, again(errorTarget, fmt.Errorf("remove the target's folder %s: %w", f.Target, err))
			}
			if err != nil {
				j.log.Info("the target does not remove a folder that the source has no more", zap.String("folder", f.Target), zap.Error(err))
			}
			if done = err == nil; done && !f.Subscribed { // its owner may have subscribed it
				if err := j.dest.Unsubscribe(ctx, f.Target); err != nil && !isStatus(err) {
					return false, again(errorTarget, fmt.Errorf("unsubscribe %s: %w", f.Target, err))
				}
			}
			j.there.mailboxes = slices.Delete(j.there.mailboxes, at, at+1)
		}
	}
	j.m.step(stepFolderRemoved)
	delete(j.unchanged, f.ID)
	return done || f.SourceUIDValidity != 0, j.claim.ForgetFolder(ctx, f.ID)
}

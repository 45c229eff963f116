package migrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

const (
	// maxPasses bounds how long a mailbox that never comes to rest is followed
	// before the worker turns to another account.
	maxPasses = 20
	// window is how many messages are listed at a time with all that is known
	// of them, so that memory does not follow the size of a folder.
	window = 1000
)

// copyAll copies until a pass finds nothing new, and compares. An account whose
// owner works on the source is followed instead.
func (j *job) copyAll(ctx context.Context) error {
	if err := j.settleOld(ctx); err != nil {
		return err
	}
	if err := j.recallRefusals(ctx); err != nil {
		return err
	}
	if j.mirrors() {
		return j.follow(ctx)
	}
	for range maxPasses {
		folders, err := j.folders(ctx)
		if err != nil {
			return err
		}
		if err := j.foresee(ctx, folders); err != nil {
			return err
		}
		found, err := j.pass(ctx, folders)
		if err != nil {
			return err
		}
		if found > 0 {
			continue
		}
		if err := j.confirmLast(ctx, folders); err != nil {
			return err
		}
		if err := j.unresolved(); err != nil {
			return err
		}
		complete, err := j.compare(ctx, folders)
		if err != nil {
			return err
		}
		if err := j.claim.Refresh(ctx); err != nil {
			return err
		}
		if complete {
			j.m.step(stepCompared)
			j.event(ctx, fmt.Sprintf("Messages for '%s' migrated, %d messages", j.address, j.claim.Account.Messages))
			j.report(ctx)
			if err := j.noteUIDLs(ctx); err != nil {
				return err
			}
			return j.tooManyAside()
		}
	}
	return errArrivesFaster
}

var errArrivesFaster = again(errorSource, errors.New("mail arrives on the source faster than it is copied: the work goes on later"))

// pass copies what the source has and the ledger does not. It returns how many
// such messages it found.
func (j *job) pass(ctx context.Context, folders []*folder) (found int, err error) {
	if j.labels != nil {
		j.labels.pass++
	}
	var expected int64
	for _, f := range folders {
		if j.stop.Err() != nil {
			return found, errStopped
		}
		if !f.listed {
			continue
		}
		if !f.asked {
			if f.status, err = j.source.Status(ctx, f.Source); err != nil {
				if gone, err := j.sourceRefuses(ctx, f, err); err != nil || gone {
					if err != nil {
						return found, err
					}
					continue
				}
			}
		}
		if j.countsOnce(f) {
			expected += int64(f.status.Messages)
		}
	}
	if expected != j.claim.Account.Expected {
		if err := j.claim.SetExpected(ctx, expected); err != nil {
			return found, err
		}
	}
	left, found, err := j.copyInLanes(ctx, slices.DeleteFunc(slices.Clone(folders), func(f *folder) bool { return !f.listed }))
	if err != nil {
		return found, err
	}
	for _, f := range left {
		n, err := j.copyFolder(ctx, f)
		if err != nil {
			return found, err
		}
		found += n
	}
	j.witness.over = true
	return found, j.putConfirmedAside(ctx, folders)
}

// sourceRefuses says what it means that the source does not open a folder that
// it listed: it is gone meanwhile, or something is wrong.
func (j *job) sourceRefuses(ctx context.Context, f *folder, cause error) (gone bool, err error) {
	if !isStatus(cause) {
		return false, again(errorSource, fmt.Errorf("the source's folder %s: %w", f.Source, cause))
	}
	boxes, err := j.source.List(ctx, f.Source)
	if err != nil {
		return false, again(errorSource, fmt.Errorf("list the source's folder %s: %w", f.Source, err))
	}
	if !slices.ContainsFunc(boxes, func(b imapwire.Mailbox) bool { return b.Name == f.Source && selectable(b) }) {
		f.listed = false
		return true, nil
	}
	return false, &halt{state: store.Waiting, retry: true, reason: errorSource,
		err: fmt.Errorf("the source lists the folder %s and does not open it: give the user the right to read it, or remove it: %w", f.Source, cause)}
}

// copyFolder copies what is missing of one folder and returns how many
// messages were missing.
func (j *job) copyFolder(ctx context.Context, f *folder) (found int, err error) {
	before := f.status
	if was, ok := j.unchanged[f.ID]; ok && was.UIDNext != 0 && was.UIDNext == before.UIDNext && was.UIDValidity == before.UIDValidity {
		return 0, nil
	}
	opened, err := j.source.Examine(ctx, f.Source)
	if err != nil {
		_, err := j.sourceRefuses(ctx, f, err)
		return 0, err
	}
	fresh := f.SourceUIDValidity == 0
	if err := j.noteSourceValidity(ctx, f, max(1, opened.UIDValidity)); err != nil {
		return 0, err
	}
	var metas []imapwire.Meta // of the first missing ones
	missing, err := j.missing(ctx, f, opened.Exists, 1, func(m imapwire.Meta, missing bool) {
		if missing && len(metas) < window {
			metas = append(metas, m)
		}
	})
	if err != nil {
		return 0, err
	}
	own, deferred, err := j.ownMessages(ctx, f, missing)
	if err != nil || deferred && len(own) == 0 {
		return 0, err
	}
	if len(own) < len(missing) {
		missing, metas = own, nil
	}
	if found = len(missing); found == 0 {
		j.noteUnchanged(f, before)
		if fresh {
			return 0, j.claim.PutFolder(ctx, &f.Folder)
		}
		return 0, nil
	}
	if f.gathered {
		f.gathered = false
		if err := j.prepare(ctx, f, j.subscribed(ctx, f.Source)); err != nil {
			return found, err
		}
	}
	if found, err = j.copyMissing(ctx, f, missing, metas); deferred {
		delete(j.unchanged, f.ID)
	}
	return found, err
}

// copyMissing copies messages of the source's folder that is open, and returns
// how many were missing. metas are what is known of the first of them, if that
// is known.
func (j *job) copyMissing(ctx context.Context, f *folder, missing []uint32, metas []imapwire.Meta) (found int, err error) {
	before := f.status
	found = len(missing)
	c, err := j.newCopier(ctx, f)
	if err != nil {
		return found, err
	}
	if missing, err = c.recognise(ctx, missing); err != nil {
		return found, err
	}
	now := j.witness.holdBack(missing, j.dest.Has("MULTIAPPEND"))
	if err := c.copy(ctx, now, metas); err != nil {
		return found, err
	}
	if len(now) == len(missing) {
		j.noteUnchanged(f, before)
	}
	return found, nil
}

// noteUnchanged has a folder passed by until the source shows something new in
// it. One of which the target has refused a message is looked at once more, as
// that message is still to be set aside.
func (j *job) noteUnchanged(f *folder, st imapwire.Status) {
	for k, x := range j.suspects {
		if k.folderID == f.ID && x.alone {
			return
		}
	}
	j.unchanged[f.ID] = st
}

// only sorts what is known of messages, and leaves out those not wanted.
func only(metas []imapwire.Meta, uids []uint32) []imapwire.Meta {
	metas = slices.DeleteFunc(metas, func(m imapwire.Meta) bool { _, wanted := slices.BinarySearch(uids, m.UID); return !wanted })
	slices.SortFunc(metas, func(a, b imapwire.Meta) int { return cmp.Compare(a.UID, b.UID) })
	return metas
}

// witness are messages that the first pass leaves to the second. What is
// refused at the very end of a mailbox needs a neighbour that is accepted
// after it, to show that it is the message and not the target.
type witness struct {
	mu                  sync.Mutex
	first, second, over bool
}

// begin has new witnesses held back.
func (w *witness) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.first, w.second = false, false
}

// holdBack takes witnesses out of a folder's missing messages: one, or two
// that go together where the target takes them in one command, since then one
// can speak against the other; and one more of the next folder.
func (w *witness) holdBack(missing []uint32, together bool) []uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(missing)
	switch {
	case w.over:
	case !w.first && together && n > 2:
		w.first = true
		return missing[1 : n-1]
	case !w.first && !together && n > 1:
		w.first = true
		return missing[1:]
	case w.first && !w.second && n > 1:
		w.second = true
		return missing[1:]
	}
	return missing
}

// noteSourceValidity commits the UIDVALIDITY under which the source shows a
// folder. When it changed, the UIDs of the ledger say nothing any more: what is
// on the target is matched anew, by digest, and nothing is doubled. The first one
// is committed with the next commit of the folder, before anything is copied.
func (j *job) noteSourceValidity(ctx context.Context, f *folder, validity uint32) error {
	if f.SourceUIDValidity == validity {
		return nil
	}
	first := f.SourceUIDValidity == 0
	f.SourceUIDValidity = validity
	if first {
		return nil
	}
	f.Matched = false
	return j.claim.PutFolder(ctx, &f.Folder)
}

// missing lists the UIDs from first on that the source shows in the folder it
// has open and that are neither settled nor set aside. each, if there is one, is
// told of every message that the source shows there, in any order, once.
func (j *job) missing(ctx context.Context, f *folder, exists, first uint32, each func(m imapwire.Meta, missing bool)) ([]uint32, error) {
	if exists == 0 {
		return nil, nil
	}
	runs, err := j.claim.Ledger(ctx, f.ID)
	if err != nil {
		return nil, err
	}
	aside, err := j.claim.SetAsideUIDs(ctx, f.ID)
	if err != nil {
		return nil, err
	}
	settled := newLedger(runs, f.TargetUIDValidity)
	var missing []uint32
	j.labels.begin()
	err = j.source.FetchMeta(ctx, first, 0, func(m imapwire.Meta) error {
		open := !settled.hasSource(m.UID) && !slices.Contains(aside, m.UID) && !j.suspects.has(key(f, m.UID)) && !j.withholds(f, m.UID)
		if open {
			missing = append(missing, m.UID)
		}
		j.labels.see(f, m, open)
		if each != nil {
			each(m, open)
		}
		return nil
	})
	if err != nil {
		return nil, again(errorSource, fmt.Errorf("list the messages of %s: %w", f.Source, err))
	}
	slices.Sort(missing)
	return slices.Compact(missing), nil
}

// list learns what is known of these messages before their octets, by UID.
func (j *job) list(ctx context.Context, uids []uint32) ([]imapwire.Meta, error) {
	var metas []imapwire.Meta
	if len(uids) == 0 {
		return nil, nil
	}
	err := j.source.FetchMeta(ctx, uids[0], uids[len(uids)-1], func(m imapwire.Meta) error {
		if _, wanted := slices.BinarySearch(uids, m.UID); wanted {
			metas = append(metas, m)
		}
		return nil
	})
	if err != nil {
		return nil, again(errorSource, fmt.Errorf("list messages: %w", err))
	}
	return only(metas, uids), nil
}

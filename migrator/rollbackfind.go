package migrator

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// returner finds what the target has of an account and its source has not.
type returner struct {
	store          *store.Store
	account        int64
	source, target *imapwire.Conn
	exactly        bool // read every message that is to be copied

	here, there side
	subscribed  []string               // on the target
	sums        map[spot]*store.Digest // of messages that were read
}

// spot is where the target has a message.
type spot struct {
	folder        string
	validity, uid uint32
}

// returning is a folder of the target with messages to be copied back.
type returning struct {
	store.Folder        // ID 0: the ledger does not know it
	there        bool   // the source has it
	validity     uint32 // on the target; 0 where it is not there
	messages     []returned
}

// returned is a message to be copied back.
type returned struct {
	imapwire.Meta
	digest store.Digest
}

// find lists the folders with messages of the target that the ledger does not
// account for, but for those that have only moved: of a message of which n copies
// in the ledger are where they were no more, n may be anywhere.
func (r *returner) find(ctx context.Context) ([]*returning, error) {
	all, err := r.survey(ctx)
	if err != nil {
		return nil, err
	}
	moved, standing := map[store.Digest]int{}, map[store.Digest]int{}
	for _, f := range all {
		if err := r.list(ctx, f, moved, standing); err != nil {
			return nil, err
		}
	}
	if len(standing) > 0 {
		for _, f := range all {
			if err := r.unsourced(ctx, f, standing); err != nil {
				return nil, err
			}
		}
		for d, n := range standing {
			moved[d] += max(n, 0)
		}
	}
	for _, f := range all {
		if len(f.messages) == 0 || len(moved) == 0 && !r.exactly {
			continue
		}
		if err := r.read(ctx, f); err != nil {
			return nil, err
		}
		f.messages = slices.DeleteFunc(f.messages, func(m returned) bool {
			moved[m.digest]--
			return moved[m.digest] >= 0
		})
	}
	return slices.DeleteFunc(all, func(f *returning) bool { return len(f.messages) == 0 }), nil
}

// survey lists the folders of the mapping, and those of the target that are not in
// it, with the names that they would have on the source.
func (r *returner) survey(ctx context.Context) (all []*returning, err error) {
	if r.here, err = survey(ctx, r.source); err != nil {
		return nil, again(errorSource, fmt.Errorf("list the source's folders: %w", err))
	}
	if r.there, err = survey(ctx, r.target); err != nil {
		return nil, again(errorTarget, fmt.Errorf("list the target's folders: %w", err))
	}
	if r.subscribed, err = r.target.Subscriptions(ctx, "*"); err != nil && !isStatus(err) {
		return nil, again(errorTarget, fmt.Errorf("list the target's subscriptions: %w", err))
	}
	known, err := r.store.Folders(ctx, r.account)
	if err != nil {
		return nil, err
	}
	mapping := make([]store.Folder, len(known))
	for i, f := range known {
		mapping[i] = f.Folder
		all = append(all, &returning{Folder: f.Folder})
	}
	for _, f := range mapBack(mapping, r.here, r.there) {
		if f.Selectable {
			all = append(all, &returning{Folder: f})
		}
	}
	for _, f := range all {
		f.there = has(r.here, f.Source)
		f.Subscribed = f.Subscribed || slices.Contains(r.subscribed, f.Target)
	}
	return all, nil
}

// mapBack lists the folders of the target that are not in the mapping, with the
// names that they would have on the source.
func mapBack(known []store.Folder, here, there side) []store.Folder {
	var swapped []store.Folder
	for _, f := range known {
		if at := slices.IndexFunc(there.mailboxes, func(b imapwire.Mailbox) bool { return isInbox(b.Name) }); at >= 0 && isInbox(f.Target) {
			f.Target = there.mailboxes[at].Name // as it is spelled in the list
		}
		swapped = append(swapped, store.Folder{Source: f.Target, Target: f.Source})
	}
	var beyond []store.Folder
	for _, f := range mapFolders(swapped, there, here) {
		beyond = append(beyond, store.Folder{Source: f.Target, Target: f.Source, Selectable: f.Selectable})
	}
	return beyond
}

// has reports whether a server has a folder that can hold messages.
func has(s side, name string) bool {
	return slices.ContainsFunc(s.mailboxes, func(b imapwire.Mailbox) bool {
		return selectable(b) && (b.Name == name || isInbox(b.Name) && isInbox(name))
	})
}

// list lists one folder of the target: the messages that no run accounts for. It
// counts, by digest, those of the ledger that the target shows no more where they
// were, and those for which another folder's message stands.
func (r *returner) list(ctx context.Context, f *returning, moved, standing map[store.Digest]int) error {
	runs, err := r.runs(ctx, f)
	if err != nil {
		return err
	}
	var metas []imapwire.Meta
	known := map[uint32]bool{}
	if has(r.there, f.Target) {
		opened, err := r.target.Examine(ctx, f.Target)
		if err != nil {
			return again(errorTarget, fmt.Errorf("the target's folder %s: %w", f.Target, err))
		}
		f.validity = max(1, opened.UIDValidity)
		accounts := accounted(runs, f.validity)
		err = r.each(ctx, r.target, opened.Exists, func(m imapwire.Meta) {
			if _, is := slices.BinarySearch(accounts, m.UID); is {
				known[m.UID] = true
			} else {
				metas = append(metas, m)
			}
		})
		if err != nil {
			return again(errorTarget, fmt.Errorf("list the target's folder %s: %w", f.Target, err))
		}
	}
	slices.SortFunc(metas, func(a, b imapwire.Meta) int { return cmp.Compare(a.UID, b.UID) })
	for _, m := range metas {
		f.messages = append(f.messages, returned{Meta: m})
	}
	seen := map[spot]bool{} // under several UIDVALIDITYs of the source
	for _, run := range runs {
		for n, d := range run.Digests {
			at := spot{validity: run.TargetUIDValidity, uid: run.TargetFirst + uint32(n)}
			switch {
			case run.TargetFirst == 0 && run.SourceUIDValidity == f.SourceUIDValidity:
				standing[d]++
			case run.TargetFirst == 0, at.validity == f.validity && known[at.uid], seen[at]:
			default:
				seen[at] = true
				moved[d]++
			}
		}
	}
	return nil
}

// runs are what the ledger has of a folder.
func (r *returner) runs(ctx context.Context, f *returning) ([]store.SourceRun, error) {
	if f.ID == 0 {
		return nil, nil
	}
	return r.store.Runs(ctx, f.ID)
}

// each lists the messages of the folder that is open, if there are any.
func (r *returner) each(ctx context.Context, c *imapwire.Conn, exists uint32, fn func(imapwire.Meta)) error {
	if exists == 0 {
		return nil
	}
	return c.FetchMeta(ctx, 1, 0, func(m imapwire.Meta) error {
		fn(m)
		return nil
	})
}

// accounted lists the UIDs of the target, ascending, that runs account for. Under
// several UIDVALIDITYs of the source, runs may overlap on the target.
func accounted(runs []store.SourceRun, targetValidity uint32) []uint32 {
	var uids []uint32
	for _, run := range runs {
		if run.TargetFirst == 0 || run.TargetUIDValidity != targetValidity {
			continue
		}
		for n := range run.Digests {
			uids = append(uids, run.TargetFirst+uint32(n))
		}
	}
	slices.Sort(uids)
	return uids
}

// unsourced takes those messages of the ledger out of a count that the target
// shows and the source does not show any more: a message that has moved on the
// source stands for one that is where it was on the target, which is accounted for
// by itself.
func (r *returner) unsourced(ctx context.Context, f *returning, count map[store.Digest]int) error {
	runs, err := r.runs(ctx, f)
	if err != nil || len(runs) == 0 || f.validity == 0 {
		return err
	}
	there := map[uint32]bool{} // UIDs of the source
	if f.there {
		opened, err := r.source.Examine(ctx, f.Source)
		if err == nil && max(1, opened.UIDValidity) == f.SourceUIDValidity {
			err = r.each(ctx, r.source, opened.Exists, func(m imapwire.Meta) { there[m.UID] = true })
		}
		if err != nil {
			return again(errorSource, fmt.Errorf("list the messages of %s: %w", f.Source, err))
		}
	}
	digests, sourced := map[uint32]store.Digest{}, map[uint32]bool{} // by UID of the target
	for _, run := range runs {
		for n, d := range run.Digests {
			if uid := run.TargetFirst + uint32(n); run.TargetFirst == 0 || run.TargetUIDValidity != f.validity {
				continue
			} else if run.SourceUIDValidity == f.SourceUIDValidity && there[run.SourceFirst+uint32(n)] {
				sourced[uid] = true
			} else if count[d] > 0 {
				digests[uid] = d
			}
		}
	}
	if len(digests) == 0 {
		return nil
	}
	if err := openAgain(ctx, r.target, f.Target, f.validity); err != nil {
		return err
	}
	err = r.target.FetchMeta(ctx, 1, 0, func(m imapwire.Meta) error {
		if d, is := digests[m.UID]; is && !sourced[m.UID] {
			count[d]--
		}
		return nil
	})
	if err != nil {
		return again(errorTarget, fmt.Errorf("list the target's folder %s: %w", f.Target, err))
	}
	return nil
}

// read computes the digests of messages of the target, each once. What is gone
// meanwhile is left out.
func (r *returner) read(ctx context.Context, f *returning) error {
	if r.sums == nil {
		r.sums = map[spot]*store.Digest{}
	}
	var unread []uint32
	for _, m := range f.messages {
		if r.sums[spot{f.Target, f.validity, m.UID}] == nil {
			unread = append(unread, m.UID)
		}
	}
	if len(unread) > 0 {
		if err := openAgain(ctx, r.target, f.Target, f.validity); err != nil {
			return err
		}
	}
	for uids := range slices.Chunk(unread, window) {
		sums := make(map[uint32]digests, len(uids))
		if err := r.target.FetchBodies(ctx, uids, digestInto(sums)); err != nil && !isStatus(err) { // some of them may be gone
			return again(errorTarget, fmt.Errorf("fetch from the target's folder %s: %w", f.Target, err))
		}
		for uid, sum := range sums {
			r.sums[spot{f.Target, f.validity, uid}] = &sum.canonical
		}
	}
	f.messages = slices.DeleteFunc(f.messages, func(m returned) bool { return r.sums[spot{f.Target, f.validity, m.UID}] == nil })
	for i, m := range f.messages {
		f.messages[i].digest = *r.sums[spot{f.Target, f.validity, m.UID}]
	}
	return nil
}

// openAgain opens a folder of the target for reading, which must be the same as
// before.
func openAgain(ctx context.Context, c *imapwire.Conn, name string, validity uint32) error {
	opened, err := c.Examine(ctx, name)
	if err == nil && max(1, opened.UIDValidity) != validity {
		err = errReplaced
	}
	if err != nil {
		return again(errorTarget, fmt.Errorf("the target's folder %s: %w", name, err))
	}
	return nil
}

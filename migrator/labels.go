package migrator

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// gmailExtension is the capability of servers that show one message in several
// folders, its labels, and number it by X-GM-MSGID.
const gmailExtension = "X-GM-EXT-1"

// labels is what a run knows of a source whose folders are labels. Each message
// is copied from one of its appearances, its home; the others are accounted for
// by that. The map has an entry for each message of the account.
type labels struct {
	homes map[uint64]home // by X-GM-MSGID
	pass  uint32
	// missing are the messages of the folder last listed that are not settled.
	missing map[uint32]uint64 // X-GM-MSGID by UID
}

// home is the appearance of a message that is copied.
type home struct {
	folder string // of the source
	uid    uint32
	pass   uint32 // in which it was last listed
}

// newLabels returns nil for a source whose folders are no labels.
func newLabels(source sourceConn) *labels {
	if c, can := source.(interface{ Has(string) bool }); !can || !c.Has(gmailExtension) {
		return nil
	}
	return &labels{homes: map[uint64]home{}}
}

// begin begins the listing of a folder.
func (l *labels) begin() {
	if l != nil {
		l.missing = map[uint32]uint64{}
	}
}

// see notes a message that the source lists. The first folder that shows one
// is its home.
func (l *labels) see(f *folder, m imapwire.Meta, missing bool) {
	if l == nil || m.GmailID == 0 {
		return
	}
	if missing {
		l.missing[m.UID] = m.GmailID
	}
	h, known := l.homes[m.GmailID]
	if !known || h.folder == f.Source && h.uid == m.UID {
		l.homes[m.GmailID] = home{f.Source, m.UID, l.pass}
	}
}

// labelRank orders the folders of such a source by whose mail is more than a
// view: INBOX first, so that what is in it stays there; \All after all labels,
// and then what a flag gathers.
func labelRank(box imapwire.Mailbox) int {
	switch {
	case isInbox(box.Name):
		return 0
	case hasAttr(box, `\All`):
		return 2
	case isGathered(box):
		return 3
	}
	return 1
}

// isGathered reports whether a folder shows what a flag gathers from others.
func isGathered(box imapwire.Mailbox) bool {
	return hasAttr(box, `\Flagged`) || hasAttr(box, `\Important`)
}

// byRank sorts the folders of a source with labels, and keeps their order
// otherwise.
func (j *job) byRank(all []*folder) {
	if j.labels == nil {
		return
	}
	ranks := map[string]int{}
	for _, box := range j.here.mailboxes {
		ranks[box.Name] = labelRank(box)
	}
	slices.SortStableFunc(all, func(a, b *folder) int { return cmp.Compare(ranks[a.Source], ranks[b.Source]) })
}

// countsOnce reports whether the messages of a folder are to be counted for how
// many the account has: \All has those of every label, but not \Junk and \Trash.
func (j *job) countsOnce(f *folder) bool {
	all := slices.IndexFunc(j.here.mailboxes, func(b imapwire.Mailbox) bool { return hasAttr(b, `\All`) && selectable(b) })
	if j.labels == nil || all < 0 {
		return true
	}
	at := slices.IndexFunc(j.here.mailboxes, func(b imapwire.Mailbox) bool { return b.Name == f.Source })
	box := j.here.mailboxes[at]
	return at == all || hasAttr(box, `\Junk`) || hasAttr(box, `\Trash`)
}

// ownMessages settles those missing messages of a folder that another folder's
// message accounts for, and returns those that are to be copied from this one.
// deferred is true where some wait for another folder's that is not settled yet.
func (j *job) ownMessages(ctx context.Context, f *folder, missing []uint32) (own []uint32, deferred bool, err error) {
	l := j.labels
	if l == nil || len(missing) == 0 {
		return missing, false, nil
	}
	elsewhere := map[string][]uint32{}
	for _, uid := range missing {
		h, known := l.homes[l.missing[uid]]
		if !known || h == (home{f.Source, uid, h.pass}) {
			own = append(own, uid)
		} else {
			elsewhere[h.folder] = append(elsewhere[h.folder], uid)
		}
	}
	if len(elsewhere) == 0 {
		return own, false, nil
	}
	var done []store.Message
	for name, uids := range elsewhere {
		settled, err := j.settledDigests(ctx, name)
		if err != nil {
			return nil, false, err
		}
		for _, uid := range uids {
			id := l.missing[uid]
			h := l.homes[id]
			switch digest, is := settled(h.uid); {
			case is:
				done = append(done, store.Message{SourceUID: uid, Digest: digest})
			case h.pass == l.pass:
				deferred = true
			default: // it has left the folder that was its home
				l.homes[id] = home{f.Source, uid, l.pass}
				own = append(own, uid)
			}
		}
	}
	slices.Sort(own)
	if len(done) > 0 {
		if err := j.settleElsewhere(ctx, f, done, len(own) > 0); err != nil {
			return nil, false, err
		}
	}
	return own, deferred, nil
}

// settledDigests returns what finds the digest of a folder's message that is
// settled or set aside.
func (j *job) settledDigests(ctx context.Context, source string) (find func(uid uint32) (store.Digest, bool), err error) {
	folders, err := j.claim.Folders(ctx)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(folders, func(f store.Folder) bool { return f.Source == source })
	if at < 0 {
		return func(uint32) (d store.Digest, _ bool) { return d, false }, nil
	}
	runs, err := j.claim.Ledger(ctx, folders[at].ID)
	if err != nil {
		return nil, err
	}
	aside := map[uint32]store.Digest{}
	kept, err := j.m.o.Store.SetAside(ctx, j.claim.Account.ID)
	if err != nil {
		return nil, err
	}
	for _, m := range kept {
		if m.FolderID == folders[at].ID && m.SourceUIDValidity == folders[at].SourceUIDValidity {
			aside[m.SourceUID] = m.Digest
		}
	}
	settled := newLedger(runs, folders[at].TargetUIDValidity)
	return func(uid uint32) (store.Digest, bool) {
		if d, is := settled.digest(uid); is {
			return d, true
		}
		d, is := aside[uid]
		return d, is
	}, nil
}

// digest finds the digest of a message of the source that is settled.
func (l *ledger) digest(uid uint32) (d store.Digest, is bool) {
	i, exact := slices.BinarySearchFunc(l.bySource, uid, func(r store.Run, uid uint32) int { return cmp.Compare(r.SourceFirst, uid) })
	if !exact {
		i--
	}
	if i < 0 || uid-l.bySource[i].SourceFirst >= uint32(len(l.bySource[i].Digests)) {
		return d, false
	}
	return l.bySource[i].Digests[uid-l.bySource[i].SourceFirst], true
}

// settleElsewhere settles messages that another folder's account for. create
// says that the folder is to be on the target all the same.
func (j *job) settleElsewhere(ctx context.Context, f *folder, done []store.Message, create bool) error {
	if f.ID == 0 {
		if err := j.placeFolder(ctx, f, create); err != nil {
			return err
		}
	} else if err := j.claim.PutFolder(ctx, &f.Folder); err != nil { // its first UIDVALIDITY may not be committed yet
		return err
	}
	return j.settled(ctx, f, nil, done)
}

// recogniseLabels settles those fresh messages of a folder that the source shows
// in another one too, from where they were copied in an earlier run.
func (j *job) recogniseLabels(ctx context.Context, f *folder, fresh []known, copied []store.CopiedMessage) (left []known, done []store.Message, err error) {
	if j.labels == nil {
		return fresh, nil, nil
	}
	places := map[string][]store.CopiedMessage{}
	for _, c := range copied {
		if c.Present && c.Source != f.Source {
			places[c.Source] = append(places[c.Source], c)
		}
	}
	type identity struct {
		digest store.Digest
		id     uint64
	}
	accounted := map[identity]bool{}
	for name, there := range places {
		err := j.listPlaces(ctx, name, there, func(c store.CopiedMessage, m imapwire.Meta) {
			accounted[identity{c.Digest, m.GmailID}] = true
		})
		if err != nil {
			return nil, nil, err
		}
	}
	if len(places) > 0 {
		if _, err := j.source.Examine(ctx, f.Source); err != nil {
			return nil, nil, again(errorSource, fmt.Errorf("the source's folder %s: %w", f.Source, err))
		}
	}
	for _, k := range fresh {
		if id := j.labels.missing[k.uid]; id != 0 && accounted[identity{k.digest, id}] {
			done = append(done, store.Message{SourceUID: k.uid, Digest: k.digest})
		} else {
			left = append(left, k)
		}
	}
	return left, done, nil
}

// listPlaces passes on those messages of a folder that the source still shows.
func (j *job) listPlaces(ctx context.Context, name string, there []store.CopiedMessage, each func(store.CopiedMessage, imapwire.Meta)) error {
	opened, err := j.source.Examine(ctx, name)
	if err != nil {
		_, err := j.sourceRefuses(ctx, &folder{Folder: store.Folder{Source: name}}, err)
		return err
	}
	if max(1, opened.UIDValidity) != there[0].SourceUIDValidity {
		return nil
	}
	slices.SortFunc(there, func(a, b store.CopiedMessage) int { return cmp.Compare(a.SourceUID, b.SourceUID) })
	err = j.source.FetchMeta(ctx, there[0].SourceUID, there[len(there)-1].SourceUID, func(m imapwire.Meta) error {
		at, found := slices.BinarySearchFunc(there, m.UID, func(c store.CopiedMessage, uid uint32) int { return cmp.Compare(c.SourceUID, uid) })
		if found {
			each(there[at], m)
		}
		return nil
	})
	if err != nil {
		return again(errorSource, fmt.Errorf("list the messages of %s: %w", name, err))
	}
	return nil
}

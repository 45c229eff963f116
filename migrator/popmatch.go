package migrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"migproxy/config"
	"migproxy/migrator/imapwire"
	"migproxy/store"
	"migproxy/upstream"
)

// noteUIDLs asks the source over POP3 how it names the messages of INBOX, which
// were taken by IMAP, and keeps that. No account fails for want of it: what went
// wrong is an event. The error is one of the store or of the context.
func (j *job) noteUIDLs(ctx context.Context) error {
	if named := j.domain.Config.Source.Protocols; len(named) < 2 || named[1] != config.POP3 {
		return nil
	}
	for {
		more, err := j.matchUIDLs(ctx)
		switch {
		case errors.Is(err, store.ErrFenced) || ctx.Err() != nil:
			return err
		case err != nil:
			j.event(ctx, fmt.Sprintf("'%s': how POP3 names the messages of INBOX (UIDL) could not be learnt, POP3 clients may download them again: %s", j.address, err))
			return nil
		case !more:
			return nil
		}
	}
}

// namedMessage is a message of the maildrop that was not matched yet.
type namedMessage struct {
	popMessage
	name popName
}

// matchUIDLs matches the maildrop with INBOX, in one session over POP3, and
// commits what it found. more is true if time was up before all was read.
func (j *job) matchUIDLs(ctx context.Context) (more bool, err error) {
	folders, err := j.claim.Folders(ctx)
	if err != nil {
		return false, err
	}
	at := slices.IndexFunc(folders, func(f store.Folder) bool { return isInbox(f.Source) })
	if at < 0 {
		return false, errors.New("the source has no INBOX")
	}
	inbox := folders[at]
	metas, err := j.inbox(ctx, inbox)
	if err != nil {
		return false, err
	}
	session, err := j.loginPOP3(ctx)
	if err != nil {
		return false, err
	}
	began := time.Now()
	d := j.maildrop()
	defer d.end()
	names, err := d.open(ctx, session)
	if err != nil {
		return false, err
	}
	if names == nil && len(d.messages) > 0 {
		return false, errors.New("the server has no unique-ids (UIDL)")
	}
	known, err := j.claim.UIDLs(ctx, inbox.SourceUIDValidity)
	if err != nil {
		return false, err
	}
	drop, metas := unmatched(&d, names, metas, known)
	pairs, doubtful, metas := matchInOrder(drop, metas)
	if len(doubtful) > 0 && len(metas) > 0 {
		there, err := j.digestsOf(ctx, inbox, metas)
		if err != nil {
			return false, err
		}
		for _, m := range doubtful {
			if more = time.Since(began) > j.m.pop.session && len(pairs) > 0; more {
				break
			}
			sum, err := d.digest(ctx, m.popMessage)
			if err != nil && !isRefused(err) {
				return false, err
			}
			if err != nil {
				continue // the server does not give it
			}
			if c, ok := there.take(original{sum: digests{canonical: sum}}, true); ok {
				pairs = append(pairs, uidl(m, c.uid))
			}
		}
	}
	for i := range pairs {
		pairs[i].SourceUIDValidity = inbox.SourceUIDValidity
	}
	return more, j.claim.PutUIDLs(ctx, pairs)
}

func uidl(m namedMessage, uid uint32) store.UIDL {
	return store.UIDL{Name: m.name.name, Occurrence: m.name.occurrence, SourceUID: uid}
}

// inbox lists INBOX by IMAP.
func (j *job) inbox(ctx context.Context, f store.Folder) (metas []imapwire.Meta, err error) {
	opened, err := j.source.Examine(ctx, f.Source)
	if err != nil {
		return nil, err
	}
	if max(1, opened.UIDValidity) != f.SourceUIDValidity {
		return nil, errors.New("the source has given INBOX another UIDVALIDITY")
	}
	if opened.Exists > 0 {
		err = j.source.FetchMeta(ctx, 1, 0, func(m imapwire.Meta) error {
			metas = append(metas, imapwire.Meta{UID: m.UID, Size: m.Size})
			return nil
		})
	}
	slices.SortFunc(metas, func(a, b imapwire.Meta) int { return cmp.Compare(a.UID, b.UID) })
	return metas, err
}

// loginPOP3 logs in on the source's POP3 beside its IMAP. What that says of the
// password is not held against it.
func (j *job) loginPOP3(ctx context.Context) (*upstream.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	return j.m.loginKept(ctx, j.claim.Account, store.SideSource, j.domain.Source.POP3, j.domain.Source.Master,
		func(context.Context) error { return nil })
}

// unmatched leaves out what is known already, on both sides.
func unmatched(d *maildrop, names []string, metas []imapwire.Meta, known []store.UIDL) ([]namedMessage, []imapwire.Meta) {
	uids := make(map[popName]uint32, len(known))
	for _, u := range known {
		uids[popName{u.Name, u.Occurrence}] = u.SourceUID
	}
	taken := map[uint32]bool{}
	seen := map[string]int64{}
	var drop []namedMessage
	for i, name := range names {
		n := popName{name, seen[name]}
		seen[name]++
		if uid, is := uids[n]; is {
			taken[uid] = true
		} else {
			drop = append(drop, namedMessage{d.messages[i], n})
		}
	}
	return drop, slices.DeleteFunc(metas, func(m imapwire.Meta) bool { return taken[m.UID] })
}

// matchInOrder pairs the messages of two lists that are in the same order and of
// the same sizes, from both ends. left and open are those without a partner, and
// those that one of these could be by its size.
func matchInOrder(drop []namedMessage, metas []imapwire.Meta) (pairs []store.UIDL, left []namedMessage, open []imapwire.Meta) {
	n := min(len(drop), len(metas))
	first := 0
	for first < n && drop[first].size == metas[first].Size {
		first++
	}
	last := 0 // counted from the end
	for last < n-first && drop[len(drop)-1-last].size == metas[len(metas)-1-last].Size {
		last++
	}
	doubtful := map[int64]bool{}
	for _, m := range drop[first : len(drop)-last] {
		doubtful[m.size] = true
	}
	for _, m := range metas[first : len(metas)-last] {
		doubtful[m.Size] = true
	}
	sort := func(drop []namedMessage, metas []imapwire.Meta) {
		for i, m := range drop {
			if doubtful[m.size] {
				left, open = append(left, m), append(open, metas[i])
			} else {
				pairs = append(pairs, uidl(m, metas[i].UID))
			}
		}
	}
	sort(drop[:first], metas[:first])
	left, open = append(left, drop[first:len(drop)-last]...), append(open, metas[first:len(metas)-last]...)
	sort(drop[len(drop)-last:], metas[len(metas)-last:])
	return pairs, left, open
}

// digestsOf are the ledger's digests of these messages of INBOX.
func (j *job) digestsOf(ctx context.Context, inbox store.Folder, metas []imapwire.Meta) (*pool, error) {
	runs, err := j.claim.Ledger(ctx, inbox.ID)
	if err != nil {
		return nil, err
	}
	var all []candidate
	for _, r := range runs {
		for i, sum := range r.Digests {
			uid := r.SourceFirst + uint32(i)
			_, wanted := slices.BinarySearchFunc(metas, uid, func(m imapwire.Meta, uid uint32) int { return cmp.Compare(m.UID, uid) })
			if wanted {
				all = append(all, candidate{uid: uid, sum: digests{canonical: sum}})
			}
		}
	}
	return newPool(all), nil
}

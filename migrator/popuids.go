package migrator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"migproxy/store"
)

// popName is what a message is known by, see store.UIDL.
type popName struct {
	name       string
	occurrence int64
}

// uidlMark stands between a UIDL and a digest.
const uidlMark = "\x00"

// errUIDLsGone keeps messages from being taken for new ones.
var errUIDLsGone = errors.New("the source's POP3 gave its messages unique-ids (UIDL) before, and refuses to give them now: see its log")

// assignUIDs gives the messages of a maildrop UIDs, which are committed before
// anybody hears of them. names are the messages' UIDLs; byDigest says that every
// message had to be read for it.
func assignUIDs(ctx context.Context, claim *store.Claim, d *maildrop, names []string) (next uint32, byDigest bool, err error) {
	list, err := claim.UIDLs(ctx, popValidity)
	if err != nil {
		return 0, false, err
	}
	a := newAssignment(list)
	if byDigest, err = a.name(ctx, d, names); err != nil {
		return 0, false, err
	}
	if err := a.relink(ctx, claim); err != nil {
		return 0, false, err
	}
	if err := a.unmatch(ctx, claim); err != nil {
		return 0, false, err
	}
	fresh := a.number()
	return a.next, byDigest, claim.PutUIDLs(ctx, append(a.linked, fresh...))
}

// assignment gives the messages of a maildrop UIDs of their own, and knows them
// again by their UIDLs, the names. Those without one, and those that share one, it
// knows by their digests besides: then it does not matter which of them leaves
// first. New ones get the next UIDs in the order of the maildrop.
type assignment struct {
	known  map[popName]uint32
	shared map[string]bool // UIDLs that several messages had
	next   uint32          // UIDNEXT

	// The present listing on its way to UIDs.
	d       *maildrop
	names   []popName // of the messages
	digests map[int]store.Digest
	linked  []store.UIDL // known under another name
}

func newAssignment(list []store.UIDL) *assignment {
	a := &assignment{known: make(map[popName]uint32, len(list)), shared: map[string]bool{}, next: 1}
	for _, x := range list {
		a.known[popName{x.Name, x.Occurrence}] = x.SourceUID
		a.next = max(a.next, x.SourceUID+1)
		if uidl, _, marked := strings.Cut(x.Name, uidlMark); marked {
			a.shared[uidl] = true
		}
	}
	return a
}

// name finds out what each message of a listing is known by.
func (a *assignment) name(ctx context.Context, d *maildrop, names []string) (byDigest bool, err error) {
	switch {
	case a.shared[""]: // it had none when the first of them came
		names = nil
	case names == nil && len(a.known) > 0 && len(d.messages) > 0:
		return false, errUIDLsGone
	}
	byDigest = names == nil
	if byDigest {
		names = make([]string, len(d.messages))
	}
	a.d, a.names, a.digests, a.linked = d, nil, make(map[int]store.Digest), nil
	count := make(map[string]int, len(names))
	for _, n := range names {
		count[n]++
	}
	seen := map[string]int64{}
	for i, n := range names {
		if n != "" && count[n] == 1 && !a.shared[n] {
			a.names = append(a.names, popName{n, 0})
			continue
		}
		digest, err := a.digest(ctx, i)
		if err != nil {
			return false, err
		}
		n += uidlMark + string(digest[:])
		a.names = append(a.names, popName{n, seen[n]})
		seen[n]++
	}
	return byDigest, nil
}

// number gives each message its UID, and returns those that are new.
func (a *assignment) number() (fresh []store.UIDL) {
	for i, n := range a.names {
		uid, is := a.known[n]
		if !is {
			uid = a.next
			a.next++
			a.known[n] = uid
			fresh = append(fresh, store.UIDL{Name: n.name, Occurrence: n.occurrence, SourceUIDValidity: popValidity, SourceUID: uid})
		}
		a.d.messages[i].uid = uid
	}
	return fresh
}

// digest reads a message.
func (a *assignment) digest(ctx context.Context, i int) (store.Digest, error) {
	if sum, read := a.digests[i]; read {
		return sum, nil
	}
	sum, err := a.d.digest(ctx, a.d.messages[i])
	if isRefused(err) {
		err = fmt.Errorf("the source lists message %d over POP3 and does not give it, and without its octets it cannot be told from others: repair or remove it there: %w", a.d.messages[i].n, err)
	}
	if err == nil {
		a.digests[i] = sum
	}
	return sum, err
}

// digest reads a message and gives its canonical digest.
func (d *maildrop) digest(ctx context.Context, m popMessage) (store.Digest, error) {
	sum := newDigester()
	err := d.message(ctx, m, func(_ int64, r io.Reader) error {
		_, err := io.Copy(sum, r)
		return err
	})
	return sum.sum().canonical, err
}

// relink gives messages the UIDs under which they were copied, where their
// names have changed since: one whose UIDL is shared by now, or all of them,
// since the server has given them new UIDLs. They are recognised by digest.
func (a *assignment) relink(ctx context.Context, claim *store.Claim) error {
	var unknown []int
	present := map[uint32]bool{}
	for i, n := range a.names {
		if uid, is := a.known[n]; is {
			present[uid] = true
		} else {
			unknown = append(unknown, i)
		}
	}
	renamed := len(present) == 0
	if !renamed {
		unknown = slices.DeleteFunc(unknown, func(i int) bool { _, read := a.digests[i]; return !read })
	}
	if len(unknown) == 0 || len(a.known) == 0 {
		return nil
	}
	gone, err := copiedAndGone(ctx, claim, present)
	if err != nil || len(gone) == 0 {
		return err
	}
	for _, i := range unknown {
		sum, err := a.digest(ctx, i)
		if err != nil {
			return err
		}
		if uids := gone[sum]; len(uids) > 0 {
			gone[sum] = uids[1:]
			n := a.names[i]
			a.known[n] = uids[0]
			a.linked = append(a.linked, store.UIDL{Name: n.name, Occurrence: n.occurrence, SourceUIDValidity: popValidity, SourceUID: uids[0]})
		}
	}
	return nil
}

// unmatch has INBOX matched with the target anew if a message without a known
// name may be one that was under way to the target when the work broke off: its
// UID is not in the ledger, so that nothing links it with its new name.
func (a *assignment) unmatch(ctx context.Context, claim *store.Claim) error {
	present, unknown := map[uint32]bool{}, false
	for _, n := range a.names {
		uid, is := a.known[n]
		present[uid] = is
		unknown = unknown || !is
	}
	if !unknown || len(a.known) == 0 {
		return nil
	}
	intents, err := claim.Intents(ctx)
	if err != nil {
		return err
	}
	f, err := popFolder(ctx, claim)
	if err != nil || f == nil || !f.Matched {
		return err
	}
	gone := func(m store.IntentMessage) bool { return !present[m.SourceUID] }
	if slices.ContainsFunc(intents, func(in store.Intent) bool { return in.FolderID == f.ID && slices.ContainsFunc(in.Messages, gone) }) {
		f.Matched = false
		return claim.PutFolder(ctx, f)
	}
	return nil
}

// popFolder is INBOX in the mapping; nil where it is not there yet.
func popFolder(ctx context.Context, claim *store.Claim) (*store.Folder, error) {
	folders, err := claim.Folders(ctx)
	at := slices.IndexFunc(folders, func(f store.Folder) bool { return f.Source == popInbox && f.SourceUIDValidity == popValidity })
	if err != nil || at < 0 {
		return nil, err
	}
	return &folders[at], nil
}

// copiedAndGone lists the UIDs of messages that were copied and that the
// maildrop does not show, by digest.
func copiedAndGone(ctx context.Context, claim *store.Claim, present map[uint32]bool) (map[store.Digest][]uint32, error) {
	f, err := popFolder(ctx, claim)
	if err != nil || f == nil {
		return nil, err
	}
	runs, err := claim.Ledger(ctx, f.ID)
	if err != nil {
		return nil, err
	}
	gone := map[store.Digest][]uint32{}
	for _, r := range runs {
		for i, d := range r.Digests {
			if uid := r.SourceFirst + uint32(i); !present[uid] {
				gone[d] = append(gone[d], uid)
			}
		}
	}
	return gone, nil
}

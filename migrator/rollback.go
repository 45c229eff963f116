package migrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/migrator/imapwire"
	"migproxy/store"
)

const (
	// rollbackTries is how often an account is tried to be taken back without any
	// progress, with growing pauses: for about half an hour.
	rollbackTries = 10
	// returnBatch and returnOctets bound what is appended to the source at a time.
	returnBatch  = 20
	returnOctets = 8 << 20
)

// RollbackPlan is what taking an account back would copy to its source.
type RollbackPlan struct {
	Folders  []RollbackFolder `json:"folders"`
	Messages int64            `json:"messages"`
	Octets   int64            `json:"octets"`
}

// RollbackFolder is a folder of the target with messages that its source has not.
// Names are as on the wire, in each server's own spelling.
type RollbackFolder struct {
	Target   string `json:"target"`
	Source   string `json:"source"`
	Messages int64  `json:"messages"`
	Octets   int64  `json:"octets"`
	// Create: the source has no such folder yet.
	Create bool `json:"create"`
}

// errReadOverPOP3: what was read over POP3 cannot be written to.
var errReadOverPOP3 = errors.New("the source is read over POP3, which cannot store mail: copy what is new on the target by hand, then move the account there")

// PlanRollback says what taking an account back would copy. It claims nothing and
// writes nothing, on either side.
func (m *Migrator) PlanRollback(ctx context.Context, a store.Account) (plan RollbackPlan, err error) {
	domain := m.o.Domains[a.Identity.Domain]
	if domain == nil {
		return plan, fmt.Errorf("the domain %s is not in the settings", a.Identity.Domain)
	}
	if copyProtocol(domain) != config.IMAP {
		return plan, errReadOverPOP3
	}
	open := func(side store.Side) (*imapwire.Conn, error) {
		session, err := m.verifyLogin(a, side, config.IMAP)(ctx)
		if err != nil {
			return nil, fmt.Errorf("the %s: %w", side, err)
		}
		return imapwire.New(session, imapwire.Options{Timeout: m.ioTimeout}), nil
	}
	r := &returner{store: m.o.Store, account: a.ID}
	if r.source, err = open(store.SideSource); err != nil {
		return plan, err
	}
	defer func() { _ = r.source.Close() }()
	if r.target, err = open(store.SideTarget); err != nil {
		return plan, err
	}
	defer func() { _ = r.target.Close() }()
	folders, err := r.find(ctx)
	if err != nil {
		return plan, err
	}
	plan.Folders = []RollbackFolder{} // and no null in JSON
	for _, f := range folders {
		p := RollbackFolder{Target: f.Target, Source: f.Source, Create: !f.there}
		for _, x := range f.messages {
			p.Messages++
			p.Octets += x.Size
		}
		plan.Folders = append(plan.Folders, p)
		plan.Messages += p.Messages
		plan.Octets += p.Octets
	}
	return plan, nil
}

// rollBack takes an account back to its source: what is new on the target is added
// there, and the account lives there from then on. While it is worked on, nobody
// is let in. Where it cannot be done now, the account lives on the target until
// the next try, and stays there where nothing but the administrator helps.
func (j *job) rollBack(ctx context.Context) error {
	err := j.bringBack(ctx)
	if err == nil || errors.Is(err, store.ErrFenced) || errors.Is(err, errStopped) || j.stop.Err() != nil {
		return err
	}
	if err := j.claim.Refresh(ctx); err != nil { // what was settled has begun the count of attempts anew
		return err
	}
	a := j.claim.Account
	h := &halt{retry: true, reason: errorInternal, err: err}
	errors.As(err, &h)
	if h.retry && a.Attempts+1 < rollbackTries {
		return &halt{retry: true, reason: h.reason, err: fmt.Errorf("taking it back to its source goes on by itself: %w", err)}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putDownTimeout)
	defer cancel()
	if _, needs := errors.AsType[*needsPassword](err); needs && a.State == store.Active {
		if err := j.claim.NeedPassword(ctx, true); err != nil {
			return err
		}
	}
	var due time.Time
	if a.State == store.Active {
		due = time.Now().Add(j.m.o.CatchUp)
	}
	j.m.metrics.errors.WithLabelValues(h.reason).Inc()
	reason := fmt.Sprintf("it was not taken back to its source: %v", err)
	j.log.Warn("the account stays on the target", zap.Error(err))
	j.event(ctx, fmt.Sprintf("'%s' stays on the target: %s", j.address, reason))
	return j.claim.GiveUpRollback(ctx, reason, due)
}

// bringBack is one try of rollBack.
func (j *job) bringBack(ctx context.Context) error {
	if copyProtocol(j.domain) != config.IMAP {
		return &halt{reason: errorInternal, err: errReadOverPOP3}
	}
	if j.domain.Target.IMAP == nil {
		return &halt{reason: errorInternal, err: errNoIMAP("target")}
	}
	if j.claim.Account.Reason == "" {
		j.event(ctx, fmt.Sprintf("Taking '%s' back to its source...", j.address))
	}
	if err := j.openFlippedSource(ctx); err != nil {
		return err
	}
	if err := j.openFlippedTarget(ctx); err != nil {
		return err
	}
	r := &returner{store: j.m.o.Store, account: j.claim.Account.ID, source: writable(j.source), target: j.dest, exactly: true}
	// What is read before logins are held is not read again.
	if _, err := r.find(ctx); err != nil {
		return err
	}
	if err := j.claim.BeginRollback(ctx); err != nil {
		return err
	}
	// What a session has sent before it was closed may land for a while.
	quiet := time.Now().Add(j.m.o.SettleQuiet)
	j.m.step(stepRollbackHeld)
	if err := j.settleOld(ctx); err != nil {
		return err
	}
	if err := j.settleReturns(ctx, r); err != nil {
		return err
	}
	var messages, octets int64
	for range maxPasses {
		folders, err := r.find(ctx)
		if err != nil {
			return err
		}
		for _, f := range folders {
			n, size, err := j.returnFolder(ctx, r, f)
			if err != nil {
				return err
			}
			messages, octets = messages+n, octets+size
			if n == 0 { // gone meanwhile
				continue
			}
			j.event(ctx, fmt.Sprintf("'%s': %d messages of '%s' are copied back to '%s'", j.address, n, readable(f.Target), readable(f.Source)))
		}
		if len(folders) > 0 {
			continue
		}
		if left := time.Until(quiet); left > 0 {
			if err := wait(ctx, left); err != nil {
				return err
			}
			continue
		}
		j.m.step(stepRollbackEndBefore)
		if err := j.claim.EndRollback(ctx); err != nil {
			return err
		}
		j.m.step(stepRolledBack)
		j.m.memory.forget(j.claim.Account.ID)
		j.event(ctx, fmt.Sprintf("'%s' is taken back to its source, %d messages of %d octets were copied there", j.address, messages, octets))
		j.log.Info("taken back", zap.Int64("messages", messages))
		return nil
	}
	return again(errorTarget, errors.New("mail arrives on the target faster than it is copied back: stop its delivery there"))
}

// readable is a folder's name as its owner knows it.
func readable(wire string) string {
	name, _ := imapwire.DecodeName(wire)
	return name
}

// writable is the connection behind a source that is read over IMAP.
func writable(c sourceConn) *imapwire.Conn {
	if p, paced := c.(*pacedSource); paced {
		c = p.sourceConn
	}
	return c.(*imapwire.Conn)
}

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
	var swapped []store.Folder // the mapping the other way round
	for _, f := range known {
		swapped = append(swapped, store.Folder{Source: f.Target, Target: f.Source})
		all = append(all, &returning{Folder: f.Folder})
	}
	for _, f := range mapFolders(swapped, r.there, r.here) {
		if f.Selectable {
			all = append(all, &returning{Folder: store.Folder{Source: f.Target, Target: f.Source, Selectable: true}})
		}
	}
	for _, f := range all {
		f.there = has(r.here, f.Source)
		f.Subscribed = f.Subscribed || slices.Contains(r.subscribed, f.Target)
	}
	return all, nil
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

// returnFolder adds to the source what one folder of the target has more.
func (j *job) returnFolder(ctx context.Context, r *returner, f *returning) (n, octets int64, err error) {
	if err := j.readyReturn(ctx, r, f); err != nil {
		return 0, 0, err
	}
	for len(f.messages) > 0 {
		if j.stop.Err() != nil {
			return n, octets, errStopped
		}
		size, end := int64(0), 0
		for end < len(f.messages) && end < returnBatch && (end == 0 || size+f.messages[end].Size <= returnOctets) {
			size += f.messages[end].Size
			end++
		}
		done, err := j.sendBack(ctx, r, f, f.messages[:end])
		if err != nil {
			return n, octets, err
		}
		for _, m := range done {
			n++
			octets += m.Octets
		}
		f.messages = f.messages[end:]
	}
	return n, octets, nil
}

// readyReturn makes sure that the source has the folder, and that the mapping has
// it under its present UIDVALIDITYs. To create one is safe to repeat, so here the
// act comes before the commit.
func (j *job) readyReturn(ctx context.Context, r *returner, f *returning) error {
	if !f.there {
		j.m.step(stepReturnFolderBefore)
		if err := r.create(ctx, f); err != nil {
			return err
		}
		j.m.step(stepReturnFolderCreated)
	}
	opened, err := r.source.Examine(ctx, f.Source)
	if err != nil {
		return again(errorSource, fmt.Errorf("the source's folder %s: %w", f.Source, err))
	}
	validity := max(1, opened.UIDValidity)
	if f.ID != 0 && f.SourceUIDValidity == validity && f.TargetUIDValidity == f.validity {
		return nil
	}
	f.SourceUIDValidity, f.TargetUIDValidity, f.Matched = validity, f.validity, false
	return j.claim.PutFolder(ctx, &f.Folder)
}

// create creates a folder on the source. A new one may take another spelling when
// the source refuses its name.
func (r *returner) create(ctx context.Context, f *returning) error {
	names := []string{f.Source}
	if other := r.here.cautious(f.Source); f.ID == 0 && other != f.Source && !has(r.here, other) {
		names = append(names, other)
	}
	var refusal error
	for _, name := range names {
		err := r.source.Create(ctx, name, "")
		if isStatus(err) {
			if _, there := r.source.Status(ctx, name); there == nil {
				err = nil
			}
		}
		if err == nil {
			f.Source, f.there = name, true
			if !f.Subscribed {
				return nil
			}
			if err := r.source.Subscribe(ctx, name); err != nil && !isStatus(err) {
				return again(errorSource, fmt.Errorf("subscribe %s: %w", name, err))
			}
			return nil
		}
		if refusal = err; !isStatus(err) {
			return again(errorSource, fmt.Errorf("create %s: %w", name, err))
		}
	}
	return &halt{reason: errorSource, err: fmt.Errorf("the source refuses to create the folder %s for the target's %s: create it by hand or rename it on the target: %w", f.Source, f.Target, refusal)}
}

// sentBack is a message of a batch that was sent, and what became of it.
type sentBack struct {
	uid     uint32 // on the target
	command *imapwire.Append
	refused error // the *imapwire.StatusError that it was answered with
}

// sendBack commits the intent of a batch, appends it to the source, and enters
// what is there by then in the ledger.
func (j *job) sendBack(ctx context.Context, r *returner, f *returning, batch []returned) ([]store.Message, error) {
	next, err := r.next(ctx, f.Source, f.SourceUIDValidity)
	if err != nil {
		return nil, err
	}
	in := store.RollbackIntent{FolderID: f.ID, SourceUIDValidity: f.SourceUIDValidity, SourceUIDNext: next, TargetUIDValidity: f.validity}
	for _, m := range batch {
		in.Messages = append(in.Messages, store.RollbackMessage{TargetUID: m.UID, Octets: m.Size, Digest: m.digest})
	}
	j.m.step(stepReturnIntentBefore)
	if err := j.claim.OpenRollbackIntent(ctx, &in); err != nil {
		return nil, err
	}
	j.m.step(stepReturnIntentCommitted)
	sent, err := j.appendBack(ctx, r, f, batch, true)
	if err != nil {
		return nil, err
	}
	// What the source refuses may be the keywords of a message.
	var refused []returned
	for _, m := range batch {
		if slices.ContainsFunc(m.Flags, isKeyword) && slices.ContainsFunc(sent, func(s sentBack) bool { return s.uid == m.UID && s.refused != nil }) {
			refused = append(refused, m)
		}
	}
	if len(refused) > 0 {
		plain, err := j.appendBack(ctx, r, f, refused, false)
		if err != nil {
			return nil, err
		}
		sent = slices.DeleteFunc(sent, func(s sentBack) bool {
			return slices.ContainsFunc(refused, func(m returned) bool { return m.UID == s.uid })
		})
		sent = append(sent, plain...)
	}
	j.m.step(stepReturned)
	done, err := j.lookForReturned(ctx, r, f.Folder, &in, sent)
	if err != nil {
		return nil, err
	}
	if err := j.commitReturn(ctx, in, done); err != nil {
		return nil, err
	}
	for _, s := range sent {
		if s.refused != nil {
			return done, refusedBack(f, s)
		}
	}
	return done, nil
}

func isKeyword(flag string) bool { return flag != "" && flag[0] != '\\' }

// refusedBack is what it means that the source does not take a message.
func refusedBack(f *returning, s sentBack) error {
	if isWaitCode(s.refused) {
		return &halt{reason: errorSource, err: fmt.Errorf("the source has no room for what is new on the target: make room for this user there: %w", s.refused)}
	}
	return &halt{reason: errorSource, err: fmt.Errorf("the source does not take UID %d of the target's folder %s: remove that message there, or have the source take it: %w", s.uid, f.Target, s.refused)}
}

// next is the UID from which on the source's folder shows what is appended to it.
// No folder is open then: a Courier takes nothing into one that is open for reading.
func (r *returner) next(ctx context.Context, name string, validity uint32) (uint32, error) {
	opened, err := r.source.Examine(ctx, name)
	st := imapwire.Status{UIDNext: opened.UIDNext, UIDValidity: opened.UIDValidity}
	if err == nil && st.UIDNext == 0 { // not every EXAMINE tells
		st, err = r.source.Status(ctx, name)
	}
	if err == nil && max(1, st.UIDValidity) != validity {
		err = errReplaced
	}
	if err == nil {
		if err = r.source.Leave(ctx); isStatus(err) {
			err = nil // where that matters, it is refused as well
		}
	}
	if err != nil {
		return 0, again(errorSource, fmt.Errorf("the source's folder %s: %w", name, err))
	}
	return max(1, st.UIDNext), nil
}

// appendBack streams messages from the target to the source, and waits for the
// answers. What is gone from the target does not come.
func (j *job) appendBack(ctx context.Context, r *returner, f *returning, batch []returned, keywords bool) ([]sentBack, error) {
	if err := openAgain(ctx, r.target, f.Target, f.validity); err != nil {
		return nil, err
	}
	uids := make([]uint32, len(batch))
	for i, m := range batch {
		uids[i] = m.UID
	}
	var sent []sentBack
	var broken error
	err := r.target.FetchBodies(ctx, uids, func(uid uint32, size int64, body io.Reader) error {
		m := batch[slices.Index(uids, uid)]
		flags := m.Flags
		if !keywords {
			flags = slices.DeleteFunc(slices.Clone(flags), isKeyword)
		}
		command, err := r.source.Append(ctx, f.Source)
		if err == nil {
			if err = command.Add(flags, m.Date, size, body); err == nil {
				err = command.End()
			}
		}
		sent = append(sent, sentBack{uid: uid, command: command})
		if isStatus(err) {
			sent[len(sent)-1].refused = err
			return nil
		}
		var short *imapwire.SourceError
		if err != nil && !errors.As(err, &short) {
			broken = err
		}
		return err
	})
	if broken != nil {
		return nil, again(errorSource, fmt.Errorf("the source broke off in %s: %w", f.Source, broken))
	}
	if err != nil {
		_ = r.source.Close() // it may be in the middle of a message
		return nil, again(errorTarget, fmt.Errorf("fetch from the target's folder %s: %w", f.Target, err))
	}
	for i := range sent {
		if sent[i].refused != nil {
			continue
		}
		if _, _, err := sent[i].command.Wait(ctx); isStatus(err) {
			sent[i].refused = err
		} else if err != nil {
			return nil, again(errorSource, fmt.Errorf("the source broke off in %s: %w", f.Source, err))
		}
	}
	return sent, nil
}

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

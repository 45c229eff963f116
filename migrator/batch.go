package migrator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

const (
	// minBatch, maxBatch and maxBatchOctets bound one batch. What is under way is
	// sent again after a cut, and ten messages a commit are nearly as fast as a
	// thousand; but in a large folder each commit has a price of its own: a
	// Dovecot with a Maildir reads its whole list of UIDs. So while a batch takes
	// less than batchTime, batches grow.
	minBatch       = 100
	maxBatch       = 500
	maxBatchOctets = 8 << 20
	batchTime      = time.Second
	// afterCut bounds a batch of messages of which one may have made the target
	// cut the connection.
	afterCut = 10
)

// errCuts is the reason of a message that the target never answered.
var errCuts = errors.New("the target cut the connection at it three times")

// batch is an intent that is being sent.
type batch struct {
	intent store.Intent
	parts  []*part
	landed []landed // once the target told their UIDs
}

// part is one APPEND command of a batch: all of it where the target offers
// MULTIAPPEND, one message each where it does not.
type part struct {
	command  *imapwire.Append
	messages []*sentMessage
	uids     []uint32 // on the target; nil until they are known
	refused  error    // the *imapwire.StatusError that it was answered with
}

// copier copies into one folder of the target.
type copier struct {
	*job
	f         *folder
	permits   flagFilter
	uidNext   uint32   // nothing that is yet to be settled lies below it on the target
	limit     int      // of messages in a batch
	flight    []*batch // sent and not answered
	acked     []*batch // answered and not settled
	settledAt time.Time
	digest    *digester
	looked    uint64 // messages of the target's folder times looks at it, since it was opened
	// broken is what ended the target's connection.
	broken error
}

// newCopier opens the target's folder.
func (j *job) newCopier(ctx context.Context, f *folder) (*copier, error) {
	selected, err := j.eye.Select(ctx, f.Target)
	st := imapwire.Status{Messages: selected.Exists, UIDNext: selected.UIDNext, UIDValidity: selected.UIDValidity}
	if err == nil && (st.UIDNext == 0 || st.UIDValidity == 0) { // not every SELECT tells
		st, err = j.dest.Status(ctx, f.Target)
	}
	if err != nil {
		return nil, again(errorTarget, fmt.Errorf("the target's folder %s: %w", f.Target, err))
	}
	j.viewed = f.Target
	validity, matched := max(1, st.UIDValidity), f.Matched
	if f.TargetUIDValidity != 0 && f.TargetUIDValidity != validity {
		if j.claim.Account.State != store.Active {
			return nil, j.replaced(f)
		}
		matched = false // its owner lives there, and may do that
	}
	if !matched && st.Messages == 0 { // nothing to match, unless it was copied and deleted there
		past, err := j.claim.PastLedger(ctx, f.ID)
		if err != nil {
			return nil, err
		}
		matched = len(past) == 0
	}
	if f.TargetUIDValidity != validity || matched != f.Matched {
		f.TargetUIDValidity, f.Matched = validity, matched
		if err := j.claim.PutFolder(ctx, &f.Folder); err != nil {
			return nil, err
		}
	}
	return &copier{job: j, f: f, permits: newFlagFilter(selected.PermanentFlags),
		uidNext: max(1, st.UIDNext), limit: minBatch, digest: newDigester(), settledAt: time.Now()}, nil
}

// errReplaced says that a folder of the target is not the one that was copied
// into.
var errReplaced = errors.New("its UIDVALIDITY changed")

// replaced is what it means that a folder of the target is another one by now.
// Of an active account that is its owner's right, and the next run goes on.
func (j *job) replaced(f *folder) error {
	if j.claim.Account.State == store.Active {
		return again(errorTarget, fmt.Errorf("the target's folder %s was replaced while mail was added to it (%w): the next try compares what arrives with what is there now", f.Target, errReplaced))
	}
	return &halt{state: store.Failed, reason: errorCompare,
		err: fmt.Errorf("the target's folder %s was replaced while it was copied into (%w): see what happened there, then remove the account on the target and begin anew", f.Target, errReplaced)}
}

// copy copies messages of the source's folder that is open. metas are what is
// known of the first of them.
func (c *copier) copy(ctx context.Context, uids []uint32, metas []imapwire.Meta) error {
	err := c.copyWindows(ctx, uids, metas)
	if err == nil || errors.Is(err, errStopped) || errors.Is(err, errLeftOver) {
		err = orLeftOver(err, c.collectAll(ctx))
	}
	if c.broken != nil && len(c.flight) > 0 {
		c.noteTargetCut(c.flight[0])
	}
	return orLeftOver(err, c.flush(ctx))
}

// orLeftOver joins errors. A folder is left over only if nothing else went
// wrong: what is sent and not settled would be sent again.
func orLeftOver(errs ...error) error {
	is := func(err error) bool { return errors.Is(err, errLeftOver) }
	if slices.ContainsFunc(errs, is) {
		if err := errors.Join(slices.DeleteFunc(errs, is)...); err != nil {
			return err
		}
		return errLeftOver
	}
	return errors.Join(errs...)
}

// copyWindows lists messages and sends them, a window at a time, and leaves the
// last batches in flight: the target works on them while the next are listed.
func (c *copier) copyWindows(ctx context.Context, uids []uint32, metas []imapwire.Meta) error {
	listed := len(metas) >= len(uids) // a short folder is known already
	for some := range slices.Chunk(uids, window) {
		began := time.Now()
		if !listed {
			var err error
			if metas, err = c.list(ctx, some); err != nil {
				return orLeftOver(err, c.collectAll(ctx))
			}
		}
		if err := c.copyBatches(ctx, only(metas, some)); err != nil {
			return err
		}
		if time.Since(began)/window*time.Duration(c.limit) < batchTime && len(some) == window {
			c.limit = min(2*c.limit, maxBatch)
		}
	}
	return nil
}

func (c *copier) copyBatches(ctx context.Context, metas []imapwire.Meta) error {
	ahead := 1
	if c.eye != c.dest && c.dest.Has("LITERAL+") && c.dest.Has("UIDPLUS") {
		ahead = 2 // the next one is on its way while the target commits
	}
	groups, fatal := c.plan(metas)
	if c.isLane && len(fatal) > 0 {
		return errLeftOver
	}
	for _, x := range fatal {
		if err := c.refuse(ctx, c.f, []uint32{x.uid}, true, x.reason); err != nil {
			return err
		}
	}
	for _, group := range groups {
		if c.stop.Err() != nil {
			return errStopped
		}
		if err := c.send(ctx, group); err != nil {
			return err
		}
		for len(c.flight) >= ahead {
			if err := c.collect(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// unsendable is a message that the target need not be asked about.
type unsendable struct {
	uid    uint32
	reason error
}

// plan parts messages into batches. Those at which the target has cut the
// connection go in small ones, after a second time alone; one at which it did
// so three times is not sent, nor one that is larger than the target allows.
func (c *copier) plan(metas []imapwire.Meta) (groups [][]imapwire.Meta, fatal []unsendable) {
	var group []imapwire.Meta
	var octets int64
	limit, allowed := c.limit, c.appendLimit(c.f)
	end := func() {
		if len(group) > 0 {
			groups = append(groups, group)
		}
		group, octets = nil, 0
	}
	for _, m := range metas {
		if allowed > 0 && m.Size > allowed {
			fatal = append(fatal, unsendable{m.UID, fmt.Errorf("it has %d octets, and the target takes messages of up to %d (APPENDLIMIT)", m.Size, allowed)})
			continue
		}
		most := c.limit
		switch cuts := c.m.memory.target.at(c.claim.Account.ID, key(c.f, m.UID)); {
		case cuts >= maxCuts:
			fatal = append(fatal, unsendable{m.UID, errCuts})
			continue
		case cuts > 1:
			most = 1
		case cuts == 1:
			most = afterCut
		}
		if most != limit || len(group) >= limit || octets+m.Size > maxBatchOctets {
			end()
		}
		limit = most
		group = append(group, m)
		octets += m.Size
	}
	end()
	return groups, fatal
}

// send commits the intent of a batch and streams it to the target. The batch
// is in flight afterwards, also after an error.
func (c *copier) send(ctx context.Context, group []imapwire.Meta) error {
	b := &batch{intent: store.Intent{FolderID: c.f.ID, SourceUIDValidity: c.f.SourceUIDValidity,
		TargetUIDValidity: c.f.TargetUIDValidity, TargetUIDNext: c.uidNext}}
	for i, m := range group {
		if m.Date.IsZero() {
			date, err := c.headerDate(ctx, c.f, m.UID)
			if err != nil {
				return err
			}
			group[i].Date = date
		}
		b.intent.Messages = append(b.intent.Messages, store.IntentMessage{SourceUID: m.UID, Size: m.Size, Date: group[i].Date})
	}
	c.m.step(stepIntentBefore)
	if err := c.claim.OpenIntent(ctx, &b.intent); err != nil {
		return err
	}
	c.m.step(stepIntentCommitted)
	c.flight = append(c.flight, b)
	if err := c.stream(ctx, b, group); err != nil {
		_ = c.dest.Close() // it may be in the middle of a message
		if c.broken != nil {
			return again(errorTarget, fmt.Errorf("the target broke off in %s: %w", c.f.Target, err))
		}
		return err
	}
	c.m.step(stepSent)
	return nil
}

// stream passes the bodies of a batch on while they come. What was asked for
// and did not come is asked for again, if the source still lists it.
func (c *copier) stream(ctx context.Context, b *batch, group []imapwire.Meta) error {
	left := make(map[uint32]*imapwire.Meta, len(group))
	uids := make([]uint32, 0, len(group))
	for i := range group {
		left[group[i].UID] = &group[i]
		uids = append(uids, group[i].UID)
	}
	half := len(group) / 2
	fetch := func(uids []uint32) error {
		err := c.readSource(ctx, c.f, uids, func(uid uint32, size int64, r io.Reader) error {
			meta := left[uid]
			delete(left, uid)
			if len(left) == half {
				c.m.step(stepSentHalf)
			}
			return c.add(ctx, b, *meta, size, r)
		})
		if c.broken != nil {
			return c.broken
		}
		return err
	}
	if err := fetch(uids); err != nil {
		return err
	}
	if len(left) > 0 {
		if err := c.fetchLeft(ctx, left, fetch); err != nil {
			return err
		}
	}
	for _, p := range b.parts {
		if p.refused == nil && c.dest.Has("MULTIAPPEND") {
			if err := p.command.End(); err != nil && !c.noteRefusal(p, err) {
				c.broken = err
				return err
			}
		}
	}
	return nil
}

// fetchLeft fetches singly what did not come. A message that is no longer
// listed was removed by its owner; one that is listed and does not come is
// withheld: the rest is copied, and the flip waits for it.
func (c *copier) fetchLeft(ctx context.Context, left map[uint32]*imapwire.Meta, fetch func([]uint32) error) error {
	uids := make([]uint32, 0, len(left))
	for uid := range left {
		uids = append(uids, uid)
	}
	slices.Sort(uids)
	listed, err := c.list(ctx, uids)
	if err != nil {
		return err
	}
	for _, m := range listed {
		if err := fetch([]uint32{m.UID}); err != nil {
			return err
		}
	}
	if len(left) == 0 || len(listed) == 0 {
		return nil
	}
	if listed, err = c.list(ctx, uids); err != nil {
		return err
	}
	for _, m := range listed {
		if left[m.UID] != nil {
			c.withheld[key(c.f, m.UID)] = c.f.Source
		}
	}
	return nil
}

// add sends one message while it comes from the source.
func (c *copier) add(ctx context.Context, b *batch, meta imapwire.Meta, size int64, r io.Reader) error {
	multi := c.dest.Has("MULTIAPPEND")
	var p *part
	if multi && len(b.parts) > 0 {
		p = b.parts[0]
	} else {
		p = &part{}
		b.parts = append(b.parts, p)
	}
	send, lost := c.permits.split(meta.Flags)
	c.notKept.lose(lost)
	c.keywords.see(c.f.ID, meta.Flags)
	message := &sentMessage{meta: meta, flags: send, date: meta.Date}
	p.messages = append(p.messages, message)
	if p.refused != nil {
		return nil // the command is over; this one is sent again with the others
	}
	err := c.addTo(ctx, p, message, size, r)
	if err == nil && !multi {
		err = p.command.End()
	}
	var broken *imapwire.SourceError
	if err == nil || c.noteRefusal(p, err) || errors.As(err, &broken) {
		if broken != nil {
			return broken
		}
		return nil
	}
	c.broken = err
	return err
}

func (c *copier) addTo(ctx context.Context, p *part, m *sentMessage, size int64, r io.Reader) (err error) {
	if p.command == nil {
		if p.command, err = c.dest.Append(ctx, c.f.Target); err != nil {
			return err
		}
	}
	err = p.command.Add(m.flags, m.date, size, io.TeeReader(r, c.observer.over(c.digest)))
	m.sum, m.shows = c.digest.sum(), c.observer.shown(c.m.own, c.f)
	return err
}

// noteRefusal keeps a NO or BAD as the answer to a command.
func (c *copier) noteRefusal(p *part, err error) bool {
	if isStatus(err) {
		p.refused = err
		return true
	}
	return false
}

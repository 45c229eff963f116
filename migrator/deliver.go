package migrator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// errNotAsSent is the reason of a message that the target acknowledged and does
// not show.
var errNotAsSent = errors.New("the target acknowledged it and does not show it as it was sent: look whether it is there in another form before you retry, which could double it")

// deliverAside offers the target once more what it refused, from the octets
// that were kept: the source need not have these messages any more. So that they
// hold up nothing, those that it does not take stay set aside until the
// administrator's next retry.
func (j *job) deliverAside(ctx context.Context) error {
	acked := map[int64]bool{}
	for cuts := 0; ; cuts++ {
		list, err := j.claim.TriedAgain(ctx)
		if err != nil || len(list) == 0 {
			return err
		}
		broken, err := j.deliverEach(ctx, list, acked)
		if broken == nil || err != nil {
			return err
		}
		if cuts == maxSuspects { // it is the target, not the messages
			return broken
		}
		if wait(j.stop, j.m.pause(0)) != nil {
			return errStopped
		}
		j.leaveTarget()
		if err := j.reachTarget(ctx); err != nil {
			return err
		}
		if err := j.settleOld(ctx); err != nil {
			return err
		}
	}
}

// leaveTarget ends the connections to the target. reachTarget makes new ones.
func (j *job) leaveTarget() {
	for _, c := range []*imapwire.Conn{j.dest, j.eye} {
		if c != nil {
			_ = c.Close()
		}
	}
	j.dest, j.eye, j.viewed = nil, nil, ""
}

// deliverEach offers messages to the target, until its connection is broken. In
// acked it notes which ones the target has acknowledged.
func (j *job) deliverEach(ctx context.Context, list []store.SetAside, acked map[int64]bool) (broken, err error) {
	if err := j.reachTarget(ctx); err != nil {
		return nil, err
	}
	folders, err := j.claim.Folders(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		if j.stop.Err() != nil {
			return nil, errStopped
		}
		at := slices.IndexFunc(folders, func(f store.Folder) bool { return f.ID == m.FolderID })
		if at < 0 {
			return nil, fmt.Errorf("message %d is set aside from folder %d, which is not in the mapping", m.ID, m.FolderID)
		}
		f := &folder{Folder: folders[at]}
		err := j.deliverOne(ctx, f, m, acked)
		h, _ := errors.AsType[*halt](err)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil, err
		case isStatus(err): // it speaks of the folder, which others need not share
			if err := j.leaveAside(ctx, m, err); err != nil {
				return nil, err
			}
		case h != nil && h.reason == errorTarget:
			j.m.memory.aside.note(j.claim.Account.ID, asideKey(m))
			return err, nil
		default:
			return nil, err
		}
		folders[at] = f.Folder
	}
	return nil, nil
}

func asideKey(m store.SetAside) messageKey {
	return messageKey{m.FolderID, m.SourceUIDValidity, m.SourceUID}
}

// leaveAside has a message stay set aside until it is asked for again.
func (j *job) leaveAside(ctx context.Context, m store.SetAside, reason error) error {
	if err := j.claim.RefusedAgain(ctx, m.ID, reason.Error()); err != nil {
		return err
	}
	j.m.memory.aside.clear(j.claim.Account.ID, asideKey(m))
	j.event(ctx, fmt.Sprintf("'%s': message UID %d of %s stays set aside: %s", j.address, m.SourceUID, m.FolderName, reason))
	return nil
}

// deliverOne offers one message to the target, unless it was offered in vain
// before and has not been found there since.
func (j *job) deliverOne(ctx context.Context, f *folder, m store.SetAside, acked map[int64]bool) error {
	switch {
	case acked[m.ID]:
		return j.leaveAside(ctx, m, errNotAsSent)
	case j.m.memory.aside.at(j.claim.Account.ID, asideKey(m)) >= maxCuts:
		return j.leaveAside(ctx, m, errCuts)
	}
	if err := j.readyTarget(ctx, f); err != nil {
		return err
	}
	c, err := j.newCopier(ctx, f)
	if err != nil {
		return err
	}
	return c.deliver(ctx, m, acked)
}

// deliver appends one message that was set aside, with an intent like any other.
func (c *copier) deliver(ctx context.Context, m store.SetAside, acked map[int64]bool) error {
	b := &batch{intent: store.Intent{FolderID: c.f.ID, SourceUIDValidity: m.SourceUIDValidity,
		TargetUIDValidity: c.f.TargetUIDValidity, TargetUIDNext: c.uidNext,
		Messages: []store.IntentMessage{{SourceUID: m.SourceUID, Size: m.Octets, Date: m.Date}}}}
	c.m.step(stepIntentBefore)
	if err := c.claim.OpenIntent(ctx, &b.intent); err != nil {
		return err
	}
	c.m.step(stepIntentCommitted)
	send, _ := c.permits.split(m.Flags)
	p := &part{messages: []*sentMessage{{flags: send, date: m.Date}}}
	p.messages[0].meta.UID = m.SourceUID
	b.parts = []*part{p}
	err := c.appendAside(ctx, p, m)
	var unread *imapwire.SourceError
	switch {
	case isStatus(err):
		return c.lookForAside(ctx, b, m, err)
	case errors.As(err, &unread):
		_ = c.dest.Close() // it is in the middle of the message
		return err
	case err != nil:
		_ = c.dest.Close() // it may be in the middle of the message
		return again(errorTarget, fmt.Errorf("the target broke off in %s: %w", c.f.Target, err))
	}
	acked[m.ID] = true
	c.m.step(stepAcked)
	if len(p.uids) != 1 { // it did not tell: look
		return c.lookForAside(ctx, b, m, errNotAsSent)
	}
	done, err := c.readBack(ctx, []landed{{p.messages[0], p.uids[0]}})
	if h, is := errors.AsType[*halt](err); is && h.reason == errorCompare {
		// To send it again could double it.
		if err := c.leaveAside(ctx, m, err); err != nil {
			return err
		}
		return c.settled(ctx, c.f, &b.intent, nil)
	}
	if err != nil {
		return err
	}
	return c.recordAside(ctx, b, m, done)
}

// lookForAside looks on the target whether a message is there all the same. If
// not, it stays set aside for this reason.
func (c *copier) lookForAside(ctx context.Context, b *batch, m store.SetAside, reason error) error {
	found, err := c.arrivals(ctx, c.f, b.intent.TargetUIDNext)
	if err != nil {
		return err
	}
	var done []store.Message
	if len(found) > 0 {
		sum, err := c.asideSum(ctx, m)
		if err != nil {
			return err
		}
		if found, err = c.digestTarget(ctx, c.f, found); err != nil {
			return err
		}
		if done, err = c.noteMatches(ctx, c.f, match([]original{{uid: m.SourceUID, sum: sum}}, found), true); err != nil {
			return err
		}
	}
	c.m.step(stepLooked)
	if len(done) > 0 {
		return c.recordAside(ctx, b, m, done)
	}
	if err := c.leaveAside(ctx, m, reason); err != nil {
		return err
	}
	return c.settled(ctx, c.f, &b.intent, nil)
}

// recordAside ends the intent of a message that was set aside and has landed.
func (c *copier) recordAside(ctx context.Context, b *batch, m store.SetAside, done []store.Message) error {
	if err := c.record(ctx, b, done); err != nil {
		return err
	}
	c.m.memory.aside.clear(c.claim.Account.ID, asideKey(m))
	c.event(ctx, fmt.Sprintf("'%s': message UID %d of %s, which was set aside, is on the target now", c.address, m.SourceUID, c.f.Source))
	return nil
}

// asideSum reads a message that is set aside.
func (j *job) asideSum(ctx context.Context, m store.SetAside) (digests, error) {
	d := newDigester()
	err := j.m.o.Store.SetAsideOctets(ctx, m.ID, d)
	return d.sum(), err
}

// appendAside sends the octets from the store.
func (c *copier) appendAside(ctx context.Context, p *part, m store.SetAside) error {
	r, w := io.Pipe()
	read := make(chan struct{})
	go func() {
		defer close(read)
		_ = w.CloseWithError(c.m.o.Store.SetAsideOctets(ctx, m.ID, w)) // never fails
	}()
	defer func() {
		_ = r.Close()
		<-read
	}()
	if err := c.addTo(ctx, p, p.messages[0], m.Octets, r); err != nil {
		return err
	}
	if err := p.command.End(); err != nil {
		return err
	}
	validity, uids, err := p.command.Wait(ctx)
	if err == nil && (validity == 0 || validity == c.f.TargetUIDValidity) {
		p.uids = uids
	}
	return err
}

// triedAside is what is known of those messages of an intent that are set
// aside: an attempt to deliver them was cut off, and the source need not have
// them any more.
func (j *job) triedAside(ctx context.Context, f *folder, in store.Intent) (aside []original, err error) {
	if j.claim.Account.SetAside == 0 {
		return nil, nil
	}
	kept, err := j.claim.TriedAgain(ctx)
	for _, m := range kept {
		wanted := slices.ContainsFunc(in.Messages, func(i store.IntentMessage) bool { return i.SourceUID == m.SourceUID })
		if m.FolderID == f.ID && m.SourceUIDValidity == in.SourceUIDValidity && wanted {
			sum, err := j.asideSum(ctx, m)
			if err != nil {
				return nil, err
			}
			aside = append(aside, original{uid: m.SourceUID, sum: sum})
		}
	}
	return aside, err
}

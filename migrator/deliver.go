package migrator

import (
	"context"
	"fmt"
	"io"
	"slices"

	"migproxy/store"
)

// deliverAside offers the target once more what it refused, from the octets
// that were kept: the source need not have these messages any more.
func (j *job) deliverAside(ctx context.Context, again []store.SetAside) error {
	if len(again) == 0 {
		return nil
	}
	if err := j.reachTarget(ctx); err != nil {
		return err
	}
	folders, err := j.claim.Folders(ctx)
	if err != nil {
		return err
	}
	for _, m := range again {
		if j.stop.Err() != nil {
			return errStopped
		}
		at := slices.IndexFunc(folders, func(f store.Folder) bool { return f.ID == m.FolderID })
		if at < 0 {
			return fmt.Errorf("message %d is set aside from folder %d, which is not in the mapping", m.ID, m.FolderID)
		}
		f := &folder{Folder: folders[at]}
		if err := j.readyTarget(ctx, f); err != nil {
			return err
		}
		c, err := j.newCopier(ctx, f)
		if err != nil {
			return err
		}
		if err := c.deliver(ctx, m); err != nil {
			return err
		}
		folders[at] = f.Folder
	}
	return nil
}

// deliver appends one message that was set aside, with an intent like any other.
func (c *copier) deliver(ctx context.Context, m store.SetAside) error {
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
	switch {
	case isWaitCode(err):
		return quotaHalt(err)
	case isStatus(err):
		if err := c.settled(ctx, c.f, &b.intent, nil); err != nil {
			return err
		}
		c.event(ctx, fmt.Sprintf("'%s': message UID %d of %s is still refused by the target: %s", c.address, m.SourceUID, c.f.Source, err))
		return c.claim.RefusedAgain(ctx, m.ID, err.Error())
	case err != nil:
		_ = c.dest.Close() // it may be in the middle of the message
		return again(errorTarget, fmt.Errorf("the target broke off in %s: %w", c.f.Target, err))
	}
	c.m.step(stepAcked)
	if len(p.uids) != 1 { // it did not tell: look
		return c.settleByLooking(ctx, c.f, b.intent, map[uint32]digests{})
	}
	done, err := c.readBack(ctx, []landed{{p.messages[0], p.uids[0]}})
	if err != nil {
		return err
	}
	if err := c.record(ctx, b, done); err != nil {
		return err
	}
	c.uidNext = max(c.uidNext, p.uids[0]+1)
	c.event(ctx, fmt.Sprintf("'%s': message UID %d of %s, which was set aside, is on the target now", c.address, m.SourceUID, c.f.Source))
	return nil
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
			aside = append(aside, original{uid: m.SourceUID, sum: digests{canonical: m.Digest, octets: m.Octets}})
		}
	}
	return aside, err
}

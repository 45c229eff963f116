package migrator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// quietLimit bounds the wait for a folder of the target to come to rest, in
// multiples of SettleQuiet.
const quietLimit = 60

// collectAll waits for the answers to everything in flight.
func (c *copier) collectAll(ctx context.Context) error {
	for len(c.flight) > 0 && c.broken == nil {
		if err := c.collect(ctx); err != nil {
			return err
		}
	}
	return nil
}

// collect waits for the answer to the oldest batch in flight and settles it.
// If that is not an OK with UIDs for every message, the others in flight are
// answered first, so that what is found by looking cannot be theirs.
func (c *copier) collect(ctx context.Context) error {
	clean, err := c.answer(ctx, c.flight[0])
	if err != nil {
		return err
	}
	if clean {
		b := c.flight[0]
		if err := c.finish(ctx, b); err != nil {
			return err
		}
		c.flight = c.flight[1:]
		return nil
	}
	var unclear []*batch
	for i, b := range c.flight {
		if i > 0 {
			if clean, err = c.answer(ctx, b); err != nil {
				c.flight = c.flight[i:]
				return err
			}
		}
		if !clean {
			unclear = append(unclear, b)
		} else if err := c.finish(ctx, b); err != nil {
			return err
		}
	}
	c.flight = nil
	for _, b := range unclear {
		if err := c.look(ctx, b); err != nil {
			return err
		}
	}
	for _, b := range unclear {
		for _, p := range b.parts {
			if p.refused != nil {
				if err := c.resend(ctx, p, len(b.intent.Messages) == 1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// answer waits for the answers to a batch. clean means that the target told
// the UID of every message.
func (c *copier) answer(ctx context.Context, b *batch) (clean bool, err error) {
	clean = true
	for _, p := range b.parts {
		if p.refused == nil {
			validity, uids, err := p.command.Wait(ctx)
			if err != nil && !c.noteRefusal(p, err) {
				c.broken = err
				return false, again(errorTarget, fmt.Errorf("the target broke off in %s: %w", c.f.Target, err))
			}
			if validity != 0 && validity != c.f.TargetUIDValidity && len(uids) > 0 {
				return false, replaced(c.f)
			}
			p.uids = uids
		}
		clean = clean && p.refused == nil && len(p.uids) == len(p.messages)
	}
	c.m.step(stepAcked)
	return clean, nil
}

// finish settles a batch by the UIDs that the target told.
func (c *copier) finish(ctx context.Context, b *batch) error {
	var pairs []landed
	for _, p := range b.parts {
		for i, uid := range p.uids {
			pairs = append(pairs, landed{p.messages[i], uid})
			c.uidNext = max(c.uidNext, uid)
		}
	}
	return c.settle(ctx, b, pairs)
}

// settle reads back what has landed and ends the batch's intent with it.
func (c *copier) settle(ctx context.Context, b *batch, pairs []landed) error {
	done, err := c.readBack(ctx, pairs)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		c.m.memory.clearCuts(c.claim.Account.ID, c.f, p.message.meta.UID)
		delete(c.suspects, messageKey{c.f.ID, c.f.SourceUIDValidity, p.message.meta.UID})
	}
	if len(pairs) > 0 {
		if err := c.outlive(ctx); err != nil {
			return err
		}
	}
	return c.settled(ctx, c.f, &b.intent, done)
}

func (j *job) settled(ctx context.Context, f *folder, in *store.Intent, done []store.Message) error {
	slices.SortFunc(done, func(a, b store.Message) int { return int(int64(a.SourceUID) - int64(b.SourceUID)) })
	j.m.step(stepSettleBefore)
	if err := j.claim.Settle(ctx, f.ID, in, done); err != nil {
		return err
	}
	j.m.step(stepSettled)
	for _, m := range done {
		if m.Appended {
			j.m.metrics.messages.Inc()
			j.m.metrics.bytes.Add(float64(m.Octets))
		}
	}
	return nil
}

// look settles a batch whose answer did not say what has become of each
// message: a refusal, or an OK without UIDs.
func (c *copier) look(ctx context.Context, b *batch) error {
	var pairs []landed
	var unclear []*sentMessage
	known := map[uint32]bool{}
	for _, p := range b.parts {
		if p.refused == nil && len(p.uids) == len(p.messages) {
			for i, uid := range p.uids {
				pairs = append(pairs, landed{p.messages[i], uid})
				known[uid] = true
			}
			continue
		}
		unclear = append(unclear, p.messages...)
	}
	found, err := c.arrivals(ctx, c.f, b.intent.TargetUIDNext)
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(x candidate) bool { return known[x.uid] })
	if len(found) > 0 && len(unclear) > 0 {
		if err := c.sums(ctx, unclear); err != nil {
			return err
		}
		if found, err = c.digestTarget(ctx, c.f, found); err != nil {
			return err
		}
		byUID := map[uint32]*sentMessage{}
		var originals []original
		for _, m := range unclear {
			byUID[m.meta.UID] = m
			originals = append(originals, original{m.meta.UID, m.sum})
		}
		for _, p := range match(originals, found) {
			pairs = append(pairs, landed{byUID[p.original.uid], p.candidate.uid})
			found = slices.DeleteFunc(found, func(x candidate) bool { return x.uid == p.candidate.uid })
		}
		c.m.step(stepLooked)
	}
	for _, p := range b.parts {
		p.messages = slices.DeleteFunc(p.messages, func(m *sentMessage) bool {
			return slices.ContainsFunc(pairs, func(l landed) bool { return l.message == m })
		})
		if p.refused == nil && len(p.messages) > 0 {
			if len(found) > 0 { // to send it again could double it, under another form
				return &halt{state: store.Failed, reason: errorCompare,
					err: fmt.Errorf("the target acknowledged UID %d of %s and has other messages from UID %d on: find out what changes mail there, remove those copies, then retry",
						p.messages[0].meta.UID, c.f.Source, found[0].uid)}
			}
			return again(errorTarget, fmt.Errorf("the target acknowledged UID %d of %s and does not show it", p.messages[0].meta.UID, c.f.Source))
		}
	}
	return c.settle(ctx, b, pairs)
}

// sums makes sure that the digests of messages are those of all of their
// octets: what was refused early was not read.
func (c *copier) sums(ctx context.Context, messages []*sentMessage) error {
	uids := make([]uint32, len(messages))
	for i, m := range messages {
		uids[i] = m.meta.UID
	}
	sums, err := c.digestSource(ctx, c.f, uids)
	if err != nil {
		return err
	}
	for _, m := range messages {
		for _, o := range sums {
			if o.uid == m.meta.UID {
				m.sum = o.sum
			}
		}
	}
	return nil
}

// settleOld settles what a crash or a cut left open. The cut connection's last
// batch may still be committed, so it waits until the target's folder is still.
func (j *job) settleOld(ctx context.Context) error {
	intents, err := j.claim.Intents(ctx)
	if err != nil || len(intents) == 0 {
		return err
	}
	folders, err := j.claim.Folders(ctx)
	if err != nil {
		return err
	}
	quiet := map[int64]bool{}
	for _, in := range intents {
		at := slices.IndexFunc(folders, func(f store.Folder) bool { return f.ID == in.FolderID })
		if at < 0 {
			return fmt.Errorf("intent %d is for folder %d, which is not in the mapping", in.ID, in.FolderID)
		}
		f := &folder{Folder: folders[at]}
		if !quiet[f.ID] {
			if err := j.waitQuiet(ctx, f); err != nil {
				return err
			}
			quiet[f.ID] = true
		}
		if err := j.settleByLooking(ctx, f, in); err != nil {
			return err
		}
		folders[at] = f.Folder
	}
	return nil
}

// waitQuiet waits until the UIDNEXT of a target's folder has been still for
// SettleQuiet.
func (j *job) waitQuiet(ctx context.Context, f *folder) error {
	quiet := j.m.o.SettleQuiet
	ctx, cancel := context.WithTimeoutCause(ctx, quietLimit*quiet+time.Minute,
		fmt.Errorf("the target's folder %s does not come to rest", f.Target))
	defer cancel()
	var last uint32
	since := time.Now()
	for first := true; first || time.Since(since) < quiet; first = false {
		if j.stop.Err() != nil {
			return errStopped
		}
		if !first {
			if err := wait(ctx, max(quiet/10, 10*time.Millisecond)); err != nil {
				return again(errorTarget, err)
			}
		}
		st, err := j.dest.Status(ctx, f.Target)
		if isStatus(err) {
			return nil // it is not there, so nothing can land in it
		}
		if err != nil {
			return again(errorTarget, fmt.Errorf("the target's folder %s: %w", f.Target, err))
		}
		if st.UIDNext != last {
			last, since = st.UIDNext, time.Now()
		}
	}
	return nil
}

// settleByLooking ends an intent with those of its messages that are on the
// target, matched in order and as a multiset of digests.
func (j *job) settleByLooking(ctx context.Context, f *folder, in store.Intent) error {
	opened, err := j.source.Examine(ctx, f.Source)
	if err != nil && !isStatus(err) {
		return again(errorSource, fmt.Errorf("the source's folder %s: %w", f.Source, err))
	}
	if err != nil || max(1, opened.UIDValidity) != in.SourceUIDValidity {
		// The UIDs mean nothing any more. All of the folder is matched anew.
		f.Matched = false
		if err := j.claim.PutFolder(ctx, &f.Folder); err != nil {
			return err
		}
		return j.settled(ctx, f, &in, nil)
	}
	found, err := j.arrivals(ctx, f, in.TargetUIDNext)
	if err != nil {
		return err
	}
	var done []store.Message
	if len(found) > 0 {
		uids := make([]uint32, len(in.Messages))
		for i, m := range in.Messages {
			uids[i] = m.SourceUID
		}
		originals, err := j.digestSource(ctx, f, uids)
		if err != nil {
			return err
		}
		if found, err = j.digestTarget(ctx, f, found); err != nil {
			return err
		}
		if done, err = j.noteMatches(ctx, f, match(originals, found), true); err != nil {
			return err
		}
	}
	j.m.step(stepLooked)
	if len(done) > 0 {
		// It was sent after every refusal that is noted: at a refusal nothing
		// else is under way.
		if err := j.claim.OutliveRefusals(ctx); err != nil {
			return err
		}
	}
	return j.settled(ctx, f, &in, done)
}

// noteMatches turns pairs into messages for the ledger, and records those that
// the target altered.
func (j *job) noteMatches(ctx context.Context, f *folder, pairs []pair, appended bool) ([]store.Message, error) {
	var done []store.Message
	var altered []store.Altered
	for _, p := range pairs {
		done = append(done, store.Message{SourceUID: p.original.uid, TargetUID: p.candidate.uid,
			Digest: p.original.sum.canonical, Octets: p.candidate.octets, Appended: appended})
		if p.original.sum.full != p.candidate.sum.full {
			altered = append(altered, alteredMessage(f, p.original.uid, p.candidate.uid, p.original.sum, p.candidate.sum))
		}
	}
	if len(altered) > 0 {
		j.notKept.altered += len(altered)
		if err := j.claim.NoteAltered(ctx, altered...); err != nil {
			return nil, err
		}
	}
	return done, nil
}

func alteredMessage(f *folder, source, target uint32, was, is digests) store.Altered {
	return store.Altered{FolderID: f.ID, SourceUID: source, TargetUID: target,
		SourceSHA256: was.full, TargetSHA256: is.full, SourceOctets: was.octets, TargetOctets: is.octets}
}

// arrivals lists what is in a target's folder from a UID on and not in the
// ledger. It leaves out what other clients delivered only by the later match.
func (j *job) arrivals(ctx context.Context, f *folder, from uint32) ([]candidate, error) {
	runs, err := j.claim.Ledger(ctx, f.ID)
	if err != nil {
		return nil, err
	}
	known := newLedger(runs)
	j.viewed = ""
	opened, err := j.eye.Select(ctx, f.Target)
	if isStatus(err) {
		return nil, nil // the folder is not there
	}
	if err != nil {
		return nil, again(errorTarget, fmt.Errorf("the target's folder %s: %w", f.Target, err))
	}
	if opened.UIDValidity != 0 && f.TargetUIDValidity != 0 && opened.UIDValidity != f.TargetUIDValidity {
		return nil, replaced(f)
	}
	j.viewed = f.Target
	if opened.Exists == 0 {
		return nil, nil
	}
	var found []candidate
	seen := map[uint32]bool{}
	err = j.eye.FetchMeta(ctx, from, 0, func(m imapwire.Meta) error {
		// n:* names the last message even where its UID is below n.
		if m.UID >= from && !known.hasTarget(m.UID) && !seen[m.UID] {
			seen[m.UID] = true
			found = append(found, candidate{uid: m.UID, octets: m.Size})
		}
		return nil
	})
	if err != nil {
		return nil, again(errorTarget, fmt.Errorf("list the target's folder %s: %w", f.Target, err))
	}
	return found, nil
}

package migrator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"migproxy/store"
)

const (
	// maxAcked, in messages, and settleEvery bound what is acknowledged and not
	// settled: after a crash that much is looked for on the target.
	maxAcked    = 1000
	settleEvery = 5 * time.Second
)

// collectAll waits for the answers to everything in flight.
func (c *copier) collectAll(ctx context.Context) error {
	for len(c.flight) > 0 && c.broken == nil {
		if err := c.collect(ctx); err != nil {
			return err
		}
	}
	return c.flush(ctx)
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
	if err := c.flush(ctx); err != nil {
		return err
	}
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
				return false, c.replaced(c.f)
			}
			p.uids = uids
		}
		clean = clean && p.refused == nil && len(p.uids) == len(p.messages)
	}
	c.m.step(stepAcked)
	return clean, nil
}

// finish takes a batch whose UIDs the target told out of flight. Several are
// read back and settled at a time, since to look into a large folder costs the
// target more than to store a batch.
func (c *copier) finish(ctx context.Context, b *batch) error {
	for _, p := range b.parts {
		for i, uid := range p.uids {
			b.landed = append(b.landed, landed{p.messages[i], uid})
			c.uidNext = max(c.uidNext, uid)
		}
	}
	c.acked = append(c.acked, b)
	n := 0
	for _, b := range c.acked {
		n += len(b.landed)
	}
	if n < maxAcked && time.Since(c.settledAt) < settleEvery {
		return nil
	}
	return c.flush(ctx)
}

// flush reads back what was acknowledged and settles it, batch by batch.
func (c *copier) flush(ctx context.Context) error {
	var all []landed
	for _, b := range c.acked {
		all = append(all, b.landed...)
	}
	done, err := c.readBack(ctx, all)
	if err != nil {
		return err
	}
	for len(c.acked) > 0 {
		b := c.acked[0]
		n := len(b.landed)
		if err := c.record(ctx, b, done[:n]); err != nil {
			return err
		}
		c.acked, done = c.acked[1:], done[n:]
	}
	c.settledAt = time.Now()
	return nil
}

// record ends the intent of a batch with what has landed of it.
func (c *copier) record(ctx context.Context, b *batch, done []store.Message) error {
	for _, m := range done {
		k := key(c.f, m.SourceUID)
		c.m.memory.target.clear(c.claim.Account.ID, k)
		c.m.memory.source.clear(c.claim.Account.ID, k)
		delete(c.suspects, k)
	}
	if len(done) > 0 {
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
			j.added++
			j.octets += m.Octets
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
			originals = append(originals, original{uid: m.meta.UID, sum: m.sum})
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
	done, err := c.readBack(ctx, pairs)
	if err != nil {
		return err
	}
	return c.record(ctx, b, done)
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
				m.sum, m.shows = o.sum, o.shows
			}
		}
	}
	return nil
}

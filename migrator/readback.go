package migrator

import (
	"context"
	"fmt"
	"io"
	"slices"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// reopenAfter is how many messages a folder of the target may have, times looks
// at it, before it is opened anew. Each look at a folder that is kept open while
// another connection appends to it costs a Dovecot's process memory for every
// message in it: at 130,000 messages it reached its limit (256 MB) within a
// minute, and cut the connection.
const reopenAfter = 1_000_000

// landed is a message that was sent, and its UID on the target.
type landed struct {
	message *sentMessage
	uid     uint32
}

// readBack looks on the target at what was appended, before the ledger says
// that it is there: each message must be shown. One whose size differs, or
// that holds what servers are known to alter, is read as a whole.
func (c *copier) readBack(ctx context.Context, pairs []landed) ([]store.Message, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	if c.looked += uint64(c.uidNext); c.looked > reopenAfter {
		c.viewed, c.looked = "", 0
	}
	shown, err := c.metas(ctx, pairs)
	if err != nil {
		return nil, err
	}
	var done []store.Message
	var doubtful []candidate
	for _, p := range pairs {
		meta := shown[p.uid]
		m := p.message
		done = append(done, store.Message{SourceUID: m.meta.UID, TargetUID: p.uid, Digest: m.sum.canonical,
			Octets: meta.Size, Appended: true, Shows: m.shows})
		if meta.Size != m.sum.octets || m.sum.fragile {
			doubtful = append(doubtful, candidate{uid: p.uid, octets: meta.Size})
		}
		if !m.date.IsZero() && !meta.Date.IsZero() && meta.Date.Unix() != m.date.Unix() {
			c.notKept.dates++
		}
		if !holds(meta.Flags, m.flags) {
			c.notKept.flags++
		}
	}
	return done, c.readDoubtful(ctx, pairs, doubtful)
}

// readDoubtful compares whole messages: those that the target altered are
// recorded, and those that it did not keep at all end the work.
func (c *copier) readDoubtful(ctx context.Context, pairs []landed, doubtful []candidate) error {
	if len(doubtful) == 0 {
		return nil
	}
	read, err := c.digestTarget(ctx, c.f, doubtful)
	if err != nil {
		return err
	}
	if len(read) != len(doubtful) {
		return again(errorTarget, fmt.Errorf("the target shows messages in %s and does not give them", c.f.Target))
	}
	var altered []store.Altered
	for _, is := range read {
		at := slices.IndexFunc(pairs, func(p landed) bool { return p.uid == is.uid })
		was := pairs[at].message
		switch {
		case is.sum.full == was.sum.full:
		case is.sum.canonical == was.sum.canonical:
			altered = append(altered, alteredMessage(c.f, was.meta.UID, is.uid, was.sum, is.sum))
		default:
			return &halt{state: store.Failed, reason: errorCompare,
				err: fmt.Errorf("the target took UID %d of %s and keeps another message as UID %d of %s: find out what changes mail there, remove that message, then retry",
					was.meta.UID, c.f.Source, is.uid, c.f.Target)}
		}
	}
	if len(altered) == 0 {
		return nil
	}
	c.notKept.altered += len(altered)
	return c.claim.NoteAltered(ctx, altered...)
}

// metas fetches what the target shows of messages. All of them must be there.
func (c *copier) metas(ctx context.Context, pairs []landed) (map[uint32]imapwire.Meta, error) {
	shown := make(map[uint32]imapwire.Meta, len(pairs))
	first, last := pairs[0].uid, pairs[0].uid
	wanted := make(map[uint32]bool, len(pairs))
	for _, p := range pairs {
		first, last = min(first, p.uid), max(last, p.uid)
		wanted[p.uid] = true
	}
	if len(wanted) != len(pairs) {
		return nil, &halt{state: store.Failed, reason: errorCompare,
			err: fmt.Errorf("the target gave two messages of %s the same UID", c.f.Target)}
	}
	// The first look may come before the server has told this connection of
	// the new messages; a newly opened folder has them.
	for range 2 {
		fetch := c.eye.FetchNewMeta
		if c.viewed != c.f.Target {
			if _, err := c.eye.Select(ctx, c.f.Target); err != nil {
				return nil, again(errorTarget, fmt.Errorf("the target's folder %s: %w", c.f.Target, err))
			}
			c.viewed, fetch = c.f.Target, c.eye.FetchMeta
		}
		err := fetch(ctx, first, last, func(m imapwire.Meta) error {
			if wanted[m.UID] {
				shown[m.UID] = m
			}
			return nil
		})
		if err != nil {
			return nil, again(errorTarget, fmt.Errorf("list the target's folder %s: %w", c.f.Target, err))
		}
		if len(shown) == len(pairs) {
			return shown, nil
		}
		c.viewed = ""
	}
	return nil, again(errorTarget, fmt.Errorf("the target acknowledged %d messages in %s and shows %d of them", len(pairs), c.f.Target, len(shown)))
}

// digestSource reads messages of the source's folder that is open. Those that
// are gone or withheld are left out.
func (j *job) digestSource(ctx context.Context, f *folder, uids []uint32) ([]original, error) {
	came := make(map[uint32]original, len(uids))
	d := newDigester()
	err := j.readSource(ctx, f, uids, func(uid uint32, _ int64, r io.Reader) error {
		_, err := io.Copy(j.observer.over(d), r)
		came[uid] = original{uid, d.sum(), j.observer.shown(j.m.own, f)}
		return err
	})
	if err != nil {
		return nil, err
	}
	var read []original
	for _, uid := range uids {
		if o, ok := came[uid]; ok {
			read = append(read, o)
		}
	}
	return read, nil
}

// digestTarget reads messages of the target's folder that the eye has open.
// Those that are gone are left out.
func (j *job) digestTarget(ctx context.Context, f *folder, found []candidate) ([]candidate, error) {
	read := found[:0:0]
	for some := range slices.Chunk(found, window) {
		uids := make([]uint32, len(some))
		for i, c := range some {
			uids[i] = c.uid
		}
		sums := make(map[uint32]digests, len(uids))
		err := j.eye.FetchBodies(ctx, uids, digestInto(sums))
		if err != nil && !isStatus(err) { // some of them may be gone
			return nil, again(errorTarget, fmt.Errorf("fetch from the target's folder %s: %w", f.Target, err))
		}
		for _, c := range some {
			if sum, ok := sums[c.uid]; ok {
				c.sum = sum
				read = append(read, c)
			}
		}
	}
	return read, nil
}

// digestInto keeps the digests of bodies by UID.
func digestInto(sums map[uint32]digests) func(uint32, int64, io.Reader) error {
	d := newDigester()
	return func(uid uint32, _ int64, r io.Reader) error {
		_, err := io.Copy(d, r)
		sums[uid] = d.sum()
		return err
	}
}

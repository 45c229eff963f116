package migrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.uber.org/zap"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

const (
	// maxCuts is how many cut connections at one message count as its refusal.
	maxCuts = 3
	// maxSuspects bounds how many messages in a row may be refused before it is
	// the target, not the messages.
	maxSuspects = 50
	// askAbove is how many messages may be set aside without asking; or one in
	// a thousand, where that is more.
	askAbove = 10
)

// waitCodes of a refusal speak of the target, not of the message (RFC 5530,
// RFC 9208).
var waitCodes = []string{"OVERQUOTA", "UNAVAILABLE", "SERVERBUG", "LIMIT", "INUSE"}

func isWaitCode(err error) bool { return isStatusCode(err, waitCodes...) }

func quotaHalt(err error) error {
	h := &halt{state: store.Waiting, retry: true, reason: errorTarget,
		err: fmt.Errorf("the target takes no more mail at present; it goes on when it does: %w", err)}
	if isStatusCode(err, "OVERQUOTA") {
		h.reason = errorQuota
		h.err = fmt.Errorf("the account's quota on the target is used up: raise it there, and it goes on: %w", err)
	}
	return h
}

// suspect is a message that was refused. It is set aside once it was refused
// alone and the target has accepted another message afterwards; both are in
// the store, so that a crash forgets nothing that cannot be seen again.
type suspect struct {
	messageKey
	alone    bool // not only together with others
	outlived bool // another message was accepted after its last refusal
	between  bool // another message was accepted before it was refused alone, and after it was refused with others
	reason   string
}

// suspects of one run.
type suspects map[messageKey]*suspect

// has reports whether a message is not to be sent any more in this run.
func (s suspects) has(k messageKey) bool { return s[k] != nil && s[k].alone }

// alone lists those that were refused alone, as they were refused first or not.
func (s suspects) alone(outlived bool) []*suspect {
	var list []*suspect
	for _, x := range s {
		if x.alone && x.outlived == outlived {
			list = append(list, x)
		}
	}
	slices.SortFunc(list, func(a, b *suspect) int {
		return cmp.Or(cmp.Compare(a.folderID, b.folderID), cmp.Compare(a.uid, b.uid))
	})
	return list
}

// refuse commits that messages were refused.
func (j *job) refuse(ctx context.Context, f *folder, uids []uint32, alone bool, reason error) error {
	var notes []store.Refusal
	for _, uid := range uids {
		k := key(f, uid)
		s := j.suspects[k]
		if s == nil {
			s = &suspect{messageKey: k}
			j.suspects[k] = s
		}
		s.reason = reason.Error()
		if alone {
			s.alone, s.between, s.outlived = true, s.outlived, false
		}
		// In the store an outlived refusal is not yet one alone: outlive says so.
		notes = append(notes, store.Refusal{FolderID: f.ID, SourceUID: uid, Alone: alone && !s.between, Reason: s.reason})
		if alone {
			j.m.metrics.errors.WithLabelValues(errorRefused).Inc()
			j.log.Warn("the target refuses a message", zap.String("folder", f.Source), zap.Uint32("uid", uid), zap.Error(reason))
		}
	}
	return j.claim.NoteRefusals(ctx, notes...)
}

// outlive commits that the target has accepted a message after the refusals.
func (j *job) outlive(ctx context.Context) error {
	fresh := false
	var proven []store.Refusal
	for _, x := range j.suspects {
		if x.alone && x.between && !x.outlived {
			proven = append(proven, store.Refusal{FolderID: x.folderID, SourceUID: x.uid, Alone: true, Outlived: true, Reason: x.reason})
		}
		fresh = fresh || !x.outlived
		x.outlived = true
	}
	if !fresh {
		return nil
	}
	if len(proven) > 0 {
		if err := j.claim.NoteRefusals(ctx, proven...); err != nil {
			return err
		}
	}
	return j.claim.OutliveRefusals(ctx)
}

// recallRefusals takes up what an earlier run knew for sure. What it did not
// know for sure begins anew on this connection.
func (j *job) recallRefusals(ctx context.Context) error {
	if err := j.claim.ForgetRefusals(ctx); err != nil {
		return err
	}
	kept, err := j.claim.Refusals(ctx)
	if err != nil {
		return err
	}
	j.suspects = suspects{}
	for _, r := range kept {
		k := messageKey{r.FolderID, r.SourceUIDValidity, r.SourceUID}
		j.suspects[k] = &suspect{messageKey: k, alone: r.Alone, outlived: true, reason: r.Reason}
	}
	return nil
}

// resend sends again, in smaller parts, what was refused together, until each
// message was accepted or was refused alone: with nothing else under way.
func (c *copier) resend(ctx context.Context, p *part, alone bool) error {
	if isWaitCode(p.refused) {
		return quotaHalt(p.refused)
	}
	if isStatusCode(p.refused, "TRYCREATE", "NONEXISTENT") {
		return again(errorTarget, fmt.Errorf("the target's folder %s is gone: %w", c.f.Target, p.refused))
	}
	if len(p.messages) == 0 {
		return nil
	}
	if c.isLane {
		return errLeftOver
	}
	var metas []imapwire.Meta
	var uids []uint32
	for _, m := range p.messages {
		metas, uids = append(metas, m.meta), append(uids, m.meta.UID)
	}
	if err := c.refuse(ctx, c.f, uids, alone, p.refused); err != nil {
		return err
	}
	if alone {
		if len(c.suspects.alone(false)) > maxSuspects {
			return &halt{state: store.Waiting, retry: true, reason: errorRefused,
				err: fmt.Errorf("the target refuses one message after the other: see its log; it goes on when it takes them: %w", p.refused)}
		}
		return nil
	}
	for _, half := range [][]imapwire.Meta{metas[:len(metas)/2], metas[len(metas)/2:]} {
		if len(half) == 0 {
			continue
		}
		if err := c.send(ctx, half); err != nil {
			return err
		}
		if err := c.collectAll(ctx); err != nil {
			return err
		}
	}
	return nil
}

// putConfirmedAside keeps the octets of each message that was refused alone and
// after which another one was accepted.
func (j *job) putConfirmedAside(ctx context.Context, folders []*folder) error {
	var opened *folder
	for _, s := range j.suspects.alone(true) {
		at := slices.IndexFunc(folders, func(f *folder) bool { return f.ID == s.folderID })
		if at < 0 || !folders[at].listed || folders[at].SourceUIDValidity != s.validity {
			continue // it is gone from the source
		}
		if f := folders[at]; opened != f {
			if _, err := j.source.Examine(ctx, f.Source); err != nil {
				return again(errorSource, fmt.Errorf("the source's folder %s: %w", f.Source, err))
			}
			opened = f
		}
		metas, err := j.list(ctx, []uint32{s.uid})
		if err != nil {
			return err
		}
		if len(metas) > 0 {
			if err := j.putAside(ctx, opened, metas[0], s.reason); err != nil {
				return err
			}
		}
		delete(j.suspects, s.messageKey)
	}
	return nil
}

func (j *job) putAside(ctx context.Context, f *folder, meta imapwire.Meta, reason string) error {
	j.m.step(stepAsideBefore)
	kept := false
	d := newDigester()
	err := j.readSource(ctx, f, []uint32{meta.UID}, func(_ uint32, _ int64, r io.Reader) error {
		entry := &store.SetAside{FolderID: f.ID, FolderName: f.Source, SourceUID: meta.UID,
			Flags: meta.Flags, Date: meta.Date, Reason: reason}
		err := j.claim.PutAside(ctx, entry, &summing{r: r, d: d, m: entry})
		if err != nil && !errors.Is(err, store.ErrRecorded) { // recorded before a crash
			return fmt.Errorf("set UID %d of %s aside: %w", meta.UID, f.Source, err)
		}
		kept = true
		return nil
	})
	if err != nil {
		return err
	}
	if !kept { // it is gone from the source, or will be found missing again
		return nil
	}
	j.m.step(stepAsideAfter)
	j.event(ctx, fmt.Sprintf("'%s': message UID %d of %s is refused by the target and was set aside: %s", j.address, meta.UID, f.Source, reason))
	return nil
}

// summing computes the digest of what is set aside while it is read.
type summing struct {
	r io.Reader
	d *digester
	m *store.SetAside
}

func (s *summing) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	_, _ = s.d.Write(p[:n]) // never fails
	if errors.Is(err, io.EOF) {
		s.m.Digest = s.d.sum().canonical
	}
	return n, err
}

// confirmLast sets aside what was refused after every message that the target
// has accepted, where that need not wait for another one: the only such message,
// if the target refused it with others, accepted these, and refused it again;
// or as many as the administrator has agreed to move without.
func (j *job) confirmLast(ctx context.Context, folders []*folder) error {
	open := j.suspects.alone(false)
	if len(open) == 0 {
		return nil
	}
	if err := j.claim.Refresh(ctx); err != nil {
		return err
	}
	agreed := j.claim.Account.SetAside+int64(len(open)) <= j.consent
	if !agreed && (len(open) > 1 || !open[0].between) {
		return nil
	}
	for _, s := range open {
		s.outlived = true
	}
	return j.putConfirmedAside(ctx, folders)
}

// unresolved ends the work while the source does not give a message, or while
// one is refused and no other one showed that the target takes mail. Where
// there is no other, the administrator's retry is the answer.
func (j *job) unresolved() error {
	if err := j.undelivered(); err != nil {
		return err
	}
	open := j.suspects.alone(false)
	if len(open) == 0 {
		return nil
	}
	a := j.claim.Account
	j.m.memory.ask(a.ID, a.SetAside+int64(len(open)))
	return &halt{state: store.Waiting, retry: true, reason: errorRefused,
		err: fmt.Errorf("the target refuses a message (UID %d), and there was no other to show whether it takes any: see its log; `migproxy account retry %s` moves the account without it: %s", open[0].uid, j.address, open[0].reason)}
}

// tooManyAside asks the administrator before an account flips without many of
// its messages. His retry is the answer.
func (j *job) tooManyAside() error {
	a := j.claim.Account
	if a.SetAside <= max(askAbove, a.Expected/1000, j.consent) {
		return nil
	}
	j.m.memory.ask(a.ID, a.SetAside)
	return &halt{state: store.Waiting, reason: errorRefused,
		err: fmt.Errorf("the target refused %d messages, which are set aside: look at them with `migproxy account show %s`; `migproxy account retry %s` moves the account without them", a.SetAside, j.address, j.address)}
}

// messageKey names a message of the source, within an account.
type messageKey struct {
	folderID int64
	validity uint32
	uid      uint32
}

func key(f *folder, uid uint32) messageKey { return messageKey{f.ID, f.SourceUIDValidity, uid} }

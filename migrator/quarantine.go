package migrator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

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

// suspect is a message that was refused alone. It is set aside once the target
// has accepted another message after it on the same connection.
type suspect struct {
	folder *folder
	meta   imapwire.Meta
	reason string
	since  int // of suspects.accepted, when it was first refused
}

// suspects of one run, which has one connection that mail is sent on.
type suspects struct {
	all      []suspect
	accepted int // batches accepted so far on this connection
	refused  map[messageKey]int
}

func (s *suspects) has(folderID int64, uid uint32) bool {
	return slices.ContainsFunc(s.all, func(x suspect) bool { return x.folder.ID == folderID && x.meta.UID == uid })
}

// noteRefused remembers since when a message is refused, alone or with others.
func (s *suspects) noteRefused(k messageKey) {
	if s.refused == nil {
		s.refused = map[messageKey]int{}
	}
	if _, known := s.refused[k]; !known {
		s.refused[k] = s.accepted
	}
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
	for _, m := range p.messages {
		c.suspects.noteRefused(messageKey{c.f.ID, c.f.SourceUIDValidity, m.meta.UID})
	}
	n := len(p.messages)
	if n == 0 {
		return nil
	}
	if alone {
		return c.refusedAlone(p.messages[0].meta, p.refused)
	}
	metas := make([]imapwire.Meta, n)
	for i, m := range p.messages {
		metas[i] = m.meta
	}
	for _, half := range [][]imapwire.Meta{metas[:n/2], metas[n/2:]} {
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

func (c *copier) refusedAlone(meta imapwire.Meta, refusal error) error {
	c.suspect(c.f, meta, refusal)
	open := 0
	for _, s := range c.suspects.all {
		if s.since >= c.suspects.accepted {
			open++
		}
	}
	if open > maxSuspects {
		return &halt{state: store.Waiting, retry: true, reason: errorRefused,
			err: fmt.Errorf("the target refuses one message after the other: see its log; it goes on when it takes them: %w", refusal)}
	}
	return nil
}

// suspect keeps a message that was refused alone until its neighbours have shown
// whether it is the message or the target.
func (j *job) suspect(f *folder, meta imapwire.Meta, reason error) {
	k := messageKey{f.ID, f.SourceUIDValidity, meta.UID}
	j.suspects.noteRefused(k)
	j.suspects.all = append(j.suspects.all, suspect{folder: f, meta: meta, reason: reason.Error(), since: j.suspects.refused[k]})
	j.m.metrics.errors.WithLabelValues(errorRefused).Inc()
	j.log.Warn("the target refuses a message", zap.String("folder", f.Source), zap.Uint32("uid", meta.UID), zap.Error(reason))
}

// putConfirmedAside keeps the octets of each suspect after which another
// message was accepted.
func (j *job) putConfirmedAside(ctx context.Context, folders []*folder) error {
	opened := ""
	for _, s := range slices.Clone(j.suspects.all) {
		if s.since >= j.suspects.accepted {
			continue
		}
		at := slices.IndexFunc(folders, func(f *folder) bool { return f.ID == s.folder.ID })
		if at < 0 || !folders[at].listed {
			continue
		}
		f := folders[at]
		if opened != f.Source {
			if _, err := j.source.Examine(ctx, f.Source); err != nil {
				return again(errorSource, fmt.Errorf("the source's folder %s: %w", f.Source, err))
			}
			opened = f.Source
		}
		if err := j.putAside(ctx, f, s); err != nil {
			return err
		}
		j.suspects.all = slices.DeleteFunc(j.suspects.all, func(x suspect) bool {
			return x.folder.ID == s.folder.ID && x.meta.UID == s.meta.UID
		})
	}
	return nil
}

func (j *job) putAside(ctx context.Context, f *folder, s suspect) error {
	j.m.step(stepAsideBefore)
	kept := false
	var failure error
	d := newDigester()
	err := j.source.FetchBodies(ctx, []uint32{s.meta.UID}, func(_ uint32, _ int64, r io.Reader) error {
		entry := &store.SetAside{FolderID: f.ID, FolderName: f.Source, SourceUID: s.meta.UID,
			Flags: s.meta.Flags, Date: s.meta.Date, Reason: s.reason}
		failure = j.claim.PutAside(ctx, entry, &summing{r: r, d: d, m: entry})
		kept = failure == nil
		return failure
	})
	if failure != nil {
		return fmt.Errorf("set UID %d of %s aside: %w", s.meta.UID, f.Source, failure)
	}
	if err != nil && !isStatus(err) {
		return again(errorSource, fmt.Errorf("fetch from %s: %w", f.Source, err))
	}
	if !kept { // it is gone from the source, or will be found missing again
		return nil
	}
	j.m.step(stepAsideAfter)
	j.event(ctx, fmt.Sprintf("'%s': message UID %d of %s is refused by the target and was set aside: %s", j.address, s.meta.UID, f.Source, s.reason))
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
		sum := s.d.sum()
		s.m.Digest, s.m.Octets = sum.canonical, sum.octets
	}
	return n, err
}

// unresolved ends the work while a message is refused and no other one showed
// that the target takes mail.
func (j *job) unresolved() error {
	if len(j.suspects.all) == 0 {
		return nil
	}
	s := j.suspects.all[0]
	return &halt{state: store.Waiting, retry: true, reason: errorRefused,
		err: fmt.Errorf("the target refuses the message with UID %d in %s, and there was no other to show whether it takes any: see its log: %s", s.meta.UID, s.folder.Source, s.reason)}
}

// tooManyAside asks the administrator before an account flips without many of
// its messages. His retry is the answer.
func (j *job) tooManyAside() error {
	a := j.claim.Account
	if a.SetAside <= max(askAbove, a.Expected/1000) || j.consent {
		return nil
	}
	j.m.memory.ask(a.ID)
	return &halt{state: store.Waiting, reason: errorRefused,
		err: fmt.Errorf("the target refused %d messages, which are set aside: look at them with `migproxy account show %s`; `migproxy account retry %s` moves the account without them", a.SetAside, j.address, j.address)}
}

// messageKey names a message of the source, within an account.
type messageKey struct {
	folderID int64
	validity uint32
	uid      uint32
}

// memory is what a process remembers of accounts between their runs. Losing it
// costs repeated tries, no mail.
type memory struct {
	mu    sync.Mutex
	cut   map[int64]map[messageKey]int
	asked map[int64]bool
}

func newMemory() *memory {
	return &memory{cut: map[int64]map[messageKey]int{}, asked: map[int64]bool{}}
}

// noteCut counts a cut connection against the messages that were not answered.
func (m *memory) noteCut(account int64, f *folder, b *batch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut[account] == nil {
		m.cut[account] = map[messageKey]int{}
	}
	for _, p := range b.parts {
		if p.refused != nil || p.uids != nil {
			continue
		}
		for _, msg := range p.messages {
			m.cut[account][messageKey{f.ID, f.SourceUIDValidity, msg.meta.UID}]++
		}
		return // the server had not come to the next one
	}
}

func (m *memory) cuts(account int64, f *folder, uid uint32) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cut[account][messageKey{f.ID, f.SourceUIDValidity, uid}]
}

func (m *memory) clearCuts(account int64, f *folder, uid uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.cut[account], messageKey{f.ID, f.SourceUIDValidity, uid})
	if len(m.cut[account]) == 0 {
		delete(m.cut, account)
	}
}

// ask remembers that the administrator was asked whether to go on.
func (m *memory) ask(account int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked[account] = true
}

func (m *memory) wasAsked(account int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[account]
}

func (m *memory) forget(account int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.cut, account)
	delete(m.asked, account)
}

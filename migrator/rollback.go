package migrator

import (
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

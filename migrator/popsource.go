package migrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"migproxy/migrator/imapwire"
	"migproxy/store"
	"migproxy/upstream"
)

const (
	// popInbox is the one folder that a maildrop is shown as.
	popInbox = "INBOX"
	// popValidity is its UIDVALIDITY: the UIDs are given by migproxy, and kept.
	popValidity = 1

	// popTries is how often a session is begun, or one message asked for, before
	// the error is passed on.
	popTries = 4
)

// popTimes bound a session over POP3, since it locks the maildrop against its
// owner's other clients.
type popTimes struct {
	session time.Duration // how long one lasts, between two messages
	idle    time.Duration // after which it ends when nothing is read
	pause   time.Duration // between two, at least
}

var defaultPopTimes = popTimes{session: 2 * time.Minute, idle: 5 * time.Second, pause: time.Second}

// popSource shows a maildrop as a source with one folder.
type popSource struct {
	login func(context.Context) (*upstream.Session, error)
	// assign gives the messages of a listing their UIDs, see assignUIDs.
	assign func(ctx context.Context, d *maildrop, names []string) (next uint32, byDigest bool, err error)
	times  popTimes
	pause  func(attempts int) time.Duration
	log    *zap.Logger

	mu       sync.Mutex // held while anything below is used
	drop     maildrop
	session  *upstream.Session // logged in, and not yet begun
	began    time.Time         // the present session
	idle     *time.Timer       // ends it
	listed   bool              // the listing is there
	told     bool              // Status told of this listing
	byDigest bool              // to know the messages again, a session reads them all
	byUID    []int             // places in the listing, by UID
	next     uint32            // UIDNEXT
	closed   bool
}

var _ sourceConn = (*popSource)(nil)

// openPOP3 begins to read a maildrop on a session that has been logged in;
// login gives further ones.
func (j *job) openPOP3(ctx context.Context, session *upstream.Session, login func(context.Context) (*upstream.Session, error)) (sourceConn, error) {
	p := &popSource{login: login, session: session, times: j.m.pop, pause: j.m.pause, log: j.log, drop: j.maildrop(),
		assign: func(ctx context.Context, d *maildrop, names []string) (uint32, bool, error) {
			return assignUIDs(ctx, j.claim, d, names)
		}}
	p.idle = time.AfterFunc(p.times.idle, p.letGo)
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.rest()
	if err := p.ready(ctx); err != nil {
		_ = p.close()
		if h, ok := errors.AsType[*halt](err); ok {
			return nil, h
		}
		return nil, again(errorSource, fmt.Errorf("list the source's maildrop: %w", err))
	}
	return p, nil
}

func (j *job) maildrop() maildrop { return j.m.maildrop(j.claim.Account.ID, j.domain) }

func (m *Migrator) maildrop(account int64, domain *upstream.Domain) maildrop {
	return maildrop{timeout: m.ioTimeout, expireOK: domain.Config.Source.POP3ExpireOK,
		doubtful: m.memory.sizesWrong(account), doubt: func() { m.memory.noteSizesWrong(account) }}
}

// ready makes sure that a session is open and listed.
func (p *popSource) ready(ctx context.Context) error {
	if p.drop.conn != nil && time.Since(p.began) > p.times.session && !p.byDigest {
		p.drop.end()
	}
	for try := 0; p.drop.conn == nil; try++ {
		err := p.begin(ctx)
		if err == nil {
			return nil
		}
		p.drop.cut()
		if try+1 >= popTries || !p.passing(ctx, err) {
			return err
		}
		p.log.Debug("the source's maildrop cannot be opened, trying again", zap.Error(err))
		if err := wait(ctx, p.pause(try)); err != nil {
			return err
		}
	}
	return nil
}

// passing reports whether an error may pass by itself within seconds, like a
// maildrop that is locked.
func (p *popSource) passing(ctx context.Context, err error) bool {
	_, halted := errors.AsType[*halt](err)
	return !halted && !p.closed && ctx.Err() == nil && !errors.Is(err, store.ErrFenced) &&
		upstream.OutcomeOf(err) == upstream.Unavailable
}

// begin opens a session and lists the maildrop.
func (p *popSource) begin(ctx context.Context) (err error) {
	if p.closed {
		return net.ErrClosed
	}
	session := p.session
	p.session = nil
	if session == nil {
		if err := wait(ctx, max(0, p.times.pause-time.Since(p.drop.ended))); err != nil {
			return err
		}
		if session, err = p.login(ctx); err != nil {
			return err
		}
	}
	p.listed, p.told, p.began = false, false, time.Now()
	names, err := p.drop.open(ctx, session)
	if err != nil {
		return err
	}
	if p.next, p.byDigest, err = p.assign(ctx, &p.drop, names); err != nil {
		return err
	}
	p.byUID = make([]int, len(p.drop.messages))
	for i := range p.byUID {
		p.byUID[i] = i
	}
	slices.SortFunc(p.byUID, func(a, b int) int { return cmp.Compare(p.drop.messages[a].uid, p.drop.messages[b].uid) })
	p.listed = true
	return nil
}

// find gives a message of the present listing.
func (p *popSource) find(uid uint32) (popMessage, bool) {
	at, ok := slices.BinarySearchFunc(p.byUID, uid, func(i int, uid uint32) int { return cmp.Compare(p.drop.messages[i].uid, uid) })
	if !ok {
		return popMessage{}, false
	}
	return p.drop.messages[p.byUID[at]], true
}

// rest lets the session be ended if nothing is read for a while.
func (p *popSource) rest() {
	if !p.byDigest {
		p.idle.Reset(p.times.idle)
	}
}

// letGo ends a session on which nothing is read.
func (p *popSource) letGo() {
	if !p.mu.TryLock() {
		return // whoever has it lets go later
	}
	defer p.mu.Unlock()
	if !p.byDigest {
		p.drop.end()
	}
}

// Close ends the session.
func (p *popSource) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.close()
}

func (p *popSource) close() error {
	p.closed = true
	p.idle.Stop()
	if p.session != nil {
		_ = p.session.Conn.Close()
		p.session = nil
	}
	p.drop.end()
	return nil
}

// Namespace is that of a server without any.
func (p *popSource) Namespace(context.Context) (prefix string, delim byte, err error) {
	return "", '/', nil
}

// OtherNamespaces has none.
func (p *popSource) OtherNamespaces(context.Context) ([]string, error) { return nil, nil }

// List has INBOX alone.
func (p *popSource) List(_ context.Context, pattern string) ([]imapwire.Mailbox, error) {
	if pattern != "*" && !strings.EqualFold(pattern, popInbox) {
		return nil, nil
	}
	return []imapwire.Mailbox{{Name: popInbox, Delim: '/'}}, nil
}

// Subscriptions has none: POP3 knows no such thing.
func (p *popSource) Subscriptions(context.Context, string) ([]string, error) { return nil, nil }

// named answers as an IMAP server does for folders that are not there.
func named(command, mailbox string) error {
	if strings.EqualFold(mailbox, popInbox) {
		return nil
	}
	return &imapwire.StatusError{Command: command, Type: "NO", Code: "NONEXISTENT", Text: "POP3 has INBOX alone"}
}

// Status tells of the maildrop as it is now. A session shows what was there when
// it began, so this takes a new one, unless nothing was told of the present one.
func (p *popSource) Status(ctx context.Context, mailbox string) (imapwire.Status, error) {
	if err := named("STATUS", mailbox); err != nil {
		return imapwire.Status{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.rest()
	if p.told {
		p.drop.end()
	}
	if err := p.ready(ctx); err != nil {
		return imapwire.Status{}, err
	}
	p.told = true
	return imapwire.Status{Messages: uint32(len(p.drop.messages)), UIDNext: p.next, UIDValidity: popValidity}, nil
}

// Examine tells of the maildrop as it was last listed.
func (p *popSource) Examine(ctx context.Context, mailbox string) (imapwire.Selected, error) {
	if err := named("EXAMINE", mailbox); err != nil {
		return imapwire.Selected{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.list(ctx); err != nil {
		return imapwire.Selected{}, err
	}
	return imapwire.Selected{Exists: uint32(len(p.drop.messages)), UIDValidity: popValidity, UIDNext: p.next, ReadOnly: true}, nil
}

// list makes sure that there is a listing, however old.
func (p *popSource) list(ctx context.Context) error {
	if p.listed {
		return nil
	}
	defer p.rest()
	return p.ready(ctx)
}

// FetchMeta tells of the messages as they were last listed. POP3 has neither
// flags nor an INTERNALDATE; the sizes are those of LIST.
func (p *popSource) FetchMeta(ctx context.Context, first, last uint32, fn func(imapwire.Meta) error) error {
	var metas []imapwire.Meta
	err := func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if err := p.list(ctx); err != nil {
			return err
		}
		for _, i := range p.byUID {
			if m := p.drop.messages[i]; m.uid >= first && (last == 0 || m.uid <= last) {
				metas = append(metas, imapwire.Meta{UID: m.uid, Size: m.size})
			}
		}
		return nil
	}()
	for i := 0; i < len(metas) && err == nil; i++ {
		err = fn(metas[i])
	}
	return err
}

// FetchBodies passes on messages, by their UIDs. Where the connection ends
// before a message was passed on, it is asked for again on another one.
func (p *popSource) FetchBodies(ctx context.Context, uids []uint32, fn func(uid uint32, size int64, r io.Reader) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.rest()
	for _, uid := range slices.Compact(slices.Sorted(slices.Values(uids))) {
		passed := false
		err := p.tried(ctx, uid, func(m popMessage) error {
			return p.drop.message(ctx, m, func(size int64, r io.Reader) error {
				passed = true
				if size <= maxPopHeld { // nothing is under way: the session may end meanwhile
					p.rest()
					p.mu.Unlock()
					defer p.mu.Lock()
				}
				if err := fn(uid, size, r); err != nil {
					return passedOn{err}
				}
				return nil
			})
		}, func() bool { return passed })
		if err != nil {
			return err
		}
	}
	return nil
}

// passedOn is an error of whoever a message was passed on to.
type passedOn struct{ error }

// FetchHeader gives header fields of a message.
func (p *popSource) FetchHeader(ctx context.Context, uid uint32, fields ...string) (header []byte, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.rest()
	err = p.tried(ctx, uid, func(m popMessage) (err error) {
		header, err = p.drop.header(ctx, m, fields)
		return err
	}, func() bool { return false })
	return header, err
}

// tried does something with a message; where the connection breaks, again on
// another one, unless it must not be done twice. A message that is not there or
// that the server refuses is none.
func (p *popSource) tried(ctx context.Context, uid uint32, do func(popMessage) error, done func() bool) error {
	for try := 0; ; try++ {
		if err := p.ready(ctx); err != nil {
			return err
		}
		m, there := p.find(uid)
		if !there {
			return nil
		}
		err := do(m)
		if err == nil || isRefused(err) {
			return nil
		}
		p.drop.cut()
		if own, ok := errors.AsType[passedOn](err); ok {
			return own.error
		}
		if done() || try+1 >= popTries || ctx.Err() != nil {
			return err
		}
		p.log.Debug("the source broke off, going on with a new session", zap.Uint32("uid", uid), zap.Error(err))
	}
}

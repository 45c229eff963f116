package proxy

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"go.uber.org/zap"

	"migproxy/store"
)

// noticeAge is how long a rendering of the notice stands at least.
const noticeAge = 30 * time.Second

// parkedMessage is one message of a parked mailbox. It never changes.
type parkedMessage struct {
	uid    imap.UID
	date   time.Time
	octets []byte
}

// contents is what a parked mailbox holds at one moment, ordered by UID. It
// never changes.
type contents struct {
	uidValidity uint32
	uidNext     imap.UID
	messages    []*parkedMessage
}

// mailbox is a parked INBOX.
type mailbox interface {
	// contents gives what the mailbox holds now.
	contents(ctx context.Context) contents
}

// parkedUIDValidity is the same for one account at all times, and no UIDVALIDITY
// that a server gives: those are small counters or times since 2001, which are
// above 10^9. other tells two mailboxes of one account apart.
func parkedUIDValidity(a store.Account, other uint32) uint32 {
	const low, span = 500_000_000, 500_000_000
	return uint32(low + (uint64(a.CreatedAt.Unix())+uint64(other))%span)
}

// noticeBox is the parked mailbox of one account in mode notice. All of its
// sessions see the same renderings.
type noticeBox struct {
	notice *notice
	store  *store.Store
	log    *zap.Logger
	now    func() time.Time
	refs   int // guarded by parking.mu

	mu      sync.Mutex
	account store.Account
	shown   noticeData
	checked time.Time
	current contents
}

// contents renders the notice anew where there was progress. An account that
// cannot be read leaves the notice as it is.
func (b *noticeBox) contents(ctx context.Context) contents {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	first := b.current.uidNext == 0
	if !first {
		if now.Sub(b.checked) < noticeAge {
			return b.current
		}
		a, err := b.store.Account(ctx, b.account.Identity.Address())
		if err != nil {
			b.log.Warn("the progress for the notice could not be read", zap.Error(err))
			return b.current
		}
		b.account = a
	}
	b.checked = now
	data := newNoticeData(b.account, b.notice.hostname)
	if !first && data == b.shown {
		return b.current
	}
	uid := b.nextUID(now)
	octets, err := b.notice.render(data, uint32(uid), now)
	if err != nil {
		b.log.Error("the notice could not be rendered: correct parking.template", zap.Error(err))
		octets = nil
	}
	b.shown = data
	b.current = contents{uidValidity: parkedUIDValidity(b.account, 0), uidNext: uid + 1}
	if octets != nil {
		b.current.messages = []*parkedMessage{{uid: uid, date: now, octets: octets}}
	}
	return b.current
}

// nextUID is a UID above all those given before, by this process or by one
// before it: tenths of seconds since the account was begun (13 years of them).
func (b *noticeBox) nextUID(now time.Time) imap.UID {
	ticks := now.Sub(b.account.CreatedAt) / (100 * time.Millisecond)
	uid := imap.UID(max(1, min(ticks, math.MaxUint32-1)))
	return max(uid, b.current.uidNext)
}

// accountBox is the parked mailbox of one account in mode account: the messages
// of the administrator's migration account, or the notice while that cannot be
// read.
type accountBox struct {
	inbox   *sharedInbox
	account store.Account
	notice  mailbox
	log     *zap.Logger
}

func (b *accountBox) contents(ctx context.Context) contents {
	c, ok, err := b.inbox.contents(ctx)
	if err != nil {
		b.log.Warn("parked users see what was read before, or the notice", zap.Error(err))
	}
	if !ok {
		return b.notice.contents(ctx)
	}
	c.uidValidity = parkedUIDValidity(b.account, c.uidValidity)
	return c
}

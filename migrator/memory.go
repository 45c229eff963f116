package migrator

import (
	"sync"
	"time"

	"migproxy/store"
)

// memory is what a process remembers of accounts between their runs. Losing it
// costs repeated tries, no mail.
type memory struct {
	// source and target count the connections that were cut at a message, aside
	// those that the target cut at one that was set aside.
	source, target, aside *cuts

	mu       sync.Mutex
	asked    map[int64]int64
	told     map[int64]bool // of a lack of room
	narrowed map[int64]bool // to one lane
	sizes    map[int64]bool // accounts of which a POP3 source lists wrong sizes
	own      map[int64]ownQuestion
	// Of accounts whose owners work on the source:
	doubted map[int64]time.Time // most of their messages seem to be deleted, since then
	putOff  map[int64]int       // how often the flip was
	slow    map[int64]int       // how often for want of time
	goesOn  map[int64]bool      // it was put off last, and with nothing wrong
	unequal map[int64]int       // how often in a row the two sides were not the same before it
}

func newMemory() *memory {
	return &memory{source: newCuts(), target: newCuts(), aside: newCuts(), asked: map[int64]int64{}, told: map[int64]bool{},
		narrowed: map[int64]bool{}, sizes: map[int64]bool{}, own: map[int64]ownQuestion{},
		doubted: map[int64]time.Time{}, putOff: map[int64]int{}, slow: map[int64]int{}, goesOn: map[int64]bool{},
		unequal: map[int64]int{}}
}

// ask remembers that the administrator was asked whether to move an account
// without so many messages.
func (m *memory) ask(account, messages int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked[account] = messages
}

func (m *memory) wasAsked(account int64) (messages int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[account]
}

// putOffWith remembers that an account was put off, and what the administrator has
// agreed to: that goes on. What he was asked besides is asked anew if need be.
func (m *memory) putOffWith(account, consent int64, heedless bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked[account], m.told[account], m.goesOn[account] = consent, heedless, true
}

// stopped forgets that an account was only put off.
func (m *memory) stopped(account int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.goesOn, account)
}

func (m *memory) wasPutOff(account int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.goesOn[account]
}

// narrow remembers that one of several connections of an account broke off.
func (m *memory) narrow(account int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.narrowed[account] = true
}

func (m *memory) isNarrow(account int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.narrowed[account]
}

// tell remembers that the administrator was told that the target has no room for
// an account.
func (m *memory) tell(account int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told[account] = true
}

func (m *memory) wasTold(account int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.told[account]
}

// ownQuestion was put to the administrator: whose mailbox an account's is.
type ownQuestion struct {
	passwordVersion int64 // of then
	answered        bool  // with retry: it is an account of its own
}

func (m *memory) askWhose(a store.Account) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.own[a.ID] = ownQuestion{passwordVersion: a.PasswordVersion}
}

// isOwn reports whether the administrator has said that the account is one of
// its own. With another password it is looked at anew.
func (m *memory) isOwn(a store.Account) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	q, asked := m.own[a.ID]
	if !asked || q.passwordVersion != a.PasswordVersion {
		return false
	}
	// Retry clears the reason; nothing else does while the account waits.
	q.answered = q.answered || a.Reason == ""
	m.own[a.ID] = q
	return q.answered
}

// unask forgets what the administrator was to be asked: the account could not be
// put down with the question, so that its lack of a reason is no answer.
func (m *memory) unask(account int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.asked, account)
	delete(m.told, account)
	if !m.own[account].answered {
		delete(m.own, account)
	}
}

func (m *memory) forget(account int64) {
	m.source.forget(account)
	m.target.forget(account)
	m.aside.forget(account)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.asked, account)
	delete(m.told, account)
	delete(m.narrowed, account)
	delete(m.sizes, account)
	delete(m.own, account)
	delete(m.doubted, account)
	delete(m.putOff, account)
	delete(m.slow, account)
	delete(m.goesOn, account)
	delete(m.unequal, account)
}

// noteSizesWrong remembers that a POP3 source has listed a large message with
// another size than it has.
func (m *memory) noteSizesWrong(account int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sizes[account] = true
}

func (m *memory) sizesWrong(account int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sizes[account]
}

// cuts counts cut connections, by account and by the message under way.
type cuts struct {
	mu    sync.Mutex
	count map[int64]map[messageKey]int
}

func newCuts() *cuts { return &cuts{count: map[int64]map[messageKey]int{}} }

func (c *cuts) note(account int64, k messageKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count[account] == nil {
		c.count[account] = map[messageKey]int{}
	}
	c.count[account][k]++
}

func (c *cuts) at(account int64, k messageKey) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count[account][k]
}

func (c *cuts) clear(account int64, k messageKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.count[account], k)
	if len(c.count[account]) == 0 {
		delete(c.count, account)
	}
}

func (c *cuts) forget(account int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.count, account)
}

// noteTargetCut counts a cut connection against the messages of a batch that
// were not answered.
func (c *copier) noteTargetCut(b *batch) {
	for _, p := range b.parts {
		if p.refused != nil || p.uids != nil {
			continue
		}
		for _, m := range p.messages {
			c.m.memory.target.note(c.claim.Account.ID, key(c.f, m.meta.UID))
		}
		return // the server had not come to the next one
	}
}

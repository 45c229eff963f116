package proxy

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/store"
)

const (
	// flipQuiet is how long all sessions of an account have to be silent at the
	// same time to be closed for its flip.
	flipQuiet = 2 * time.Second
	// flipQuietLost is the same for a session that cannot be followed, as after
	// COMPRESS (RFC 4978). Of such a one nobody knows whether a command is under
	// way, and one that is closed under way may be repeated by its client. But the
	// account could not flip as long as it is there, and few commands leave a
	// server silent for so long.
	flipQuietLost = 10 * time.Second
	// flipPatience is how long a flip waits for that.
	flipPatience = time.Minute
	// holdTimeout bounds the answer to a flip, for which the sessions are frozen.
	holdTimeout = 10 * time.Second
)

// untilTold stands for a time that depends on what the sessions do.
const untilTold time.Duration = -1

// sourceSessions are the sessions that the proxy has on the sources of the domains
// whose users work there until the flip (parking mode source), and the logins that
// are about to become one. At a flip they are all closed at a moment at which
// none of them does anything.
//
// While the answer that the account is held is written, all its sessions are
// frozen, and no login may begin to ask the source. One that begins later finds
// the account held. So from the moment at which the account is held, the source
// hears nothing from any client.
type sourceSessions struct {
	ctx  context.Context
	hold func(ctx context.Context, id int64) (bool, error) // store.Hold
	log  *zap.Logger
	// Constants, but for tests.
	quiet, quietLost, patience time.Duration

	mu        sync.Mutex
	byAddress map[string]*sourceGroup
	flips     sync.WaitGroup
}

// sourceGroup is what belongs to one account. It exists as long as anything does.
type sourceGroup struct {
	address  string
	sessions map[*sourceSession]struct{}
	flip     *flip
	thawed   chan struct{} // closed when a freeze is over; nil outside of one
	told     chan struct{} // holds a token when a session may have come to a stand
}

// flip is the proxy's part in the flip of an account.
type flip struct {
	id     int64
	cancel context.CancelFunc
	over   bool          // it is being answered, or was taken back
	done   chan struct{} // closed when it has left the sessions alone
}

func newSourceSessions(ctx context.Context, hold func(context.Context, int64) (bool, error), log *zap.Logger) *sourceSessions {
	return &sourceSessions{ctx: ctx, hold: hold, log: log, quiet: flipQuiet, quietLost: flipQuietLost, patience: flipPatience,
		byAddress: make(map[string]*sourceGroup)}
}

// tell wakes the flip.
func (g *sourceGroup) tell() {
	select {
	case g.told <- struct{}{}:
	default:
	}
}

// join announces a login on the source, which holds up the account's flip until the
// session is closed, or has begun and stands still. It waits while the sessions are
// frozen. The account is to be read after it: it may be held.
func (s *sourceSessions) join(ctx context.Context, address string, p config.Protocol, client netip.AddrPort) (*sourceSession, error) {
	for {
		s.mu.Lock()
		g := s.groupLocked(address)
		if g.thawed == nil {
			c := newSourceSession(s, g, p, client)
			g.sessions[c] = struct{}{}
			s.mu.Unlock()
			return c, nil
		}
		thawed := g.thawed
		s.mu.Unlock()
		select {
		case <-thawed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// leave takes a session out, whose connection is closed or never was. One that was
// left in the middle of a command stays for a while: its server may still carry it
// out.
func (s *sourceSessions) leave(c *sourceSession) {
	if rest := c.rest(); rest > 0 {
		time.AfterFunc(rest, func() { s.remove(c) })
		return
	}
	s.remove(c)
}

func (s *sourceSessions) remove(c *sourceSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(c.group.sessions, c)
	c.group.tell()
	s.tidyLocked(c.group)
}

func (s *sourceSessions) groupLocked(address string) *sourceGroup {
	g := s.byAddress[address]
	if g == nil {
		g = &sourceGroup{address: address, sessions: make(map[*sourceSession]struct{}), told: make(chan struct{}, 1)}
		s.byAddress[address] = g
	}
	return g
}

func (s *sourceSessions) tidyLocked(g *sourceGroup) {
	if len(g.sessions) == 0 && g.flip == nil && s.byAddress[g.address] == g {
		delete(s.byAddress, g.address)
	}
}

// changed begins the answer to a flip that asks for the account's sessions to be
// closed, and ends one that is not asked for any more.
func (s *sourceSessions) changed(c store.Change) {
	asked := c.Flipping == store.FlipClosing && parked(c.State)
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.byAddress[c.Address]
	if g == nil && !asked {
		return
	}
	g = s.groupLocked(c.Address)
	before := g.flip
	if before != nil && !before.over && asked {
		return
	}
	if before != nil {
		before.over = true
		before.cancel()
	}
	if !asked {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.patience)
	f := &flip{id: c.AccountID, cancel: cancel, done: make(chan struct{})}
	g.flip = f
	s.flips.Go(func() {
		defer close(f.done)
		defer cancel()
		if before != nil {
			<-before.done
		}
		s.close(ctx, g, f)
		s.mu.Lock()
		defer s.mu.Unlock()
		if g.flip == f {
			g.flip = nil
		}
		s.tidyLocked(g)
	})
}

// close waits until all sessions of an account stand still and are silent, new ones
// too, and closes them.
func (s *sourceSessions) close(ctx context.Context, g *sourceGroup, f *flip) {
	for {
		frozen, again, ok := s.freeze(g, f)
		if ok {
			s.answer(g, f, frozen)
			return
		}
		var moment <-chan time.Time
		if again != untilTold {
			moment = time.After(again)
		}
		select {
		case <-g.told:
		case <-moment:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				s.log.Info("the sessions on the source were not silent at the same time; the flip is put off", zap.String("account", g.address),
					zap.Stringers("busy", s.busy(g)))
			}
			return
		}
	}
}

// busy are the clients that hold up the flip.
func (s *sourceSessions) busy(g *sourceGroup) (clients []netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for c := range g.sessions {
		if !c.still(now) {
			clients = append(clients, c.client)
		}
	}
	return clients
}

// freeze freezes all sessions of an account, or none and says when it may be tried
// again.
func (s *sourceSessions) freeze(g *sourceGroup, f *flip) (frozen []*sourceSession, again time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.over { // taken back: its context has ended
		return nil, untilTold, false
	}
	now := time.Now()
	for c := range g.sessions {
		stands, again := c.freeze(now)
		if !stands {
			thaw(frozen)
			return nil, again, false
		}
		frozen = append(frozen, c)
	}
	g.thawed, f.over = make(chan struct{}), true
	return frozen, 0, true
}

func thaw(sessions []*sourceSession) {
	for _, c := range sessions {
		c.thaw()
	}
}

// answer has the account held and closes its frozen sessions. A worker may begin
// the last pass before they are closed: they have no command under way and pass on
// no other, so that the source has all that it will ever have from them.
func (s *sourceSessions) answer(g *sourceGroup, f *flip, frozen []*sourceSession) {
	ctx, cancel := context.WithTimeout(s.ctx, holdTimeout)
	held, err := s.hold(ctx, f.id)
	cancel()
	log := s.log.With(zap.String("account", g.address), zap.Int("sessions", len(frozen)))
	switch {
	case err != nil:
		// Whether it is held nobody knows. It costs their clients nothing but a
		// login to come back, and costs mail to go on in a mailbox that was left.
		log.Warn("the account could not be held for its flip; its sessions on the source are closed", zap.Error(err))
		end(frozen)
	case held:
		end(frozen)
		if len(frozen) > 0 {
			log.Info("sessions on the source were closed for the flip")
		}
	default: // taken back
		thaw(frozen)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	close(g.thawed)
	g.thawed = nil
}

// end ends sessions together, as each may take a while to say goodbye.
func end(sessions []*sourceSession) {
	var all sync.WaitGroup
	for _, c := range sessions {
		all.Go(c.end)
	}
	all.Wait()
}

// wait waits for the flips that were begun; no change may come any more, and the
// context has ended.
func (s *sourceSessions) wait() { s.flips.Wait() }

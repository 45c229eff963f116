package store

import "sync"

// hub passes changes on to subscribers. What a subscriber has not taken yet is
// kept once for each account and each finished domain, so that its size is
// bounded by theirs.
type hub struct {
	mu     sync.Mutex
	subs   map[*subscription]struct{}
	closed bool
}

type subscription struct {
	events bool
	out    chan Change
	wake   chan struct{} // holds a token when there may be something to send
	stop   chan struct{}
	done   chan struct{}
	once   sync.Once

	mu      sync.Mutex
	pending map[subject]Change
	order   []subject // keys of pending, oldest first
}

// subject is what a change is about: an account, a finished domain, or the
// events.
type subject struct {
	account  int64
	finished string
}

// Subscribe publishes what becomes of accounts, which domains are finished, and,
// when events is true, a Change with AccountID 0 for each new event. A slow subscriber never blocks a
// writer: of several changes of one account, and of several events, it gets at
// least the last. cancel closes the channel.
func (s *Store) Subscribe(events bool) (changes <-chan Change, cancel func()) {
	sub := &subscription{
		events:  events,
		out:     make(chan Change),
		wake:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
		pending: make(map[subject]Change),
	}
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.hub.closed {
		close(sub.out)
		return sub.out, func() {}
	}
	if s.hub.subs == nil {
		s.hub.subs = make(map[*subscription]struct{})
	}
	s.hub.subs[sub] = struct{}{}
	go sub.forward()
	return sub.out, func() {
		s.hub.mu.Lock()
		delete(s.hub.subs, sub)
		s.hub.mu.Unlock()
		sub.end()
	}
}

// publish hands changes to every subscriber without waiting for any.
func (h *hub) publish(changes []Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for sub := range h.subs {
		for _, c := range changes {
			if c.AccountID != 0 || c.Finished != "" || sub.events {
				sub.put(c)
			}
		}
	}
}

// close ends all subscriptions.
func (h *hub) close() {
	h.mu.Lock()
	subs := h.subs
	h.subs, h.closed = nil, true
	h.mu.Unlock()
	for sub := range subs {
		sub.end()
	}
}

func (s *subscription) put(c Change) {
	about := subject{c.AccountID, c.Finished}
	s.mu.Lock()
	if _, waiting := s.pending[about]; !waiting {
		s.order = append(s.order, about)
	}
	s.pending[about] = c
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscription) take() (Change, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.order) == 0 {
		return Change{}, false
	}
	about := s.order[0]
	s.order = s.order[1:]
	c := s.pending[about]
	delete(s.pending, about)
	return c, true
}

// forward sends until the subscription ends.
func (s *subscription) forward() {
	defer close(s.done)
	defer close(s.out)
	for {
		c, ok := s.take()
		if !ok {
			select {
			case <-s.wake:
			case <-s.stop:
				return
			}
			continue
		}
		select {
		case s.out <- c:
		case <-s.stop:
			return
		}
	}
}

// end stops the subscription and waits until its channel is closed.
func (s *subscription) end() {
	s.once.Do(func() { close(s.stop) })
	<-s.done
}

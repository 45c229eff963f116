package proxy

import (
	"errors"
	"net"
	"strings"
	"sync"

	"migproxy/store"
)

// watches passes what becomes of accounts on to the sessions that must end on
// it. There are never more watches than sessions.
type watches struct {
	mu        sync.Mutex
	byAddress map[string]map[*watch]struct{}
	ends      sync.WaitGroup
}

func newWatches() *watches { return &watches{byAddress: make(map[string]map[*watch]struct{})} }

// watch waits for one change of one account.
type watch struct {
	owner   *watches
	address string
	until   func(store.Change) bool
	end     func()        // may be nil
	done    chan struct{} // closed when the change came
	parked  bool          // its session is in a parked mailbox
}

// add begins a watch, which lasts until the account is written and until is true of
// that, until its domain is finished, or until cancel. end is then called once, in a
// goroutine of its own, as a slow connection must not hold up the others.
func (w *watches) add(address string, until func(store.Change) bool, end func()) *watch {
	one := &watch{owner: w, address: address, until: until, end: end, done: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byAddress[address] == nil {
		w.byAddress[address] = make(map[*watch]struct{})
	}
	w.byAddress[address][one] = struct{}{}
	return one
}

// cancel ends the watch without calling its end.
func (o *watch) cancel() {
	o.owner.mu.Lock()
	defer o.owner.mu.Unlock()
	o.owner.removeLocked(o)
}

func (w *watches) removeLocked(o *watch) {
	delete(w.byAddress[o.address], o)
	if len(w.byAddress[o.address]) == 0 {
		delete(w.byAddress, o.address)
	}
}

func (w *watches) changed(c store.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for o := range w.byAddress[c.Address] {
		if o.until(c) {
			w.endLocked(o)
		}
	}
}

// finished ends all watches in a domain: its accounts have the target only, and
// whatever they were to become, they will not.
func (w *watches) finished(domain string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for address, set := range w.byAddress {
		if !strings.HasSuffix(address, "@"+domain) {
			continue
		}
		for o := range set {
			w.endLocked(o)
		}
	}
}

func (w *watches) endLocked(o *watch) {
	w.removeLocked(o)
	close(o.done)
	if o.end != nil {
		w.ends.Go(o.end)
	}
}

// markParked says that the watch's session is in a parked mailbox.
func (o *watch) markParked() {
	o.owner.mu.Lock()
	defer o.owner.mu.Unlock()
	o.parked = true
}

// parked lists the addresses with sessions in parked mailboxes.
func (w *watches) parked() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for address, set := range w.byAddress {
		for o := range set {
			if o.parked {
				list = append(list, address)
				break
			}
		}
	}
	return list
}

// endParked ends the parked sessions of an account.
func (w *watches) endParked(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for o := range w.byAddress[address] {
		if o.parked {
			w.endLocked(o)
		}
	}
}

// wait waits for the ends that were begun; no change may come any more.
func (w *watches) wait() { w.ends.Wait() }

// watchedConn ends its watch when the relay is through with it.
type watchedConn struct {
	net.Conn
	watch *watch
}

// Close closes the connection and ends the watch.
func (c *watchedConn) Close() error {
	c.watch.cancel()
	return c.Conn.Close()
}

// CloseWrite passes a half-close on to connections that know it.
func (c *watchedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

package migrator

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"migproxy/config"
	"migproxy/upstream"
)

const (
	// maxRest bounds the pause that a source can ask for.
	maxRest = time.Hour
	// restAfter is how many tries without progress it counts for that a source asks
	// for a pause and does not say for how long: the first one is a minute.
	restAfter = 5
	// crowdedWait is how long a worker waits for one of the connections to a
	// source, and crowdedPause when it looks again if none came free.
	crowdedWait  = 10 * time.Second
	crowdedPause = 20 * time.Second
)

// rest is an error that says when it is worth trying again.
type rest struct {
	pause time.Duration
	// asked is set where the source itself asked for the pause, of this account.
	asked bool
	err   error
}

func (e *rest) Error() string { return e.err.Error() }
func (e *rest) Unwrap() error { return e.err }

// hosts are the source servers, each with what may be taken from it by all
// accounts together.
type hosts struct {
	limit config.Rate

	mu  sync.Mutex
	all map[string]*host
}

func newHosts(limit config.Rate) *hosts { return &hosts{limit: limit, all: map[string]*host{}} }

// of returns the host of a server, which is known by its addresses.
func (h *hosts) of(server *upstream.Server) *host {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := server.Address()
	if h.all[name] == nil {
		h.all[name] = newHost(name, h.limit)
	}
	return h.all[name]
}

// host is one source server.
type host struct {
	name             string
	messages, octets *rate.Limiter // nil without a limit
	connections      chan struct{} // a value for each one that is open; nil without a limit

	mu    sync.Mutex
	until time.Time // it asked to be left alone until then
}

func newHost(name string, limit config.Rate) *host {
	h := &host{name: name}
	if limit.Messages > 0 {
		h.messages = rate.NewLimiter(rate.Limit(limit.Messages), limit.Messages)
	}
	if limit.Octets > 0 {
		h.octets = rate.NewLimiter(rate.Limit(limit.Octets), limit.Octets)
	}
	if limit.Connections > 0 {
		h.connections = make(chan struct{}, limit.Connections)
	}
	return h
}

// enter takes one of the connections to the host, for which it waits so long,
// unless the host is to be left alone. Whoever entered must leave.
func (h *host) enter(ctx context.Context, patience time.Duration) error {
	h.mu.Lock()
	left := time.Until(h.until)
	h.mu.Unlock()
	if left > 0 {
		return &rest{pause: left, err: fmt.Errorf("%s asked to be left alone for a while: the work goes on by itself", h.name)}
	}
	if h.connections == nil {
		return nil
	}
	select {
	case h.connections <- struct{}{}:
		return nil
	default:
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case h.connections <- struct{}{}:
		return nil
	case <-t.C:
		return &rest{pause: crowdedPause, err: fmt.Errorf("all %d connections to %s that migration.rate.connections allows are in use: the work goes on by itself", cap(h.connections), h.name)}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *host) leave() {
	if h.connections != nil {
		<-h.connections
	}
}

// throttled leaves the host alone for as long as it asks for. Where it does not
// say for how long, it may have a limit for each user: then this account alone
// pauses, for otherwise.
func (h *host) throttled(t *upstream.Throttled, otherwise time.Duration) *rest {
	r := &rest{pause: otherwise, asked: true, err: fmt.Errorf("%s is left alone for a while: %w", h.name, t)}
	if t.Pause <= 0 {
		return r
	}
	r.pause = min(t.Pause, maxRest)
	h.mu.Lock()
	defer h.mu.Unlock()
	if until := time.Now().Add(r.pause); until.After(h.until) {
		h.until = until
	}
	return r
}

// take waits until n messages or octets may be taken. n is at most the limiter's
// burst.
func take(ctx context.Context, l *rate.Limiter, n int) error {
	if l == nil || n == 0 {
		return nil
	}
	turn := l.ReserveN(time.Now(), n)
	delay := turn.Delay()
	if delay == 0 {
		return nil
	}
	if err := wait(ctx, delay); err != nil {
		turn.Cancel()
		return err
	}
	return nil
}

package migrator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"migproxy/store"
)

// errStopped ends the work because the process is to end.
var errStopped = errors.New("the process is stopping")

// halt ends the work on an account for now and says how it is put down.
type halt struct {
	state  store.State // empty: as it is
	retry  bool        // look again by itself after a growing pause
	reason string      // a value of the metric's label reason
	err    error       // what happened and what to do
}

func (h *halt) Error() string { return h.err.Error() }
func (h *halt) Unwrap() error { return h.err }

// later puts the work off. Nothing is wrong, and the account stays as it is, with
// why for the administrator to see.
type later struct {
	pause time.Duration
	why   string
}

func (l *later) Error() string { return l.why }

func isHalt(err error) bool {
	_, ok := errors.AsType[*halt](err)
	return ok
}

// isPasswordHalt reports whether the work ends because of a password.
func isPasswordHalt(err error) bool {
	h, ok := errors.AsType[*halt](err)
	return ok && h.reason == errorPassword
}

// again is trouble that may pass by itself; the account's state stays.
func again(reason string, err error) error { return &halt{retry: true, reason: reason, err: err} }

// putDown ends the claim with what became of the work. err is nil when the
// claim has ended already, by the flip.
func (j *job) putDown(ctx context.Context, err error) {
	if err == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putDownTimeout)
	defer cancel()
	// What was settled has begun the count of attempts anew.
	if errors.Is(err, store.ErrFenced) || errors.Is(j.claim.Refresh(ctx), store.ErrFenced) {
		j.m.memory.unask(j.claim.Account.ID)
		j.log.Info("another worker or the administrator has this account now")
		return
	}
	a := j.claim.Account
	if l, ok := errors.AsType[*later](err); ok && j.stop.Err() == nil {
		j.log.Info("the flip is put off", zap.Error(err), zap.Duration("pause", l.pause))
		if l.why != a.Reason { // the same again is no news
			j.event(ctx, fmt.Sprintf("'%s': %s", j.address, l.why))
		}
		j.m.memory.putOffWith(a.ID, j.consent, j.heedless)
		j.release(ctx, a.State, l.why, time.Now().Add(l.pause), false)
		return
	}
	if errors.Is(err, errStopped) || j.stop.Err() != nil {
		j.release(ctx, a.State, a.Reason, time.Now(), false)
		return
	}
	h := &halt{retry: true, reason: errorInternal, err: err}
	errors.As(err, &h)
	to := h.state
	if to == "" || a.State == store.Active { // it lives on the target, whatever is wrong
		to = a.State
	}
	if _, needs := errors.AsType[*needsPassword](h.err); needs && !a.NeedsPassword {
		if err := j.claim.NeedPassword(ctx, true); err != nil {
			j.log.Error("that the account needs a password could not be noted", zap.Error(err))
		}
	}
	var due time.Time
	if h.retry {
		due = time.Now().Add(j.m.pause(a.Attempts))
	}
	failed := true
	if r, ok := errors.AsType[*rest](err); ok {
		due, failed = time.Now().Add(r.pause), r.asked
	}
	if due.IsZero() {
		if left, err := j.aliasesToRemove(ctx); err != nil || len(left) > 0 {
			due = time.Now().Add(j.m.pause(a.Attempts)) // another's address is not to stay there
		}
	}
	j.m.memory.stopped(a.ID)
	j.m.metrics.errors.WithLabelValues(h.reason).Inc()
	text := h.err.Error()
	j.log.Warn("the move has stopped for now", zap.String("state", string(to)), zap.Error(h.err), zap.Time("due", due))
	if text != a.Reason { // the same trouble again is no news
		j.event(ctx, fmt.Sprintf("'%s': %s", j.address, text))
	}
	j.release(ctx, to, text, due, failed)
}

func (j *job) release(ctx context.Context, to store.State, reason string, due time.Time, failed bool) {
	err := j.claim.Release(ctx, to, reason, due, failed)
	if err != nil {
		j.m.memory.unask(j.claim.Account.ID)
	}
	if err != nil && !errors.Is(err, store.ErrFenced) {
		// The lease runs out, and the account is taken up again.
		j.log.Error("the account could not be put down", zap.Error(err))
	}
	if j.claim.Stopped != "" {
		j.log.Error("THE MIGRATION HAS STOPPED BY ITSELF: no further account begins before it is started again",
			zap.String("domain", j.id.Domain), zap.String("because", j.claim.Stopped))
	}
}

// event writes a line of the migration's log. That log is no part of any
// promise: when the store fails it, the work goes on.
func (j *job) event(ctx context.Context, text string) {
	if err := j.m.o.Store.Event(ctx, j.address, text); err != nil {
		j.log.Warn("an event could not be written", zap.String("event", text), zap.Error(err))
	}
}

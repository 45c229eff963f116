package migrator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/migrator/verify"
	"migproxy/store"
	"migproxy/upstream"
)

const (
	// holdWait is how long whoever has the account's sessions may take to find all of
	// them still: a minute, and then some.
	holdWait = 65 * time.Second
	// flipTime bounds how long logins are held. An account for which that was too
	// short, as with hundreds of folders on a distant server, gets so much more at
	// each try, up to maxFlipTime; its clients are sent away for a moment meanwhile.
	flipTime    = 30 * time.Second
	maxFlipTime = 4 * flipTime
	// maxHeld is how many passes there may be meanwhile. Nobody works on the source
	// by then; only mail may be delivered there.
	maxHeld = 3
	// maxPutOff bounds the pause after a flip that was put off, and firstPutOff is
	// the number of tries by which pause counts the first one.
	maxPutOff   = 5 * time.Minute
	firstPutOff = 4
	// maxUnequal is how often in a row the two sides may not be the same.
	maxUnequal = 3
)

var errFlipTime = errors.New("the flip took too long")

// flipParked ends the parking of an account on the source: its sessions are closed
// at a quiet moment, logins wait for a last pass, and the next ones go to the
// target. What does not come to an end in time is taken back, and is tried again.
func (j *job) flipParked(ctx context.Context) error {
	if err := j.awaitHold(ctx); err != nil {
		return j.takeBack(ctx, err)
	}
	j.held = true
	j.m.step(stepFlipHeld)
	limit := min(j.m.flipTime*time.Duration(1+j.m.memory.tooLong(j.claim.Account.ID)), maxFlipTime)
	held, cancel := context.WithTimeoutCause(ctx, limit, errFlipTime)
	defer cancel()
	err := j.passHeld(held)
	if err == nil {
		err = j.flip(held)
	}
	if err != nil && errors.Is(context.Cause(held), errFlipTime) {
		j.log.Info("the flip took too long", zap.Error(err))
		j.m.memory.noteTooLong(j.claim.Account.ID)
		err = j.putOff(putOffTime, fmt.Sprintf("the flip was taken back, since its last pass took longer than %v: it is tried again later", limit))
	}
	if err != nil {
		return j.takeBack(ctx, err)
	}
	return nil
}

// takeBack lets logins go to the source again, and returns why.
func (j *job) takeBack(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putDownTimeout)
	defer cancel()
	if err := j.claim.EndFlip(ctx); err != nil && !errors.Is(err, store.ErrFenced) {
		// To put the account down does it too.
		j.log.Error("a flip could not be taken back", zap.Error(err))
	}
	return cause
}

// putOff counts why the flip was put off, and says when it is tried again.
func (j *job) putOff(reason, why string) *later {
	j.m.metrics.putOff.WithLabelValues(reason).Inc()
	n := j.m.memory.countPutOff(j.claim.Account.ID)
	return &later{pause: min(j.m.pause(firstPutOff+n-1), maxPutOff), why: why}
}

func (m *memory) countPutOff(account int64) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.putOff[account]++
	return m.putOff[account]
}

// noteTooLong counts the flips of an account that were taken back for want of time.
func (m *memory) noteTooLong(account int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slow[account]++
}

func (m *memory) tooLong(account int64) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.slow[account]
}

// countUnequal counts how often in a row the two sides were not the same.
func (m *memory) countUnequal(account int64, equal bool) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unequal[account]++
	if equal {
		delete(m.unequal, account)
	}
	return m.unequal[account]
}

// awaitHold asks for the account's sessions to be closed, and waits until there is
// none and logins wait.
func (j *job) awaitHold(ctx context.Context) error {
	changes, cancel := j.m.o.Store.Subscribe(false)
	defer cancel()
	if err := j.claim.BeginFlip(ctx); err != nil {
		return err
	}
	j.m.step(stepFlipClosing)
	timer := time.NewTimer(j.m.holdWait)
	defer timer.Stop()
	for {
		if err := j.claim.Refresh(ctx); err != nil {
			return err
		}
		if j.claim.Account.Flipping == store.FlipHeld {
			return nil
		}
		for about := int64(0); about != j.claim.Account.ID; {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-j.stop.Done():
				return errStopped
			case <-timer.C:
				return j.putOff(putOffSession, "a session on the source was never silent (the proxy's log names its client), so that the flip was put off: it is tried again later")
			case c, open := <-changes:
				if !open {
					return errStopped // the store is closed
				}
				about = c.AccountID
			}
		}
	}
}

// passHeld is what is left to do while logins wait: the last passes, and the proof
// that both sides are the same.
func (j *job) passHeld(ctx context.Context) error {
	var found change
	for n := 0; ; n++ {
		before := found.flags
		var err error
		if found, err = j.mirrorPass(ctx); err != nil {
			return err
		}
		// Flags that are to be changed again and again are not kept by the target.
		if found.messages == 0 && (found.flags == 0 || n > 0 && found.flags == before) {
			break
		}
		if n+1 == maxHeld {
			return j.putOff(putOffArrivals, "mail arrives on the source faster than it is copied, so that the flip was taken back: it is tried again later")
		}
	}
	if err := j.tooManyAside(); err != nil {
		return err
	}
	j.m.step(stepCompared)
	if err := j.proveEqual(ctx, found.flags+found.others); err != nil {
		return err
	}
	j.m.step(stepFlipVerified)
	j.event(ctx, fmt.Sprintf("Messages for '%s' migrated, %d messages", j.address, j.claim.Account.Messages))
	j.report(ctx)
	return nil
}

// proveEqual verifies the account as `migproxy verify` does, and keeps the result
// as an event. flags is how many messages have other flags on the target than on the
// source, as it does not keep them or as migproxy has not appended these messages.
func (j *job) proveEqual(ctx context.Context, flags int) error {
	j.disconnect() // the servers may count connections
	result := j.verify(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	t := &result.Total
	different := t.Wrong() - t.Flags - t.Dates + max(0, t.Flags-int64(flags))
	if j.mirrorsDeletions() {
		// Nothing is accounted for by another folder's message any more.
		different += max(0, t.Gone-int64(j.left)) + t.Moved
	}
	what := t.Remarks()
	if result.Problem != "" {
		what = result.Problem
	}
	if result.Problem == "" && different > 0 && different == t.NotCopied { // it has arrived since the last pass
		return j.putOff(putOffArrivals, "the flip was taken back, since mail arrived in its last moment: "+what)
	}
	equal := result.Problem == "" && different == 0
	tries := j.m.memory.countUnequal(j.claim.Account.ID, equal)
	if equal {
		folders := 0
		for _, f := range j.here.mailboxes {
			if selectable(f) {
				folders++
			}
		}
		text := fmt.Sprintf("Verified before the flip: %d folders, %d messages, %d octets: equal", folders, t.SourceSide.Messages, t.SourceSide.Octets)
		if remarks := t.Remarks(); remarks != "" {
			text += "; beside that: " + remarks
		}
		j.event(ctx, text)
		return nil
	}
	if tries < maxUnequal {
		return j.putOff(putOffUnequal, "the flip was taken back, since the two sides are not the same: "+what)
	}
	j.m.memory.countUnequal(j.claim.Account.ID, true) // the administrator's retry begins anew
	return &halt{state: store.Failed, reason: errorCompare,
		err: fmt.Errorf("the two sides are not the same, also after %d tries to flip: %s: look with `migproxy verify %s`, see what changes mail on the target, then `migproxy account retry %s`", tries, what, j.address, j.address)}
}

// verify is Verify with what has opened the two servers in this run.
func (j *job) verify(ctx context.Context) verify.Account {
	login := func(server *upstream.Server, creds upstream.Credentials) verify.Login {
		return func(ctx context.Context) (*upstream.Session, error) { return j.session(ctx, server, creds) }
	}
	return verify.Run(ctx, verify.Options{Store: j.m.o.Store, Account: j.claim.Account, Timeout: j.m.ioTimeout, OwnKeywords: true,
		Source: login(j.domain.Source.Over(config.IMAP), j.sourceCreds), SourceDrop: j.m.verifySource(j.claim.Account),
		Target: login(j.domain.Target.IMAP, j.targetCreds)})
}

package proxy

import (
	"time"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

// facts is all that the decision about a login depends on.
type facts struct {
	account *store.Account // nil: the account has no row
	// may: the account is in the wave and its domain's migration is active.
	// Looked at only where an account could begin.
	may   bool
	mode  config.Mode
	adopt bool
	// creates: accounts can be created on the target.
	creates bool
	// finished: the migration of the domain is, and its source is never asked.
	finished bool
	// delegated: somebody logs in for this account with an identity of his own.
	delegated bool
	// stale: the work stopped, and nothing has been settled for longer than
	// parking.max.
	stale bool
	// tried: the work on the account has stopped with this very password.
	tried bool
	// works: users go on working on the source until the flip (parking mode source).
	works bool
	// What the servers said to these credentials; 0 where not asked yet.
	target, source upstream.Outcome
}

// action is what is to be done next about a login.
type action int

const (
	actAskTarget action = iota + 1
	actAskSource
	actRelayTarget
	actRelaySource
	actNoteNative   // write native, relay to the target
	actNoteAtSource // write at_source, relay to the source
	actBegin        // commit provisioning with the sealed password
	actAdopt        // the same, copying into what is there
	actPark         // the account is being moved, and the password is right
	actAwait        // the last pass before the flip is under way
	actRevive       // if the password is a new one, seal it and begin the work again
	actReject
)

// verdict is an action, for reject with what the client is told.
type verdict struct {
	action  action
	outcome upstream.Outcome
}

func act(a action) verdict { return verdict{action: a} }

// rejectWith rejects with what a server said.
func rejectWith(o upstream.Outcome) verdict { return verdict{action: actReject, outcome: o} }

// missed: a server said that the password is wrong, whatever the other says.
func (f facts) missed() bool { return f.target == upstream.Miss || f.source == upstream.Miss }

// decide is the policy: one case for each row of the table in the design. It
// is asked again after every answer and every change of the account's row,
// until it says something final.
func decide(f facts) verdict {
	switch {
	case f.finished:
		return onlyTarget(f)
	case f.account != nil && held(*f.account):
		return act(actAwait)
	case f.delegated:
		return decideDelegated(f)
	case f.account == nil:
		return decideUnknown(f)
	case livesOnTarget(*f.account):
		return onlyTarget(f)
	}
	switch f.account.State {
	case store.AtSource:
		return decideAtSource(f)
	case store.Provisioning, store.Copying:
		return decideMoving(f)
	case store.Failed, store.Waiting:
		return decideStopped(f)
	case store.Conflict, store.Excluded:
		return decideKept(f)
	}
	return rejectWith(upstream.Unavailable)
}

// livesOnTarget: the account has flipped, or was on the target before and its
// old mail is copied to it.
func livesOnTarget(a store.Account) bool {
	if a.Moved() {
		return true
	}
	return parked(a.State) && (!a.FlippedAt.IsZero() || a.Origin == store.OriginAdopted)
}

// held: nobody gets a mailbox now. The source's has been left, and the target's is
// not complete yet.
func held(a store.Account) bool {
	return a.Flipping == store.FlipHeld && parked(a.State) && !livesOnTarget(a)
}

// worksOnSource: instead of being parked, the account's user goes on in his old
// mailbox. Where only a password moves, its owner is never parked.
func (f facts) worksOnSource() bool { return f.works && f.account.Mode != config.ModePasswords }

// onlyTarget: the target's answer counts, and the source is never asked.
func onlyTarget(f facts) verdict {
	switch f.target {
	case 0:
		return act(actAskTarget)
	case upstream.Accepted:
		return act(actRelayTarget)
	}
	return rejectWith(f.target)
}

func decideUnknown(f facts) verdict {
	switch f.target {
	case 0:
		return act(actAskTarget)
	case upstream.Accepted:
		return onTarget(f)
	case upstream.Miss:
		return targetMissed(f)
	case upstream.Unavailable:
		if !f.may {
			return targetAway(f)
		}
	}
	return rejectWith(f.target)
}

// onTarget: the target lets a user in that migproxy does not know as moved.
func onTarget(f facts) verdict {
	if !f.adopt || f.mode == config.ModePasswords {
		return act(actNoteNative)
	}
	switch f.source {
	case 0:
		return act(actAskSource)
	case upstream.Accepted:
		if f.may {
			return act(actAdopt)
		}
		return act(actNoteAtSource)
	case upstream.Miss:
		return act(actNoteNative)
	}
	return rejectWith(f.source)
}

func targetMissed(f facts) verdict {
	switch f.source {
	case 0:
		return act(actAskSource)
	case upstream.Accepted:
		if f.may && f.creates {
			return act(actBegin)
		}
		return act(actNoteAtSource)
	}
	return rejectWith(f.source)
}

// targetAway: no account may begin here now, so that a user whom the source
// knows need not wait for the target. Nothing is written, as nobody knows
// whether the target has him too.
func targetAway(f facts) verdict {
	switch f.source {
	case 0:
		return act(actAskSource)
	case upstream.Accepted:
		return act(actRelaySource)
	case upstream.Miss:
		return rejectWith(upstream.Unavailable)
	}
	return rejectWith(f.source)
}

func decideAtSource(f facts) verdict {
	switch f.source {
	case 0:
		return act(actAskSource)
	case upstream.Miss:
		switch f.target {
		case 0:
			return act(actAskTarget)
		case upstream.Accepted:
			return act(actNoteNative)
		}
		return rejectWith(f.target)
	case upstream.Accepted:
		if !f.may {
			return act(actRelaySource)
		}
		switch f.target {
		case 0:
			return act(actAskTarget)
		case upstream.Accepted:
			return onTarget(f)
		case upstream.Miss:
			if f.creates {
				return act(actBegin)
			}
			return act(actRelaySource)
		case upstream.Unavailable:
			return act(actRelaySource)
		}
		return rejectWith(f.target)
	}
	return rejectWith(f.source)
}

func decideMoving(f facts) verdict {
	switch f.source {
	case 0:
		return act(actAskSource)
	case upstream.Accepted:
		if f.stale || f.worksOnSource() {
			return act(actRelaySource)
		}
		return act(actPark)
	case upstream.Unavailable:
		if f.worksOnSource() {
			break // the target has half of it
		}
		// The target may have the account already, with a password proved before.
		switch f.target {
		case 0:
			return act(actAskTarget)
		case upstream.Accepted:
			return act(actPark)
		}
	}
	return rejectWith(f.source)
}

func decideStopped(f facts) verdict {
	switch f.source {
	case 0:
		return act(actAskSource)
	case upstream.Accepted:
		switch {
		case !f.tried:
			return act(actRevive)
		case f.stale, f.worksOnSource():
			return act(actRelaySource)
		}
		return act(actPark)
	}
	return rejectWith(f.source)
}

// decideKept: migproxy does not move this account.
func decideKept(f facts) verdict {
	switch f.source {
	case 0:
		return act(actAskSource)
	case upstream.Accepted:
		return act(actRelaySource)
	case upstream.Miss:
		o := f.account.Origin
		if o == store.OriginFree || o == store.OriginCreated {
			return rejectWith(upstream.Miss) // what is on the target may be our own half-made account
		}
		return onlyTarget(f)
	}
	return rejectWith(f.source)
}

// decideDelegated never writes anything: whoever logs in for another proves
// nothing about the other's password.
func decideDelegated(f facts) verdict {
	switch {
	case f.account == nil:
		if f.target == upstream.Miss {
			switch f.source {
			case 0:
				return act(actAskSource)
			case upstream.Accepted:
				return act(actRelaySource)
			}
			return rejectWith(f.source)
		}
		return onlyTarget(f)
	case livesOnTarget(*f.account):
		return onlyTarget(f)
	}
	switch f.account.State {
	case store.Provisioning, store.Copying:
		if !f.worksOnSource() {
			return rejectWith(upstream.Held)
		}
	}
	switch f.source {
	case 0:
		return act(actAskSource)
	case upstream.Accepted:
		return act(actRelaySource)
	}
	return rejectWith(f.source)
}

// isStale reports whether nothing has been settled for longer than limit.
func isStale(a store.Account, limit time.Duration, now time.Time) bool {
	last := a.CreatedAt
	if a.ProgressAt.After(last) {
		last = a.ProgressAt
	}
	return now.Sub(last) > limit
}

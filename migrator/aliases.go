package migrator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"migproxy/aliasresolve"
	"migproxy/provision"
	"migproxy/store"
)

// carryOutAliases does on the target what was decided of the account's aliases.
// One that cannot be added keeps nobody from his mail.
func (j *job) carryOutAliases(ctx context.Context) error {
	if err := j.removeAliases(ctx); err != nil {
		return err
	}
	return j.createAliases(ctx)
}

// mayChangeAliases: what was there before is not changed.
func (j *job) mayChangeAliases() bool {
	return j.claim.Account.Origin == store.OriginCreated && j.driver != nil
}

// createAliases adds the approved addresses. That the target may have one is
// committed before it is added, so that it is taken away if it turns out to be
// another's.
func (j *job) createAliases(ctx context.Context) error {
	if !j.mayChangeAliases() || j.claim.Account.State == store.Excluded {
		return nil
	}
	aliases, err := j.claim.AliasesToCreate(ctx)
	if err != nil {
		return err
	}
	for _, a := range aliases {
		j.m.step(stepAliasBefore)
		if begun, err := j.claim.BeginAlias(ctx, a.Address); err != nil {
			return err
		} else if !begun {
			continue
		}
		j.m.step(stepAliasBegun)
		state, reason := store.AliasCreated, ""
		err := j.driver.AddAlias(ctx, j.id, a.Address)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, provision.ErrTaken):
			state, reason = store.AliasTaken, "the target has this address already"
		case err != nil:
			state, reason = store.AliasFailed, err.Error()
		}
		j.m.step(stepAliasAfter)
		if err := j.claim.NoteAlias(ctx, a.Address, state, reason); err != nil {
			return err
		}
		j.m.step(stepAliasCommitted)
		text := fmt.Sprintf("'%s': alias %s %s", j.address, a.Address, state)
		if reason != "" {
			text += ": " + strings.TrimSpace(reason)
		}
		j.event(ctx, text)
	}
	return nil
}

// removeAliases takes those away again that turned out not to be the account's.
// What cannot be taken away now is tried again at each look at the account.
func (j *job) removeAliases(ctx context.Context) error {
	aliases, err := j.aliasesToRemove(ctx)
	if err != nil {
		return err
	}
	for _, a := range aliases {
		err := j.driver.RemoveAlias(ctx, j.id, a.Address)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, provision.ErrNoAliases) { // which never had any
			if err := j.noteStuck(ctx, a, err); err != nil {
				return err
			}
			continue
		}
		j.m.step(stepAliasRemoved)
		if err := j.claim.NoteAliasRemoved(ctx, a.Address, whyRemoved(a)); err != nil {
			return err
		}
		j.event(ctx, fmt.Sprintf("'%s': alias %s removed on the target", j.address, a.Address))
	}
	return nil
}

// stuck begins what is added to the reason of an alias that could not be taken
// away.
const stuck = "still on the target: "

// whyRemoved is the reason of an alias without what kept it on the target.
func whyRemoved(a store.Alias) string {
	reason, _, _ := strings.Cut(a.Reason, stuck)
	return strings.TrimSuffix(reason, "; ")
}

// noteStuck says that an alias could not be taken away; the same again is no news.
func (j *job) noteStuck(ctx context.Context, a store.Alias, cause error) error {
	reason := whyRemoved(a)
	if reason != "" { // one that was rejected has none
		reason += "; "
	}
	if reason += stuck + strings.TrimSpace(cause.Error()); reason == a.Reason {
		return nil
	}
	j.log.Warn("an alias could not be taken away on the target", zap.String("alias", a.Address), zap.Error(cause))
	j.event(ctx, fmt.Sprintf("'%s': alias %s is to be removed on the target, and could not be: %s", j.address, a.Address, strings.TrimSpace(cause.Error())))
	return j.claim.NoteAliasStuck(ctx, a.Address, reason)
}

// reclaimName makes sure that the account's own name is no alias that was found
// in somebody else's mailbox, before the target is asked whether it is free.
func (j *job) reclaimName(ctx context.Context) error {
	own, ok := aliasresolve.Normalise(j.address)
	if !ok {
		return nil // such a name is in no claim
	}
	free, err := j.claim.ReclaimName(ctx, own)
	if err == nil && !free {
		err = again(errorProvision, errors.New("the address is still an alias of another account on the target: it is taken away there first"))
	}
	return err
}

// aliasesToRemove lists what is to be taken away on the target and can be.
func (j *job) aliasesToRemove(ctx context.Context) ([]store.Alias, error) {
	if !j.mayChangeAliases() {
		return nil, nil
	}
	return j.claim.AliasesToRemove(ctx)
}

// aliasesAlone reports whether nothing but aliases is left to see to: the account
// is finished, or does not move, or the source of its domain is not asked any more.
func (j *job) aliasesAlone(ctx context.Context) (bool, error) {
	switch j.claim.Account.State {
	case store.Finished, store.Excluded:
		return true, nil
	case store.Active:
		d, err := j.m.o.Store.DomainState(ctx, j.id.Domain)
		return d.Finished, err
	}
	return false, nil
}

// afterMove does what is left to do about the aliases of an account for which
// nothing else is. Its source is not asked.
func (j *job) afterMove(ctx context.Context) error {
	if j.claim.Account.Moved() {
		if err := j.decideAliases(ctx); err != nil {
			return err
		}
	}
	if err := j.carryOutAliases(ctx); err != nil {
		return err
	}
	left, err := j.aliasesToRemove(ctx)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return again(errorProvision, fmt.Errorf("the alias %s could not be removed on the target: look at provision, or remove it there by hand", left[0].Address))
	}
	return j.claim.Release(ctx, j.claim.Account.State, "", time.Time{}, false)
}

package migrator

import (
	"context"
	"errors"
	"fmt"

	"migproxy/config"
	"migproxy/provision"
	"migproxy/store"
	"migproxy/upstream"
)

func errNoDriver(domain string) error {
	return &halt{state: store.Waiting, reason: errorProvision,
		err: fmt.Errorf("domains: %s: target.provision.driver is none, so no account and no password can be set on the target: create it there by hand, then `migproxy account retry`; or name a driver", domain)}
}

// provision makes sure that the account is on the target. Each decision is
// committed before it is carried out, so that after a crash an account of this
// name is known to be ours, or known not to be.
func (j *job) provision(ctx context.Context) error {
	switch o := j.claim.Account.Origin; o {
	case store.OriginCreated, store.OriginAdopted:
		if j.claim.Account.State == store.Copying {
			return nil
		}
		return j.claim.SetOrigin(ctx, o) // it goes on where it had to wait
	}
	if j.driver == nil {
		return errNoDriver(j.id.Domain)
	}
	if err := j.reclaimName(ctx); err != nil {
		return err
	}
	free, err := j.lookup(ctx)
	if err != nil {
		return err
	}
	password, err := j.targetPassword(ctx)
	if err != nil {
		return err
	}
	if !free {
		return j.claimTaken(ctx, password)
	}
	if password, err = j.ensurePassword(ctx, password); err != nil {
		return err
	}
	return j.create(ctx, password)
}

// ensurePassword is the password to create the account with. It is sealed for the
// target's side before, so that after a crash it opens what was created even if
// its owner has given another one since. As long as the account may have been
// created all the same, no other is taken; the newest is set once it is there.
func (j *job) ensurePassword(ctx context.Context, newest config.Secret) (config.Secret, error) {
	kept, _, err := j.m.o.Store.Password(ctx, j.claim.Account.ID, store.SideTarget)
	switch a := j.claim.Account; {
	case err != nil && !errors.Is(err, store.ErrNoPassword):
		return kept, err
	case err == nil && (kept.Reveal() == newest.Reveal() || a.Origin == store.OriginFree && a.Attempts < oursTries):
		return kept, nil
	}
	return newest, j.claim.SealStandIn(ctx, newest)
}

// lookup asks whether the account's name is free on the target.
func (j *job) lookup(ctx context.Context) (free bool, err error) {
	j.m.step(stepLookup)
	err = j.driver.Lookup(ctx, j.id)
	if err == nil || errors.Is(err, provision.ErrTaken) {
		return err == nil, nil
	}
	return false, again(errorProvision, fmt.Errorf("whether the target has this account could not be learnt: %w", err))
}

// create commits that the name is free, creates the account, and commits that.
func (j *job) create(ctx context.Context, password config.Secret) error {
	if j.claim.Account.Origin == store.OriginUnknown {
		if err := j.claim.SetOrigin(ctx, store.OriginFree); err != nil {
			return err
		}
		j.m.step(stepFreeCommitted)
	}
	j.m.step(stepEnsureBefore)
	err := j.driver.Ensure(ctx, j.id, password)
	if errors.Is(err, provision.ErrTaken) {
		return j.claimTaken(ctx, password)
	}
	if err != nil {
		return again(errorProvision, fmt.Errorf("the account could not be created on the target: %w", err))
	}
	j.m.step(stepEnsureAfter)
	if err := j.claim.SetOrigin(ctx, store.OriginCreated); err != nil {
		return err
	}
	j.m.step(stepCreated)
	return nil
}

// oursTries is how often an account that may be ours is tried before it counts
// as somebody else's: servers take a while to see a new one (a Dovecot reads
// its passwd-file once a second, and its cache may hold a miss for longer).
const oursTries = 6

// claimTaken decides whose an account is that was found on the target. It is
// ours only if its name was committed as free before and a sealed password opens
// it, the one to create it with or the newest: then a crash came between creating
// and committing that.
func (j *job) claimTaken(ctx context.Context, password config.Secret) error {
	conflict := &halt{state: store.Conflict, reason: errorConflict,
		err: errors.New("the target has an account or address of this name that migproxy did not make: nothing was written there; remove or rename it and `migproxy account retry`, or leave this account at the source with `migproxy account exclude`")}
	if j.claim.Account.Origin != store.OriginFree {
		return conflict
	}
	kept, _, err := j.m.o.Store.Password(ctx, j.claim.Account.ID, store.SideTarget)
	if err != nil && !errors.Is(err, store.ErrNoPassword) {
		return err
	}
	err = j.tryTarget(ctx, password)
	if outcome(err) == upstream.Miss && !kept.IsZero() && kept.Reveal() != password.Reveal() {
		err = j.tryTarget(ctx, kept)
	}
	switch outcome(err) {
	case upstream.Accepted:
	case upstream.Miss, upstream.Refused:
		if j.claim.Account.Attempts < oursTries {
			return again(errorProvision, errors.New("the target has this account, which was free a moment ago, but does not let it in with the password given; it is tried again before it counts as somebody else's"))
		}
		return conflict
	default:
		return targetTrouble(err)
	}
	if err := j.claim.SetOrigin(ctx, store.OriginCreated); err != nil {
		return err
	}
	j.m.step(stepCreated)
	return nil
}

// setPassword is the whole move in mode passwords: the account gets the
// password, whether it was there or not, the target proves it, and that is all.
func (j *job) setPassword(ctx context.Context) error {
	if j.driver == nil {
		return errNoDriver(j.id.Domain)
	}
	for {
		password, version, err := j.password(ctx)
		if err != nil {
			return err
		}
		if err := j.trySource(ctx, password); err != nil {
			return err
		}
		if err := j.giveAccount(ctx, password); err != nil {
			return err
		}
		if err := j.tryTarget(ctx, password); err != nil {
			return targetTrouble(err)
		}
		done, err := j.commitFlip(ctx, store.Finished, version)
		if done || err != nil {
			return err
		}
	}
}

// trySource makes sure that the source takes a password before it is set on the
// target, over whatever protocol it has.
func (j *job) trySource(ctx context.Context, password config.Secret) error {
	server := j.domain.Source.IMAP
	if server == nil {
		server = j.domain.Source.POP3
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	session, err := server.Login(ctx, upstream.Credentials{Identity: j.id, Password: password}, upstream.Client{})
	switch outcome(err) {
	case upstream.Accepted:
		_ = session.Conn.Close() // that it was let in is the whole answer
		return nil
	case upstream.Miss:
		return &halt{state: store.Waiting, reason: errorPassword,
			err: errors.New("the source does not take this password, so it was not set on the target: waiting for the user's next login")}
	}
	return again(errorSource, fmt.Errorf("the source cannot be asked: %w", err))
}

// giveAccount creates the account with this password, or sets it on one that
// is there, which is what the setting mode: passwords asks for.
func (j *job) giveAccount(ctx context.Context, password config.Secret) error {
	if err := j.reclaimName(ctx); err != nil {
		return err
	}
	free, err := j.lookup(ctx)
	if err != nil {
		return err
	}
	if free {
		return j.create(ctx, password)
	}
	j.m.step(stepPasswordBefore)
	if err := j.driver.SetPassword(ctx, j.id, password); err != nil {
		return again(errorProvision, fmt.Errorf("the password could not be set on the target: %w", err))
	}
	j.m.step(stepPasswordAfter)
	return nil
}

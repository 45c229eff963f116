package migrator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"migproxy/config"
	"migproxy/provision"
	"migproxy/store"
)

// targetPassword is the password with which the account is written on the
// target before the flip, where we create it: the one that has opened the source
// in this run or, where a master user did, one of our own. It is sealed before it is
// used.
func (j *job) targetPassword(ctx context.Context) (config.Secret, error) {
	if password := j.sourceCreds.Password; !password.IsZero() {
		return password, nil
	}
	password, _, err := j.m.o.Store.Password(ctx, j.claim.Account.ID, store.SideTarget)
	if !errors.Is(err, store.ErrNoPassword) {
		return password, err
	}
	password = config.NewSecret(rand.Text())
	return password, j.claim.SealStandIn(ctx, password)
}

// createAliases adds the addresses that the administrator has approved. One that
// cannot be added keeps nobody from his mail.
func (j *job) createAliases(ctx context.Context) error {
	if j.claim.Account.Origin != store.OriginCreated || j.driver == nil {
		return nil // what was there before is not changed
	}
	aliases, err := j.claim.AliasesToCreate(ctx)
	if err != nil {
		return err
	}
	for _, a := range aliases {
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
		if err := j.claim.NoteAlias(ctx, a.Address, state, reason); err != nil {
			return err
		}
		text := fmt.Sprintf("'%s': alias %s %s", j.address, a.Address, state)
		if reason != "" {
			text += ": " + strings.TrimSpace(reason)
		}
		j.event(ctx, text)
	}
	return nil
}

// errOwner: everything is copied, and nobody has proved the owner's password.
var errOwner = errors.New("the mail is copied, and the owner's password is not known: he moves at his next login; until then his old mailbox is looked at again and again")

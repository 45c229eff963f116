package migrator

import (
	"context"
	"crypto/rand"
	"errors"

	"migproxy/config"
	"migproxy/store"
)

// targetPassword is the password with which the account is written on the
// target before the flip: its owner's or, as long as that is not known, one of
// our own, for an account that we create. It is sealed before it is used. For an
// account that was there the error is store.ErrNoPassword.
func (j *job) targetPassword(ctx context.Context) (config.Secret, error) {
	for _, side := range []store.Side{store.SideSource, store.SideTarget} {
		password, _, err := j.m.o.Store.Password(ctx, j.claim.Account.ID, side)
		if !errors.Is(err, store.ErrNoPassword) {
			return password, err
		}
	}
	if j.claim.Account.Origin == store.OriginAdopted {
		return config.Secret{}, store.ErrNoPassword
	}
	password := config.NewSecret(rand.Text())
	return password, j.claim.SealStandIn(ctx, password)
}

// errOwner: everything is copied, and nobody has proved the owner's password.
var errOwner = errors.New("the mail is copied, and the owner's password is not known: he moves at his next login; until then his old mailbox is looked at again and again")

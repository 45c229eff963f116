package migrator

import (
	"context"
	"crypto/rand"
	"errors"

	"migproxy/config"
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

// errOwner: everything is copied, and nobody has proved the owner's password.
var errOwner = errors.New("the mail is copied, and the owner's password is not known: he moves at his next login; until then his old mailbox is looked at again and again")

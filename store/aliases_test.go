package store

import (
	"errors"
	"testing"
	"time"

	"migproxy/config"
)

// aliasOf gives an alias of an account.
func aliasOf(t *testing.T, s *Store, local, address string) Alias {
	t.Helper()
	a, err := s.FindAlias(t.Context(), address, identity(local).Address())
	ok(t, err)
	return a
}

// decided has an account found to have an address, in the state that is given.
func decided(t *testing.T, c *Claim, address string, state AliasState) {
	t.Helper()
	_, err := c.DecideAliases(t.Context(), "1", func(*AliasEvidence) (AliasRulings, error) {
		return AliasRulings{Aliases: []AliasRuling{{Address: address, State: state}}, Shown: []string{address}}, nil
	})
	ok(t, err)
}

// created has an account created on the target, with an alias that was found.
func created(t *testing.T, s *Store, local, address string) *Claim {
	t.Helper()
	begin(t, s, local, "secret")
	c := claim(t, s)
	ok(t, c.SetOrigin(t.Context(), OriginCreated))
	decided(t, c, address, AliasApproved)
	_, err := c.BeginAlias(t.Context(), address)
	ok(t, err)
	ok(t, c.NoteAlias(t.Context(), address, AliasCreated, ""))
	return c
}

const rossi = "a.rossi@example.com"

// What the administrator gives is his word, also where it was found before and is
// on the target already.
func TestGivenAliasIsNotWithdrawn(t *testing.T) {
	s := openDir(t, t.TempDir())
	c := created(t, s, "anna", rossi)
	_, _, err := s.Migrate(t.Context(), NewAccount{Identity: identity("anna"), Aliases: []string{rossi}, Mode: config.ModeAccounts})
	ok(t, err)
	if a := aliasOf(t, s, "anna", rossi); a.State != AliasCreated || a.Origin != AliasGiven {
		t.Errorf("%+v", a)
	}
	ok(t, c.Release(t.Context(), Waiting, "x", time.Time{}, true))
	begin(t, s, "bert", "secret")
	decided(t, claim(t, s), rossi, AliasWithdrawn)
	if a := aliasOf(t, s, "anna", rossi); a.State != AliasCreated {
		t.Errorf("%+v", a)
	}
}

// A name under which somebody else logs in is nobody's to be given as an alias.
func TestApproveRefusesALoginName(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "bert", "secret")
	ok(t, s.GiveLoginAlias(t.Context(), rossi, "bert@example.com"))
	ok(t, claim(t, s).Release(t.Context(), Waiting, "x", time.Time{}, true))
	begin(t, s, "anna", "secret")
	decided(t, claim(t, s), rossi, AliasWithdrawn)
	if _, err := s.ApproveAlias(t.Context(), rossi, "anna@example.com"); !errors.Is(err, ErrHeld) {
		t.Errorf("approved: %v", err)
	}
	ok(t, s.RemoveLoginAlias(t.Context(), rossi, "bert@example.com"))
	ok(t, s.GiveLoginAlias(t.Context(), rossi, "anna@example.com"))
	if a, err := s.ApproveAlias(t.Context(), rossi, "anna@example.com"); err != nil || a.State != AliasApproved {
		t.Errorf("her own login: %+v, %v", a, err)
	}
}

package store

import (
	"errors"
	"strings"
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

// The end of a domain's migration forgets no alias that is still to be taken away.
func TestEndOfADomainKeepsAliasesDue(t *testing.T) {
	s, ctx := openDir(t, t.TempDir()), t.Context()
	c := created(t, s, "anna", rossi)
	ok(t, c.Flip(ctx, Active, 1, time.Now().Add(time.Hour)))
	begin(t, s, "bert", "secret")
	bert := claim(t, s)
	ok(t, bert.Flip(ctx, Active, 1, time.Now().Add(time.Hour)))
	ok(t, s.SetActive(ctx, "example.com", false))
	ok(t, s.Complete(ctx, "example.com", CompleteWhole, false))
	anna := claim(t, s)
	ok(t, anna.Finish(ctx))
	bert = claim(t, s)
	decided(t, bert, rossi, AliasWithdrawn)
	ok(t, bert.Finish(ctx))
	ok(t, s.SettleCompletion(ctx, "example.com"))
	d, err := s.DomainState(ctx, "example.com")
	if err != nil || !d.Finished {
		t.Fatal(d, err)
	}
	c = claim(t, s)
	if l, err := c.AliasesToRemove(ctx); err != nil || len(l) != 1 || c.Account.ID != anna.Account.ID {
		t.Errorf("%+v, %+v, %v", c.Account, l, err)
	}
}

// What is decided between the last look at an account's aliases and its flip is
// not put off until its first catch-up.
func TestAliasRejectedBeforeTheFlip(t *testing.T) {
	s, ctx := openDir(t, t.TempDir()), t.Context()
	c := created(t, s, "anna", rossi)
	_, err := s.RejectAlias(ctx, rossi, "")
	ok(t, err)
	ok(t, c.Flip(ctx, Active, 1, time.Now().Add(time.Hour)))
	if l, err := claim(t, s).AliasesToRemove(ctx); err != nil || len(l) != 1 {
		t.Errorf("%+v, %v", l, err)
	}
}

// An address that turns out to be somebody's login is withdrawn at once, whatever
// becomes of that account, and taken away where it was created.
func TestAliasThatIsALoginIsWithdrawn(t *testing.T) {
	for name, logIn := range map[string]func(*Store) error{
		"at the source": func(s *Store) error {
			_, err := s.Note(t.Context(), identity("a.rossi"), AtSource)
			return err
		},
		"excluded while it is looked at": func(s *Store) error {
			begin(t, s, "a.rossi", "secret")
			if a := aliasOf(t, s, "anna", rossi); a.State != AliasCreated {
				t.Errorf("before it is known whose mailbox that is: %+v", a)
			}
			_, err := s.Exclude(t.Context(), identity("a.rossi"))
			return err
		},
		"excluded": func(s *Store) error {
			_, err := s.Exclude(t.Context(), identity("a.rossi"))
			return err
		},
		"a login alias that is given": func(s *Store) error {
			return s.GiveLoginAlias(t.Context(), rossi, "bert@example.com")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, ctx := openDir(t, t.TempDir()), t.Context()
			_, err := s.Note(ctx, identity("bert"), AtSource)
			ok(t, err)
			ok(t, created(t, s, "anna", rossi).Flip(ctx, Active, 1, time.Now().Add(time.Hour)))
			ok(t, logIn(s))
			if a := aliasOf(t, s, "anna", rossi); a.State != AliasWithdrawn || !strings.HasPrefix(a.Reason, "somebody's login: ") {
				t.Errorf("%+v", a)
			}
			if l, err := claim(t, s).AliasesToRemove(ctx); err != nil || len(l) != 1 {
				t.Errorf("%+v, %v", l, err)
			}
		})
	}
}

// What was withdrawn as the login of somebody else is decided anew once it is known
// to be a name of the same owner.
func TestAliasIsDecidedAnewForItsOwner(t *testing.T) {
	s, ctx := openDir(t, t.TempDir()), t.Context()
	anna := created(t, s, "anna", rossi)
	ok(t, anna.Flip(ctx, Active, 1, time.Now().Add(time.Hour)))
	_, err := s.Note(ctx, identity("a.rossi"), AtSource)
	ok(t, err)
	c := claim(t, s)
	ok(t, c.NoteAliasRemoved(ctx, rossi, "somebody's login"))
	ok(t, c.CaughtUp(ctx, time.Now().Add(time.Hour)))
	ok(t, s.GiveLoginAlias(ctx, rossi, "anna@example.com"))
	if decided, err := claim(t, s).AliasesDecided(ctx, "1"); err != nil || decided {
		t.Errorf("decided: %t, %v", decided, err)
	}
}

// A name that becomes a login alias leaves its own alias of the same owner alone,
// and brings him no alias of his own address.
func TestNameThatIsAlsoAnAlias(t *testing.T) {
	s, ctx := openDir(t, t.TempDir()), t.Context()
	anna := created(t, s, "anna", rossi)
	ok(t, anna.Release(ctx, Copying, "", time.Time{}, false))
	ok(t, s.GiveLoginAlias(ctx, rossi, "anna@example.com"))
	if a := aliasOf(t, s, "anna", rossi); a.State != AliasCreated {
		t.Errorf("%+v", a)
	}
	_, _, err := s.Migrate(ctx, NewAccount{Identity: identity("desk"), Mode: config.ModeAccounts, Aliases: []string{"anna@example.com", "x@example.com"}})
	ok(t, err)
	ok(t, claim(t, s).BecomeAlias(ctx, anna.Account.ID))
	all, err := s.AccountAliases(ctx, anna.Account.ID)
	if err != nil || len(all) != 2 || all[0].Address != rossi || all[1].Address != "x@example.com" {
		t.Errorf("%+v, %v", all, err)
	}
}

// Whoever claims an address is decided anew when another mailbox shows it for the
// first time, and not at each further message.
func TestAliasIsDecidedAnewOnce(t *testing.T) {
	s, ctx := openDir(t, t.TempDir()), t.Context()
	anna := created(t, s, "anna", rossi)
	ok(t, anna.Flip(ctx, Active, 1, time.Now().Add(time.Hour)))
	begin(t, s, "bert", "secret")
	bert := claim(t, s)
	f := folder(t, bert, "INBOX")
	for i := range uint32(2) {
		shown := Sighting{Address: rossi, Headers: "Delivered-To", Weighs: true}
		ok(t, bert.Settle(ctx, f.ID, nil, []Message{{SourceUID: 2*i + 1, TargetUID: 2*i + 1, Shows: []Sighting{shown}}}))
		c, err := s.ClaimNext(ctx, "worker", time.Minute)
		if err != nil || (c == nil) != (i > 0) {
			t.Fatalf("message %d: %+v, %v", i, c, err)
		}
		if c == nil {
			continue
		}
		if is, err := c.AliasesDecided(ctx, "1"); err != nil || is {
			t.Errorf("decided: %t, %v", is, err)
		}
		decided(t, c, rossi, AliasApproved) // by rules for which that shows nothing
		ok(t, c.CaughtUp(ctx, time.Now().Add(time.Hour)))
	}
}

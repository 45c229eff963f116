package store

import (
	"testing"
	"time"

	"migproxy/config"
)

// flipped is an active account.
func flipped(t *testing.T, s *Store, local string) Account {
	t.Helper()
	begin(t, s, local, "secret")
	c := claim(t, s)
	ok(t, c.Flip(t.Context(), Active, 1, time.Now().Add(time.Hour)))
	return c.Account
}

// A completion that is asked for while an account is caught up is not lost with
// the end of that catch-up, whatever that is.
func TestCompleteDuringACatchUp(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *Claim) error{
		"caught up": func(t *testing.T, c *Claim) error { return c.CaughtUp(t.Context(), time.Now().Add(time.Hour)) },
		"failed":    func(t *testing.T, c *Claim) error { return c.Release(t.Context(), Active, "x", time.Time{}, true) },
		"failed for now": func(t *testing.T, c *Claim) error {
			return c.Release(t.Context(), Active, "x", time.Now().Add(time.Hour), true)
		},
		"stopped": func(t *testing.T, c *Claim) error { return c.Release(t.Context(), Active, "", time.Now(), false) },
	} {
		t.Run(name, func(t *testing.T) {
			s := openDir(t, t.TempDir())
			a := flipped(t, s, "anna")
			ok(t, s.CatchUpNow(t.Context(), a.ID, time.Now()))
			c := claim(t, s)
			ok(t, s.SetActive(t.Context(), "example.com", false))
			ok(t, s.Complete(t.Context(), "example.com", CompleteWhole, false))
			ok(t, end(t, c))
			c = claim(t, s)
			if c.Account.Finishing != FinishWhole {
				t.Fatalf("%+v", c.Account)
			}
			ok(t, c.Finish(t.Context()))
			ok(t, s.SettleCompletion(t.Context(), "example.com"))
			if d, err := s.DomainState(t.Context(), "example.com"); err != nil || !d.Finished {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
}

// The last pass is tried three times, then given up until it is asked for again.
func TestLastPassIsGivenUp(t *testing.T) {
	s := openDir(t, t.TempDir())
	flipped(t, s, "anna")
	ok(t, s.SetActive(t.Context(), "example.com", false))
	ok(t, s.Complete(t.Context(), "example.com", CompleteWhole, false))
	for i := range 3 {
		c := claim(t, s)
		if c.Account.Finishing != FinishWhole {
			t.Fatalf("try %d: %+v", i, c.Account)
		}
		ok(t, s.SettleCompletion(t.Context(), "example.com"))
		if d, err := s.DomainState(t.Context(), "example.com"); err != nil || d.Completing != CompleteWhole {
			t.Fatalf("try %d: %+v, %v", i, d, err)
		}
		ok(t, c.Release(t.Context(), Active, "unreachable", time.Now(), true))
	}
	ok(t, s.SettleCompletion(t.Context(), "example.com"))
	a, err := s.Account(t.Context(), "anna@example.com")
	if err != nil || a.Finishing != NotFinishing || a.Reason != "unreachable" || !a.HasPassword {
		t.Errorf("%+v, %v", a, err)
	}
	if d, err := s.DomainState(t.Context(), "example.com"); err != nil || d.Finished || d.Completing != NotCompleting {
		t.Errorf("%+v, %v", d, err)
	}
}

// Who is being moved comes before who is to be caught up, but not for ever.
func TestCatchUpIsPatient(t *testing.T) {
	s := openDir(t, t.TempDir())
	anna := flipped(t, s, "anna")
	bert := begin(t, s, "bert", "x")
	due := func(id int64, ago time.Duration) {
		_, err := s.w.ExecContext(t.Context(), "UPDATE accounts SET due = $1 WHERE id = $2", millis(time.Now().Add(-ago)), id)
		ok(t, err)
	}
	due(anna.ID, catchUpPatience/2)
	due(bert.ID, time.Second)
	c := claim(t, s)
	if c.Account.ID != bert.ID {
		t.Errorf("%+v", c.Account)
	}
	ok(t, c.Release(t.Context(), Provisioning, "", time.Now(), false))
	due(anna.ID, catchUpPatience+time.Minute)
	due(bert.ID, time.Second)
	if c := claim(t, s); c.Account.ID != anna.ID {
		t.Errorf("%+v", c.Account)
	}
}

// An excluded account has its mailbox on the source only: its domain is finished
// by force, or not at all.
func TestExcludedAccountKeepsTheSource(t *testing.T) {
	s := openDir(t, t.TempDir())
	_, err := s.Exclude(t.Context(), identity("anna"))
	ok(t, err)
	ok(t, s.SetActive(t.Context(), "example.com", false))
	for _, how := range []Completing{CompleteWhole, CompleteForced} {
		left, err := s.Unfinished(t.Context(), "example.com", "", 10)
		ok(t, err)
		n, err := s.CountUnfinished(t.Context(), "example.com")
		if err != nil || n != 1 || len(left) != 1 || left[0].State != Excluded {
			t.Errorf("%d are left, %+v, %v", n, left, err)
		}
		ok(t, s.Complete(t.Context(), "example.com", how, false))
		d, err := s.DomainState(t.Context(), "example.com")
		if err != nil || d.Finished != (how == CompleteForced) || d.Completing != NotCompleting {
			t.Errorf("%s: %+v, %v", how, d, err)
		}
	}
}

// needing is an active account whose last pass was given up for want of a
// password, in a domain that is finished all the same.
func needing(t *testing.T, s *Store, local string) Account {
	t.Helper()
	a := flipped(t, s, local)
	ok(t, s.SetActive(t.Context(), "example.com", false))
	ok(t, s.Complete(t.Context(), "example.com", CompleteForced, false))
	c := claim(t, s)
	ok(t, c.NeedPassword(t.Context(), true))
	ok(t, c.Release(t.Context(), Active, "it needs a password", time.Time{}, true))
	ok(t, s.SettleCompletion(t.Context(), "example.com"))
	if d, err := s.DomainState(t.Context(), "example.com"); err != nil || !d.Finished {
		t.Fatalf("%+v, %v", d, err)
	}
	a, err := s.Account(t.Context(), a.Identity.Address())
	ok(t, err)
	return a
}

// In a finished domain no account waits for a password, and none is kept.
func TestFinishedDomainNeedsNoPassword(t *testing.T) {
	s := openDir(t, t.TempDir())
	a := needing(t, s, "anna")
	if a.NeedsPassword || a.HasPassword || !a.Due.IsZero() {
		t.Errorf("after the end: %+v", a)
	}
	// As an older version left it.
	_, err := s.w.ExecContext(t.Context(), "UPDATE accounts SET needs_password = TRUE")
	ok(t, err)
	for _, proved := range []bool{true, false} {
		ok(t, s.KeepPassword(t.Context(), a.ID, config.NewSecret("his next login"), proved))
		if a, err = s.Account(t.Context(), "anna@example.com"); err != nil || a.HasPassword || !a.Due.IsZero() {
			t.Errorf("proved %t: %+v, %v", proved, a, err)
		}
	}
}

// Nobody works on an account of a finished domain, however it came to be due,
// and nobody waits to.
func TestFinishedDomainHasNoWork(t *testing.T) {
	s := openDir(t, t.TempDir())
	a := needing(t, s, "anna")
	_, err := s.Retry(t.Context(), a.Identity.Address())
	ok(t, err)
	if c, err := s.ClaimNext(t.Context(), "worker", time.Minute); err != nil || c != nil {
		t.Errorf("claimed %+v, %v", c, err)
	}
	if due, err := s.NextDue(t.Context()); err != nil || !due.IsZero() {
		t.Errorf("due %v, %v", due, err)
	}
}

func TestFinishedDomainAdoptsNobody(t *testing.T) {
	s := openDir(t, t.TempDir())
	put(t, s, "anna", Conflict, OriginUnknown)
	ok(t, s.SetActive(t.Context(), "example.com", false))
	ok(t, s.Complete(t.Context(), "example.com", CompleteForced, false))
	_, err := s.Adopt(t.Context(), "anna@example.com")
	expect(t, err, ErrChanged)
	if a, err := s.Account(t.Context(), "anna@example.com"); err != nil || a.State != Conflict || !a.Due.IsZero() {
		t.Errorf("%+v, %v", a, err)
	}
}

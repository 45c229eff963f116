package store

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"migproxy/config"
)

// put writes an account in any state, as if it had come there.
func put(t testing.TB, s *Store, local string, state State, origin Origin) Account {
	t.Helper()
	a := begin(t, s, local, "old secret")
	_, err := s.w.ExecContext(t.Context(), "UPDATE accounts SET state = $1, origin = $2, due = 0 WHERE id = $3", state, origin, a.ID)
	ok(t, err)
	a, err = s.Account(t.Context(), a.Identity.Address())
	ok(t, err)
	return a
}

func TestBeginOnce(t *testing.T) {
	s := openDir(t, t.TempDir())
	var begun atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			a, first, err := s.Begin(context.Background(), NewAccount{Identity: identity("anna"), Password: config.NewSecret("secret")})
			if err != nil || a.State != Provisioning || a.PasswordVersion != 1 || !a.HasPassword {
				t.Errorf("%+v, %v", a, err)
			}
			if first {
				begun.Add(1)
			}
		})
	}
	wg.Wait()
	if begun.Load() != 1 {
		t.Errorf("begun %d times", begun.Load())
	}
}

func TestBegin(t *testing.T) {
	s := openDir(t, t.TempDir())
	t.Run("unknown", func(t *testing.T) {
		a := begin(t, s, "anna", "secret")
		if a.State != Provisioning || a.Origin != OriginUnknown || a.Due.IsZero() || a.Mode != config.ModeAccounts || a.Identity != identity("anna") {
			t.Errorf("%+v", a)
		}
	})
	t.Run("at_source keeps its ID", func(t *testing.T) {
		noted, err := s.Note(t.Context(), identity("bert"), AtSource)
		ok(t, err)
		if a := begin(t, s, "bert", "secret"); a.ID != noted.ID || a.State != Provisioning || !a.ProgressAt.Equal(a.Due) {
			t.Errorf("%+v", a)
		}
	})
	t.Run("adopted", func(t *testing.T) {
		a, begun, err := s.Begin(t.Context(), NewAccount{Identity: identity("carl"), Password: config.NewSecret("x"), Adopt: true})
		if err != nil || !begun || a.State != Copying || a.Origin != OriginAdopted || a.Due.IsZero() {
			t.Errorf("%+v %v %v", a, begun, err)
		}
	})
	for _, state := range []State{Provisioning, Copying, Active, Finished, Native, Conflict, Waiting, Failed, Excluded} {
		t.Run("not "+string(state), func(t *testing.T) {
			before := put(t, s, string(state), state, OriginCreated)
			a, begun, err := s.Begin(t.Context(), NewAccount{Identity: before.Identity, Password: config.NewSecret("new secret")})
			if err != nil || begun || a != before {
				t.Errorf("%+v %v %v", a, begun, err)
			}
			if p, _, err := s.Password(t.Context(), a.ID, SideSource); err != nil || p.Reveal() != "old secret" {
				t.Error("the sealed password was written", err)
			}
		})
	}
}

func TestNote(t *testing.T) {
	s := openDir(t, t.TempDir())
	for n, c := range []struct {
		name string
		have State // empty: no row
		to   State
		from []State
		want State
		err  error
	}{
		{"unknown to native", "", Native, nil, Native, nil},
		{"unknown to at_source", "", AtSource, nil, AtSource, nil},
		{"at_source to native", AtSource, Native, []State{AtSource}, Native, nil},
		{"not listed", AtSource, Native, nil, AtSource, ErrChanged},
		{"begun meanwhile", Provisioning, Native, []State{AtSource}, Provisioning, ErrChanged},
		{"begun, at_source", Copying, AtSource, nil, Copying, ErrChanged},
		{"active stays", Active, AtSource, []State{AtSource}, Active, ErrChanged},
		{"already so", Native, Native, []State{AtSource}, Native, nil},
		{"one of several", Conflict, Native, []State{AtSource, Conflict}, Native, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := identity(strconv.Itoa(n))
			if c.have != "" {
				put(t, s, id.Local, c.have, OriginUnknown)
			}
			a, err := s.Note(t.Context(), id, c.to, c.from...)
			expect(t, err, c.err)
			kept, err := s.Account(t.Context(), id.Address())
			ok(t, err)
			if a != kept || a.State != c.want {
				t.Errorf("returned %+v, kept %+v", a, kept)
			}
			if written := c.have != c.to && c.err == nil; written && a.HasPassword {
				t.Error("the password of an account that does not move is kept")
			}
		})
	}
	if _, err := s.Note(t.Context(), identity("anna"), Active); err == nil {
		t.Error("an account was noted as active")
	}
}

func TestExclude(t *testing.T) {
	s := openDir(t, t.TempDir())
	for n, state := range []State{"", Provisioning, Copying, AtSource, Conflict, Waiting, Failed, Active, Finished, Native} {
		t.Run(string(state), func(t *testing.T) {
			id := identity(strconv.Itoa(n))
			if state != "" {
				put(t, s, id.Local, state, OriginCreated)
			}
			a, err := s.Exclude(t.Context(), id)
			if state == Active || state == Finished || state == Native {
				expect(t, err, ErrChanged)
				if a.State != state || !a.HasPassword {
					t.Errorf("%+v", a)
				}
				return
			}
			ok(t, err)
			if a.State != Excluded || a.HasPassword || !a.Due.IsZero() {
				t.Errorf("%+v", a)
			}
			if again, err := s.Exclude(t.Context(), id); err != nil || again != a {
				t.Errorf("once more: %+v, %v", again, err)
			}
		})
	}
}

func TestRetry(t *testing.T) {
	s := openDir(t, t.TempDir())
	for n, c := range []struct {
		have   State
		origin Origin
		want   State
		then   Origin
	}{
		{Waiting, OriginUnknown, Provisioning, OriginUnknown},
		{Waiting, OriginFree, Provisioning, OriginFree},
		{Waiting, OriginCreated, Copying, OriginCreated},
		{Failed, OriginFree, Provisioning, OriginFree},
		{Failed, OriginAdopted, Copying, OriginAdopted},
		{Conflict, OriginFree, Provisioning, OriginUnknown},
		{Active, OriginCreated, Active, OriginCreated},
		{Provisioning, "", "", ""}, {Copying, "", "", ""}, {Finished, "", "", ""},
		{Native, "", "", ""}, {AtSource, "", "", ""}, {Excluded, "", "", ""},
	} {
		t.Run(string(c.have)+" "+string(c.origin), func(t *testing.T) {
			before := put(t, s, strconv.Itoa(n), c.have, c.origin)
			a, err := s.Retry(t.Context(), before.Identity.Address())
			if c.want == "" {
				expect(t, err, ErrChanged)
				return
			}
			ok(t, err)
			if a.State != c.want || a.Origin != c.then || a.Due.IsZero() || a.Due.After(time.Now()) || a.Reason != "" {
				t.Errorf("%+v", a)
			}
		})
	}
	_, err := s.Retry(t.Context(), "nobody@example.com")
	expect(t, err, ErrNotFound)
	for _, state := range []State{Provisioning, Copying} { // put off
		before := put(t, s, "off"+string(state), state, OriginFree)
		_, err := s.w.ExecContext(t.Context(), "UPDATE accounts SET reason = 'x', due = 9e15 WHERE id = ?", before.ID)
		ok(t, err)
		if a, err := s.Retry(t.Context(), before.Identity.Address()); err != nil || a.State != state || a.Reason != "" || a.Due.After(time.Now()) {
			t.Errorf("%+v, %v", a, err)
		}
	}
}

// A login with a new password makes an account go on as a retry does, but for
// what only the administrator answers.
func TestRevive(t *testing.T) {
	s := openDir(t, t.TempDir())
	for i, c := range []struct {
		have   State
		origin Origin
		want   State // "": ErrChanged
	}{
		{Waiting, OriginFree, Provisioning}, {Failed, OriginCreated, Copying}, {Waiting, OriginAdopted, Copying},
		{Conflict, OriginFree, ""}, {Active, OriginCreated, ""}, {Copying, "", ""}, {Finished, "", ""}, {Excluded, "", ""},
	} {
		before := put(t, s, strconv.Itoa(i), c.have, c.origin)
		a, err := s.Revive(t.Context(), before.Identity.Address())
		if c.want == "" {
			expect(t, err, ErrChanged)
			continue
		}
		ok(t, err)
		if a.State != c.want || a.Origin != c.origin || a.Due.IsZero() || a.Reason != before.Reason || a.Attempts != 0 {
			t.Errorf("%+v", a)
		}
	}
}

func TestAccounts(t *testing.T) {
	s := openDir(t, t.TempDir())
	_, err := s.Account(t.Context(), "anna@example.com")
	expect(t, err, ErrNotFound)
	put(t, s, "carl", Failed, "")
	put(t, s, "anna", Active, "")
	put(t, s, "bert", Active, "")
	for _, c := range []struct {
		state State
		after string
		limit int
		want  string
	}{
		{"", "", 9, "anna bert carl "}, {"", "", 2, "anna bert "}, {"", "bert@example.com", 2, "carl "},
		{Active, "", 9, "anna bert "}, {Active, "anna@example.com", 9, "bert "}, {Failed, "", 1, "carl "},
		{Failed, "carl@example.com", 9, ""}, {Native, "", 9, ""},
	} {
		accounts, err := s.Accounts(t.Context(), c.state, c.after, c.limit)
		ok(t, err)
		have := ""
		for _, a := range accounts {
			have += a.Identity.Local + " "
		}
		if have != c.want {
			t.Errorf("%+v: %s", c, have)
		}
	}
}

// TestCancelledWriteWritesNothing: a caller that is told of an error must be
// able to rely on nothing having been written.
func TestCancelledWriteWritesNothing(t *testing.T) {
	s := openDir(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := s.Begin(ctx, NewAccount{Identity: identity("anna")})
	expect(t, err, context.Canceled)
	if _, err := s.Account(t.Context(), "anna@example.com"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

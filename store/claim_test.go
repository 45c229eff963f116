package store

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"migproxy/config"
)

func TestClaimOrder(t *testing.T) {
	s := openDir(t, t.TempDir())
	anna, bert := begin(t, s, "anna", "x"), begin(t, s, "bert", "x")
	put(t, s, "carl", Waiting, "") // not due
	_, err := s.w.ExecContext(t.Context(), "UPDATE accounts SET due = due - 1000 WHERE id = $1", bert.ID)
	ok(t, err)
	first, second := claim(t, s), claim(t, s)
	if first.Account.ID != bert.ID || second.Account.ID != anna.ID {
		t.Errorf("claimed %v, then %v", first.Account.ID, second.Account.ID)
	}
	if c, err := s.ClaimNext(t.Context(), "worker", time.Minute); c != nil || err != nil {
		t.Errorf("claimed %+v, %v", c, err)
	}
	if _, err := s.ClaimNext(t.Context(), "", time.Minute); err == nil {
		t.Error("claimed by nobody")
	}
}

func TestClaimGoesOnWhereWorkStopped(t *testing.T) {
	s := openDir(t, t.TempDir())
	for _, c := range []struct {
		state  State
		origin Origin
		want   State
	}{
		{Waiting, OriginFree, Provisioning}, {Failed, OriginCreated, Copying},
		{Provisioning, OriginUnknown, Provisioning}, {Copying, OriginAdopted, Copying}, {Active, OriginCreated, Active},
	} {
		a := put(t, s, string(c.state), c.state, c.origin)
		_, err := s.w.ExecContext(t.Context(), "UPDATE accounts SET due = 1 WHERE id = $1", a.ID)
		ok(t, err)
		if have := claim(t, s).Account.State; have != c.want {
			t.Errorf("%s: claimed as %s", c.state, have)
		}
	}
}

// losses are the ways in which a claim is lost.
var losses = map[string]func(*testing.T, *Store, *Claim){
	"another claim": func(t *testing.T, s *Store, c *Claim) {
		ok(t, c.Renew(t.Context(), -time.Second)) // the lease has run out
		if other := claim(t, s); other.Account.ID != c.Account.ID {
			t.Fatal("claimed another")
		}
	},
	"excluded":   func(t *testing.T, s *Store, _ *Claim) { _, err := s.Exclude(t.Context(), identity("anna")); ok(t, err) },
	"taken back": func(t *testing.T, s *Store, _ *Claim) { ok(t, s.TakeBack(t.Context(), "worker")) },
	"released":   func(t *testing.T, _ *Store, c *Claim) { ok(t, c.Release(t.Context(), Waiting, "", time.Time{}, false)) },
	"flipped":    func(t *testing.T, _ *Store, c *Claim) { ok(t, c.Flip(t.Context(), Active, 1, time.Time{})) },
	"made native": func(t *testing.T, s *Store, _ *Claim) {
		_, err := s.Note(t.Context(), identity("anna"), Native, Provisioning)
		ok(t, err)
	},
}

// dump is everything that a claim can write, but for the claim itself.
func dump(t *testing.T, s *Store) string {
	t.Helper()
	var all string
	ok(t, s.r.QueryRowContext(t.Context(), `SELECT
		(SELECT state || origin || reason || messages || '/' || bytes || '/' || expected || '/' || set_aside || '/' || attempts || '/' || due || '/' || fence FROM accounts)
		|| ' folders ' || (SELECT COUNT(*) || '/' || SUM(matched) FROM folders) || ' runs ' || (SELECT COUNT(*) FROM runs)
		|| ' intents ' || (SELECT COUNT(*) FROM intents) || ' altered ' || (SELECT COUNT(*) FROM altered)
		|| ' quarantine ' || (SELECT COUNT(*) FROM quarantine) || ' errors ' || (SELECT COUNT(*) FROM counters)`).Scan(&all))
	return all
}

func TestLostClaimWritesNothing(t *testing.T) {
	for loss, lose := range losses {
		t.Run(loss, func(t *testing.T) {
			s := openDir(t, t.TempDir())
			begin(t, s, "anna", "secret")
			c := claim(t, s)
			f := folder(t, c, "INBOX")
			i := Intent{FolderID: f.ID, SourceUIDValidity: 1, TargetUIDValidity: 2, TargetUIDNext: 1, Messages: []IntentMessage{{SourceUID: 1}}}
			ok(t, c.OpenIntent(t.Context(), &i))
			lose(t, s, c)
			before := dump(t, s)
			ctx, changed := t.Context(), f
			changed.Matched = true
			for name, err := range map[string]error{
				"Renew":       c.Renew(ctx, time.Minute),
				"Refresh":     c.Refresh(ctx),
				"SetOrigin":   c.SetOrigin(ctx, OriginFree),
				"SetExpected": c.SetExpected(ctx, 7),
				"Release":     c.Release(ctx, Failed, "late", time.Now(), true),
				"Flip":        c.Flip(ctx, Active, 1, time.Time{}),
				"PutFolder":   c.PutFolder(ctx, &changed),
				"new folder":  c.PutFolder(ctx, &Folder{Source: "new", Target: "new"}),
				"OpenIntent":  c.OpenIntent(ctx, &Intent{FolderID: f.ID}),
				"Settle":      c.Settle(ctx, f.ID, &i, []Message{{SourceUID: 1, TargetUID: 1}}),
				"recognised":  c.Settle(ctx, f.ID, nil, []Message{{SourceUID: 1, TargetUID: 1}}),
				"NoteAltered": c.NoteAltered(ctx, Altered{FolderID: f.ID}),
				"PutAside":    c.PutAside(ctx, &SetAside{FolderID: f.ID, SourceUID: 1}, strings.NewReader("x")),
			} {
				if !errors.Is(err, ErrFenced) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if after := dump(t, s); after != before {
				t.Errorf("written through a lost claim:\n%s\n%s", before, after)
			}
		})
	}
}

// TestClaimLostWhileSettingAside: the octets come slowly, and the claim is lost
// meanwhile; the next claim finds nothing half done.
func TestClaimLostWhileSettingAside(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "secret")
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	octets := io.MultiReader(strings.NewReader(strings.Repeat("x", chunkSize)), readFunc(func([]byte) (int, error) {
		ok(t, s.TakeBack(t.Context(), "worker"))
		return 0, io.EOF
	}))
	expect(t, c.PutAside(t.Context(), &SetAside{FolderID: f.ID, SourceUID: 1}, octets), ErrFenced)
	c = claim(t, s)
	ok(t, c.PutAside(t.Context(), &SetAside{FolderID: f.ID, SourceUID: 1}, strings.NewReader("x")))
	if c.Refresh(t.Context()) != nil || c.Account.SetAside != 1 {
		t.Errorf("%+v", c.Account)
	}
	var chunks int
	ok(t, s.r.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM quarantine_chunks").Scan(&chunks))
	if chunks != 1 {
		t.Errorf("%d chunks", chunks)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }

func TestRelease(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "secret")
	past := time.Now().Add(-time.Second)
	for n, c := range []struct {
		failed   bool
		attempts int
	}{{true, 1}, {true, 2}, {false, 0}, {true, 1}} {
		k := claim(t, s)
		ok(t, k.Release(t.Context(), Waiting, "no\x00room", past, c.failed))
		if a := k.Account; a.State != Waiting || a.Attempts != c.attempts || a.Reason != "no\uFFFDroom" || !a.Due.Equal(past.Truncate(time.Millisecond)) {
			t.Errorf("%d: %+v", n, a)
		}
	}
	k := claim(t, s)
	ok(t, k.Release(t.Context(), Failed, "no", time.Time{}, true))
	if c, err := s.ClaimNext(t.Context(), "worker", time.Minute); c != nil || err != nil {
		t.Error("claimed an account that is never due", err)
	}
	st, err := s.Statistics(t.Context())
	ok(t, err)
	if st.Errors != 4 || st.MailboxesFailed != 1 {
		t.Errorf("%+v", st)
	}
}

// TestNewPasswordIsNotForgotten: a password that comes while a worker fails
// with the older one must bring the account back at once.
func TestNewPasswordIsNotForgotten(t *testing.T) {
	for password, due := range map[string]bool{"newer": true, "secret": false} {
		s := openDir(t, t.TempDir())
		a := begin(t, s, "anna", "secret")
		c := claim(t, s)
		_, err := s.SealPassword(t.Context(), a.ID, config.NewSecret(password))
		ok(t, err)
		ok(t, c.Release(t.Context(), Waiting, "wrong password", time.Time{}, true))
		next, err := s.ClaimNext(t.Context(), "worker", time.Minute)
		ok(t, err)
		if (next != nil) != due {
			t.Errorf("%s: claimed again: %v", password, next != nil)
		}
	}
}

// TestPasswordBeforeTheClaimIsNoNews: a worker that failed with the newest
// password waits as long as it said.
func TestPasswordBeforeTheClaimIsNoNews(t *testing.T) {
	s := openDir(t, t.TempDir())
	a := begin(t, s, "anna", "secret")
	_, err := s.SealPassword(t.Context(), a.ID, config.NewSecret("newer"))
	ok(t, err)
	c := claim(t, s)
	later := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	ok(t, c.Release(t.Context(), Waiting, "no room", later, true))
	if !c.Account.Due.Equal(later) {
		t.Errorf("due %v, not %v", c.Account.Due, later)
	}
}

func TestFlip(t *testing.T) {
	s := openDir(t, t.TempDir())
	a := begin(t, s, "anna", "one")
	c := claim(t, s)
	ok(t, c.SetOrigin(t.Context(), OriginFree))
	if c.Account.State != Provisioning {
		t.Errorf("%+v", c.Account)
	}
	ok(t, c.SetOrigin(t.Context(), OriginCreated))
	if c.Account.State != Copying || c.Account.Origin != OriginCreated {
		t.Errorf("%+v", c.Account)
	}
	_, err := s.SealPassword(t.Context(), a.ID, config.NewSecret("two"))
	ok(t, err)
	expect(t, c.Flip(t.Context(), Active, 1, time.Time{}), ErrChanged)
	if now, err := s.Account(t.Context(), a.Identity.Address()); err != nil || now.State != Copying || !now.HasPassword {
		t.Errorf("%+v %v", now, err)
	}
	due := time.Now().Add(time.Hour)
	ok(t, c.Flip(t.Context(), Active, 2, due))
	if now := c.Account; now.State != Active || now.FlippedAt.IsZero() || !now.HasPassword || now.Due.UnixMilli() != due.UnixMilli() || now.PasswordVersion != 2 {
		t.Errorf("%+v", now)
	}
	for _, side := range []Side{SideSource, SideTarget} {
		if p, _, err := s.Password(t.Context(), a.ID, side); err != nil || p.Reveal() != "two" {
			t.Errorf("%s: %v", side, err)
		}
	}
	_, err = s.SealPassword(t.Context(), a.ID, config.NewSecret("three"))
	expect(t, err, ErrChanged)
	if c, err := s.ClaimNext(t.Context(), "worker", time.Minute); c != nil || err != nil {
		t.Error("claimed after the flip", err)
	}
	st, err := s.Statistics(t.Context())
	ok(t, err)
	if st.MailboxesMigrated != 1 || st.LastMailbox != "anna@example.com" || st.LastMailboxMigratedAt.IsZero() || st.StartedAt.IsZero() || st.Accounts[Active] != 1 {
		t.Errorf("%+v", st)
	}
}

func TestNextDue(t *testing.T) {
	s := openDir(t, t.TempDir())
	next := func() time.Time {
		at, err := s.NextDue(t.Context())
		ok(t, err)
		return at
	}
	if !next().IsZero() {
		t.Error("due:", next())
	}
	a := begin(t, s, "anna", "x")
	if !next().Equal(a.Due) {
		t.Error("due:", next())
	}
	c := claim(t, s)
	if !next().IsZero() {
		t.Error("a claimed account is due:", next())
	}
	later := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	ok(t, c.Release(t.Context(), c.Account.State, "", later, false))
	if !next().Equal(later) {
		t.Error("due:", next())
	}
}

func TestTakeBackOnlyOnesOwn(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "x")
	c := claim(t, s)
	ok(t, s.TakeBack(t.Context(), "somebody else"))
	ok(t, c.Renew(t.Context(), time.Minute))
	ok(t, s.TakeBack(t.Context(), "worker"))
	claim(t, s)
}

package store

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"migproxy/config"
)

// moved is an active account that migproxy has created.
func moved(t *testing.T, s *Store, local string) Account {
	t.Helper()
	begin(t, s, local, "secret")
	c := claim(t, s)
	ok(t, c.SetOrigin(t.Context(), OriginFree))
	ok(t, c.SetOrigin(t.Context(), OriginCreated))
	ok(t, c.Flip(t.Context(), Active, 1, time.Now().Add(time.Hour)))
	return c.Account
}

// Only what migproxy has created and copied is taken back, and only while the
// source may be asked.
func TestWhatCanBeTakenBack(t *testing.T) {
	for _, state := range States() {
		for _, origin := range []Origin{OriginUnknown, OriginFree, OriginCreated, OriginAdopted} {
			s := openDir(t, t.TempDir())
			a := put(t, s, "anna", state, origin)
			may := (state == Active || state == Finished) && origin == OriginCreated
			got, err := s.AskRollback(t.Context(), a.Identity.Address())
			if may && (err != nil || got.RollingBack != RollbackWanted || got.State != state || got.Due.IsZero()) || !may && !errors.Is(err, ErrChanged) {
				t.Errorf("%s, %s: %+v, %v", state, origin, got, err)
			}
		}
	}
	s := openDir(t, t.TempDir())
	_, err := s.AskRollback(t.Context(), "nobody@example.com")
	expect(t, err, ErrNotFound)
	for name, change := range map[string]string{
		"last pass": "UPDATE accounts SET finishing = 'whole'",
		"passwords": "UPDATE accounts SET mode = 'passwords'",
		"finished":  "INSERT INTO domains (name, active, finished) VALUES ('example.com', FALSE, TRUE) ON CONFLICT (name) DO UPDATE SET finished = TRUE",
	} {
		t.Run(name, func(t *testing.T) {
			s := openDir(t, t.TempDir())
			moved(t, s, "anna")
			_, err := s.w.ExecContext(t.Context(), change)
			ok(t, err)
			_, err = s.AskRollback(t.Context(), "anna@example.com")
			expect(t, err, ErrChanged)
		})
	}
}

// A rollback comes before other work on accounts that have moved, is not lost with
// the end of a catch-up, holds logins only while a worker is at it, and leaves
// nothing behind.
func TestRollbackFromBeginToEnd(t *testing.T) {
	s := openDir(t, t.TempDir())
	a := moved(t, s, "anna")
	changes, cancel := s.Subscribe(false)
	defer cancel()
	published := func(want RollingBack, state State) {
		t.Helper()
		if c := <-changes; c.RollingBack != want || c.State != state {
			t.Fatalf("%+v", c)
		}
	}
	ok(t, s.CatchUpNow(t.Context(), a.ID, time.Now()))
	published(NotRollingBack, Active)
	c := claim(t, s)
	published(NotRollingBack, Active)
	_, err := s.AskRollback(t.Context(), "anna@example.com")
	ok(t, err)
	published(RollbackWanted, Active)
	ok(t, c.CaughtUp(t.Context(), time.Now().Add(time.Hour)))
	published(RollbackWanted, Active)

	// A completion that begins now leaves the account out.
	ok(t, s.SetActive(t.Context(), "example.com", false))
	ok(t, s.Complete(t.Context(), "example.com", CompleteWhole, false))
	if d, err := s.DomainState(t.Context(), "example.com"); err != nil || d.Finished {
		t.Fatalf("%+v, %v", d, err)
	}
	c = claim(t, s)
	published(RollbackWanted, Active)
	if c.Account.Finishing != NotFinishing {
		t.Error("it is in its last pass")
	}
	expect(t, c.EndRollback(t.Context()), ErrChanged)
	ok(t, c.BeginRollback(t.Context()))
	published(RollbackUnderWay, Active)
	ok(t, c.Release(t.Context(), Active, "x", time.Now(), true))
	published(RollbackWanted, Active)

	c = claim(t, s)
	published(RollbackWanted, Active)
	ok(t, c.BeginRollback(t.Context()))
	published(RollbackUnderWay, Active)
	ok(t, s.TakeBack(t.Context(), "worker")) // the process died
	if now, err := s.Account(t.Context(), "anna@example.com"); err != nil || now.RollingBack != RollbackWanted {
		t.Fatalf("%+v, %v", now, err)
	}
	expect(t, c.EndRollback(t.Context()), ErrFenced)

	c = claim(t, s)
	published(RollbackWanted, Active)
	ok(t, c.BeginRollback(t.Context()))
	published(RollbackUnderWay, Active)
	ok(t, c.EndRollback(t.Context()))
	published(NotRollingBack, Excluded)
	now, err := s.Account(t.Context(), "anna@example.com")
	if err != nil || now.HasPassword || now.RolledBackAt.IsZero() || !now.FlippedAt.IsZero() || !now.Due.IsZero() || now.Origin != OriginCreated {
		t.Errorf("%+v, %v", now, err)
	}
	var kept int
	ok(t, s.r.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM credentials").Scan(&kept))
	if kept != 0 {
		t.Errorf("%d passwords are kept", kept)
	}
	expect(t, c.Rebase(t.Context(), nil), ErrFenced)
	_, err = s.AskRollback(t.Context(), "anna@example.com")
	expect(t, err, ErrChanged)
}

// Whoever was excluded by hand stays so; who was taken back moves anew, at his next
// login or with a password that is given.
func TestMoveAnewAfterARollback(t *testing.T) {
	anew := map[string]func(*Store) (Account, error){
		"retry": func(s *Store) (Account, error) { return s.Retry(t.Context(), "anna@example.com") },
		"retry with a password": func(s *Store) (Account, error) {
			return s.RetryWith(t.Context(), "anna@example.com", config.NewSecret("new"))
		},
		"migrate": func(s *Store) (Account, error) {
			a, _, err := s.Migrate(t.Context(), NewAccount{Identity: identity("anna"), Mode: config.ModeAccounts, Password: config.NewSecret("new")})
			return a, err
		},
		"messages": func(s *Store) (Account, error) {
			a, _, err := s.Migrate(t.Context(), NewAccount{Identity: identity("anna"), Mode: config.ModeAccounts, Adopt: true})
			return a, err
		},
	}
	for name, try := range anew {
		t.Run(name, func(t *testing.T) {
			s := openDir(t, t.TempDir())
			put(t, s, "anna", Excluded, OriginCreated)
			_, err := try(s)
			expect(t, err, ErrChanged)

			s = openDir(t, t.TempDir())
			moved(t, s, "anna")
			_, err = s.AskRollback(t.Context(), "anna@example.com")
			ok(t, err)
			c := claim(t, s)
			ok(t, c.BeginRollback(t.Context()))
			ok(t, c.EndRollback(t.Context()))
			a, err := try(s)
			if name == "messages" {
				expect(t, err, ErrChanged)
				return
			}
			ok(t, err)
			if now := name != "retry"; a.Due.IsZero() == now || a.HasPassword != now || a.RolledBackAt.IsZero() {
				t.Errorf("%+v", a)
			}
			if name == "retry" {
				_, err := s.SealPassword(t.Context(), a.ID, config.NewSecret("new"))
				ok(t, err)
			}
			c = claim(t, s)
			if c.Account.State != Copying || c.Account.Origin != OriginCreated || c.Account.RolledBackAt.IsZero() {
				t.Fatalf("%+v", c.Account)
			}
			ok(t, c.Rebase(t.Context(), nil))
			if !c.Account.RolledBackAt.IsZero() {
				t.Error("it counts as taken back still")
			}
		})
	}
}

// What is copied back is in the ledger once, and its intent ends with that.
func TestSettleRollback(t *testing.T) {
	s := openDir(t, t.TempDir())
	a := moved(t, s, "anna")
	_, err := s.AskRollback(t.Context(), "anna@example.com")
	ok(t, err)
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	in := RollbackIntent{FolderID: f.ID, SourceUIDValidity: 1, SourceUIDNext: 7, TargetUIDValidity: 2,
		Messages: []RollbackMessage{{TargetUID: 9, Octets: 11, Digest: digest(1)}, {TargetUID: 10, Octets: 1 << 40, Digest: digest(2)}}}
	ok(t, c.OpenRollbackIntent(t.Context(), &in))
	if all, err := c.RollbackIntents(t.Context()); err != nil || len(all) != 1 || !reflect.DeepEqual(all[0], in) {
		t.Errorf("%+v, %v", all, err)
	}
	// In any order.
	done := []Message{{SourceUID: 8, TargetUID: 9, Digest: digest(1), Octets: 11}, {SourceUID: 7, TargetUID: 10, Digest: digest(2), Octets: 5}}
	ok(t, c.SettleRollback(t.Context(), in, done))
	expect(t, c.SettleRollback(t.Context(), in, done), ErrChanged)
	if all, err := c.RollbackIntents(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	runs, err := s.Runs(t.Context(), f.ID)
	ok(t, err)
	if len(runs) != 2 || runs[0].SourceFirst != 7 || runs[0].TargetFirst != 10 || runs[0].Appended || runs[1].Digests[0] != digest(1) {
		t.Errorf("%+v", runs)
	}
	if now, err := s.Account(t.Context(), "anna@example.com"); err != nil || now.Messages != a.Messages+2 || now.Bytes != a.Bytes {
		t.Errorf("%+v, %v", now, err)
	}
	ok(t, c.OpenRollbackIntent(t.Context(), &in))
	expect(t, c.SettleRollback(t.Context(), in, done), ErrRecorded)
	if all, err := c.RollbackIntents(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
}

// movesAnew is an account that was taken back with these messages in its INBOX, and
// is claimed to move once more.
func movesAnew(t *testing.T, messages []Message) (*Claim, Folder, []SourceRun) {
	t.Helper()
	s := openDir(t, t.TempDir())
	moved(t, s, "anna")
	_, err := s.AskRollback(t.Context(), "anna@example.com")
	ok(t, err)
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	ok(t, c.Settle(t.Context(), f.ID, nil, messages))
	ok(t, c.BeginRollback(t.Context()))
	ok(t, c.EndRollback(t.Context()))
	_, err = s.RetryWith(t.Context(), "anna@example.com", config.NewSecret("new"))
	ok(t, err)
	c = claim(t, s)
	runs, err := s.Runs(t.Context(), f.ID)
	ok(t, err)
	return c, f, runs
}

// The ledger says what it is told, and each message of the target counts once.
func TestRebase(t *testing.T) {
	c, f, runs := movesAnew(t, batch(1, 10, 100))
	// 103 is gone, 104 is another one by now, 105 is in another folder.
	kept := append(batch(1, 2, 100), batch(6, 5, 100)...)
	f.TargetUIDValidity = 3
	ok(t, c.Rebase(t.Context(), []Rebased{{Folder: f, Changed: []RebasedRun{{SourceRun: runs[0], Kept: kept}},
		Added: []Message{{SourceUID: 5, Digest: digest(5)}, {SourceUID: 4, TargetUID: 7, Digest: digest(4), Octets: 10}}}}))
	all, err := c.Ledger(t.Context(), f.ID)
	ok(t, err)
	have := expand(all)
	if len(have) != 9 || have[2].TargetUID != 102 || have[2].targetUIDValidity != 2 || have[4].TargetUID != 7 || have[4].targetUIDValidity != 3 ||
		have[5].TargetUID != 0 || have[6].TargetUID != 106 || !have[6].Appended || have[4].Appended {
		t.Errorf("%+v", have)
	}
	var octets int64
	for _, r := range all {
		octets += r.Octets
	}
	if octets != 80 || c.Account.Messages != 8 {
		t.Errorf("%d octets, %+v", octets, c.Account)
	}
}

// What a run becomes part of is not taken away with what was there.
func TestRebaseJoinsRuns(t *testing.T) {
	copied, recognised := batch(1, 3, 100), batch(4, 3, 100)
	for i := range recognised {
		recognised[i].Appended = false
	}
	c, f, runs := movesAnew(t, append(copied, recognised...))
	if len(runs) != 2 {
		t.Fatalf("%+v", runs)
	}
	f.TargetUIDValidity = 2
	ok(t, c.Rebase(t.Context(), []Rebased{{Folder: f,
		Changed: []RebasedRun{{SourceRun: runs[1], Kept: batch(4, 3, 100)}, {SourceRun: runs[0], Kept: batch(1, 3, 100)}},
		Added:   []Message{{SourceUID: 7, Digest: digest(7)}},
		Strays:  []Message{{SourceUID: 200, TargetUID: 200, Digest: digest(1), Octets: 10, Appended: true}}}}))
	all, err := c.Ledger(t.Context(), f.ID)
	ok(t, err)
	if have := expand(all); len(have) != 7 || have[5].TargetUID != 105 || !have[5].Appended {
		t.Errorf("%+v", all)
	}
	past, err := c.PastLedger(t.Context(), f.ID)
	ok(t, err)
	if len(past) != 1 || past[0].TargetFirst != 200 || !past[0].Appended || c.Account.Messages != 7 {
		t.Errorf("%+v, %d messages", past, c.Account.Messages)
	}
	ok(t, c.ForgetStanding(t.Context()))
	all, err = c.Ledger(t.Context(), f.ID)
	ok(t, err)
	if have := expand(all); len(have) != 6 {
		t.Errorf("%+v", all)
	}
}

// A worker that has lost its claim takes nothing back.
func TestLostClaimTakesNothingBack(t *testing.T) {
	s := openDir(t, t.TempDir())
	moved(t, s, "anna")
	_, err := s.AskRollback(t.Context(), "anna@example.com")
	ok(t, err)
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	in := RollbackIntent{FolderID: f.ID}
	ok(t, c.OpenRollbackIntent(t.Context(), &in))
	ok(t, c.BeginRollback(t.Context()))
	ok(t, s.TakeBack(t.Context(), "worker"))
	for name, err := range map[string]error{
		"BeginRollback":      c.BeginRollback(t.Context()),
		"EndRollback":        c.EndRollback(t.Context()),
		"GiveUpRollback":     c.GiveUpRollback(t.Context(), "x", time.Now()),
		"OpenRollbackIntent": c.OpenRollbackIntent(t.Context(), &RollbackIntent{FolderID: f.ID}),
		"SettleRollback":     c.SettleRollback(t.Context(), in, nil),
		"Rebase":             c.Rebase(t.Context(), nil),
	} {
		if !errors.Is(err, ErrFenced) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What turns out to be somebody's login while an account is taken back, or moves
// anew after that, is still taken away from the target.
func TestRollbackKeepsAliasesDue(t *testing.T) {
	for name, end := range map[string]func(*Store, *Claim) error{
		"taken back": func(_ *Store, c *Claim) error { return c.EndRollback(t.Context()) },
		"given up":   func(_ *Store, c *Claim) error { return c.GiveUpRollback(t.Context(), "x", time.Time{}) },
		"moves anew": func(s *Store, c *Claim) error {
			if err := c.EndRollback(t.Context()); err != nil {
				return err
			}
			_, err := s.Retry(t.Context(), c.Account.Identity.Address())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, ctx := openDir(t, t.TempDir()), t.Context()
			c := created(t, s, "anna", rossi)
			ok(t, c.Flip(ctx, Active, 1, time.Now().Add(time.Hour)))
			_, err := s.AskRollback(ctx, "anna@example.com")
			ok(t, err)
			c = claim(t, s)
			ok(t, c.BeginRollback(ctx))
			_, err = s.Note(ctx, identity("a.rossi"), AtSource)
			ok(t, err)
			ok(t, end(s, c))
			if l, err := claim(t, s).AliasesToRemove(ctx); err != nil || len(l) != 1 {
				t.Errorf("%+v, %v", l, err)
			}
		})
	}
}

// The end of a look at the aliases of an account that was taken back does not undo
// that it moves anew.
func TestMoveAnewWhileClaimed(t *testing.T) {
	s, ctx := openDir(t, t.TempDir()), t.Context()
	c := created(t, s, "anna", rossi)
	ok(t, c.Flip(ctx, Active, 1, time.Now().Add(time.Hour)))
	_, err := s.AskRollback(ctx, "anna@example.com")
	ok(t, err)
	c = claim(t, s)
	ok(t, c.BeginRollback(ctx))
	_, err = s.RejectAlias(ctx, rossi, "")
	ok(t, err)
	ok(t, c.EndRollback(ctx))
	c = claim(t, s)
	_, err = s.Retry(ctx, "anna@example.com")
	ok(t, err)
	expect(t, c.Release(ctx, c.Account.State, "", time.Time{}, false), ErrFenced)
	if a, err := s.Account(ctx, "anna@example.com"); err != nil || a.State != Waiting {
		t.Errorf("%+v, %v", a, err)
	}
}

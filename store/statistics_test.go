package store

import (
	"math"
	"strconv"
	"testing"
	"time"

	"migproxy/config"
)

func statistics(t *testing.T, s *Store) Statistics {
	t.Helper()
	st, err := s.Statistics(t.Context())
	ok(t, err)
	return st
}

func TestStatistics(t *testing.T) {
	s := openDir(t, t.TempDir())
	st := statistics(t, s)
	if !st.StartedAt.IsZero() || st.MailboxesSeen != 0 || len(st.Accounts) != len(States()) {
		t.Errorf("%+v", st)
	}
	_, err := s.Note(t.Context(), identity("native"), Native)
	ok(t, err)
	if st = statistics(t, s); !st.StartedAt.IsZero() || st.MailboxesSeen != 1 {
		t.Errorf("begun by a note: %+v", st)
	}
	for range 2 {
		begin(t, s, strconv.FormatInt(st.MailboxesSeen, 10), "x")
		c := claim(t, s)
		f := folder(t, c, "INBOX")
		ok(t, c.Settle(t.Context(), f.ID, nil, append(batch(1, 3, 0), Message{SourceUID: 9, TargetUID: 9, Octets: 1000})))
		st = statistics(t, s)
	}
	if st.MessagesMigrated != 8 || st.BytesMigrated != 60 || st.Accounts[Provisioning] != 2 || st.Accounts[Native] != 1 ||
		st.MailboxesMigrated != 0 || st.LastMailbox != "" || st.StartedAt.IsZero() {
		t.Errorf("%+v", st)
	}
}

// The figures through the life of three accounts: one flips, is caught up and
// finished, one fails, and one is excluded in the middle.
func TestStatisticsOverTheYears(t *testing.T) {
	s := openDir(t, t.TempDir())
	ctx := t.Context()
	hold := map[string]*Claim{}
	folders := map[string]Folder{}
	var before time.Time
	for i, name := range []string{"anna", "bert", "carl"} {
		begin(t, s, name, "x")
		if i == 0 {
			before = statistics(t, s).StartedAt
		}
		hold[name] = claim(t, s)
		folders[name] = folder(t, hold[name], "INBOX")
		ok(t, hold[name].SetOrigin(ctx, OriginCreated))
		ok(t, hold[name].SetExpected(ctx, 12))
		ok(t, hold[name].Settle(ctx, folders[name].ID, nil, batch(1, 10, 0)))
	}
	check := func(when string, migrated, failed, messages, errors int64, last string) {
		t.Helper()
		st := statistics(t, s)
		if st.MailboxesSeen != 3 || st.MailboxesMigrated != migrated || st.MailboxesFailed != failed || st.MessagesMigrated != messages ||
			st.BytesMigrated != 10*messages || st.Errors != errors || st.LastMailbox != last || st.LastMailboxMigratedAt.IsZero() != (last == "") ||
			!st.StartedAt.Equal(before) {
			t.Errorf("%s: %+v", when, st)
		}
	}
	check("copied", 0, 0, 30, 0, "")
	ok(t, hold["anna"].Flip(ctx, Active, 1, time.Now()))
	check("flipped", 1, 0, 30, 0, "anna@example.com")
	ok(t, hold["bert"].Release(ctx, Failed, "it differs", time.Time{}, true))
	check("failed", 1, 1, 30, 1, "anna@example.com")
	_, err := s.Exclude(ctx, identity("carl"))
	ok(t, err)
	check("excluded", 1, 1, 30, 1, "anna@example.com")
	c := claim(t, s)
	ok(t, c.Settle(ctx, folders["anna"].ID, nil, batch(30, 2, 0)))
	ok(t, c.CaughtUp(ctx, time.Now()))
	check("caught up", 1, 1, 32, 1, "anna@example.com")
	c = claim(t, s)
	ok(t, c.Release(ctx, Active, "the source is away", time.Now(), true))
	check("a catch-up failed", 1, 1, 32, 2, "anna@example.com")
	c = claim(t, s)
	ok(t, c.Release(ctx, Active, "", time.Now(), false))
	check("put down", 1, 1, 32, 2, "anna@example.com")
	ok(t, s.SetActive(ctx, "example.com", false))
	ok(t, s.Complete(ctx, "example.com", CompleteForced, false))
	ok(t, claim(t, s).Finish(ctx))
	check("finished", 1, 1, 32, 2, "anna@example.com")
	_, err = s.Retry(ctx, "bert@example.com")
	ok(t, err)
	ok(t, claim(t, s).Flip(ctx, Finished, 1, time.Time{}))
	check("retried", 2, 0, 32, 2, "bert@example.com")
}

func TestRate(t *testing.T) {
	s := openDir(t, t.TempDir())
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	note := func(at time.Duration, messages int64) {
		t.Helper()
		ok(t, s.write(t.Context(), func(x *tx) error { return x.pace(messages, 1000*messages, noon.Add(at)) }))
	}
	is := func(at time.Duration, messages, seconds int64) {
		t.Helper()
		r, err := readRate(t.Context(), s.r, noon.Add(at))
		want := Rate{Seconds: seconds}
		if seconds > 0 {
			want.Messages, want.Bytes = float64(messages)/float64(seconds), float64(1000*messages)/float64(seconds)
		}
		if err != nil || r != want {
			t.Errorf("after %s: %+v, %v; want %+v", at, r, err, want)
		}
	}
	is(0, 0, 0)
	note(0, 7)
	is(0, 7, 1)
	note(30*time.Second, 13)
	is(30*time.Second, 20, 30)
	is(time.Minute, 20, 60)
	note(3*time.Minute, 100) // what was not copied in between does not count
	is(3*time.Minute+15*time.Second, 120, 75)
	is(9*time.Minute+59*time.Second, 120, 120)
	is(10*time.Minute, 100, 60) // the first one is out
	is(14*time.Minute, 0, 0)
	note(16*time.Minute, 5) // takes the row of the first
	note(19*time.Minute, 6)
	note(19*time.Minute, 7)
	is(20*time.Minute, 18, 120)
	is(-time.Hour, 0, 0) // the clock was put back
}

// The rate is that of the moves, and outlives the process.
func TestRateIsOfMoves(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	begin(t, s, "anna", "x")
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	ok(t, c.Settle(t.Context(), f.ID, nil, append(batch(1, 50, 0), Message{SourceUID: 90, TargetUID: 90, Octets: 1000})))
	total := func(s *Store) int64 {
		r := statistics(t, s).Rate
		if ratio := r.Bytes / r.Messages; math.Round(ratio*1000) != 10_000 {
			t.Errorf("%+v", r)
		}
		return int64(r.Messages*float64(r.Seconds) + 0.5)
	}
	if n := total(s); n != 50 {
		t.Errorf("a rate of %d messages", n)
	}
	ok(t, c.Flip(t.Context(), Active, 1, time.Now()))
	ok(t, claim(t, s).Settle(t.Context(), f.ID, nil, batch(100, 50, 0)))
	if n := total(openDir(t, dir)); n != 50 {
		t.Errorf("after a catch-up and a restart a rate of %d messages", n)
	}
}

func TestRemaining(t *testing.T) {
	s := openDir(t, t.TempDir())
	ctx := t.Context()
	is := func(accounts, uncounted, messages int64) {
		t.Helper()
		if r := statistics(t, s).Remaining; r.Accounts != accounts || r.Uncounted != uncounted || r.Messages != messages {
			t.Errorf("%+v, want %d accounts, %d uncounted, %d messages", r, accounts, uncounted, messages)
		}
	}
	begun := func(name string, expected int64) (*Claim, Folder) {
		t.Helper()
		begin(t, s, name, "x")
		c := claim(t, s)
		ok(t, c.SetOrigin(ctx, OriginCreated))
		if expected > 0 {
			ok(t, c.SetExpected(ctx, expected))
		}
		return c, folder(t, c, "INBOX")
	}
	is(0, 0, 0)
	anna, inbox := begun("anna", 100)
	is(1, 0, 100)
	if st := statistics(t, s); st.Remaining.Seconds != 0 {
		t.Errorf("an estimate from nothing: %+v", st.Remaining)
	}
	ok(t, anna.Settle(ctx, inbox.ID, nil, batch(1, 60, 0)))
	is(1, 0, 40)
	st := statistics(t, s)
	if want := 40 / st.Rate.Messages; float64(st.Remaining.Seconds) < want || float64(st.Remaining.Seconds) > want+1 {
		t.Errorf("%+v at %+v", st.Remaining, st.Rate)
	}
	bert, _ := begun("bert", 0)
	is(2, 1, 40)
	ok(t, bert.Release(ctx, Waiting, "full", time.Time{}, true))
	is(2, 1, 40)
	carl, _ := begun("carl", 7)
	is(3, 1, 47)
	ok(t, carl.Release(ctx, Conflict, "taken", time.Time{}, true))
	is(2, 1, 40)
	ok(t, anna.Settle(ctx, inbox.ID, nil, batch(61, 50, 0))) // more than were counted
	is(2, 1, 0)
	ok(t, anna.Flip(ctx, Active, 1, time.Time{}))
	is(1, 1, 0)
	_, _, err := s.Begin(ctx, NewAccount{Identity: identity("dora"), Password: config.NewSecret("x"), Mode: config.ModePasswords})
	ok(t, err)
	is(2, 1, 0)
	_, err = s.Exclude(ctx, identity("bert"))
	ok(t, err)
	is(1, 0, 0)
	ok(t, s.SetActive(ctx, "example.com", false))
	ok(t, s.Complete(ctx, "example.com", CompleteForced, false))
	ok(t, claim(t, s).Release(ctx, Provisioning, "", time.Time{}, false)) // dora
	ok(t, claim(t, s).Finish(ctx))
	ok(t, s.SettleCompletion(ctx, "example.com"))
	is(0, 0, 0)
}

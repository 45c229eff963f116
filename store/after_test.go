package store

import (
	"testing"
	"time"
)

// What is to be run is committed with the flip and with the end, and only where
// a command is to be run.
func TestAfterRuns(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	ctx := t.Context()
	runs := func(s *Store, want ...State) []AfterRun {
		t.Helper()
		all, err := s.AfterRuns(ctx, 100)
		ok(t, err)
		var have []State
		for _, r := range all {
			have = append(have, r.State)
		}
		if len(have) != len(want) {
			t.Fatalf("%v, want %v", have, want)
		}
		for i := range want {
			if have[i] != want[i] {
				t.Fatalf("%v, want %v", have, want)
			}
		}
		return all
	}
	begin(t, s, "nobody", "x")
	ok(t, claim(t, s).Flip(ctx, Active, 1, time.Time{}))
	runs(s)
	begin(t, s, "anna", "x")
	c := claim(t, s)
	c.RunAfter = true
	f := folder(t, c, "INBOX")
	ok(t, c.Settle(ctx, f.ID, nil, batch(1, 3, 0)))
	ok(t, c.NoteAltered(ctx, Altered{FolderID: f.ID, SourceUID: 1, TargetUID: 1}))
	expect(t, c.Flip(ctx, Active, 7, time.Time{}), ErrChanged)
	runs(s)
	ok(t, c.Flip(ctx, Active, 1, time.Now()))
	expect(t, c.Flip(ctx, Active, 1, time.Time{}), ErrFenced)
	r := runs(s, Active)[0]
	for tries := range 2 {
		if r = runs(s, Active)[0]; r.Tries != tries {
			t.Errorf("%d tries, want %d", r.Tries, tries)
		}
		a, altered, err := s.BeginAfterRun(ctx, r)
		if err != nil || a.Identity.Local != "anna" || a.Messages != 3 || altered != 1 || a.FlippedAt.IsZero() {
			t.Errorf("%+v, %d altered, %v", a, altered, err)
		}
	}
	ok(t, s.SetActive(ctx, "example.com", false))
	ok(t, s.Complete(ctx, "example.com", CompleteWhole, false))
	for range 2 {
		c = claim(t, s)
		c.RunAfter = c.Account.Identity.Local == "anna"
		ok(t, c.Finish(ctx))
	}
	s = openDir(t, dir)
	r = runs(s, Active, Finished)[0]
	ok(t, s.EndAfterRun(ctx, r, "anna@example.com", "done"))
	runs(s, Finished)
	if events, err := s.LastEvents(ctx, "anna@example.com", 9); err != nil || len(events) != 1 || events[0].Text != "done" {
		t.Errorf("%+v, %v", events, err)
	}
}

package store

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

// What is forgotten is as if it had never been copied, under whatever UIDVALIDITY
// of the source; all else stays as it was.
func TestForget(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "x")
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	next := uint32(1)
	sizes := map[uint32]int64{}
	want := map[uint32]map[uint32]settled{}
	for validity := range uint32(3) {
		f.SourceUIDValidity = validity + 1
		ok(t, c.PutFolder(t.Context(), &f))
		want[validity+1] = map[uint32]settled{}
		var done []Message
		again := map[uint32]bool{}
		for uid := range uint32(1500) {
			if rnd.IntN(30) == 0 {
				next++
			}
			m := Message{SourceUID: uid + 1, TargetUID: next, Digest: digest(rnd.Uint32()), Octets: rnd.Int64N(1000), Appended: rnd.IntN(60) > 0}
			if earlier := 1 + rnd.Uint32N(1000); validity > 0 && sizes[earlier] > 0 && !again[earlier] && rnd.IntN(3) == 0 {
				m.TargetUID, m.Octets, m.Appended = earlier, sizes[earlier], false // the same message, under another UID
				again[earlier] = true
			} else {
				next++
				sizes[m.TargetUID] = m.Octets
			}
			done = append(done, m)
			kept := m
			kept.Octets = 0
			want[validity+1][m.SourceUID] = settled{kept, f.TargetUIDValidity}
		}
		ok(t, c.Settle(t.Context(), f.ID, nil, done))
	}
	size := func(uid uint32) int64 { return sizes[uid] }
	check := func() {
		t.Helper()
		there := map[uint32]bool{}
		for validity, messages := range want {
			f.SourceUIDValidity = validity
			ok(t, c.PutFolder(t.Context(), &f))
			runs, err := c.Ledger(t.Context(), f.ID)
			ok(t, err)
			if got := expand(runs); !reflect.DeepEqual(got, messages) {
				t.Fatalf("%d: %d messages, not %d", validity, len(got), len(messages))
			}
			for _, r := range runs {
				var octets int64
				for n := range r.Digests {
					octets += sizes[r.TargetFirst+uint32(n)]
				}
				if octets != r.Octets {
					t.Errorf("the run at %d has %d octets, not %d", r.SourceFirst, r.Octets, octets)
				}
			}
			for _, m := range messages {
				there[m.TargetUID] = true
			}
		}
		ok(t, c.Refresh(t.Context()))
		if c.Account.Messages != int64(len(there)) {
			t.Errorf("%d messages are counted, not %d", c.Account.Messages, len(there))
		}
	}
	check()
	for range 20 {
		var gone []Forgotten
		first, span := rnd.Uint32N(next), 1+rnd.Uint32N(200)
		for uid := first; uid < first+span; uid += 1 + rnd.Uint32N(3) {
			gone = append(gone, Forgotten{TargetUID: uid})
			for _, messages := range want {
				for source, m := range messages {
					if m.TargetUID == uid {
						delete(messages, source)
					}
				}
			}
		}
		ok(t, c.Forget(t.Context(), f.ID, gone, size))
		ok(t, c.Forget(t.Context(), f.ID, gone, size)) // a repetition does nothing
		check()
	}
}

// What a forgotten message showed counts no more, and what was noted of it when the
// target altered it is gone.
func TestForgetWhatItShowed(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "x")
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	shows := []Sighting{{Address: "info@example.com", Headers: "X", Weighs: true}}
	ok(t, c.Settle(t.Context(), f.ID, nil, []Message{
		{SourceUID: 1, TargetUID: 1, Octets: 5, Appended: true, Shows: shows},
		{SourceUID: 2, TargetUID: 2, Octets: 6, Appended: true, Shows: shows}}))
	ok(t, c.NoteAltered(t.Context(), Altered{FolderID: f.ID, SourceUID: 1, TargetUID: 1}, Altered{FolderID: f.ID, SourceUID: 2, TargetUID: 2}))
	size := func(uint32) int64 { return 6 }
	gone := []Forgotten{{TargetUID: 1, Shows: shows}}
	ok(t, c.Forget(t.Context(), f.ID, gone, size))
	ok(t, c.Forget(t.Context(), f.ID, gone, size))
	var n int64
	ok(t, s.r.QueryRowContext(t.Context(), "SELECT messages FROM sightings WHERE account_id = $1", c.id).Scan(&n))
	altered, err := s.AlteredMessages(t.Context(), c.id, 10)
	ok(t, err)
	if n != 1 || len(altered) != 1 || altered[0].SourceUID != 2 {
		t.Error(n, altered)
	}
}

// A renaming survives a restart until it has ended; its folders get their new
// names together.
func TestRenames(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "x")
	c := claim(t, s)
	ctx := t.Context()
	tree, below := folder(t, c, "Tree"), folder(t, c, "Tree/a")
	for _, f := range []Folder{tree, below} {
		ok(t, c.Settle(ctx, f.ID, nil, []Message{{SourceUID: 1, TargetUID: 1, Octets: 5, Appended: true}}))
	}
	want := []Rename{{FolderID: tree.ID, Source: "Bush", Target: "Bush"}, {FolderID: below.ID, Source: "Bush/a", Target: "Bush/a"}}
	ok(t, c.BeginRename(ctx, want))
	ok(t, c.GiveUpRenames(ctx))
	ok(t, c.BeginRename(ctx, want))
	if got, err := c.Renames(ctx); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatal(got, err)
	}
	ok(t, c.Renamed(ctx))
	ok(t, c.GiveUpRenames(ctx)) // it is done: too late
	ok(t, c.Renamed(ctx))
	ok(t, c.EndRename(ctx, tree.ID, 77, true))
	ok(t, c.EndRename(ctx, below.ID, 78, false))
	if left, err := c.Renames(ctx); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
	folders, err := c.Folders(ctx)
	ok(t, err)
	runs, err := c.Ledger(ctx, tree.ID)
	ok(t, err)
	gone, err := c.Ledger(ctx, below.ID)
	ok(t, err)
	ok(t, c.Refresh(ctx))
	if len(folders) != 2 || folders[0].Source != "Bush" || folders[0].TargetUIDValidity != 77 || folders[1].Target != "Bush/a" || folders[1].TargetUIDValidity != 0 ||
		len(runs) != 1 || runs[0].TargetUIDValidity != 77 || len(gone) != 0 || c.Account.Messages != 1 {
		t.Errorf("%+v %v %v %d", folders, runs, gone, c.Account.Messages)
	}
	tree = folders[0]
	tree.Subscribed, tree.SourceUIDValidity, tree.Matched = true, 5, true
	ok(t, c.PutFolder(ctx, &tree))
	ok(t, c.BeginRemoval(ctx, tree.ID))
	ok(t, c.Refresh(ctx))
	tree.SourceUIDValidity, tree.TargetUIDValidity, tree.Matched = 0, 0, false
	if folders, err = c.Folders(ctx); err != nil || len(folders) != 2 || folders[0] != tree || c.Account.Messages != 0 {
		t.Error(folders, c.Account.Messages, err)
	}
	ok(t, c.ForgetFolder(ctx, tree.ID))
	ok(t, c.Refresh(ctx))
	if folders, err = c.Folders(ctx); err != nil || len(folders) != 1 || c.Account.Messages != 0 {
		t.Error(folders, c.Account.Messages, err)
	}
}

package store

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
)

// UIDLs are kept for each account and UIDVALIDITY, octet for octet, and none is
// ever lost.
func TestUIDLs(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "pw")
	begin(t, s, "bert", "pw")
	anna, bert := claim(t, s), claim(t, s)
	digest := string(make([]byte, 16))
	first := []UIDL{
		{"00000001", 0, 1, 1}, {"\x00" + digest, 0, 1, 2}, {"\x00" + digest, 1, 1, 3}, {"\xff\"' x", 0, 1, 4}, {"imap", 0, 77, 1},
	}
	ok(t, anna.PutUIDLs(t.Context(), first))
	ok(t, anna.PutUIDLs(t.Context(), nil))
	ok(t, bert.PutUIDLs(t.Context(), []UIDL{{"00000001", 0, 1, 9}}))
	ok(t, anna.PutUIDLs(t.Context(), []UIDL{{"imap", 0, 77, 5}, {"imap", 1, 77, 6}}))
	for validity, want := range map[uint32][]UIDL{
		1: first[:4], 77: {{"imap", 0, 77, 5}, {"imap", 1, 77, 6}}, 2: nil,
	} {
		got, err := anna.UIDLs(t.Context(), validity)
		ok(t, err)
		if !slices.Equal(got, want) {
			t.Errorf("%d: got %v, want %v", validity, got, want)
		}
	}
	if got, err := s.UIDLs(t.Context(), anna.Account.ID, 1); err != nil || !slices.Equal(got, first[:4]) {
		t.Errorf("without a claim %v, %v", got, err)
	}
	if got, err := bert.UIDLs(t.Context(), 1); err != nil || !slices.Equal(got, []UIDL{{"00000001", 0, 1, 9}}) {
		t.Errorf("got %v, %v", got, err)
	}
}

// All are written or none, however many, and none after the claim was lost.
func TestManyUIDLs(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "pw")
	c := claim(t, s)
	const n = 5000
	var all []UIDL
	for i := range uint32(n) {
		all = append(all, UIDL{fmt.Sprint("u", i), 0, 1, i + 1})
	}
	_, err := s.w.ExecContext(t.Context(), fmt.Sprintf(`CREATE TRIGGER fails BEFORE INSERT ON uidls WHEN NEW.source_uid = %d
		BEGIN SELECT RAISE(ABORT, 'no'); END`, n))
	ok(t, err)
	if err := c.PutUIDLs(t.Context(), all); err == nil {
		t.Error("nothing failed")
	}
	if got, err := c.UIDLs(t.Context(), 1); err != nil || len(got) > 0 {
		t.Errorf("%d of %d, %v", len(got), n, err)
	}
	_, err = s.w.ExecContext(t.Context(), "DROP TRIGGER fails")
	ok(t, err)
	ok(t, c.PutUIDLs(t.Context(), all))
	got, err := c.UIDLs(t.Context(), 1)
	ok(t, err)
	if !slices.Equal(got, all) {
		t.Errorf("%d of %d", len(got), len(all))
	}
	ok(t, c.Release(context.Background(), Copying, "", time.Now(), false))
	expect(t, c.PutUIDLs(t.Context(), all[:1]), ErrFenced)
}

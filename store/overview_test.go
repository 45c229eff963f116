package store

import (
	"strconv"
	"testing"
)

func TestActiveIsSeededOnce(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	active := func(s *Store, want bool) {
		t.Helper()
		if have, err := s.DomainState(t.Context(), "example.com"); err != nil || have.Active != want {
			t.Errorf("%+v, %v", have, err)
		}
	}
	active(s, false)
	if v, err := s.SeedActive(t.Context(), "example.com", true); err != nil || !v {
		t.Error(v, err)
	}
	active(s, true)
	ok(t, s.SetActive(t.Context(), "example.com", false))
	// The next start: the store's state wins over the settings.
	again := openDir(t, dir)
	if v, err := again.SeedActive(t.Context(), "example.com", true); err != nil || v {
		t.Error(v, err)
	}
	active(again, false)
	ok(t, again.SetActive(t.Context(), "example.org", true))
	active(s, false)
}

func TestEvents(t *testing.T) {
	s := openDir(t, t.TempDir())
	for n := 1; n <= 6; n++ {
		address := ""
		if n%2 == 0 {
			address = "anna@example.com"
		}
		ok(t, s.Event(t.Context(), address, strconv.Itoa(n)+"\xff"))
	}
	for _, c := range []struct {
		address string
		after   int64
		limit   int
		want    string
	}{
		{"", 0, 9, "123456"}, {"", 4, 9, "56"}, {"", 0, 2, "12"}, {"", 3, 2, "45"}, {"", 6, 9, ""},
		{"anna@example.com", 0, 9, "246"}, {"anna@example.com", 2, 1, "4"}, {"nobody@example.com", 0, 9, ""},
	} {
		events, err := s.Events(t.Context(), c.address, c.after, c.limit)
		ok(t, err)
		have := ""
		for _, e := range events {
			have += e.Text[:1]
			if e.At.IsZero() || e.ID == 0 || e.Text[1:] != "\uFFFD" {
				t.Errorf("%+v", e)
			}
		}
		if have != c.want {
			t.Errorf("%+v: %s", c, have)
		}
	}
	for n, want := range []string{"", "6", "46", "246", "246"} {
		events, err := s.LastEvents(t.Context(), "anna@example.com", n)
		ok(t, err)
		have := ""
		for _, e := range events {
			have += e.Text[:1]
		}
		if have != want {
			t.Errorf("the last %d: %s", n, have)
		}
	}
}

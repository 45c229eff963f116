package store

import (
	"context"
	"sync"
	"testing"
	"time"
)

// next waits for a change.
func next(t *testing.T, changes <-chan Change) (Change, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	select {
	case c, open := <-changes:
		return c, open
	case <-ctx.Done():
		t.Fatal("no change came")
		return Change{}, false
	}
}

func TestSubscribe(t *testing.T) {
	s := openDir(t, t.TempDir())
	changes, cancel := s.Subscribe(false)
	all, cancelAll := s.Subscribe(true)
	defer cancelAll()
	a := begin(t, s, "anna", "x")
	want := Change{AccountID: a.ID, Address: "anna@example.com", State: Provisioning}
	for _, ch := range []<-chan Change{changes, all} {
		if c, _ := next(t, ch); c != want {
			t.Errorf("%+v", c)
		}
	}
	ok(t, s.Event(t.Context(), "anna@example.com", "Migrating"))
	if c, _ := next(t, all); c != (Change{Address: "anna@example.com"}) {
		t.Errorf("%+v", c)
	}
	_, err := s.Exclude(t.Context(), identity("anna"))
	ok(t, err)
	want.State = Excluded
	if c, _ := next(t, changes); c != want {
		t.Errorf("an event where only accounts were asked for, or else: %+v", c)
	}
	cancel()
	cancel()
	if c, open := next(t, changes); open {
		t.Errorf("%+v after cancel", c)
	}
	begin(t, s, "bert", "x") // is not kept for those who left
}

// Whoever is told of accounts is told of each domain that is finished, too.
func TestFinishedDomainIsPublished(t *testing.T) {
	s := openDir(t, t.TempDir())
	changes, cancel := s.Subscribe(false)
	defer cancel()
	domains := []string{"example.com", "example.net"}
	for _, domain := range domains {
		ok(t, s.SetActive(t.Context(), domain, false))
		ok(t, s.Complete(t.Context(), domain, CompleteWhole, false))
	}
	for _, domain := range domains {
		if c, _ := next(t, changes); c != (Change{Finished: domain}) {
			t.Errorf("%+v", c)
		}
	}
}

// TestSlowSubscriberGetsTheLast: nobody reads while an account changes many
// times and from several goroutines; then the last change is the account's state.
func TestSlowSubscriberGetsTheLast(t *testing.T) {
	s := openDir(t, t.TempDir())
	changes, cancel := s.Subscribe(true)
	defer cancel()
	begin(t, s, "anna", "x")
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for uid := range uint32(10) {
				if err := c.Settle(t.Context(), f.ID, nil, batch(uint32(n)*100+2*uid, 1, 0)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	ok(t, c.Flip(t.Context(), Active, 1, time.Time{}))
	begin(t, s, "bert", "x")
	seen := 0
	for {
		ch, _ := next(t, changes)
		seen++
		if ch.Address == "bert@example.com" { // came after everything of anna's
			break
		}
		if ch.State == Active {
			c = nil
		} else if c == nil {
			t.Errorf("%s after the flip", ch.State)
		}
	}
	if c != nil || seen > 3 {
		t.Errorf("the flip was lost, or nothing was coalesced: %d changes", seen)
	}
}

func TestCloseEndsSubscriptions(t *testing.T) {
	s, err := Open(t.Context(), settings(t.TempDir()), openDir(t, t.TempDir()).log)
	ok(t, err)
	changes, cancel := s.Subscribe(true)
	ok(t, s.Event(t.Context(), "", "unread"))
	ok(t, s.Close())
	for open := true; open; {
		_, open = next(t, changes)
	}
	cancel()
	late, cancel := s.Subscribe(true)
	defer cancel()
	if _, open := next(t, late); open {
		t.Error("subscribed to a closed store")
	}
}

package migrator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/upstream"
)

func sourceServer(t *testing.T, host string) *upstream.Server {
	t.Helper()
	s, err := upstream.NewServer(config.IMAP, config.Server{Address: config.Addresses{{Host: host, Port: 143}}, TLS: config.TLSNone}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Two servers of the settings with one address are one host.
func TestHostsAreKnownByAddress(t *testing.T) {
	all := newHosts(config.Rate{})
	a, again := all.of(sourceServer(t, "a.example.com")), all.of(sourceServer(t, "a.example.com"))
	if a != again {
		t.Error("one address, two hosts")
	}
	if a == all.of(sourceServer(t, "b.example.com")) {
		t.Error("two addresses, one host")
	}
}

func TestConnectionsOfAHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost("old.example.com:143", config.Rate{Connections: 2})
		for range 2 {
			if err := h.enter(t.Context(), crowdedWait); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		crowded, ok := errors.AsType[*rest](h.enter(t.Context(), crowdedWait))
		if !ok || crowded.pause != crowdedPause || crowded.asked || time.Since(began) != crowdedWait {
			t.Fatalf("%+v after %s", crowded, time.Since(began))
		}
		done := make(chan error)
		go func() { done <- h.enter(t.Context(), crowdedWait) }()
		synctest.Wait()
		h.leave()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := h.enter(ctx, crowdedWait); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
}

// A host that asked for a pause is left alone by everybody for that long; one
// that did not say for how long, by the account that it said so to.
func TestHostAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost("old.example.com:143", config.Rate{})
		if r := h.throttled(&upstream.Throttled{Said: "slower"}, time.Minute); r.pause != time.Minute || !r.asked || h.enter(t.Context(), crowdedWait) != nil {
			t.Errorf("%+v", r)
		}
		for _, c := range []struct{ asked, want time.Duration }{{5 * time.Minute, 5 * time.Minute}, {time.Second, time.Second}, {48 * time.Hour, maxRest}} {
			r := h.throttled(&upstream.Throttled{Pause: c.asked, Said: "slower"}, time.Minute)
			if r.pause != c.want || !r.asked {
				t.Errorf("asked for %s: %+v", c.asked, r)
			}
			time.Sleep(c.want - time.Second)
			if other, ok := errors.AsType[*rest](h.enter(t.Context(), crowdedWait)); !ok || other.pause != time.Second || other.asked {
				t.Errorf("before the end: %+v", other)
			}
			time.Sleep(time.Second)
			if err := h.enter(t.Context(), crowdedWait); err != nil {
				t.Errorf("at the end: %v", err)
			}
		}
	})
}

// What is taken at once comes out of the following seconds; the end of the
// context ends the wait and gives the turn back.
func TestTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost("old.example.com:143", config.Rate{Octets: 1000})
		began := time.Now()
		for range 5 {
			if err := take(t.Context(), h.octets, 1000); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(began); d != 4*time.Second {
			t.Errorf("5000 octets took %s", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := take(ctx, h.octets, 1000); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := take(t.Context(), h.octets, 1000); err != nil || time.Since(began) > 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		if err := take(t.Context(), h.messages, 1); err != nil {
			t.Error(err)
		}
	})
}

//go:build long

package e2e

import (
	"fmt"
	"path/filepath"
	"testing"
)

func TestUserWorksUntilTheFlipWithManySeeds(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *office{"Dovecot": dovecotOffice, "Courier": courierOffice} {
		for seed := range uint64(10) {
			t.Run(fmt.Sprintf("%s %d", name, seed+100), func(t *testing.T) {
				t.Parallel()
				o := start(t)
				o.user.Messages, o.user.After = 120, 10
				o.works(t, seed+100)
			})
		}
	}
}

// Who is not in the wave works at his source through the same proxy.
func TestUserOfALaterWaveWorks(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *office{"Dovecot": dovecotOffice, "Courier": courierOffice} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := start(t)
			s := o.settings()
			s.domain += "    wave: { exclude: [\"*\"] }\n"
			p := newProxy(t, binary, s).start()
			u := o.user
			u.IMAP, u.IMAPS, u.Seed, u.Messages, u.Limit = p.imap, p.imaps, 7, 100, 15
			u.Stays = true
			u.Phone = filepath.Join(t.TempDir(), "phone")
			w := startWorker(t, u)
			w.goOn()
			if err := differences(w.await("done").view(), o.look().undated()); err != nil {
				t.Error(err)
			}
		})
	}
}

package e2e

import (
	"testing"
)

func TestWorkerOnSource(t *testing.T) {
	for name, o := range map[string]func(testing.TB) *office{"Dovecot": dovecotOffice, "Courier": courierOffice} {
		t.Run(name, func(t *testing.T) {
			o := o(t)
			s := o.settings()
			s.domain += "    wave: { exclude: [\"*\"] }\n"
			p := newProxy(t, binary, s).start()
			u := o.user
			u.IMAP, u.IMAPS, u.Seed, u.Messages, u.Limit, u.After = p.imap, p.imaps, 1, 100, 20, 10
			u.Phone = t.TempDir() + "/phone"
			w := startWorker(t, u)
			w.goOn()
			n := <-w.events
			t.Log(n.Event, n.Text)
			t.Logf("%+v", n.Stats)
			if err := differences(n.view(), o.look().undated()); err != nil {
				t.Error(err)
			}
			if t.Failed() { t.Log(tail(readFile(t, w.transcript), 60)) }
		})
	}
}

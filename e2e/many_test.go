package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"migproxy/e2e/servers"
)

// fillMany makes n small messages in three folders, a tenth of them twins.
func fillMany(t testing.TB, d *servers.Dovecot, n int) {
	t.Helper()
	c := login(t, d.IMAP, user, password)
	folders := []string{"INBOX", sourcePrefix + "Lists", sourcePrefix + "Lists" + sourceSep + "Go"}
	for _, f := range folders[1:] {
		if err := c.Create(f, nil).Wait(); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(7, 7))
	flags := [][]imap.Flag{nil, {imap.FlagSeen}, {imap.FlagSeen, imap.FlagAnswered}, {imap.FlagFlagged, "$Work"}}
	var twin mail
	for i := range n {
		m := mail{
			octets: fmt.Appendf(nil, "Subject: number %d\r\n\r\n%s", i, body(r, 200+r.IntN(4000))),
			flags:  flags[r.IntN(len(flags))],
			date:   time.Date(2015, 1, 1, 0, 0, i, 0, time.UTC),
		}
		switch i % 20 {
		case 0:
			twin = m
		case 9, 10:
			m = twin
		}
		appendTo(t, c, folders[i%len(folders)], m)
	}
}

func body(r *rand.Rand, octets int) []byte {
	b := make([]byte, 0, octets+2)
	for len(b) < octets {
		if len(b)%72 == 71 {
			b = append(b, "\r\n"...)
		}
		b = append(b, 'a'+byte(r.IntN(26)))
	}
	return append(b, "\r\n"...)
}

// awaitMessages waits until so many messages were copied.
func (p *proxy) awaitMessages(n int) {
	p.t.Helper()
	err := eventually(copyDeadline, func() error {
		a, err := p.state(user)
		if err == nil && a.Messages < n {
			err = fmt.Errorf("%d of %d messages", a.Messages, n)
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

//go:build long

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func (v *valve) shut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.open = make(chan struct{})
}

func (v *valve) release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.open)
}

// A flip that cannot end, because the target does not answer any more, is taken
// back: the user works at his source again, and a later try succeeds.
func TestFlipThatCannotEndIsTakenBack(t *testing.T) {
	var v *valve
	p := newPair(t, binary, func(s *settings) {
		atSource(s)
		v = newValve(t, s.target.imap)
		s.target.imap = v.port
	})
	p.source.AddUser(user, password)
	fill(t, p.source.IMAP, user, password, sourcePrefix, sourceSep, "Gesendet")
	p.start()
	first, _ := enter(t, p.imaps)
	first.until("* BYE") // from here on logins are held
	v.shut()
	began := time.Now()
	again, onTarget := enter(t, p.imaps)
	took := time.Since(began)
	if onTarget {
		t.Fatal("the flip was over before the target was cut off")
	}
	t.Logf("the login was held for %s", took)
	m := note("after-the-flip-was-taken-back")
	again.send(fmt.Sprintf("b APPEND INBOX {%d+}\r\n%s\r\n", len(m.octets), m.octets))
	again.until("b OK")
	again.send("c LOGOUT\r\n")
	again.until("c OK")
	if said, err := p.cli("account", "show", user); err != nil || !strings.Contains(said, "taken back") {
		t.Errorf("nothing tells that the flip was taken back: %v\n%s", err, said)
	}
	v.release()
	if _, err := p.cli("account", "retry", user); err != nil {
		t.Log(err) // it may have been tried already
	}
	p.awaitState(user, "active")
	if _, onTarget := enter(t, p.imaps); !onTarget {
		t.Error("after the flip the login is on the source")
	}
	sameMail(t, p.sourceView(), p.targetView())
	p.allIsWell()
}

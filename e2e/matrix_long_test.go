//go:build long

package e2e

import (
	"testing"

	"migproxy/e2e/servers"
)

// Every source moves to every target.
func TestMatrix(t *testing.T) {
	for to, target := range targetKinds {
		for from, source := range sourceKinds {
			t.Run(from+" to "+to, func(t *testing.T) { moveBetween(t, source, target) })
		}
		t.Run("POP3 only to "+to, func(t *testing.T) { moveInboxOver(t, target) })
	}
}

// moveInboxOver moves an INBOX from a server that is reached over POP3 alone.
func moveInboxOver(t *testing.T, target targetKind) {
	source := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
	source.AddUser(user, password)
	fillWith(t, login(t, source.IMAP, user, password), "", targetSep, oddities(), nil)
	from := dovecotEndpoint(source)
	from.imap = 0
	to, provision, keeps := target(t)
	p := moveBy(t, settings{source: from, target: to, provision: provision})
	p.awaitState(user, "active")
	want := looking(t, source.IMAP, "", targetSep)(nil)
	if keeps != nil {
		want = keeps(want)
	}
	sameInbox(t, want, looking(t, to.imap, "", targetSep)(nil), oddities())
}

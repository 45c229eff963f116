//go:build long

package e2e

import (
	"testing"

	"migproxy/e2e/servers"
)

// What Cyrus stored of a batch that nobody saw acknowledged is recognised,
// whatever it made of the octets.
func TestKilledOverCyrus(t *testing.T) {
	for _, step := range []string{"batch.sent", "batch.acked"} {
		t.Run(step, func(t *testing.T) {
			source := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
			source.AddUser(user, password)
			moveToCyrus(t, dovecotEndpoint(source), "", targetSep, step)
		})
	}
}

//go:build long

package e2e

import (
	"testing"
	"time"

	"migproxy/e2e/hostile"
)

// silence is longer than the copier waits for a silent server.
const silence = 5 * time.Minute

// A server that says nothing any more is given up after a while, and the move
// goes on over a new connection. This takes as long as the copier is patient.
func TestSilentServers(t *testing.T) {
	for name, faults := range map[string][2]hostile.Faults{
		"source": {{SilentFetch: 1}, {Capabilities: extensions}},
		"target": {{}, {Capabilities: extensions, SilentAppend: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBattle(t, faults[0], faults[1])
			b.awaitStateFor(silence, user, "active")
			b.same()
		})
	}
}

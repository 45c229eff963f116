//go:build long

package e2e

import (
	"slices"
	"strings"
	"testing"

	"migproxy/migrator"
)

func TestKilledAtEachStepWhileTheUserWorks(t *testing.T) {
	for i, step := range slices.Concat(migrator.Steps(), migrator.FlipSteps()) {
		if slices.Contains(special, step) {
			continue
		}
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			killedAt(t, uint64(i)+10, step)
		})
	}
}

// Killed again while what the first kill left is settled.
func TestKilledTwiceWhileTheUserWorks(t *testing.T) {
	for i, steps := range [][]string{
		{"batch.sent", "settle.looked"},
		{"batch.sent.half", "settle.before"},
		{"mirror.delete.before", "mirror.deleted"},
		{"rename.committed", "rename.settled"},
		{"flip.closing", "flip.closing", "flip.held"},
		{"flip.held", "flip.verified", "flip.before"},
	} {
		t.Run(strings.Join(steps, " "), func(t *testing.T) {
			t.Parallel()
			killedAt(t, uint64(i)+50, steps...)
		})
	}
}

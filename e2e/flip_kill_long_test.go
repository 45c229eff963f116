//go:build long

package e2e

import (
	"slices"
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
			killedAt(t, step, uint64(i)+10)
		})
	}
}

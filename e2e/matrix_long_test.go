//go:build long

package e2e

import "testing"

// Every source moves to every target.
func TestMatrix(t *testing.T) {
	for from, source := range sourceKinds {
		for to, target := range targetKinds {
			t.Run(from+" to "+to, func(t *testing.T) { moveBetween(t, source, target) })
		}
	}
}

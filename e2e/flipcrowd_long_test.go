//go:build long

package e2e

import "testing"

func TestCrowdOfThirtyFlips(t *testing.T) { crowdMoves(t, 30, 200) }

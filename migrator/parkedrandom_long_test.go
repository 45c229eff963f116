//go:build long

package migrator_test

// ownerSeeds is how many owners do whatever they may.
const ownerSeeds = 60

// Package storetest gives tests new state databases without the price of making
// the schema anew for each: under the race detector that takes a third of a second.
package storetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/store"
)

// model is an empty database of the present schema, with the key that it belongs to.
type model struct{ database, key []byte }

var newModel = sync.OnceValues(func() (m model, err error) {
	dir, err := os.MkdirTemp("", "migproxy-state-")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	at := state(dir)
	s, err := store.Open(context.Background(), at, zap.NewNop())
	if err != nil {
		return m, err
	}
	if err := s.Close(); err != nil { // writes everything into the one file
		return m, err
	}
	if m.database, err = os.ReadFile(filepath.Join(dir, "db")); err != nil {
		return m, err
	}
	m.key, err = os.ReadFile(at.KeyFile)
	return m, err
})

func state(dir string) config.State {
	return config.State{URL: "sqlite://" + filepath.Join(dir, "db"), KeyFile: filepath.Join(dir, "key")}
}

// State makes an empty database in a directory, where it is db, and its key beside
// it, and returns the settings that name them.
func State(t testing.TB, dir string) config.State {
	t.Helper()
	m, err := newModel()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "db"), m.database, 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "key"), m.key, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return state(dir)
}

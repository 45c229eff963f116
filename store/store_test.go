package store

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"migproxy/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

// settings name a database and a key file in a directory.
func settings(dir string) config.State {
	return config.State{
		URL:     "sqlite://" + filepath.Join(dir, "state.db"),
		KeyFile: filepath.Join(dir, "key"),
	}
}

// openDir opens the store in a directory and closes it with the test.
func openDir(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), settings(dir), zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func identity(local string) config.Identity {
	return config.Identity{Login: strings.ToUpper(local), Local: local, Domain: "example.com"}
}

func begin(t testing.TB, s *Store, local, password string) Account {
	t.Helper()
	a, begun, err := s.Begin(t.Context(), NewAccount{
		Identity: identity(local), Password: config.NewSecret(password), Mode: config.ModeAccounts,
	})
	if err != nil || !begun {
		t.Fatalf("Begin: begun %v, %v", begun, err)
	}
	return a
}

func claim(t testing.TB, s *Store) *Claim {
	t.Helper()
	c, err := s.ClaimNext(t.Context(), "worker", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if c == nil {
		t.Fatal("nothing is due")
	}
	return c
}

// expect fails unless err is want.
func expect(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// folder puts a folder into the claimed account.
func folder(t testing.TB, c *Claim, name string) Folder {
	t.Helper()
	f := Folder{Source: name, Target: name, Selectable: true, SourceUIDValidity: 1, TargetUIDValidity: 2}
	ok(t, c.PutFolder(t.Context(), &f))
	return f
}

// TestSchemaIsFrozen holds the first schema: databases with it are out there,
// and a change of it is a new migration.
func TestSchemaIsFrozen(t *testing.T) {
	s := openDir(t, t.TempDir())
	rows, err := list(t.Context(), s.r, func(rows *sql.Rows) (text string, err error) {
		err = rows.Scan(&text)
		return text, err
	}, `SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name NOT LIKE 'goose%'
		AND name NOT LIKE 'sqlite_%' ORDER BY name`)
	ok(t, err)
	have := strings.Join(rows, ";\n\n") + ";\n"
	golden := filepath.Join("testdata", "schema_v1.sql")
	if *update {
		ok(t, os.WriteFile(golden, []byte(have), 0o644))
	}
	want, err := os.ReadFile(golden)
	ok(t, err)
	if have != string(want) {
		t.Errorf("the schema has changed; add a migration instead. Now:\n%s", have)
	}
}

func TestPragmas(t *testing.T) {
	s := openDir(t, t.TempDir())
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "secure_delete": "1",
		"foreign_keys": "1", "busy_timeout": "10000",
	} {
		var have string
		ok(t, s.w.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&have))
		if have != want {
			t.Errorf("%s is %s, want %s", pragma, have, want)
		}
	}
}

func TestDatabaseIsPrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	ok(t, os.WriteFile(path, nil, 0o644))
	s := openDir(t, dir)
	begin(t, s, "anna", "secret")
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(name)
		ok(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", name, info.Mode().Perm())
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Run("another database, without its password", func(t *testing.T) {
		_, err := Open(t.Context(), config.State{URL: "postgres://u:hush@h/d"}, zaptest.NewLogger(t))
		if err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), "sqlite:///") {
			t.Error(err)
		}
	})
	t.Run("a newer schema", func(t *testing.T) {
		dir := t.TempDir()
		s := openDir(t, dir)
		_, err := s.w.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, TRUE)")
		ok(t, err)
		_, err = Open(context.Background(), settings(dir), zaptest.NewLogger(t))
		if err == nil || !strings.Contains(err.Error(), "newer migproxy") {
			t.Error(err)
		}
	})
}

package store

import (
	"bytes"
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

	"golang.org/x/crypto/chacha20poly1305"

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

// schema is how SQLite remembers the tables and indices.
func schema(t *testing.T, db *sql.DB) string {
	t.Helper()
	rows, err := list(t.Context(), db, func(rows *sql.Rows) (text string, err error) {
		err = rows.Scan(&text)
		return text, err
	}, `SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name NOT LIKE 'goose%'
		AND name NOT LIKE 'sqlite_%' ORDER BY name`)
	ok(t, err)
	return strings.Join(rows, ";\n\n") + ";\n"
}

// schemas are the versions that are out there. A change is a new one.
var schemas = []string{"schema_v1.sql", "schema_v2.sql", "schema_v3.sql", "schema_v4.sql", "schema_v5.sql", "schema_v6.sql", "schema_v7.sql"}

// TestSchemasAreFrozen holds each version of the schema.
func TestSchemasAreFrozen(t *testing.T) {
	for i, name := range schemas {
		db, err := openSQLite(filepath.Join(t.TempDir(), "state.db"), "")
		ok(t, err)
		defer db.Close()
		p, err := migrationsOf(db)
		ok(t, err)
		_, err = p.UpTo(t.Context(), int64(i+1))
		ok(t, err)
		have, golden := schema(t, db), filepath.Join("testdata", name)
		if *update {
			ok(t, os.WriteFile(golden, []byte(have), 0o644))
		}
		want, err := os.ReadFile(golden)
		ok(t, err)
		if have != string(want) {
			t.Errorf("%s has changed; add a migration instead. Now:\n%s", name, have)
		}
	}
	db := openDir(t, t.TempDir())
	want, err := os.ReadFile(filepath.Join("testdata", schemas[len(schemas)-1]))
	ok(t, err)
	if have := schema(t, db.w); have != string(want) {
		t.Errorf("there is a newer schema; name its file in schemas. Now:\n%s", have)
	}
}

// TestUpgrade opens a database that the first version has written: nothing of
// it is lost, and its sealed passwords still open.
func TestUpgrade(t *testing.T) {
	dir := t.TempDir()
	cfg := settings(dir)
	path := strings.TrimPrefix(cfg.URL, "sqlite://")
	old := openDir(t, t.TempDir()) // for a key and what it has sealed
	db, err := openSQLite(path, "")
	ok(t, err)
	first, err := os.ReadFile(filepath.Join("testdata", schemas[0]))
	ok(t, err)
	_, err = db.ExecContext(t.Context(), string(first))
	ok(t, err)
	p, err := migrationsOf(db)
	ok(t, err)
	_, err = p.GetDBVersion(t.Context()) // makes goose's own table
	ok(t, err)
	key := bytes.Repeat([]byte{9}, 32)
	ok(t, os.WriteFile(cfg.KeyFile, key, 0o600))
	old.key, err = chacha20poly1305.NewX(key)
	ok(t, err)
	account := bytes.Repeat([]byte{5}, 32)
	accountKey, err := chacha20poly1305.NewX(account)
	ok(t, err)
	for _, q := range []struct {
		text string
		args []any
	}{
		{"INSERT INTO goose_db_version (version_id, is_applied) VALUES (1, TRUE)", nil},
		{`INSERT INTO accounts (id, address, login, local, domain, state, origin, created_at, updated_at, due, password_version)
			VALUES (3, 'anna@example.com', 'Anna', 'anna', 'example.com', 'copying', 'created', 5, 6, 1, 4)`, nil},
		{"INSERT INTO credentials (account_id, sealed_key, sealed, used_at) VALUES (3, $1, $2, 7)",
			[]any{seal(old.key, account, "anna@example.com"), seal(accountKey, []byte("secret"), "anna@example.com")}},
		{"INSERT INTO meta (name, value) VALUES ('verifier', $1)", []any{seal(old.key, []byte(verifier), verifier)}},
		{"INSERT INTO domains (name, active) VALUES ('example.com', TRUE)", nil},
		{`INSERT INTO folders (account_id, source, target, selectable, subscribed, special_use, source_uidvalidity,
			target_uidvalidity, matched) VALUES (3, 'INBOX', 'INBOX', TRUE, TRUE, '', 1, 2, TRUE)`, nil},
		{`INSERT INTO runs (folder_id, source_uidvalidity, source_first, target_uidvalidity, target_first, messages, octets,
			appended, digests) VALUES (1, 1, 1, 2, 1, 1, 9, TRUE, $1)`, []any{make([]byte, 16)}},
	} {
		_, err := db.ExecContext(t.Context(), q.text, q.args...)
		ok(t, err)
	}
	ok(t, db.Close())
	s := openDir(t, dir)
	a, err := s.Account(t.Context(), "anna@example.com")
	if err != nil || a.State != Copying || a.PasswordVersion != 4 || !a.HasPassword || a.Finishing != NotFinishing || a.NeedsPassword {
		t.Errorf("%+v, %v", a, err)
	}
	if p, version, err := s.Password(t.Context(), 3, SideSource); err != nil || version != 4 || p.Reveal() != "secret" {
		t.Errorf("version %d, %v", version, err)
	}
	if d, err := s.DomainState(t.Context(), "example.com"); err != nil || d != (DomainState{Active: true}) {
		t.Errorf("%+v, %v", d, err)
	}
	c := claim(t, s)
	folders, err := c.Folders(t.Context())
	if err != nil || len(folders) != 1 || folders[0].SourceUIDNext != 0 || !folders[0].Matched {
		t.Errorf("%+v, %v", folders, err)
	}
	if runs, err := c.Ledger(t.Context(), 1); err != nil || len(runs) != 1 || len(runs[0].Digests) != 1 {
		t.Errorf("%+v, %v", runs, err)
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

package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"migproxy/config"
)

func TestPasswordVersions(t *testing.T) {
	s := openDir(t, t.TempDir())
	a := begin(t, s, "anna", "one")
	for _, c := range []struct {
		password string
		version  int64
	}{{"one", 1}, {"two", 2}, {"two", 2}, {"one", 3}, {"\x80 bytes \r", 4}} {
		version, err := s.SealPassword(t.Context(), a.ID, config.NewSecret(c.password))
		if err != nil || version != c.version {
			t.Errorf("%q: version %d, %v", c.password, version, err)
		}
		p, version, err := s.Password(t.Context(), a.ID, SideSource)
		if err != nil || version != c.version || p.Reveal() != c.password {
			t.Errorf("%q: opened as version %d, %v", c.password, version, err)
		}
	}
	n, err := s.EraseUnused(t.Context(), time.Now().Add(time.Minute))
	if err != nil || n != 1 {
		t.Errorf("erased %d, %v", n, err)
	}
	_, _, err = s.Password(t.Context(), a.ID, SideSource)
	expect(t, err, ErrNoPassword)
	// Counting goes on after one was erased, so that the same password again
	// is not taken for one that was tried.
	if version, err := s.SealPassword(t.Context(), a.ID, config.NewSecret("one")); err != nil || version != 5 {
		t.Errorf("version %d, %v", version, err)
	}
	_, err = s.SealPassword(t.Context(), 99, config.NewSecret("x"))
	expect(t, err, ErrNotFound)
}

func TestSealPasswordByState(t *testing.T) {
	s := openDir(t, t.TempDir())
	for _, state := range States() {
		t.Run(string(state), func(t *testing.T) {
			a := put(t, s, string(state), state, OriginCreated)
			_, err := s.SealPassword(t.Context(), a.ID, config.NewSecret("new"))
			p, _, opened := s.Password(t.Context(), a.ID, SideSource)
			ok(t, opened)
			now, read := s.Account(t.Context(), a.Identity.Address())
			ok(t, read)
			switch state {
			case Provisioning, Copying, Waiting, Failed:
				if err != nil || p.Reveal() != "new" || now.Due.IsZero() {
					t.Errorf("%v, due %v", err, now.Due)
				}
			default:
				if !errors.Is(err, ErrChanged) || p.Reveal() != "old secret" || !now.Due.IsZero() {
					t.Errorf("%v, due %v", err, now.Due)
				}
			}
		})
	}
}

func TestEraseUnusedKeepsWhatIsUsed(t *testing.T) {
	s := openDir(t, t.TempDir())
	anna, bert := begin(t, s, "anna", "one"), begin(t, s, "bert", "two")
	_, err := s.w.ExecContext(t.Context(), "UPDATE credentials SET used_at = used_at - $1", (48 * time.Hour).Milliseconds())
	ok(t, err)
	_, _, err = s.Password(t.Context(), anna.ID, SideSource) // a use
	ok(t, err)
	long := time.Now().Add(-24 * time.Hour)
	b, err := s.Account(t.Context(), "bert@example.com")
	ok(t, err)
	if n, first, err := s.Unused(t.Context(), long); err != nil || n != 1 || !first.Equal(b.PasswordUsedAt) || first.After(long) {
		t.Errorf("%d unused since %v, %v", n, first, err)
	}
	n, err := s.EraseUnused(t.Context(), long)
	if err != nil || n != 1 {
		t.Errorf("erased %d, %v", n, err)
	}
	if n, first, err := s.Unused(t.Context(), long); err != nil || n != 0 || !first.IsZero() {
		t.Errorf("%d unused since %v, %v", n, first, err)
	}
	if b, err = s.Account(t.Context(), "bert@example.com"); err != nil || b.HasPassword || !b.PasswordUsedAt.IsZero() {
		t.Errorf("%+v, %v", b, err)
	}
	_, _, err = s.Password(t.Context(), anna.ID, SideSource)
	ok(t, err)
	_, _, err = s.Password(t.Context(), bert.ID, SideSource)
	expect(t, err, ErrNoPassword)
}

// files returns the bytes of the database and of the files beside it.
func files(t *testing.T, dir string) []byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "state.db*"))
	ok(t, err)
	var all []byte
	for _, name := range names {
		b, err := os.ReadFile(name)
		ok(t, err)
		all = append(all, b...)
	}
	return all
}

func TestPasswordIsNowhereInTheClear(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	a := begin(t, s, "anna", "correct horse")
	_, err := s.SealPassword(t.Context(), a.ID, config.NewSecret("battery staple"))
	ok(t, err)
	all := files(t, dir)
	if !bytes.Contains(all, []byte("anna@example.com")) {
		t.Fatal("not the database's bytes")
	}
	for _, password := range []string{"correct horse", "battery staple"} {
		if bytes.Contains(all, []byte(password)) {
			t.Errorf("%q is in the database", password)
		}
	}
}

// TestErasedPasswordLeavesNothing: neither the ciphertext nor its key is left
// in any file, so that not even the key file opens it.
func TestErasedPasswordLeavesNothing(t *testing.T) {
	for name, erase := range map[string]func(*testing.T, *Store) error{
		"unused": func(t *testing.T, s *Store) error {
			_, err := s.EraseUnused(t.Context(), time.Now().Add(time.Minute))
			return err
		},
		"excluded": func(t *testing.T, s *Store) error {
			_, err := s.Exclude(t.Context(), identity("anna"))
			return err
		},
		"flipped in mode passwords": func(t *testing.T, s *Store) error {
			return claim(t, s).Flip(t.Context(), Finished, 1, time.Time{})
		},
		"finished": func(t *testing.T, s *Store) error {
			ok(t, claim(t, s).Flip(t.Context(), Active, 1, time.Time{}))
			ok(t, s.SetActive(t.Context(), "example.com", false))
			ok(t, s.Complete(t.Context(), "example.com", CompleteWhole, false))
			return claim(t, s).Finish(t.Context())
		},
		"forced": func(t *testing.T, s *Store) error {
			ok(t, s.SetActive(t.Context(), "example.com", false))
			ok(t, s.Complete(t.Context(), "example.com", CompleteForced, false))
			return s.SettleCompletion(t.Context(), "example.com")
		},
		"replaced": func(t *testing.T, s *Store) error {
			_, err := s.SealPassword(t.Context(), 1, config.NewSecret("newer"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openDir(t, dir)
			begin(t, s, "anna", "secret")
			var key, text []byte
			ok(t, s.r.QueryRowContext(t.Context(), "SELECT sealed_key, sealed FROM credentials").Scan(&key, &text))
			if all := files(t, dir); !bytes.Contains(all, key) || !bytes.Contains(all, text) {
				t.Fatal("the sealed password is not to be found while it is kept")
			}
			ok(t, erase(t, s))
			if all := files(t, dir); bytes.Contains(all, key) || bytes.Contains(all, text) {
				t.Error("the sealed password is still there")
			}
		})
	}
}

// A crash right after the erasure leaves a log that the next start empties.
func TestErasedPasswordLeavesNothingAfterACrash(t *testing.T) {
	dir, after := t.TempDir(), t.TempDir()
	s := openDir(t, dir)
	begin(t, s, "anna", "secret")
	var key []byte
	ok(t, s.r.QueryRowContext(t.Context(), "SELECT sealed_key FROM credentials").Scan(&key))
	_, err := s.w.ExecContext(t.Context(), "DELETE FROM credentials")
	ok(t, err)
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	ok(t, err)
	for _, name := range names {
		b, err := os.ReadFile(name)
		ok(t, err)
		ok(t, os.WriteFile(filepath.Join(after, filepath.Base(name)), b, 0o600))
	}
	if !bytes.Contains(files(t, after), key) {
		t.Fatal("the log does not show the erased password")
	}
	openDir(t, after)
	if bytes.Contains(files(t, after), key) {
		t.Error("the erased password is still there")
	}
}

// TestSealedForItsAddress: a sealed password moved to another account's row by
// hand does not open there.
func TestSealedForItsAddress(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "secret")
	bert := begin(t, s, "bert", "other")
	_, err := s.w.ExecContext(t.Context(), `UPDATE credentials SET
		sealed_key = (SELECT sealed_key FROM credentials WHERE account_id <> $1),
		sealed = (SELECT sealed FROM credentials WHERE account_id <> $1) WHERE account_id = $1`, bert.ID)
	ok(t, err)
	p, _, err := s.Password(t.Context(), bert.ID, SideSource)
	if err == nil || !p.IsZero() {
		t.Error("another account's password was opened")
	}
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	cfg := settings(dir)
	reopen := func() (*Store, error) { return Open(context.Background(), cfg, zaptest.NewLogger(t)) }
	s, err := reopen()
	ok(t, err)
	a := begin(t, s, "anna", "secret")
	ok(t, s.Close())
	key, err := os.ReadFile(cfg.KeyFile)
	ok(t, err)
	info, err := os.Stat(cfg.KeyFile)
	ok(t, err)
	if len(key) != 32 || info.Mode() != 0o600 || bytes.Equal(key, make([]byte, 32)) {
		t.Fatalf("a key of %d bytes, mode %v", len(key), info.Mode())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".key-*")); len(left) > 0 {
		t.Error("left behind:", left)
	}

	for _, c := range []struct {
		name string
		make func() error
		want string
	}{
		{"lost", func() error { return os.Remove(cfg.KeyFile) }, "put it back from the backup"},
		{"another", func() error { return os.WriteFile(cfg.KeyFile, bytes.Repeat([]byte{7}, 32), 0o600) }, "not the key that sealed"},
		{"short", func() error { return os.WriteFile(cfg.KeyFile, key[:31], 0o600) }, "exactly 32 bytes"},
		{"long", func() error { return os.WriteFile(cfg.KeyFile, append(key[:32:32], '\n'), 0o600) }, "exactly 32 bytes"},
		{"readable by the group", func() error { return os.Chmod(cfg.KeyFile, 0o640) }, "chmod 600"},
		{"writable by others", func() error { return os.Chmod(cfg.KeyFile, 0o602) }, "chmod 600"},
		{"a directory", func() error {
			return errors.Join(os.Remove(cfg.KeyFile), os.Mkdir(cfg.KeyFile, 0o700))
		}, "not a regular file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ok(t, c.make())
			s, err := reopen()
			if err == nil {
				t.Error("accepted", s.Close())
			}
			var kind *KeyError
			if !errors.As(err, &kind) || kind.Path != cfg.KeyFile || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
			ok(t, os.RemoveAll(cfg.KeyFile))
			ok(t, os.WriteFile(cfg.KeyFile, key, 0o600))
		})
	}

	s, err = reopen()
	ok(t, err)
	p, _, err := s.Password(t.Context(), a.ID, SideSource)
	if err != nil || p.Reveal() != "secret" {
		t.Error(err)
	}
	// Once nothing is sealed with it, a lost key is simply replaced.
	_, err = s.EraseUnused(t.Context(), time.Now().Add(time.Minute))
	ok(t, err)
	ok(t, s.Close())
	ok(t, os.Remove(cfg.KeyFile))
	s, err = reopen()
	ok(t, err)
	begin(t, s, "bert", "secret")
	ok(t, s.Close())
}

// Each side keeps its own password after the flip. A login on the target proves
// its password there, and nothing about the source.
func TestKeepPassword(t *testing.T) {
	s := openDir(t, t.TempDir())
	a := flipped(t, s, "anna")
	have := func(want map[Side]string) {
		t.Helper()
		for _, side := range []Side{SideSource, SideTarget} {
			p, _, err := s.Password(t.Context(), a.ID, side)
			if errors.Is(err, ErrNoPassword) {
				err = nil
			}
			if err != nil || p.Reveal() != want[side] {
				t.Errorf("%s: %q, %v; want %q", side, p.Reveal(), err, want[side])
			}
		}
	}
	keep := func(password string, proved bool) {
		t.Helper()
		ok(t, s.KeepPassword(t.Context(), a.ID, config.NewSecret(password), proved))
	}
	keep("not needed", true)
	have(map[Side]string{SideSource: "secret", SideTarget: "secret"})
	ok(t, s.CatchUpNow(t.Context(), a.ID, time.Now()))
	c := claim(t, s)
	ok(t, c.RefusePassword(t.Context(), SideSource))
	ok(t, c.NeedPassword(t.Context(), true))
	have(map[Side]string{SideTarget: "secret"})
	keep("secret", true) // the one that was refused
	have(map[Side]string{SideTarget: "secret"})
	keep("by the administrator", false)
	have(map[Side]string{SideSource: "by the administrator", SideTarget: "secret"})
	ok(t, c.RefusePassword(t.Context(), SideSource))
	keep("newer", true)
	have(map[Side]string{SideSource: "newer", SideTarget: "newer"})
	ok(t, c.CaughtUp(t.Context(), time.Now().Add(time.Hour)))
	if a, err := s.Account(t.Context(), "anna@example.com"); err != nil || a.NeedsPassword || a.Due.After(time.Now()) {
		t.Errorf("a new password was kept during the claim: %+v, %v", a, err)
	}
}

// A server that says "no" once to the right password, because something behind
// it failed, does not make it useless for ever.
func TestPasswordRefusedByMistake(t *testing.T) {
	s := openDir(t, t.TempDir())
	a := flipped(t, s, "anna")
	ok(t, s.CatchUpNow(t.Context(), a.ID, time.Now()))
	c := claim(t, s)
	ok(t, c.RefusePassword(t.Context(), SideSource))
	ok(t, c.RefusePassword(t.Context(), SideTarget))
	ok(t, c.NeedPassword(t.Context(), true))
	ok(t, c.Release(t.Context(), Active, "it needs a password", time.Time{}, true))
	for _, tt := range []struct {
		name           string
		proved         bool
		source, target error
	}{
		{"its owner logs in on the target", true, ErrNoPassword, nil},
		{"the administrator gives it", false, nil, nil},
	} {
		ok(t, s.KeepPassword(t.Context(), a.ID, config.NewSecret("secret"), tt.proved))
		for side, want := range map[Side]error{SideSource: tt.source, SideTarget: tt.target} {
			if p, _, err := s.Password(t.Context(), a.ID, side); !errors.Is(err, want) || err == nil && p.Reveal() != "secret" {
				t.Errorf("%s: %s: %q, %v; want %v", tt.name, side, p.Reveal(), err, want)
			}
		}
		// Each time the servers are tried again.
		c := claim(t, s)
		ok(t, c.Release(t.Context(), Active, "it needs a password", time.Time{}, true))
	}
	// What is not refused is no news.
	ok(t, s.KeepPassword(t.Context(), a.ID, config.NewSecret("secret"), false))
	if a, err := s.Account(t.Context(), "anna@example.com"); err != nil || !a.Due.IsZero() {
		t.Errorf("%+v, %v", a, err)
	}
}

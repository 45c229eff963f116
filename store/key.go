package store

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/chacha20poly1305"
)

// KeyError says why the key file cannot be used, and what to do.
type KeyError struct {
	Path string
	Err  error
}

func (e *KeyError) Error() string { return "state.key_file " + e.Path + ": " + e.Err.Error() }
func (e *KeyError) Unwrap() error { return e.Err }

// verifier is sealed with the key and kept in the database, so that another
// key is noticed before anything is sealed with it.
const verifier = "migproxy key verifier"

// unlock reads the key file, or makes one where none is needed to open what
// the database holds.
func (s *Store) unlock(ctx context.Context, path string) error {
	return s.write(ctx, func(x *tx) error {
		var sealed int64
		if err := x.get("SELECT COUNT(*) FROM credentials", nil, &sealed); err != nil {
			return err
		}
		key, err := readKey(path)
		if errors.Is(err, fs.ErrNotExist) {
			if sealed > 0 {
				return &KeyError{path, fmt.Errorf("the file is gone, and without it the %d passwords in the state database cannot be opened: put it back from the backup", sealed)}
			}
			key, err = makeKey(path)
		}
		if err != nil {
			return &KeyError{path, err}
		}
		if s.key, err = chacha20poly1305.NewX(key); err != nil {
			return &KeyError{path, err}
		}
		return s.checkVerifier(x, path, sealed)
	})
}

// checkVerifier refuses a key that did not seal what is in the database.
func (s *Store) checkVerifier(x *tx, path string, sealed int64) error {
	var kept []byte
	err := x.get("SELECT value FROM meta WHERE name = 'verifier'", nil, &kept)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err == nil {
		if text, err := open(s.key, kept, verifier); err == nil && string(text) == verifier {
			return nil
		}
		if sealed > 0 {
			return &KeyError{path, fmt.Errorf("this is not the key that sealed the %d passwords in the state database: put the right one back from the backup", sealed)}
		}
	}
	_, err = x.exec(`INSERT INTO meta (name, value) VALUES ('verifier', $1)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, seal(s.key, []byte(verifier), verifier))
	return err
}

// readKey reads the key file if it is its owner's alone.
func readKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file: name a file for the key")
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("others may read or write it (mode %04o): chmod 600 it", mode)
	}
	key, err := io.ReadAll(io.LimitReader(f, chacha20poly1305.KeySize+1))
	if err != nil {
		return nil, err
	}
	if len(key) != chacha20poly1305.KeySize {
		return nil, fmt.Errorf("it must hold exactly %d bytes: put the right file back from the backup, or remove this one if it never was a key", chacha20poly1305.KeySize)
	}
	return key, nil
}

// makeKey writes a new key beside its place and links it there, so that the
// name never stands for less than a whole key, and of two processes that start
// together one gets the other's.
func makeKey(path string) ([]byte, error) {
	key := make([]byte, chacha20poly1305.KeySize)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".key-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(key)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return readKey(path)
	} else if err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return key, errors.Join(d.Sync(), d.Close())
}

// seal encrypts under a fresh nonce, which it puts in front.
func seal(key cipher.AEAD, text []byte, additional string) []byte {
	nonce := make([]byte, key.NonceSize(), key.NonceSize()+len(text)+key.Overhead())
	_, _ = rand.Read(nonce) // never fails (crypto/rand since Go 1.24)
	return key.Seal(nonce, nonce, text, []byte(additional))
}

// open decrypts what seal made.
func open(key cipher.AEAD, sealed []byte, additional string) ([]byte, error) {
	n := key.NonceSize()
	if len(sealed) < n {
		return nil, errors.New("sealed text is too short")
	}
	return key.Open(nil, sealed[:n], sealed[n:], []byte(additional))
}

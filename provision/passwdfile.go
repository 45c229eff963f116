package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-crypt/crypt/algorithm/shacrypt"

	"migproxy/config"
)

// mark is the gecos field of the accounts that migproxy created. Dovecot
// ignores that field.
const mark = "created by migproxy"

// The fields of a line: user:password:uid:gid:gecos:home:shell:extra.
const (
	fieldUser = iota
	fieldPassword
	_
	_
	fieldGecos
	fieldCount = 8
)

// lockPause is how long to wait before a lock that another process holds is
// tried again: flock(2) knows no deadline.
const lockPause = 20 * time.Millisecond

// passwdFile keeps accounts in a Dovecot passwd-file. Whoever else writes the
// file takes the same lock by flock(2).
type passwdFile struct {
	path string
	lock string
}

var _ Driver = (*passwdFile)(nil)

func newPasswdFile(cfg config.Provision) (*passwdFile, error) {
	if cfg.Path == "" {
		return nil, errors.New("provision.path: the driver passwd-file needs the path of Dovecot's passwd-file")
	}
	d := &passwdFile{path: cfg.Path, lock: cfg.Lock}
	if d.lock == "" {
		d.lock = cfg.Path + ".lock"
	}
	return d, nil
}

func (d *passwdFile) Lookup(ctx context.Context, account config.Identity) error {
	return d.locked(ctx, func() error {
		lines, _, err := d.read()
		if err != nil {
			return err
		}
		if found, _ := find(lines, account); len(found) > 0 {
			return ErrTaken
		}
		return nil
	})
}

func (d *passwdFile) Ensure(ctx context.Context, account config.Identity, password config.Secret) error {
	if strings.ContainsAny(account.Address(), ":\r\n\x00") || strings.HasPrefix(account.Address(), "#") {
		return fmt.Errorf("passwd-file: the name %q cannot be written into one; create this account by hand", account.Address())
	}
	return d.change(ctx, account, password, func(lines [][]byte, hash string) ([][]byte, error) {
		found, ours := find(lines, account)
		if len(found) > 0 && !ours {
			return nil, ErrTaken
		}
		if len(found) > 0 {
			return setPassword(lines, found, hash), nil
		}
		if n := len(lines); n > 0 && !bytes.HasSuffix(lines[n-1], []byte("\n")) {
			lines[n-1] = append(bytes.Clone(lines[n-1]), '\n')
		}
		fields := make([]string, fieldCount)
		fields[fieldUser], fields[fieldPassword], fields[fieldGecos] = account.Address(), hash, mark
		return append(lines, []byte(strings.Join(fields, ":")+"\n")), nil
	})
}

func (d *passwdFile) SetPassword(ctx context.Context, account config.Identity, password config.Secret) error {
	return d.change(ctx, account, password, func(lines [][]byte, hash string) ([][]byte, error) {
		found, _ := find(lines, account)
		if len(found) == 0 {
			return nil, ErrNoAccount
		}
		return setPassword(lines, found, hash), nil
	})
}

func (*passwdFile) AddAlias(context.Context, config.Identity, string) error { return ErrNoAliases }

func (*passwdFile) RemoveAlias(context.Context, config.Identity, string) error { return ErrNoAliases }

// change replaces the file with what edit makes of its lines.
func (d *passwdFile) change(ctx context.Context, account config.Identity, password config.Secret,
	edit func(lines [][]byte, hash string) ([][]byte, error)) error {
	// Hashed before the lock is taken: it is the slow part.
	hash, err := hashPassword(password)
	if err != nil {
		return fmt.Errorf("passwd-file: password of %s: %w", account.Address(), err)
	}
	return d.locked(ctx, func() error {
		lines, info, err := d.read()
		if err != nil {
			return err
		}
		if lines, err = edit(lines, hash); err != nil {
			return err
		}
		return d.replace(lines, info)
	})
}

// hashPassword makes what `doveadm pw -s SHA512-CRYPT` makes, with its rounds:
// Dovecot computes them again at each login.
func hashPassword(password config.Secret) (string, error) {
	hasher, err := shacrypt.New(shacrypt.WithSHA512(),
		shacrypt.WithRounds(shacrypt.IterationsDefaultOmitted), shacrypt.WithSaltLength(shacrypt.SaltLengthMax))
	if err != nil {
		return "", err
	}
	digest, err := hasher.Hash(password.Reveal())
	if err != nil {
		return "", err
	}
	return "{SHA512-CRYPT}" + digest.Encode(), nil
}

// locked runs f while the lock is held, and gives up with the context. The
// kernel frees the lock of a process that dies.
func (d *passwdFile) locked(ctx context.Context, f func() error) error {
	file, err := os.OpenFile(d.lock, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("passwd-file: lock: %w; migproxy must be able to write provision.lock", err)
	}
	defer func() { _ = file.Close() }() // frees the lock as well
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f()
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("passwd-file: lock %s: %w", d.lock, err)
		}
		pause := time.NewTimer(lockPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("passwd-file: another process holds the lock %s: %w", d.lock, ctx.Err())
		case <-pause.C:
		}
	}
}

// read gives the file's lines with their line ends, so that together they are
// the file again. A missing file is an error: a wrong path would otherwise
// look like a target on which every name is free.
func (d *passwdFile) read() ([][]byte, fs.FileInfo, error) {
	info, err := os.Stat(d.path)
	if err == nil {
		var data []byte
		if data, err = os.ReadFile(d.path); err == nil {
			if len(data) == 0 {
				return nil, info, nil
			}
			lines := bytes.SplitAfter(data, []byte("\n"))
			if n := len(lines); len(lines[n-1]) == 0 {
				lines = lines[:n-1]
			}
			return lines, info, nil
		}
	}
	return nil, nil, fmt.Errorf("passwd-file: %w; create it, readable by Dovecot, or set provision.path to the file that Dovecot reads", err)
}

// find gives the indexes of the account's lines, and whether migproxy wrote
// all of them. Names are compared without case: a server that folds case
// would let two spellings into one mailbox.
func find(lines [][]byte, account config.Identity) (found []int, ours bool) {
	ours = true
	for i, line := range lines {
		if bytes.HasPrefix(line, []byte("#")) {
			continue
		}
		fields := strings.Split(strings.TrimRight(string(line), "\r\n"), ":")
		if !strings.EqualFold(fields[fieldUser], account.Address()) {
			continue
		}
		found = append(found, i)
		ours = ours && len(fields) > fieldGecos && fields[fieldGecos] == mark
	}
	return found, ours && len(found) > 0
}

// setPassword replaces the password field of some lines and nothing else.
func setPassword(lines [][]byte, which []int, hash string) [][]byte {
	for _, i := range which {
		text := strings.TrimRight(string(lines[i]), "\r\n")
		end := string(lines[i])[len(text):]
		fields := strings.Split(text, ":")
		for len(fields) <= fieldPassword {
			fields = append(fields, "")
		}
		fields[fieldPassword] = hash
		lines[i] = []byte(strings.Join(fields, ":") + end)
	}
	return lines
}

// replace writes the file anew beside itself and renames it, so that Dovecot,
// and we after a crash, read either the old file or the new one. Mode and
// owner stay.
func (d *passwdFile) replace(lines [][]byte, old fs.FileInfo) (err error) {
	path, err := filepath.EvalSymlinks(d.path)
	if err != nil {
		return fmt.Errorf("passwd-file: %w", err)
	}
	// Under the lock one name is enough, and what a crash left is overwritten.
	temp := path + ".migproxy"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("passwd-file: %w", err)
	}
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("passwd-file: %w; migproxy must be able to write the directory of provision.path", err)
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(temp)
			err = fmt.Errorf("passwd-file: %w", err)
		}
	}()
	if stat, ok := old.Sys().(*syscall.Stat_t); ok &&
		(int(stat.Uid) != os.Geteuid() || int(stat.Gid) != os.Getegid()) {
		if err := file.Chown(int(stat.Uid), int(stat.Gid)); err != nil {
			return fmt.Errorf("keep its owner: %w; run migproxy as that user", err)
		}
	}
	if err := file.Chmod(old.Mode().Perm()); err != nil {
		return err
	}
	if _, err := file.Write(bytes.Join(lines, nil)); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

// syncDirectory makes a rename last through a power cut.
func syncDirectory(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}

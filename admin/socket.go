package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// probeTimeout bounds asking whether somebody listens on a socket already.
const probeTimeout = 2 * time.Second

// unixListener is a Unix socket that takes its own name away when it is closed.
type unixListener struct {
	*net.UnixListener
	path string
	made fs.FileInfo
}

// listenUnix makes a socket of mode 0600. One that a dead process left is
// replaced; one on which a process listens, or a file that is no socket, is an
// error.
func listenUnix(path string) (net.Listener, error) {
	if err := checkStale(path); err != nil {
		return nil, err
	}
	// Made under another name and then renamed, so that at no moment anybody
	// else can open the socket under its own. The other name is as long: the
	// kernel takes about a hundred octets.
	temp := path[:len(path)-1] + "~"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, directoryError(path, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err // without the other name, which tells nobody anything
		}
		return nil, directoryError(path, err)
	}
	l.SetUnlinkOnClose(false)
	made, err := publish(temp, path)
	if err != nil {
		_ = l.Close()
		_ = os.Remove(temp)
		return nil, fmt.Errorf("admin.socket: %w", err)
	}
	return &unixListener{UnixListener: l, path: path, made: made}, nil
}

func directoryError(path string, err error) error {
	return fmt.Errorf("admin.socket: %s: %w; the directory %s must exist and belong to the user that migproxy runs as",
		path, err, filepath.Dir(path))
}

func publish(temp, path string) (fs.FileInfo, error) {
	if err := os.Chmod(temp, 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(temp, path); err != nil {
		return nil, err
	}
	return os.Lstat(path)
}

func checkStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return directoryError(path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("admin.socket: %s is there and is no socket; move it away or name another path", path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("admin.socket: another process listens on %s; stop it, or name another path", path)
	}
	return nil
}

// Close takes the socket's name away, unless it is another's by now.
func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.made) {
		_ = os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

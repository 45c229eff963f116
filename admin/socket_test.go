package admin_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"migproxy/admin"
)

func TestSocket(t *testing.T) {
	w := start(t)
	path := w.cfg.Admin.Socket
	info, err := os.Stat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if _, err := admin.Listen(w.options(t)); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Fatalf("a second server: %v", err)
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if _, err := w.client.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "is `migproxy serve` running") {
		t.Errorf("got %v", err)
	}

	// What a killed process left is replaced.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := admin.Listen(w.options(t))
	if err != nil {
		t.Fatal(err)
	}
	again.Close()

	// A file that is no socket is somebody's.
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Listen(w.options(t)); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "x" {
		t.Errorf("the file was touched: %q, %v", b, err)
	}
	w.cfg.Admin.Socket = filepath.Join(path, "no", "such", "directory")
	if _, err := admin.Listen(w.options(t)); err == nil {
		t.Error("no error for a path that cannot be")
	}
}

package migrator_test

import (
	"os"
	"syscall"
	"testing"
)

// chown gives a file to the owner of another.
func chown(t testing.TB, path string, like os.FileInfo) {
	t.Helper()
	s, ok := like.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no owner is known")
	}
	if err := os.Chown(path, int(s.Uid), int(s.Gid)); err != nil {
		t.Fatal(err)
	}
}

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nobody has no rights beyond those of every ordinary user.
const nobody = 65534

// asOrdinaryUser makes a command run in dir, which is all that it may write,
// with an environment of its own.
func asOrdinaryUser(t *testing.T, dir string, cmd *exec.Cmd) {
	t.Helper()
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir}
	if os.Geteuid() == 0 {
		run(t, exec.Command("chown", "-R", strconv.Itoa(nobody), dir))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
}

// ordinaryDir is a directory that an ordinary user can reach, which t.TempDir
// is not for root's tests.
func ordinaryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "mp-demo-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		run(t, exec.Command("chmod", "-R", "u+w", dir)) // Go's module cache is not to be written
		_ = os.RemoveAll(dir)
	})
	return dir
}

// The demo needs no rights, no settings and no files, and leaves none behind.
func TestDemo(t *testing.T) {
	t.Parallel()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := ordinaryDir(t)
	run(t, exec.Command("install", "-m", "755", bin, filepath.Join(dir, "migproxy")))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "migproxy"), "demo", "--once")
	asOrdinaryUser(t, dir, cmd)
	played(t, cmd)
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// played runs the demo and checks that all of the show was seen.
func played(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	text := string(out)
	if err != nil || strings.Count(text, " the same\n") != 11 || strings.Contains(text, "DIFFERENT") ||
		!strings.Contains(text, "124 of 124 messages") || !strings.Contains(text, "what she did is carried over") ||
		!strings.Contains(text, "She is on the new server, with 46 messages in her INBOX. The old server was not asked.\n") {
		t.Errorf("%v\n%s", err, text)
	}
}

//go:build long

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// `make demo` does all its own set-up in a clean clone, for a user who has Go
// and make and nothing else.
func TestDemoFromACleanClone(t *testing.T) {
	dir := ordinaryDir(t)
	clone := filepath.Join(dir, "clone")
	run(t, exec.Command("git", "clone", "-q", "--no-hardlinks", "..", clone))
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "make", "-s", "demo", "ARGS=--once")
	asOrdinaryUser(t, dir, cmd)
	cmd.Dir = clone
	for _, name := range []string{"GOPROXY", "GOSUMDB", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE"} {
		if value, set := os.LookupEnv(name); set { // how this machine reaches the modules
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	played(t, cmd)
	status := exec.Command("git", "-c", "safe.directory=*", "status", "--short")
	status.Dir = clone
	if out, err := status.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("the clone is not clean afterwards: %v\n%s", err, out)
	}
}

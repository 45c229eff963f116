package store

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// crashDir, where it is set, makes the test binary the process that is killed.
const crashDir = "MIGPROXY_STORE_CRASH_DIR"

const crashBatch = 50

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		err := settleForEver(context.Background(), dir)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// settleForEver goes on where the ledger ends, and says after every commit how
// many messages are settled.
func settleForEver(ctx context.Context, dir string) error {
	s, err := Open(ctx, settings(dir), zap.NewNop())
	if err != nil {
		return err
	}
	if err := s.TakeBack(ctx, "worker"); err != nil {
		return err
	}
	c, err := s.ClaimNext(ctx, "worker", time.Minute)
	if err != nil {
		return err
	}
	folders, err := c.Folders(ctx)
	if err != nil {
		return err
	}
	intents, err := c.Intents(ctx)
	if err != nil {
		return err
	}
	for _, i := range intents {
		if err := c.Settle(ctx, i.FolderID, &i, nil); err != nil {
			return err
		}
	}
	for done := uint32(c.Account.Messages); ; done += crashBatch {
		fmt.Println(done)
		messages := batch(done+1, crashBatch, 1000)
		i := Intent{FolderID: folders[0].ID, SourceUIDValidity: 1, TargetUIDValidity: 2}
		for _, m := range messages {
			i.Messages = append(i.Messages, IntentMessage{SourceUID: m.SourceUID})
		}
		if err := c.OpenIntent(ctx, &i); err != nil {
			return err
		}
		if err := c.Settle(ctx, i.FolderID, &i, messages); err != nil {
			return err
		}
	}
}

// runUntilKilled starts the process, kills it without warning after it has
// said lines lines, and returns the last number that it said.
func runUntilKilled(t *testing.T, dir string, lines int) (said int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	seen, r := 0, bufio.NewScanner(out)
	for r.Scan() {
		if _, err := fmt.Sscan(r.Text(), &said); err != nil {
			t.Fatal(r.Text())
		}
		if seen++; seen == lines {
			ok(t, cmd.Process.Kill())
		}
	}
	_ = cmd.Wait() // it was killed
	if seen < lines {
		t.Fatalf("ended by itself after %d lines: %s", seen, stderr.String())
	}
	return said
}

// checkAgreement compares the ledger with the counts.
func checkAgreement(t *testing.T, s *Store) Account {
	t.Helper()
	ok(t, s.TakeBack(t.Context(), "worker"))
	c := claim(t, s)
	folders, err := c.Folders(t.Context())
	ok(t, err)
	runs, err := c.Ledger(t.Context(), folders[0].ID)
	ok(t, err)
	all := expand(runs)
	a := c.Account
	if int64(len(all)) != a.Messages || a.Bytes != 10*a.Messages {
		t.Errorf("%d messages in the ledger, %d counted, %d bytes", len(all), a.Messages, a.Bytes)
	}
	for uid := uint32(1); uid <= uint32(a.Messages); uid++ {
		if m := all[uid]; m.TargetUID != uid+1000 || m.Digest != digest(uid) {
			t.Fatalf("message %d is %+v", uid, m)
		}
	}
	intents, err := c.Intents(t.Context())
	if err != nil || len(intents) > 1 {
		t.Errorf("%d intents, %v", len(intents), err)
	}
	for _, i := range intents {
		if i.Messages[0].SourceUID != uint32(a.Messages)+1 {
			t.Errorf("after %d messages an intent from %d", a.Messages, i.Messages[0].SourceUID)
		}
	}
	return a
}

func prepareCrash(t *testing.T, dir string) {
	t.Helper()
	s, err := Open(t.Context(), settings(dir), zap.NewNop())
	ok(t, err)
	begin(t, s, "anna", "secret")
	folder(t, claim(t, s), "INBOX")
	ok(t, s.Close())
}

// TestKilledWhileSettling: whatever was acknowledged before a kill is there
// afterwards, and the ledger and the counts agree.
func TestKilledWhileSettling(t *testing.T) {
	dir := t.TempDir()
	prepareCrash(t, dir)
	for _, lines := range []int{1, 2, 7, 20} {
		said := runUntilKilled(t, dir, lines)
		s, err := Open(t.Context(), settings(dir), zap.NewNop())
		ok(t, err)
		a := checkAgreement(t, s)
		if a.Messages < said {
			t.Errorf("%d messages, %d were acknowledged", a.Messages, said)
		}
		if _, _, err := s.Password(t.Context(), a.ID, SideSource); err != nil {
			t.Error(err)
		}
		ok(t, s.Close())
	}
}

// TestFilesOfARunningStore: the files as they are after a commit, taken while
// the store is open, are a whole store: a commit does not wait for Close.
func TestFilesOfARunningStore(t *testing.T) {
	dir := t.TempDir()
	prepareCrash(t, dir)
	s := openDir(t, dir)
	ok(t, s.TakeBack(t.Context(), "worker"))
	c := claim(t, s)
	folders, err := c.Folders(t.Context())
	ok(t, err)
	for n := range uint32(3) {
		ok(t, c.Settle(t.Context(), folders[0].ID, nil, batch(n*crashBatch+1, crashBatch, 1000)))
		copied := t.TempDir()
		for _, name := range []string{"state.db", "state.db-wal", "key"} {
			copyFile(t, filepath.Join(dir, name), filepath.Join(copied, name))
		}
		if a := checkAgreement(t, openDir(t, copied)); a.Messages != int64(n+1)*crashBatch {
			t.Errorf("%d messages", a.Messages)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	ok(t, err)
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o600)
	ok(t, err)
	_, err = io.Copy(dst, src)
	ok(t, err)
	ok(t, dst.Close())
}

//go:build benchcopy

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// benchTool copies a user's mailbox.
type benchTool struct {
	name string
	copy func(t testing.TB, w *benchWorld, user string) copied
}

var allBenchTools = []benchTool{{"migproxy", byMigproxy}, {"mbsync", byMbsync}, {"doveadm", byDoveadm}}

// byMigproxy moves a user by a process of his own, from the login to the flip.
// The pass with nothing to do is the first one after the flip.
func byMigproxy(t testing.TB, w *benchWorld, user string) (c copied) {
	p := newProxy(t, binary, settings{
		source: endpoint{imap: w.sourcePort, tls: "none"}, target: endpoint{imap: w.targetPort, tls: "none"},
		provision: fmt.Sprintf("{ driver: passwd-file, path: %s }", w.target.PasswdFile),
		migration: "catch_up: 1s",
	}).start()
	c.first = measure(t, p.cmd.Process.Pid, func() {
		l := dial(t, p.imap, false)
		l.until("* OK")
		l.send(fmt.Sprintf("a LOGIN %s %s\r\nb LOGOUT\r\n", user, benchPassword))
		l.until("a OK")
		p.follow(user)
	})
	var took float64
	c.again = measure(t, p.cmd.Process.Pid, func() { took = p.awaitCatchUp() })
	c.again.wall = took // and not the wait until it began
	p.stop(syscall.SIGTERM)
	return c
}

// awaitCatchUp waits until a pass has ended, and tells how many seconds it took.
func (p *proxy) awaitCatchUp() (seconds float64) {
	p.t.Helper()
	err := eventually(time.Minute, func() error {
		for line := range strings.Lines(p.read("migproxy.log")) {
			var entry struct {
				Message string `json:"msg"`
				Took    string `json:"took"`
			}
			if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Message != "caught up" {
				continue
			}
			took, err := time.ParseDuration(entry.Took)
			seconds = took.Seconds()
			return err
		}
		return errors.New("no pass has ended")
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return seconds
}

// follow waits until an account has moved.
func (p *proxy) follow(user string) {
	p.t.Helper()
	log := exec.Command(p.bin, "log", "-f", user, "--config", p.config)
	out, err := log.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := log.Start(); err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = log.Process.Kill(); _ = log.Wait() }()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "  '"+user+"' migrated, ") {
			return
		}
		if strings.Contains(lines.Text(), "'"+user+"': ") {
			p.t.Fatal(lines.Text())
		}
	}
	p.t.Fatalf("%s has not moved", user)
}

func byMbsync(t testing.TB, w *benchWorld, user string) (c copied) {
	w.onTarget(user)
	dir := t.TempDir()
	account := func(id string, port int) string {
		return fmt.Sprintf("IMAPAccount %s\nHost 127.0.0.1\nPort %d\nUser %s\nPass %s\nSSLType None\nAuthMechs LOGIN\n\nIMAPStore %s\nAccount %s\n\n",
			id, port, user, benchPassword, id, id)
	}
	rc := filepath.Join(dir, "rc")
	text := account("old", w.sourcePort) + account("new", w.targetPort) +
		fmt.Sprintf("Channel all\nFar :old:\nNear :new:\nPatterns *\nCreate Near\nSync Pull\nCopyArrivalDate yes\nSyncState %s/state-\n", dir)
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	pass := func() cost { return measureCommand(t, exec.Command("mbsync", "-q", "-c", rc, "-a")) }
	c.first = pass()
	c.again = pass()
	return c
}

// byDoveadm writes into the target's storage itself: its CPU seconds and its
// memory are those of the storage too, and no round trip to the target delays it.
func byDoveadm(t testing.TB, w *benchWorld, user string) (c copied) {
	w.onTarget(user)
	pass := func() cost {
		return measureCommand(t, exec.Command("doveadm", "-c", filepath.Join(w.target.Dir, "dovecot.conf"),
			"-o", "imapc_host=127.0.0.1", "-o", "imapc_port="+strconv.Itoa(w.sourcePort), "-o", "imapc_user="+user,
			"-o", "imapc_password="+benchPassword, "-o", "imapc_features=rfc822.size fetch-headers", "-o", "mail_prefetch_count=20",
			"backup", "-R", "-u", user, "imapc:"))
	}
	c.first = pass()
	c.again = pass()
	return c
}

func measureCommand(t testing.TB, cmd *exec.Cmd) cost {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := measure(t, cmd.Process.Pid, func() {
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out.Bytes())
		}
	})
	c.wall = time.Since(began).Seconds()
	c.cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	return c
}

// measure says what a process took while f ran. It looks at the process many
// times a second, since one that has ended tells nothing any more.
func measure(t testing.TB, pid int, f func()) cost {
	t.Helper()
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) // the peak begins anew
	before, _, _ := look(pid)
	var c cost
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			if cpu, peak, ok := look(pid); ok {
				c.cpu, c.peak = cpu-before, max(c.peak, peak)
			}
			select {
			case <-ended:
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	}()
	began := time.Now()
	defer func() { // also where f fails the test
		close(ended)
		<-watched
	}()
	f()
	c.wall = time.Since(began).Seconds()
	return c
}

// look reads the CPU seconds of a process so far, and its peak of memory in MiB.
func look(pid int) (cpu, peak float64, ok bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, false
	}
	// Behind the name in parentheses: state, 10 more, utime, stime (proc(5)), in
	// hundredths of a second.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, field := range fields[11:13] {
		ticks, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return 0, 0, false
		}
		cpu += ticks / 100
	}
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, false
	}
	defer status.Close()
	for lines := bufio.NewScanner(io.LimitReader(status, 1<<16)); lines.Scan(); {
		if rest, found := strings.CutPrefix(lines.Text(), "VmHWM:"); found {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return cpu, kib / 1024, err == nil
		}
	}
	return 0, 0, false // a zombie has none
}

//go:build killtest

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// KILLTEST_AT=step:n kills the process, as a crash would, when the work comes
// to that step for the n-th time. KILLTEST_LOG=file notes each step that it
// comes to, one a line.
func init() {
	at, logPath := os.Getenv("KILLTEST_AT"), os.Getenv("KILLTEST_LOG")
	name, nth, _ := strings.Cut(at, ":")
	n, err := strconv.Atoi(nth)
	if at != "" && (err != nil || n < 1) {
		fmt.Fprintln(os.Stderr, "KILLTEST_AT: write step:n")
		os.Exit(exitUsage)
	}
	var mu sync.Mutex
	seen := 0
	stepHook = func(step string) {
		mu.Lock()
		defer mu.Unlock()
		if logPath != "" {
			noteStep(logPath, step)
		}
		if step != name {
			return
		}
		if seen++; seen == n {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // nothing more is done before the signal arrives
		}
	}
}

func noteStep(path, step string) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, step)
		_ = f.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "KILLTEST_LOG:", err)
		os.Exit(exitFailed)
	}
}

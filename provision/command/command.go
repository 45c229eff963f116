// Package command runs programs of the administrator's: in a process group of
// their own, with a deadline, almost no environment, and of what they write
// only the end.
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"migproxy/config"
)

// pipeGrace is how long a child of the program may hold standard error open
// once the program itself has ended or was killed.
const pipeGrace = 2 * time.Second

// Command is a program with its arguments.
type Command struct {
	args    []string
	timeout time.Duration
}

// New checks that the program may be executed. The error says what to write.
func New(args []string, timeout time.Duration) (*Command, error) {
	if len(args) == 0 || args[0] == "" {
		return nil, errors.New("there is no command; write the path of a program and its arguments")
	}
	if _, err := exec.LookPath(args[0]); err != nil {
		return nil, fmt.Errorf("%w; name a program that may be executed", err)
	}
	return &Command{args: args, timeout: timeout}, nil
}

// StatusError is the exit status of a program that ended by itself and not
// with 0.
type StatusError struct {
	Status int
	text   string
}

func (e *StatusError) Error() string { return e.text }

// Run runs the program with this standard input and returns nil when it exits
// with status 0, a *StatusError for any other status, and another error where it
// could not be run, was killed when its time was up (context.DeadlineExceeded)
// or ctx had ended, or ended by a signal. The text of an error has the last
// lines that the program wrote to standard error, without control characters
// and with secret masked.
func (c *Command) Run(ctx context.Context, input []byte, secret config.Secret) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	stderr := &tail{limit: stderrKept}
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Stdin = bytes.NewReader(input)
	cmd.Stderr = stderr
	cmd.Env = minimalEnvironment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = pipeGrace

	err := cmd.Run()
	if cmd.ProcessState == nil {
		return fmt.Errorf("cannot run %s: %w", c.args[0], err)
	}
	if ctx.Err() != nil && !cmd.ProcessState.Exited() {
		return fmt.Errorf("%s was killed, it had not ended after %s: %w%s", c.args[0], c.timeout, ctx.Err(), stderr.reason(secret))
	}
	// exec.ErrWaitDelay beside status 0 is a daemon that the program left
	// behind with our pipe; the program itself has done its work.
	switch code := cmd.ProcessState.ExitCode(); code {
	case 0:
		return nil
	case -1:
		return fmt.Errorf("%s ended by a signal (%s)%s", c.args[0], cmd.ProcessState, stderr.reason(secret))
	default:
		return &StatusError{code, fmt.Sprintf("%s ended with status %d%s", c.args[0], code, stderr.reason(secret))}
	}
}

// minimalEnvironment is all that the program inherits: our own environment may
// hold settings with secrets in them.
func minimalEnvironment() []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return []string{"PATH=" + path, "LANG=C.UTF-8"}
}

// Package servers runs real mail servers for the end-to-end tests: plain
// processes with generated configurations on free loopback ports, ended by
// process id.
package servers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTimeout bounds how long a server may take until it greets.
const startTimeout = 20 * time.Second

// process is one server process and its children, which share a group.
type process struct {
	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	root bool // it runs as root, started by an ordinary user
}

// asRoot runs a program as root: by sudo, where the tests run as an ordinary
// user.
func asRoot(args ...string) *exec.Cmd {
	if os.Geteuid() != 0 {
		args = append([]string{"sudo", "-n"}, args...)
	}
	return exec.Command(args[0], args[1:]...)
}

// start runs a program in a process group of its own, its output going to out.
func (p *process) start(out io.Writer, name string, args ...string) error {
	return p.startCommand(out, exec.Command(name, args...))
}

func (p *process) startCommand(out io.Writer, cmd *exec.Cmd) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return errors.New("already running")
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // servers are ended by signals
		close(done)
	}()
	p.cmd, p.done = cmd, done
	return nil
}

// stop sends a signal to the whole group and waits until its first process is
// gone; after ten seconds it kills.
func (p *process) stop(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	pgid := p.cmd.Process.Pid
	p.signal(pgid, sig)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.signal(pgid, syscall.SIGKILL)
		<-p.done
	}
	p.signal(pgid, syscall.SIGKILL) // children that outlived it
	p.cmd = nil
}

// signal sends a signal to a process group. That it has ended is no error.
func (p *process) signal(pgid int, sig syscall.Signal) {
	if p.root {
		_ = asRoot("kill", fmt.Sprintf("-%d", int(sig)), "--", fmt.Sprintf("-%d", pgid)).Run()
		return
	}
	_ = syscall.Kill(-pgid, sig)
}

// given are the ports that FreePorts has given to the tests of this process,
// each once: who asked may not listen yet.
var given = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// FreePorts returns n loopback ports that were free a moment ago.
func FreePorts(t testing.TB, n int) []int {
	t.Helper()
	given.Lock()
	defer given.Unlock()
	var ports []int
	for len(ports) < n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all at once, so that the same one is not found again
		if port := l.Addr().(*net.TCPAddr).Port; !given.ports[port] {
			given.ports[port] = true
			ports = append(ports, port)
		}
	}
	return ports
}

// waitGreeting waits until a server on a port greets with one of the prefixes.
func waitGreeting(port int, prefixes ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	var last error
	for ctx.Err() == nil {
		last = greeted(port, prefixes)
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("no greeting on port %d: %w", port, last)
}

func greeted(port int, prefixes []string) error {
	c, err := net.DialTimeout("tcp", Address(port), time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	for _, p := range prefixes {
		if strings.HasPrefix(line, p) {
			return nil
		}
	}
	return fmt.Errorf("greeted with %q", line)
}

// Address is a loopback address with a port.
func Address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// scratch makes a directory that servers running as other users can reach.
// Its path is short, since it holds unix sockets.
func scratch(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "mp-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("E2E_KEEP") != "" {
			t.Logf("kept %s", dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	return dir
}

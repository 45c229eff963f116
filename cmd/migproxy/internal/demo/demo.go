// Package demo shows one user move: an old server with mail, a new one and the
// proxy between them, all in this process and on free loopback ports.
//
// Its two servers are go-imap's in-memory ones. They stand in for real servers
// only as far as a show needs them: keywords, special-use folders and
// separators are kept by real servers, which the end-to-end tests run.
package demo

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"migproxy/admin"
	"migproxy/config"
	"migproxy/provision"
)

// Domain and users of the show. Both have mail on the old server only.
const (
	domain       = "example.com"
	mover        = "anna@example.com"
	moverSecret  = "anna's secret"
	stayer       = "bert@example.com"
	stayerSecret = "bert's secret"
)

// sourceRate is how many octets a second the old server sends: slow enough
// that the copy can be watched.
const sourceRate = 150 << 10

// moveTimeout bounds the copy, which takes some seconds.
const moveTimeout = 2 * time.Minute

// closedTimeout bounds the end of a session whose account has moved.
const closedTimeout = 10 * time.Second

// Options are what the demo works with.
type Options struct {
	// Once ends the demo after the show; otherwise everything stays up until
	// the context ends.
	Once bool
	// Out is where the show is written. On a terminal the copy has a progress
	// bar, elsewhere plain lines.
	Out *os.File
	// Serve runs migproxy with these settings and drivers (by domain) until the
	// context ends; it calls ready once clients can connect.
	Serve func(ctx context.Context, cfg *config.Config, drivers map[string]provision.Driver, ready func()) error
}

// Run plays the show.
func Run(ctx context.Context, o Options) error {
	dir, err := os.MkdirTemp("", "migproxy-demo-")
	if err != nil {
		return fmt.Errorf("demo: %w; set TMPDIR to a directory that can be written", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	old, err := startServer(sourceRate)
	if err != nil {
		return err
	}
	defer old.close()
	fresh, err := startServer(0)
	if err != nil {
		return err
	}
	defer fresh.close()
	old.addUser(mover, moverSecret, moverMail())
	old.addUser(stayer, stayerSecret, stayerMail())

	s, err := writeSettings(dir, old.addr, fresh.addr)
	if err != nil {
		return err
	}
	cfg, err := config.Load(s.path, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		drivers := map[string]provision.Driver{domain: &driver{server: fresh}}
		ended <- o.Serve(ctx, cfg, drivers, func() { close(ready) })
	}()
	select {
	case err := <-ended:
		return err
	case <-ready:
	}
	show := &show{out: o.Out, old: old, fresh: fresh, settings: s, admin: admin.NewClient(s.socket)}
	err = show.play(ctx)
	if err == nil && !o.Once {
		show.invite()
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
		}
	}
	cancel()
	if serveErr := <-ended; err == nil {
		err = serveErr
	}
	return err
}

// settings is where the written settings lie and what they say.
type settings struct {
	path, socket, proxy, admin string
}

const settingsText = `# The settings of the demo.
hostname: localhost
default_domain: %[1]s
state: { url: "sqlite://%[2]s/migproxy.db", key_file: %[2]s/key }
tls: { allow_plaintext_login: loopback }
listeners:
  - { protocol: imap, address: "%[3]s", tls: none }
admin: { address: "%[4]s", socket: %[2]s/admin.sock }
shutdown: { grace: 1s }
domains:
  - name: %[1]s
    source:
      imap: { address: "%[5]s", tls: none }
    target:
      imap: { address: "%[6]s", tls: none }
      # The demo creates its accounts within its own process instead.
      provision: { driver: exec, command: [/bin/true] }
    parking: { mode: source }
migration: { settle_quiet: 500ms }
log: { level: info, format: console, file: %[2]s/migproxy.log }
`

func writeSettings(dir, old, fresh string) (settings, error) {
	s := settings{path: filepath.Join(dir, "migproxy.yaml"), socket: filepath.Join(dir, "admin.sock")}
	var err error
	if s.proxy, err = freeAddress(); err != nil {
		return s, err
	}
	if s.admin, err = freeAddress(); err != nil {
		return s, err
	}
	text := fmt.Sprintf(settingsText, domain, dir, s.proxy, s.admin, old, fresh)
	return s, os.WriteFile(s.path, []byte(text), 0o600)
}

// freeAddress is a loopback address that was free a moment ago.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }

package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"golang.org/x/time/rate"

	"migproxy/config"
	"migproxy/provision"
)

// server is an embedded IMAP server.
type server struct {
	addr string
	mem  *imapmemserver.Server
	imap *imapserver.Server

	mu    sync.Mutex
	users map[string]config.Secret
}

// startServer starts a server on a free loopback port. Where octets is not 0,
// it sends no more than so many in a second.
func startServer(octets int) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	s := &server{addr: l.Addr().String(), mem: imapmemserver.New(), users: map[string]config.Secret{}}
	s.imap = imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return s.mem.NewSession(), nil, nil
		},
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapUIDPlus: {}},
		InsecureAuth: true, // it listens on the loopback address
		Logger:       quiet{},
	})
	if octets > 0 {
		l = slowListener{l, octets}
	}
	go func() { _ = s.imap.Serve(l) }() // ends with close
	return s, nil
}

func (s *server) close() { _ = s.imap.Close() }

// quiet keeps the servers' complaints about clients that leave out of the show.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// addUser adds a user with mail, a folder at a time.
func (s *server) addUser(name, password string, folders []folder) {
	u := imapmemserver.NewUser(name, password)
	for _, f := range append([]folder{{name: "INBOX"}}, folders...) {
		// Nothing can fail but a folder that is there already.
		_ = u.Create(f.name, nil)
		_ = u.Subscribe(f.name)
		for _, m := range f.messages {
			_, _ = u.Append(f.name, literal{bytes.NewReader(m.octets), int64(len(m.octets))},
				&imap.AppendOptions{Flags: m.flags, Time: m.date})
		}
	}
	s.mem.AddUser(u)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[name] = config.NewSecret(password)
}

// literal is what imapmemserver appends from.
type literal struct {
	io.Reader
	size int64
}

func (l literal) Size() int64 { return l.size }

// slowListener bounds how fast its connections send.
type slowListener struct {
	net.Listener
	octets int
}

func (l slowListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return slowConn{c, rate.NewLimiter(rate.Limit(l.octets), l.octets/10)}, nil
}

type slowConn struct {
	net.Conn
	limit *rate.Limiter
}

func (c slowConn) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		piece := b[:min(len(b), c.limit.Burst())]
		// The peer's deadline ends this; a piece waits a tenth of a second.
		if err := c.limit.WaitN(context.Background(), len(piece)); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(piece)
		written += n
		if err != nil {
			return written, err
		}
		b = b[len(piece):]
	}
	return written, nil
}

// driver creates accounts on an embedded server, within this process.
type driver struct{ server *server }

var errNoAliases = errors.New("the demo's server has no aliases")

func (d *driver) Lookup(_ context.Context, account config.Identity) error {
	d.server.mu.Lock()
	defer d.server.mu.Unlock()
	if _, there := d.server.users[account.Address()]; there {
		return provision.ErrTaken
	}
	return nil
}

func (d *driver) Ensure(ctx context.Context, account config.Identity, password config.Secret) error {
	if d.Lookup(ctx, account) != nil {
		return d.SetPassword(ctx, account, password)
	}
	d.server.addUser(account.Address(), password.Reveal(), nil)
	return nil
}

func (d *driver) SetPassword(_ context.Context, account config.Identity, password config.Secret) error {
	d.server.mu.Lock()
	defer d.server.mu.Unlock()
	if d.server.users[account.Address()].Reveal() != password.Reveal() {
		return errors.New("the demo's server cannot change a password")
	}
	return nil
}

func (d *driver) AddAlias(context.Context, config.Identity, string) error    { return errNoAliases }
func (d *driver) RemoveAlias(context.Context, config.Identity, string) error { return errNoAliases }

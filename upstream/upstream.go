// Package upstream reaches one server and logs one user in, over IMAP or POP3.
// It holds no policy: it says what the server answered, and hands over the
// live connection.
package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
)

// loginTimeout bounds a login whose context has no deadline.
const loginTimeout = time.Minute

// defaultTTL is the number of proxies that may follow where the client's own
// number is not known. It is Dovecot's default and ends loops.
const defaultTTL = 5

// Client is who is connecting, as the server is told (Dovecot's ID and
// XCLIENT). The zero Client is migproxy itself: nothing is said, but a POP3
// server is asked not to alter messages (UTF8).
type Client struct {
	Remote    netip.AddrPort
	Local     netip.AddrPort // the address that the client connected to
	SessionID string
	TTL       int  // proxies that may still follow; 0 means the default of 5
	TLS       bool // the client's own connection is encrypted
}

// Credentials are what one user is logged in with.
type Credentials struct {
	Identity config.Identity
	// Authzid is the authorisation identity (RFC 4616), empty for the usual
	// case of nobody else's mailbox.
	Authzid  string
	Password config.Secret
	// Master, if set, logs in for Identity with a password of his own; Authzid
	// and Password are not used then.
	Master *Master
}

// Master is a user who may log in for every other user of a server.
type Master struct {
	User     string // as the server knows it
	Password config.Secret
	Style    config.MasterStyle
}

// masterSeparator stands between a user's name and that of the master user who
// logs in for him: the default of Dovecot's documentation and of Cyrus's.
const masterSeparator = "*"

// names are what a server is sent for these credentials.
func (c Credentials) names(t config.Template) (user, authzid string, password config.Secret) {
	user = t.Expand(c.Identity)
	switch {
	case c.Master == nil:
		return user, c.Authzid, c.Password
	case c.Master.Style == config.MasterSeparator:
		return user + masterSeparator + c.Master.User, "", c.Master.Password
	}
	return c.Master.User, user, c.Master.Password
}

// Session is a connection on which a user has been logged in.
type Session struct {
	Conn net.Conn
	// Reader holds what was read past the login and goes on reading from Conn.
	Reader *bufio.Reader
	// Protocol that is spoken.
	Protocol config.Protocol
	// Capabilities after login, upper case (IMAP: RFC 9051 7.2.2; empty for POP3).
	Capabilities []string
	// Server is the host:port that was reached.
	Server string
}

// Server is one server over one protocol. It is safe for concurrent use.
type Server struct {
	protocol config.Protocol
	cfg      config.Server
	log      *zap.Logger
	tls      *tls.Config // without ServerName, which is each address's own
}

// NewServer prepares to reach a server. The error says which setting is wrong.
func NewServer(p config.Protocol, cfg config.Server, log *zap.Logger) (*Server, error) {
	if p != config.IMAP && p != config.POP3 {
		return nil, fmt.Errorf("protocol %q: write imap or pop3", string(p))
	}
	if len(cfg.Address) == 0 {
		return nil, errors.New("address: write the host:port of the server")
	}
	for _, a := range cfg.Address {
		if a.Host == "" || a.Port == 0 {
			return nil, fmt.Errorf("address %q: write host:port", hostPort(a))
		}
	}
	switch cfg.TLS {
	case config.TLSImplicit, config.TLSStartTLS, config.TLSDetect, config.TLSNone:
	default:
		return nil, fmt.Errorf("tls %q: write implicit, starttls, detect or none", string(cfg.TLS))
	}
	t, err := tlsConfig(cfg)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = zap.NewNop()
	}
	return &Server{protocol: p, cfg: cfg, log: log, tls: t}, nil
}

// Address lists the server's addresses, as host:port, for logs.
func (s *Server) Address() string {
	list := make([]string, len(s.cfg.Address))
	for i, a := range s.cfg.Address {
		list[i] = hostPort(a)
	}
	return strings.Join(list, ", ")
}

// Login reaches the server and authenticates. Every error is an *Error. The
// context's deadline bounds the whole dialogue; the session that is returned
// has no deadline set.
func (s *Server) Login(ctx context.Context, c Credentials, who Client) (*Session, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	l, err := s.open(ctx)
	if err != nil {
		return nil, s.failure(ctx, nil, err)
	}
	session, err := s.login(l, c, who)
	if err == nil {
		err = l.release(ctx)
	}
	if err != nil {
		l.cut()
		return nil, s.failure(ctx, l, err)
	}
	return session, nil
}

func (s *Server) login(l *link, c Credentials, who Client) (*Session, error) {
	prepare := l.dialogue.unaltered
	if who != (Client{}) {
		prepare = func() error { return l.dialogue.tell(who) }
	}
	if err := prepare(); err != nil {
		return nil, err
	}
	caps, err := l.dialogue.authenticate(c.names(s.cfg.Username))
	if err != nil {
		return nil, err
	}
	return &Session{Conn: l.conn, Reader: l.reader, Protocol: s.protocol,
		Capabilities: caps, Server: l.server}, nil
}

// failure makes an *Error of whatever ended a login. What is not an answer to
// the credentials is Unavailable.
func (s *Server) failure(ctx context.Context, l *link, err error) *Error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = &Error{Outcome: Unavailable, Err: explain(ctx, err)}
	}
	if e.Server == "" {
		e.Server = s.Address()
		if l != nil {
			e.Server = l.server
		}
	}
	return e
}

// bounded gives a context a deadline where it has none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, loginTimeout)
}

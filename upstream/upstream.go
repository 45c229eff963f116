// Package upstream reaches one server and logs one user in, over IMAP or POP3.
// It holds no policy: it says what the server answered, and hands over the
// live connection.
package upstream

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"

	"go.uber.org/zap"

	"migproxy/config"
)

// Client is who is connecting, as the server is told (Dovecot's ID and
// XCLIENT). The zero Client is migproxy itself: nothing is said.
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
	// helper: TLS configuration and whatever else is parsed once
}

// NewServer prepares to reach a server. The error says which setting is wrong.
func NewServer(p config.Protocol, cfg config.Server, log *zap.Logger) (*Server, error) {
	return nil, errors.ErrUnsupported
}

// Login reaches the server and authenticates. Every error is an *Error. The
// context's deadline bounds the whole dialogue; the session that is returned
// has no deadline set.
func (s *Server) Login(ctx context.Context, c Credentials, who Client) (*Session, error) {
	return nil, errors.ErrUnsupported
}

// Domain is one mail domain with its servers ready to be reached.
type Domain struct {
	Config *config.Domain
	Source Side
	Target Side
}

// Side is one of a domain's two servers, by protocol; a protocol that it does
// not serve is nil.
type Side struct {
	IMAP *Server
	POP3 *Server
}

// Over returns the server for a protocol, or nil.
func (s Side) Over(p config.Protocol) *Server {
	if p == config.POP3 {
		return s.POP3
	}
	return s.IMAP
}

// Domains prepares every domain of the configuration, by lower-case name.
func Domains(cfg *config.Config, log *zap.Logger) (map[string]*Domain, error) {
	return nil, errors.ErrUnsupported
}

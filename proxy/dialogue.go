package proxy

import (
	"context"
	"strings"
	"time"

	"migproxy/config"
	"migproxy/upstream"
)

// Attempt is one attempt of a client to authenticate, in any protocol. A
// Dialogue fills Login, Authzid and Password; the server fills the rest.
type Attempt struct {
	Protocol config.Protocol
	// Login is the authentication identity as typed; Authzid the authorisation
	// identity (RFC 4616), empty where it is the same or was not given.
	Login    string
	Authzid  string
	Password config.Secret
	// Identity is the account that Login stands for, or is a login alias of; zero
	// where its domain is not ours.
	Identity config.Identity
	// Client is who is connecting, and the session's id.
	Client upstream.Client
	// ServerName is the TLS server name that the client asked for, or empty.
	ServerName string
	// ListenerDomain is the domain of the address that was connected to, or empty.
	ListenerDomain string

	held time.Duration // how long it waited for the end of a flip
}

// sendable reports whether the credentials can be put to a server at all. NUL,
// CR and LF have no place in any protocol's credentials (RFC 4616 section 2,
// RFC 1939 section 3), and an empty password must reach nobody: some
// directories take it for an anonymous bind that succeeds (RFC 4513 section
// 5.1.2).
func (a *Attempt) sendable() bool {
	return a.Login != "" && !a.Password.IsZero() &&
		!strings.ContainsAny(a.Login+a.Authzid+a.Password.Reveal(), "\x00\r\n")
}

// Dialogue is the client side of a protocol before login. It holds no policy.
// It belongs to one connection.
type Dialogue interface {
	// Greet sends the greeting.
	Greet(*Conn) error
	// Next answers commands until one of them carries credentials. It returns
	// io.EOF after a logout or when the client is gone.
	Next(*Conn) (*Attempt, error)
	// Accept tells the client that it is logged in on this session.
	Accept(*Conn, *Attempt, *upstream.Session) error
	// Reject tells the client the outcome.
	Reject(*Conn, *Attempt, upstream.Outcome) error
	// Bye tells the client, where the protocol can, why its connection ends.
	Bye(*Conn, Reason) error
}

// Reason is why the proxy ends a connection by itself.
type Reason int

// The reasons.
const (
	// TimedOut: no login within login_timeout.
	TimedOut Reason = iota + 1
	// Draining: the proxy is shutting down.
	Draining
	// Crowded: too many connections from this address.
	Crowded
)

// Authenticator decides an attempt: the Broker, or a test's stand-in. Its
// error is an *upstream.Error. The session it gives may lead to a server or to
// a parked mailbox; the relay treats both alike.
type Authenticator interface {
	// Owner completes the attempt's Identity before it is counted for anybody.
	Owner(ctx context.Context, a *Attempt) error
	Login(ctx context.Context, a *Attempt) (*upstream.Session, error)
}

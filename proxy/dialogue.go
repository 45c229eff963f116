package proxy

import (
	"context"

	"migproxy/config"
	"migproxy/upstream"
)

// Attempt is one attempt of a client to authenticate, in any protocol.
type Attempt struct {
	Protocol config.Protocol
	// Login is the authentication identity as typed; Authzid the authorisation
	// identity (RFC 4616), empty where it is the same or was not given.
	Login    string
	Authzid  string
	Password config.Secret
	// Client is who is connecting, and the session's id.
	Client upstream.Client
	// ServerName is the TLS server name that the client asked for, or empty.
	ServerName string
	// ListenerDomain is the domain of the address that was connected to, or empty.
	ListenerDomain string
}

// Dialogue is the client side of a protocol before login. It holds no policy.
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
}

// Authenticator decides an attempt: the Broker, or a test's stand-in. Its
// error is an *upstream.Error. The session it gives may lead to a server or to
// a parked mailbox; the relay treats both alike.
type Authenticator interface {
	Login(ctx context.Context, a *Attempt) (*upstream.Session, error)
}

package proxy

import (
	"context"
	"errors"
	"io"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/upstream"
)

const (
	// askTimeout bounds one server's answer, so that there is time left to ask
	// the other. Dovecot delays even a right login by up to 17 s after misses.
	askTimeout = 25 * time.Second
	// logoutTimeout bounds a farewell that nobody waits for.
	logoutTimeout = time.Second
)

// side is one of the domain's two servers during a login, and what it said.
type side struct {
	name     string            // source or target
	server   *upstream.Server  // nil where the domain has none
	protocol config.Protocol   // that it is asked over
	session  *upstream.Session // if it is the client's protocol
	err      *upstream.Error
	// place is what counts the session in where its source's sessions are counted,
	// from before it is there; otherwise nil.
	place *sourceSession
}

// newSide picks the server that is asked: over the client's protocol if there
// is one, else over another, for the answer alone.
func newSide(name string, servers upstream.Side, client config.Protocol) *side {
	protocol := client
	if servers.Over(protocol) == nil {
		protocol = otherProtocol(client)
	}
	return &side{name: name, server: servers.Over(protocol), protocol: protocol}
}

// address is the host:port of the server, for logs.
func (s *side) address() string {
	if s.server == nil {
		return ""
	}
	return s.server.Address()
}

// take hands the session over to the caller; nil if there is none.
func (s *side) take() *upstream.Session {
	session := s.session
	s.session = nil
	return session
}

// forget drops what the server said.
func (s *side) forget() {
	if session := s.take(); session != nil {
		logout(session)
	}
	s.err = nil
}

// leave gives a place up that no session has taken.
func (s *side) leave() {
	if s.place != nil {
		s.place.owner.leave(s.place)
		s.place = nil
	}
}

// ask logs the user in on a server.
func (l *login) ask(ctx context.Context, s *side) upstream.Outcome {
	s.forget()
	if s.server == nil {
		s.leave()
		s.err = &upstream.Error{Outcome: upstream.Unavailable, Err: errors.New("the " + s.name + " has no server: name one in the settings")}
		return upstream.Unavailable
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	session, err := s.server.Login(ctx, l.creds, l.a.Client)
	outcome := upstream.OutcomeOf(err)
	l.b.metrics.answers.WithLabelValues(s.name, string(s.protocol), outcome.String()).Inc()
	if err != nil {
		s.leave()
		var ok bool
		if s.err, ok = errors.AsType[*upstream.Error](err); !ok {
			s.err = &upstream.Error{Outcome: outcome, Server: s.address(), Err: err}
		}
		l.log.Debug("login on a server failed", zap.String("side", s.name), zap.Error(err))
		return outcome
	}
	if s.place != nil {
		s.place.attach(session)
	}
	s.session = session
	if s.protocol != l.a.Protocol {
		logout(s.take())
	}
	return outcome
}

func otherProtocol(p config.Protocol) config.Protocol {
	if p == config.POP3 {
		return config.IMAP
	}
	return config.POP3
}

// logout ends a session that served only to ask. POP3's QUIT deletes nothing,
// as nothing was marked.
func logout(s *upstream.Session) {
	farewell := "migproxy LOGOUT\r\n"
	if s.Protocol == config.POP3 {
		farewell = "QUIT\r\n"
	}
	_ = s.Conn.SetDeadline(time.Now().Add(logoutTimeout))
	_, _ = io.WriteString(s.Conn, farewell)
	_ = s.Conn.Close()
}

package proxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/upstream"
)

// session is one client's connection from accept to close.
type session struct {
	server   *Server
	life     lifetime
	listener config.Listener
	conn     *Conn
	dialogue Dialogue
	client   upstream.Client
	log      *zap.Logger
}

// session serves one client and closes its connection. A panic costs this
// session and no other.
func (s *Server) session(life lifetime, l config.Listener, socket net.Conn) {
	stop := context.AfterFunc(life.end, func() { socket.Close() })
	defer stop()

	client := upstream.Client{Remote: addrPort(socket.RemoteAddr()), Local: addrPort(socket.LocalAddr()), SessionID: newSessionID()}
	log := s.log.With(zap.String("session", client.SessionID), zap.String("protocol", string(l.Protocol)),
		zap.Stringer("client", client.Remote))
	conn := newConn(socket, s.cfg.Hostname)
	defer func() { conn.stream.Close() }() // the stream of the end: TLS says goodbye
	defer recovered(log)

	conn.plaintextLogin = plaintextLogin(s.cfg.TLS.AllowPlaintextLogin, client.Remote.Addr())
	if l.TLS == config.TLSStartTLS {
		conn.offered = s.tls
	}
	t := &session{server: s, life: life, listener: l, conn: conn, dialogue: newDialogue(l.Protocol), client: client, log: log}
	leave, ok := s.occupancy.connect(client.Remote.Addr())
	if !ok {
		t.crowded()
		return
	}
	defer leave()
	t.serve()
}

func newDialogue(p config.Protocol) Dialogue {
	if p == config.POP3 {
		return &pop3Dialogue{}
	}
	return &imapDialogue{}
}

// recovered logs a panic of the calling goroutine with its stack.
func recovered(log *zap.Logger) {
	if p := recover(); p != nil {
		logPanic(log, p)
	}
}

func logPanic(log *zap.Logger, p any) {
	log.Error("a session ended by a fault in migproxy; please report it", zap.Any("panic", p), zap.Stack("stack"))
}

func newSessionID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b[:])
}

// addrPort is the zero value where a is no TCP address.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

func plaintextLogin(p config.PlaintextLogin, remote netip.Addr) bool {
	return p == config.PlaintextAlways || p == config.PlaintextLoopback && remote.IsLoopback()
}

// crowded sends away a client whose address has too many connections. Behind
// implicit TLS a handshake would be work for somebody who has had his share.
func (t *session) crowded() {
	t.server.metrics.refused.WithLabelValues(refusedPerAddress).Inc()
	t.log.Info("too many connections from this address; see limits.per_address")
	if t.listener.TLS != config.TLSImplicit {
		t.bye(Crowded)
	}
}

// serve is the dialogue up to a login, and the relay after it.
func (t *session) serve() {
	// One deadline bounds all reading before login, the handshake included.
	if err := t.conn.limitReading(time.Now().Add(t.server.cfg.Limits.LoginTimeout.Std())); err != nil {
		return
	}
	undrain := context.AfterFunc(t.life.drain, func() { t.conn.socket.SetReadDeadline(time.Unix(1, 0)) })
	defer undrain()

	if t.listener.TLS == config.TLSImplicit {
		if err := t.conn.handshake(t.life.drain, t.server.tls); err != nil {
			t.server.metrics.refused.WithLabelValues(refusedTLS).Inc()
			t.log.Debug("TLS handshake failed", zap.Error(err))
			return
		}
	}
	in, err := t.login()
	if err != nil {
		t.ended(err)
		return
	}
	defer in.leave()
	undrain()
	t.relay(in.attempt, in.session)
}

// ended says BYE where the proxy ended the dialogue, and logs why it ended.
func (t *session) ended(err error) {
	switch {
	case t.life.drain.Err() != nil:
		t.bye(Draining)
	case errors.Is(err, os.ErrDeadlineExceeded):
		t.bye(TimedOut)
	}
	if errors.Is(err, errLineTooLong) || errors.Is(err, errLiteralTooLong) || errors.Is(err, errTooManyBad) {
		t.conn.discard()
	}
	if !errors.Is(err, io.EOF) {
		t.log.Debug("ended before login", zap.Error(err))
	}
}

func (t *session) bye(r Reason) {
	if err := t.dialogue.Bye(t.conn, r); err != nil {
		t.log.Debug("the client did not take its BYE", zap.Error(err))
	}
}

// loggedIn is a login that succeeded, with its place among the account's sessions.
type loggedIn struct {
	attempt *Attempt
	session *upstream.Session
	leave   func() // gives the place back
}

// login runs the dialogue until an attempt succeeds. Its error ends the dialogue.
func (t *session) login() (loggedIn, error) {
	if err := t.dialogue.Greet(t.conn); err != nil {
		return loggedIn{}, err
	}
	for {
		a, err := t.dialogue.Next(t.conn)
		if err != nil {
			return loggedIn{}, err
		}
		t.complete(a)
		in, err := t.decide(a)
		if err == nil {
			return in, nil
		}
		if t.life.drain.Err() != nil {
			return loggedIn{}, err // a BYE tells the client more than a NO
		}
		if err := t.dialogue.Reject(t.conn, a, upstream.OutcomeOf(err)); err != nil {
			return loggedIn{}, err
		}
	}
}

// complete fills what the dialogue does not know.
func (t *session) complete(a *Attempt) {
	t.client.TLS = t.conn.secure
	a.Protocol, a.Client = t.listener.Protocol, t.client
	a.ServerName, a.ListenerDomain = t.conn.serverName, t.listener.Domain
	a.Identity = resolve(t.server.cfg, a)
}

// decide asks the Authenticator, within the limits, and records the outcome.
func (t *session) decide(a *Attempt) (loggedIn, error) {
	in, err := t.ask(a)
	outcome := upstream.OutcomeOf(err)
	t.server.metrics.logins.WithLabelValues(string(a.Protocol), outcome.String()).Inc()
	fields := append(who(a), zap.Stringer("outcome", outcome))
	if err != nil {
		fields = append(fields, zap.Error(err))
	} else {
		fields = append(fields, zap.String("server", in.session.Server))
	}
	t.log.Info("login", fields...)
	return in, err
}

func (t *session) ask(a *Attempt) (loggedIn, error) {
	s := t.server
	// A login begun late in login_timeout still gets the time that servers need,
	// unless nobody waits for it any more.
	ctx, cancel := context.WithTimeout(t.life.drain, s.cfg.Limits.LoginTimeout.Std())
	defer cancel()
	defer t.conn.watch(cancel)()
	// Whatever name he uses, he is one owner with one count of wrong passwords.
	if err := s.auth.Owner(ctx, a); err != nil {
		return loggedIn{}, err
	}
	if err := s.failures.admit(ctx, a); err != nil {
		return loggedIn{}, err
	}
	begun := time.Now()
	up, err := s.auth.Login(ctx, a)
	s.metrics.seconds.WithLabelValues(string(a.Protocol)).Observe((time.Since(begun) - a.held).Seconds())
	if err != nil {
		switch {
		case failureCounts(err):
			s.failures.fail(a)
		case errors.Is(err, errRightPassword):
			s.failures.succeed(a)
		}
		return loggedIn{}, err
	}
	s.failures.succeed(a)
	// Only now: a wrong password takes nobody's place.
	leave, ok := s.occupancy.login(a)
	if !ok {
		up.Conn.Close()
		return loggedIn{}, &upstream.Error{Outcome: upstream.Limited, Err: errTooManySessions}
	}
	return loggedIn{attempt: a, session: up, leave: leave}, nil
}

// who names the account in the log. A login name that is no account of ours
// is not written: people type passwords there.
func who(a *Attempt) []zap.Field {
	if a.Identity == (config.Identity{}) {
		return nil
	}
	return []zap.Field{zap.String("account", a.Identity.Address())}
}

// relay tells the client that it is in, and relays until the end.
func (t *session) relay(a *Attempt, up *upstream.Session) {
	defer up.Conn.Close()
	stop := context.AfterFunc(t.life.end, func() { up.Conn.Close() })
	defer stop()

	if err := t.dialogue.Accept(t.conn, a, up); err != nil {
		t.log.Debug("the client was gone when its login was decided", zap.Error(err))
		return
	}
	s, protocol := t.server, string(a.Protocol)
	active := s.metrics.active.WithLabelValues(protocol)
	active.Inc()
	defer active.Dec()
	begun := time.Now()
	r := newRelay(t.conn, up, relayOptions{
		protocol: a.Protocol, idle: s.cfg.Limits.IdleTimeout.Std(), drain: t.life.drain, log: t.log,
		toServer: s.metrics.bytes.WithLabelValues(protocol, toServer),
		toClient: s.metrics.bytes.WithLabelValues(protocol, toClient),
	})
	why := r.run()
	t.log.Info("session ended", append(who(a), zap.Stringer("outcome", upstream.Accepted), zap.String("why", why),
		zap.Int64("bytes_to_server", r.up.bytes.Load()), zap.Int64("bytes_to_client", r.down.bytes.Load()),
		zap.Duration("duration", time.Since(begun)))...)
}

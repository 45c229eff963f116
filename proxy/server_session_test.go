package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/upstream"
)

// TestPipelinedCommandsReachTheServer: what a client sent behind its login, in
// the same segment, is the server's.
func TestPipelinedCommandsReachTheServer(t *testing.T) {
	b := newBackend(t)
	f := start(t, b)
	for _, test := range []struct {
		listener            int
		login, answer, more string
	}{
		{imapPlain, "t LOGIN user pw\r\n", "t OK Logged in.\r\n", "u SELECT INBOX\r\nv FETCH"},
		{imapTLS, "t LOGIN user {2+}\r\npw\r\n", "t OK Logged in.\r\n", "u SELECT INBOX\r\nv FETCH"},
		{imapPlain, "t AUTHENTICATE PLAIN " + b64("\x00user\x00pw") + "\r\n", "t OK Logged in.\r\n", strings.Repeat("x", 3000)},
		{pop3TLS, "USER user\r\nPASS pw\r\n", "+OK Send the password.\r\n+OK Logged in.\r\n", "STAT\r\nUIDL\r\n"},
	} {
		p := f.connect(test.listener)
		p.send(test.login + test.more)
		p.exactly(test.answer)
		b.server().exactly(test.more)
	}
}

func TestWhatTheServerSentAheadComesFirst(t *testing.T) {
	b := newBackend(t)
	b.ahead = "* 1 EXISTS\r\n"
	p := start(t, b).connect(imapPlain)
	p.send("t LOGIN user pw\r\n")
	p.exactly("t OK Logged in.\r\n* 1 EXISTS\r\n")
	b.server().send("* 2 EXISTS\r\n")
	p.exactly("* 2 EXISTS\r\n")
}

func TestASecondAttemptMaySucceed(t *testing.T) {
	b := newBackend(t)
	f := start(t, authFunc(func(ctx context.Context, a *Attempt) (*upstream.Session, error) {
		if a.Password.Reveal() != "right" {
			return rejecting(upstream.Miss)(ctx, a)
		}
		return b.Login(ctx, a)
	}))
	p := f.connect(imapTLS)
	p.send("t LOGIN user wrong\r\nu LOGIN user right\r\n")
	p.expect("t NO [AUTHENTICATIONFAILED]")
	p.expect("u OK")
	if n := f.metric("migproxy_logins_total", "protocol", "imap", "outcome", "miss"); n != 1 {
		t.Errorf("%v misses counted", n)
	}
	if n := f.metric("migproxy_logins_total", "protocol", "imap", "outcome", "accepted"); n != 1 {
		t.Errorf("%v logins counted", n)
	}
	if n := f.metric("migproxy_login_seconds", "protocol", "imap"); n != 2 {
		t.Errorf("%v logins timed", n)
	}
}

func TestSessionIsCountedAndLoggedWithoutSecrets(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	f := start(t, b)
	p := f.connect(imapPlain)
	p.send("t LOGIN user tops3cret\r\n")
	p.expect("t OK")
	server := b.server()
	p.send("12345")
	server.exactly("12345")
	server.send("1234567\r\n")
	p.exactly("1234567\r\n")
	if n := f.metric("migproxy_sessions", "protocol", "imap"); n != 1 {
		t.Errorf("%v sessions counted", n)
	}
	p.Close()
	server.rest()
	f.drained()
	if n := f.metric("migproxy_sessions", "protocol", "imap"); n != 0 {
		t.Errorf("%v sessions are left", n)
	}
	for direction, want := range map[string]float64{toServer: 5, toClient: 9} {
		if n := f.metric("migproxy_relayed_bytes_total", "protocol", "imap", "direction", direction); n < want || direction == toServer && n != want {
			t.Errorf("%v bytes %s, want %v", n, direction, want)
		}
	}
	end := f.logs.FilterMessage("session ended").All()
	if len(end) != 1 {
		t.Fatalf("%d lines", len(end))
	}
	fields := end[0].ContextMap()
	if fields["account"] != "user@example.com" || fields["outcome"] != "accepted" || fields["bytes_to_server"] != int64(5) ||
		fields["client"] != p.LocalAddr().String() || len(fields["session"].(string)) < 16 || fields["duration"] == nil {
		t.Errorf("logged %v", fields)
	}
	for _, entry := range f.logs.All() {
		if text := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(text, "tops3cret") {
			t.Errorf("the password is in the log: %s", text)
		}
	}
}

func TestLoginTimeout(t *testing.T) {
	f := start(t, rejecting(upstream.Miss), func(c *config.Config) {
		c.Limits.LoginTimeout = config.Duration(200 * time.Millisecond)
	})
	p := f.connect(imapPlain)
	p.send("a NOOP\r\nb LOGIN user {2}\r\n") // activity does not prolong it
	p.expect("a OK")
	p.expect("+ ")
	p.expect("* BYE")
	if rest := p.rest(); rest != "" {
		t.Errorf("got %q", rest)
	}
	if rest := f.connect(pop3Plain).rest(); rest != "" {
		t.Errorf("got %q", rest)
	}
	f.dial(imapTLS).rest() // never says hello
}

func TestLoginIsBoundedInTime(t *testing.T) {
	f := start(t, authFunc(func(ctx context.Context, _ *Attempt) (*upstream.Session, error) {
		<-ctx.Done()
		return nil, &upstream.Error{Outcome: upstream.Unavailable, Err: ctx.Err()}
	}), func(c *config.Config) { c.Limits.LoginTimeout = config.Duration(200 * time.Millisecond) })
	p := f.connect(imapPlain)
	p.send("t LOGIN user pw\r\n")
	p.expect("t NO [UNAVAILABLE]")
	p.expect("* BYE")
}

func TestDrain(t *testing.T) {
	b := newBackend(t)
	f := start(t, b)
	before, pop := f.connect(imapPlain), f.connect(pop3TLS)
	inside := f.connect(imapTLS)
	inside.send("t LOGIN user pw\r\n")
	inside.expect("t OK")
	server := b.server()
	server.send("* 1 FETCH (BODY[] {4}\r\n")
	inside.expect("* 1 FETCH")

	f.stop()
	before.exactly(byeDraining)
	before.rest()
	if rest := pop.rest(); rest != "" {
		t.Errorf("POP3 got %q", rest)
	}
	server.send("mail)\r\n")
	inside.exactly("mail)\r\n" + byeDraining)
	if rest := inside.rest(); rest != "" {
		t.Errorf("then got %q", rest)
	}
	inside.Close()
	if err := receive(t, f.served); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", f.Addrs()[imapPlain].String()); err == nil {
		c.Close()
		t.Error("still listening")
	}
}

func TestDrainEndsWithItsGrace(t *testing.T) {
	b := newBackend(t)
	f := start(t, b, func(c *config.Config) { c.Shutdown.Grace = config.Duration(50 * time.Millisecond) })
	p := f.connect(imapPlain)
	p.send("t LOGIN user pw\r\n")
	p.expect("t OK")
	b.server().send("* 1 FETCH (BODY[] {4}\r\n")
	p.expect("* 1 FETCH")
	f.drained() // although the response never ends
	if rest := p.rest(); rest != "" {
		t.Errorf("got %q in a literal", rest)
	}
}

// TestClientThatLeavesCancelsItsLogin, so that it holds no place and no
// connection for as long as a server is silent.
func TestClientThatLeavesCancelsItsLogin(t *testing.T) {
	for name, leave := range map[string]func(*peer){
		"abort": func(p *peer) { p.Conn.(*net.TCPConn).SetLinger(0) }, // closing resets
		"close": func(*peer) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked, cancelled := make(chan bool, 1), make(chan error, 1)
			f := start(t, authFunc(func(ctx context.Context, _ *Attempt) (*upstream.Session, error) {
				asked <- true
				<-ctx.Done()
				cancelled <- ctx.Err()
				return nil, &upstream.Error{Outcome: upstream.Unavailable, Err: ctx.Err()}
			}))
			p := f.connect(imapPlain)
			p.send("t LOGIN user pw\r\n")
			receive(t, asked)
			leave(p)
			p.Close()
			if err := receive(t, cancelled); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
}

// TestHalfClosedClientStillLogsIn: what a client sent before it ended its
// direction is carried out.
func TestHalfClosedClientStillLogsIn(t *testing.T) {
	for _, more := range []string{"", "u LOGOUT\r\n"} {
		b := newBackend(t)
		asked, answer := make(chan bool, 1), make(chan bool)
		f := start(t, authFunc(func(ctx context.Context, a *Attempt) (*upstream.Session, error) {
			asked <- true
			select {
			case <-answer:
				return b.Login(ctx, a)
			case <-ctx.Done():
				return nil, &upstream.Error{Outcome: upstream.Unavailable, Err: ctx.Err()}
			}
		}))
		p := f.connect(imapPlain)
		p.send("t LOGIN user pw\r\n" + more)
		p.closeWrite()
		receive(t, asked)
		close(answer)
		p.exactly("t OK Logged in.\r\n")
		b.server().exactly(more)
		f.stop()
	}
}

// TestHeldLoginCountsAsRight: whoever is held while his mailbox moves is not
// locked out by what others guess.
func TestHeldLoginCountsAsRight(t *testing.T) {
	f := start(t, authFunc(func(context.Context, *Attempt) (*upstream.Session, error) {
		return nil, &upstream.Error{Outcome: upstream.Held, Err: errRightPassword}
	}))
	p := f.connect(imapPlain)
	p.send("t LOGIN user pw\r\n")
	p.expect("t NO [UNAVAILABLE]")
	f.failures.mu.Lock()
	defer f.failures.mu.Unlock()
	if len(f.failures.known.items) != 1 {
		t.Error("the login is not remembered")
	}
}

func TestDrainDuringALogin(t *testing.T) {
	asked := make(chan bool, 1)
	f := start(t, authFunc(func(ctx context.Context, _ *Attempt) (*upstream.Session, error) {
		asked <- true
		<-ctx.Done()
		return nil, &upstream.Error{Outcome: upstream.Unavailable, Err: ctx.Err()}
	}))
	p := f.connect(imapPlain)
	p.send("t LOGIN user pw\r\n")
	receive(t, asked)
	f.stop()
	p.exactly(byeDraining)
}

func TestAPanicCostsOneSession(t *testing.T) {
	b := newBackend(t)
	f := start(t, authFunc(func(ctx context.Context, a *Attempt) (*upstream.Session, error) {
		if a.Login == "bad" {
			panic("fault")
		}
		return b.Login(ctx, a)
	}))
	good := f.connect(imapPlain)
	good.send("t LOGIN good pw\r\n")
	good.expect("t OK")
	bad := f.connect(imapPlain)
	bad.send("t LOGIN bad tops3cret\r\n")
	bad.rest()
	good.send("u NOOP\r\n")
	b.server().exactly("u NOOP\r\n")
	lines := f.logs.FilterFieldKey("panic").All()
	if len(lines) != 1 || strings.Contains(fmt.Sprint(lines[0].ContextMap()), "tops3cret") {
		t.Errorf("logged %v", lines)
	}
}

func TestConnectionsPerAddress(t *testing.T) {
	f := start(t, rejecting(upstream.Miss), func(c *config.Config) {
		c.Limits.PerAddress, c.Limits.TrustedNetworks = 2, nil
	})
	first, _ := f.connect(imapPlain), f.connect(pop3Plain)
	f.dial(imapPlain).expect("* BYE [LIMIT]")
	f.dial(pop3Plain).expect("-ERR [SYS/TEMP]")
	if rest := f.dial(imapTLS).rest(); rest != "" {
		t.Errorf("got %q", rest)
	}
	if n := f.metric("migproxy_connections_refused_total", "reason", "per_address"); n != 3 {
		t.Errorf("%v refusals counted", n)
	}
	first.send("a LOGOUT\r\n")
	first.rest()
	// The place is free once the session has ended, which is after its last byte.
	deadline := time.Now().Add(patience)
	for !strings.HasPrefix(f.dial(imapPlain).line(), "* OK") {
		if time.Now().After(deadline) {
			t.Fatal("the place is not given back")
		}
	}
}

func TestSessionsPerAccount(t *testing.T) {
	b := newBackend(t)
	f := start(t, b, func(c *config.Config) { c.Limits.PerAccount = 1 })
	p := f.connect(imapPlain)
	p.send("t LOGIN user pw\r\n")
	p.expect("t OK")
	b.server()
	q := f.connect(imapPlain)
	q.send("t LOGIN USER@example.com pw\r\n") // the same account
	q.expect("t NO [LIMIT]")
	b.server().rest() // its session at the server was ended
	q.send("t LOGIN other pw\r\n")
	q.expect("t OK")
	b.server()
}

func TestWrongPasswordsAreLimited(t *testing.T) {
	asked := 0
	f := start(t, authFunc(func(ctx context.Context, a *Attempt) (*upstream.Session, error) {
		asked++
		return rejecting(upstream.Miss)(ctx, a)
	}))
	for i := range accountPenalty.max {
		f.failures.fail(attempt("127.0.0.1", "user", fmt.Sprint("guess", i)))
	}
	p := f.connect(imapPlain)
	p.send("t LOGIN user guess\r\n")
	p.expect("t NO [LIMIT]")
	q := f.connect(pop3Plain)
	q.send("USER user\r\nPASS guess\r\n")
	q.expect("+OK")
	q.expect("-ERR [LOGIN-DELAY]")
	if asked != 0 {
		t.Error("a server was asked")
	}
}

func TestMissesCountUntilALogin(t *testing.T) {
	b := newBackend(t)
	f := start(t, authFunc(func(ctx context.Context, a *Attempt) (*upstream.Session, error) {
		switch a.Password.Reveal() {
		case "right":
			return b.Login(ctx, a)
		case "source away":
			return nil, &upstream.Error{Outcome: upstream.Unavailable, Err: errMissed}
		}
		return rejecting(upstream.Miss)(ctx, a)
	}))
	failures := func() int {
		f.failures.mu.Lock()
		defer f.failures.mu.Unlock()
		if r := f.failures.accounts.get("user@example.com"); r != nil {
			return r.count(time.Now())
		}
		return 0
	}
	p := f.connect(imapPlain)
	for i, test := range []struct{ password, answer string }{
		{"wrong", "t NO [AUTHENTICATIONFAILED]"}, {"source away", "t NO [UNAVAILABLE]"}, {"wrong", "t NO [AUTHENTICATIONFAILED]"}} {
		p.send("t LOGIN user \"" + test.password + "\"\r\n")
		p.expect(test.answer)
		if want := min(i+1, 2); failures() != want {
			t.Errorf("after %q: %d failures, want %d", test.password, failures(), want)
		}
	}
	p.send("t LOGIN user right\r\n")
	p.expect("t OK")
	if n := failures(); n != 0 {
		t.Errorf("after a login: %d failures", n)
	}
}

func TestUnavailableIsNoFailure(t *testing.T) {
	f := start(t, rejecting(upstream.Unavailable))
	p := f.connect(imapPlain)
	for i := range 2 * maxBadCommands {
		p.send(fmt.Sprintf("t LOGIN user guess%d\r\n", i))
		p.expect("t NO [UNAVAILABLE]")
	}
	if len(f.failures.accounts.items) != 0 {
		t.Error("counted as wrong passwords")
	}
}

// TestPlaintextBehindSTARTTLSIsThrownAway: whoever sits between puts commands
// behind STARTTLS, in the same segment.
func TestPlaintextBehindSTARTTLSIsThrownAway(t *testing.T) {
	f := start(t, authFunc(func(ctx context.Context, a *Attempt) (*upstream.Session, error) {
		if a.Login != "user" {
			t.Errorf("an injected login got through: %s", a.Login)
		}
		return rejecting(upstream.Miss)(ctx, a)
	}))
	for _, test := range []struct {
		listener              int
		send, ok              string
		after, want, capa, no string
	}{
		{imapPlain, "a STARTTLS\r\nx LOGIN evil pw\r\n", "a OK", "b LOGIN user pw\r\n", "b NO", "c CAPABILITY\r\n", "STARTTLS"},
		{pop3Plain, "STLS\r\nUSER evil\r\nPASS pw\r\n", "+OK", "AUTH PLAIN " + b64("\x00user\x00pw") + "\r\n", "-ERR [AUTH]", "CAPA\r\n", "STLS"},
	} {
		p := f.connect(test.listener)
		p.send(test.send)
		p.expect(test.ok)
		p = startTLS(f, p)
		p.send(test.after)
		p.expect(test.want)
		p.send(test.capa)
		if got := p.line(); strings.Contains(got, test.no) {
			t.Errorf("%s is offered under TLS", test.no)
		}
	}
}

func TestPOP3UserBeforeSTLSIsForgotten(t *testing.T) {
	f := start(t, rejecting(upstream.Miss))
	p := f.connect(pop3Plain)
	p.send("USER evil\r\nSTLS\r\n")
	p.expect("+OK")
	p.expect("+OK")
	p = startTLS(f, p)
	p.send("PASS pw\r\n")
	p.expect("-ERR Send USER first")
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	cert, _ := newCertificate(t, t.TempDir(), "localhost")
	for want, tls := range map[string]config.TLS{
		"needs a certificate":        {},
		"no such file":               {Certificates: []config.Certificate{{Cert: "/nowhere.crt", Key: "/nowhere.key"}}},
		"failed to find certificate": {Certificates: []config.Certificate{{Cert: cert.Key, Key: cert.Key}}},
	} {
		_, err := New(Options{Log: zap.NewNop(), Config: &config.Config{TLS: tls,
			Listeners: []config.Listener{{Protocol: config.IMAP, TLS: config.TLSImplicit}}}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

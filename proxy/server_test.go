package proxy

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"migproxy/config"
	"migproxy/upstream"
)

// patience is how long tests wait for what has to come; never for nothing.
const patience = 10 * time.Second

// authFunc is a stand-in for the broker.
type authFunc func(context.Context, *Attempt) (*upstream.Session, error)

func (f authFunc) Login(ctx context.Context, a *Attempt) (*upstream.Session, error) { return f(ctx, a) }

func (f authFunc) Owner(context.Context, *Attempt) error { return nil }

// rejecting answers every attempt with one outcome.
func rejecting(o upstream.Outcome) authFunc {
	return func(context.Context, *Attempt) (*upstream.Session, error) {
		return nil, &upstream.Error{Outcome: o, Server: "secret.internal:143", Err: errors.New("server said: no such user here")}
	}
}

// rejectingSendable answers a miss, and checks that nothing reaches a server
// that must not.
func rejectingSendable(t testing.TB) authFunc {
	return func(ctx context.Context, a *Attempt) (*upstream.Session, error) {
		if p := a.Password.Reveal(); p == "" || a.Login == "" || strings.ContainsAny(p+a.Login, "\x00\r\n") {
			t.Errorf("a server would be asked with %q and %q", a.Login, p)
		}
		return rejecting(upstream.Miss)(ctx, a)
	}
}

// backend accepts every attempt and hands the server's end of each session to
// the test.
type backend struct {
	t        testing.TB
	attempts chan *Attempt
	servers  chan net.Conn
	caps     []string
	ahead    string // what the server had sent past the login
}

func newBackend(t testing.TB) *backend {
	return &backend{t: t, attempts: make(chan *Attempt, 100), servers: make(chan net.Conn, 100)}
}

func (b *backend) Owner(context.Context, *Attempt) error { return nil }

func (b *backend) Login(_ context.Context, a *Attempt) (*upstream.Session, error) {
	ours, theirs := tcpPair(b.t)
	s := &upstream.Session{Conn: ours, Reader: bufio.NewReader(ours), Protocol: a.Protocol, Capabilities: b.caps, Server: "127.0.0.1:1"}
	if b.ahead != "" {
		io.WriteString(theirs, b.ahead)
		s.Reader.Peek(len(b.ahead))
	}
	b.attempts <- a
	b.servers <- theirs
	return s, nil
}

// server is the server's end of the next session, as a scripted peer.
func (b *backend) server() *peer {
	b.t.Helper()
	return newPeer(b.t, receive(b.t, b.servers))
}

func receive[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("waited in vain")
	}
	return v
}

// tcpPair is a connection, both ends.
func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// peer is one end of a conversation that the test writes out.
type peer struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func newPeer(t testing.TB, c net.Conn) *peer {
	c.SetDeadline(time.Now().Add(patience))
	return &peer{t, c, bufio.NewReader(c)}
}

// send writes text. A peer that has closed shows when the answer is read.
func (p *peer) send(text string) { io.WriteString(p.Conn, text) }

func (p *peer) line() string {
	p.t.Helper()
	line, err := p.r.ReadString('\n')
	if err != nil {
		p.t.Fatalf("after %.60q: %v", line, err)
	}
	return line
}

// expect reads a line that has to begin like this.
func (p *peer) expect(prefix string) string {
	p.t.Helper()
	line := p.line()
	if !strings.HasPrefix(line, prefix) {
		p.t.Fatalf("got %q, want %q...", line, prefix)
	}
	return line
}

// exactly reads these very bytes.
func (p *peer) exactly(want string) {
	p.t.Helper()
	b := make([]byte, len(want))
	n, err := io.ReadFull(p.r, b)
	if string(b[:n]) != want {
		p.t.Fatalf("got %.200q (%v), want %.200q", b[:n], err, want)
	}
}

// rest reads to the end of the stream. A reset is an end as well.
func (p *peer) rest() string {
	p.t.Helper()
	b, err := io.ReadAll(p.r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Fatalf("the stream does not end; got %.200q", b)
	}
	return string(b)
}

func (p *peer) closeWrite() {
	p.t.Helper()
	if !halfClose(p.Conn) {
		p.t.Fatal("cannot half-close")
	}
}

// fixture is a running server.
type fixture struct {
	*Server
	t      testing.TB
	logs   *observer.ObservedLogs
	reg    *prometheus.Registry
	stop   context.CancelFunc
	served chan error
	roots  *x509.CertPool
}

// start runs a server with a listener for each protocol and TLS mode, in the
// order of the constants below.
func start(t testing.TB, auth Authenticator, change ...func(*config.Config)) *fixture {
	t.Helper()
	cert, roots := newCertificate(t, t.TempDir(), "localhost")
	loopback := config.Address{Host: "127.0.0.1"}
	cfg := &config.Config{
		Hostname: "mail.example.com", DefaultDomain: "example.com",
		TLS: config.TLS{Certificates: []config.Certificate{cert}, MinVersion: "1.2", AllowPlaintextLogin: config.PlaintextAlways},
		Limits: config.Limits{LoginTimeout: config.Duration(patience), IdleTimeout: config.Duration(time.Minute),
			TrustedNetworks: []config.Network{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}},
		Shutdown: config.Shutdown{Grace: config.Duration(patience)},
		Domains:  []config.Domain{{Name: "example.com"}},
	}
	for _, p := range []config.Protocol{config.IMAP, config.POP3} {
		for _, m := range []config.TLSMode{config.TLSStartTLS, config.TLSImplicit} {
			cfg.Listeners = append(cfg.Listeners, config.Listener{Protocol: p, Address: loopback, TLS: m})
		}
	}
	for _, c := range change {
		c(cfg)
	}
	core, logs := observer.New(zap.DebugLevel)
	reg := prometheus.NewPedanticRegistry()
	s, err := New(Options{Config: cfg, Auth: auth, Log: zap.New(core), Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	f := &fixture{Server: s, t: t, logs: logs, reg: reg, stop: stop, served: make(chan error, 1), roots: roots}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.served <- s.Serve(ctx)
	}()
	t.Cleanup(func() {
		stop()
		select {
		case <-done:
		case <-time.After(2 * patience):
			t.Error("Serve does not return")
		}
	})
	return f
}

// Indexes of the fixture's listeners.
const (
	imapPlain = iota
	imapTLS
	pop3Plain
	pop3TLS
)

// with is the same server for a subtest.
func (f *fixture) with(t testing.TB) *fixture {
	g := *f
	g.t = t
	return &g
}

// dial connects to a listener, reads nothing.
func (f *fixture) dial(listener int) *peer {
	f.t.Helper()
	c, err := net.Dial("tcp", f.Addrs()[listener].String())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	if listener == imapTLS || listener == pop3TLS {
		c = tls.Client(c, f.clientTLS())
	}
	return newPeer(f.t, c)
}

// connect dials and reads the greeting.
func (f *fixture) connect(listener int) *peer {
	f.t.Helper()
	p := f.dial(listener)
	p.line()
	return p
}

func (f *fixture) clientTLS() *tls.Config {
	return &tls.Config{RootCAs: f.roots, ServerName: "localhost"}
}

// metric is the value of a counter or gauge with these labels, in order.
func (f *fixture) metric(name string, labels ...string) float64 {
	f.t.Helper()
	return metric(f.t, f.reg, name, labels...)
}

func metric(t testing.TB, reg *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	series:
		for _, m := range family.GetMetric() {
			for i := 0; i < len(labels); i += 2 {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				if !found {
					continue series
				}
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Fatalf("no metric %s %v", name, labels)
	return 0
}

// drained ends the server and waits for it.
func (f *fixture) drained() {
	f.t.Helper()
	f.stop()
	if err := receive(f.t, f.served); err != nil {
		f.t.Fatal(err)
	}
}

// newCertificate writes a self-signed certificate for a name.
func newCertificate(t testing.TB, dir, name string) (config.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c := config.Certificate{Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
	for file, block := range map[string]*pem.Block{
		c.Cert: {Type: "CERTIFICATE", Bytes: der}, c.Key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return c, roots
}

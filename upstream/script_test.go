package upstream_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/upstream"
)

// patience is how long a scripted server waits for a client that does not do
// as the script says. A test that passes never waits that long.
const patience = 10 * time.Second

var anna = config.Identity{Login: "anna", Local: "anna", Domain: "example.com"}

// secret is the password of every scripted login that is not about passwords.
const secret = "s3cret"

// plain is the message of SASL PLAIN.
func plain(authzid, user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(authzid + "\x00" + user + "\x00" + password))
}

// A script is what a server says and hears, a line each:
//
//	S: a line that the server sends; lines that follow each other are one packet
//	C: a line that the client must send; <PLAIN> is anna's SASL message
//	TLS the server does a handshake
//	CLOSE the server closes
//
// At its end the server hears on until the client closes, and anything that
// the client still sends is an error.
type scripted struct {
	t      *testing.T
	ln     net.Listener
	script string
	cert   *tls.Certificate
	wg     sync.WaitGroup
	mu     sync.Mutex
	dials  int
	names  []string // the TLS server names that clients asked for
}

// play starts a server that plays the script to everybody who connects.
func play(t *testing.T, script string, cert *tls.Certificate) *scripted {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{t: t, ln: ln, script: script, cert: cert}
	s.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.dials++
			s.mu.Unlock()
			s.wg.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		s.wg.Wait()
	})
	return s
}

func (s *scripted) serve(raw net.Conn) {
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(patience))
	conn := raw
	var out strings.Builder
	flush := func() {
		_, _ = io.WriteString(conn, out.String())
		out.Reset()
	}
	for line := range strings.Lines(s.script) {
		verb, text, _ := strings.Cut(strings.TrimSuffix(strings.TrimLeft(line, "\t"), "\n"), " ")
		switch verb {
		case "S:":
			out.WriteString(text + "\r\n")
			continue
		case "":
			continue
		}
		flush()
		switch verb {
		case "C:":
			text = strings.ReplaceAll(text, "<PLAIN>", plain("", anna.Address(), secret))
			if got, ok := s.hear(conn, text+"\r\n"); !ok {
				s.t.Errorf("the client sent %q, want %q", got, text)
				return
			}
		case "TLS":
			c := tls.Server(conn, &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.names = append(s.names, hello.ServerName)
				return s.cert, nil
			}})
			if c.Handshake() != nil {
				return
			}
			conn = c
		case "CLOSE":
			return
		default:
			s.t.Errorf("script: %q", line)
			return
		}
	}
	flush()
	if rest, _ := io.ReadAll(conn); len(rest) > 0 {
		s.t.Errorf("the client sent more: %q", rest)
	}
}

// hear reads exactly what is wanted, or what comes instead of it.
func (s *scripted) hear(conn net.Conn, want string) (string, bool) {
	got := make([]byte, 0, len(want))
	one := make([]byte, 1)
	for len(got) < len(want) {
		if _, err := io.ReadFull(conn, one); err != nil {
			return string(got), false
		}
		got = append(got, one[0])
		if one[0] != want[len(got)-1] {
			return string(got) + "...", false
		}
	}
	return string(got), true
}

func (s *scripted) dialled() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dials
}

func (s *scripted) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.names)
}

// at is the server's address, under this name of the local host.
func (s *scripted) at(host string) config.Address {
	return config.Address{Host: host, Port: uint16(s.ln.Addr().(*net.TCPAddr).Port)}
}

// server prepares a Server for a configuration.
func server(t *testing.T, p config.Protocol, cfg config.Server) *upstream.Server {
	t.Helper()
	s, err := upstream.NewServer(p, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// login logs anna in, with a generous deadline.
func login(t *testing.T, s *upstream.Server, password string) (*upstream.Session, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return s.Login(ctx, upstream.Credentials{Identity: anna, Password: config.NewSecret(password)}, upstream.Client{})
}

// authority is a certificate authority made for the test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a := &authority{t: t, cert: cert, key: key}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue makes a certificate for a name or an IP address, valid until then.
func (a *authority) issue(name string, until time.Time) *tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if ip := net.ParseIP(name); ip != nil {
		cert.IPAddresses = []net.IP{ip}
	} else {
		cert.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// file writes the authority's certificate where ca_file can name it.
func (a *authority) file() string {
	a.t.Helper()
	name := filepath.Join(a.t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	if err := os.WriteFile(name, text, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return name
}

// pin is the fingerprint of a certificate.
func pin(c *tls.Certificate) string {
	sum := sha256.Sum256(c.Certificate[0])
	return hex.EncodeToString(sum[:])
}

package upstream_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/upstream"
)

// startTLS is a login over STARTTLS. What was announced in the clear does not
// count: the login mechanism is the one announced afterwards.
const startTLS = `S: * OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready
	C: m1 STARTTLS
	S: m1 OK begin
	TLS
	C: m2 CAPABILITY
	S: * CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN
	S: m2 OK done
	C: m3 AUTHENTICATE PLAIN <PLAIN>
	S: m3 OK [CAPABILITY A] in`

// stls is the same over POP3.
const stls = `S: +OK ready
	C: CAPA
	S: +OK list
	S: STLS
	S: .
	C: STLS
	S: +OK begin
	TLS
	C: CAPA
	S: +OK list
	S: SASL PLAIN
	S: .
	C: AUTH PLAIN
	S: +
	C: <PLAIN>
	S: +OK in`

// inTheClear is a login at a server that offers no TLS.
const inTheClear = saslIR + "S: m1 OK [CAPABILITY A] in"

const popInTheClear = userPass + "S: +OK in"

// A connection is trusted by the settings' rule alone, and no password leaves
// before it is.
func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	good := ca.issue("localhost", time.Now().Add(time.Hour))
	expired := ca.issue("localhost", time.Now().Add(-time.Minute))
	wrongName := ca.issue("elsewhere.example.com", time.Now().Add(time.Hour))
	caFile, otherFile := ca.file(), other.file()
	colons := strings.ToUpper(pin(good))
	for i := 62; i > 0; i -= 2 {
		colons = colons[:i] + ":" + colons[i:]
	}
	implicit := func(script string) string { return "TLS\n" + script }

	for _, tc := range []struct {
		name     string
		protocol config.Protocol
		mode     config.TLSMode
		script   string
		cert     *tls.Certificate
		ca, pin  string
		want     upstream.Outcome
		because  string // must be in the error
	}{
		{"implicit", config.IMAP, config.TLSImplicit, implicit(inTheClear), good, caFile, "", upstream.Accepted, ""},
		{"starttls", config.IMAP, config.TLSStartTLS, startTLS, good, caFile, "", upstream.Accepted, ""},
		{"detect finds it", config.IMAP, config.TLSDetect, startTLS, good, caFile, "", upstream.Accepted, ""},
		{"detect does not", config.IMAP, config.TLSDetect, inTheClear, nil, "", "", upstream.Accepted, ""},
		{"pop3 implicit", config.POP3, config.TLSImplicit, implicit(popInTheClear), good, caFile, "", upstream.Accepted, ""},
		{"pop3 stls", config.POP3, config.TLSStartTLS, stls, good, caFile, "", upstream.Accepted, ""},
		{"pop3 detect finds it", config.POP3, config.TLSDetect, stls, good, caFile, "", upstream.Accepted, ""},
		{"pop3 detect does not", config.POP3, config.TLSDetect, popInTheClear, nil, "", "", upstream.Accepted, ""},

		{"pinned", config.IMAP, config.TLSImplicit, implicit(inTheClear), good, "", pin(good), upstream.Accepted, ""},
		{"pinned, with colons", config.IMAP, config.TLSStartTLS, startTLS, good, "", colons, upstream.Accepted, ""},
		{"a pin needs no name and no date", config.IMAP, config.TLSImplicit, implicit(inTheClear), wrongName, "", pin(wrongName), upstream.Accepted, ""},
		{"an expired one is still the pinned one", config.IMAP, config.TLSImplicit, implicit(inTheClear), expired, "", pin(expired), upstream.Accepted, ""},

		{"wrong pin", config.IMAP, config.TLSImplicit, "TLS", good, "", pin(wrongName), upstream.Unavailable, pin(good)},
		{"wrong pin beats a right authority", config.IMAP, config.TLSImplicit, "TLS", good, caFile, pin(wrongName), upstream.Unavailable, "pin_sha256"},
		{"another authority", config.IMAP, config.TLSImplicit, "TLS", good, otherFile, "", upstream.Unavailable, "ca_file"},
		{"system roots", config.IMAP, config.TLSImplicit, "TLS", good, "", "", upstream.Unavailable, pin(good)},
		{"another name", config.IMAP, config.TLSImplicit, "TLS", wrongName, caFile, "", upstream.Unavailable, "correct the address"},
		{"expired", config.IMAP, config.TLSImplicit, "TLS", expired, caFile, "", upstream.Unavailable, "expired"},
		{"starttls, another authority", config.IMAP, config.TLSStartTLS, startTLSOnly, good, otherFile, "", upstream.Unavailable, "ca_file"},
		{"detect, another authority", config.IMAP, config.TLSDetect, startTLSOnly, good, otherFile, "", upstream.Unavailable, "ca_file"},

		{"stripped", config.IMAP, config.TLSStartTLS, "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready", nil, "", "", upstream.Unavailable, "no password was sent"},
		{"pop3 stripped", config.POP3, config.TLSStartTLS, "S: +OK ready\nC: CAPA\nS: +OK\nS: SASL PLAIN\nS: .", nil, "", "", upstream.Unavailable, "no password was sent"},
		{"pop3 without CAPA", config.POP3, config.TLSStartTLS, "S: +OK ready\nC: CAPA\nS: -ERR what", nil, "", "", upstream.Unavailable, "no password was sent"},
		{"offered, then refused", config.IMAP, config.TLSDetect, "S: * OK [CAPABILITY STARTTLS AUTH=PLAIN] ready\nC: m1 STARTTLS\nS: m1 NO not now", nil, "", "", upstream.Unavailable, "no password was sent"},
		{"pop3 offered, then refused", config.POP3, config.TLSDetect, "S: +OK ready\nC: CAPA\nS: +OK\nS: STLS\nS: .\nC: STLS\nS: -ERR not now", nil, "", "", upstream.Unavailable, "no password was sent"},
		{"injected", config.IMAP, config.TLSStartTLS, "S: * OK [CAPABILITY STARTTLS] ready\nC: m1 STARTTLS\nS: m1 OK begin\nS: * CAPABILITY AUTH=PLAIN\nS: m2 OK done", nil, caFile, "", upstream.Unavailable, "injecting"},
		{"pop3 injected", config.POP3, config.TLSStartTLS, "S: +OK ready\nC: CAPA\nS: +OK\nS: STLS\nS: .\nC: STLS\nS: +OK begin\nS: +OK x", nil, caFile, "", upstream.Unavailable, "injecting"},
		{"clear port taken for TLS", config.IMAP, config.TLSImplicit, "S: * OK ready\nCLOSE", nil, caFile, "", upstream.Unavailable, "tls should be starttls"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := play(t, tc.script, tc.cert)
			srv := server(t, tc.protocol, config.Server{Address: config.Addresses{s.at("localhost")},
				TLS: tc.mode, CAFile: tc.ca, PinSHA256: tc.pin})
			session, err := login(t, srv, secret)
			if got := upstream.OutcomeOf(err); got != tc.want {
				t.Fatalf("%v (%v), want %v", got, err, tc.want)
			}
			if err != nil {
				if !strings.Contains(err.Error(), tc.because) {
					t.Errorf("%q does not say %q", err, tc.because)
				}
				return
			}
			defer session.Conn.Close()
			if _, isTLS := session.Conn.(*tls.Conn); isTLS != (tc.cert != nil) {
				t.Errorf("the session is over a %T", session.Conn)
			}
		})
	}
}

// Each address is asked for, and verified against, its own name: neither that
// of another address of the same server, nor the one it happens to lead to.
func TestTLSName(t *testing.T) {
	ca := newAuthority(t)
	until := time.Now().Add(time.Hour)
	named, numbered := ca.issue("localhost", until), ca.issue("127.0.0.1", until)
	script := "TLS\n" + inTheClear
	for _, tc := range []struct {
		name  string
		hosts []string
		certs []*tls.Certificate
		asked []string // by the server of the last address
		want  int      // the address with the session, from 1; 0 for none
	}{
		{"name", []string{"localhost"}, []*tls.Certificate{named}, []string{"localhost"}, 1},
		{"IP address", []string{"127.0.0.1"}, []*tls.Certificate{numbered}, []string{""}, 1},
		{"certificate of the name behind the IP address", []string{"127.0.0.1"}, []*tls.Certificate{named}, []string{""}, 0},
		{"certificate of the IP address behind the name", []string{"localhost"}, []*tls.Certificate{numbered}, []string{"localhost"}, 0},
		{"the second has its own name", []string{"localhost", "127.0.0.1"}, []*tls.Certificate{numbered, numbered}, []string{""}, 2},
		{"and not the first's", []string{"127.0.0.1", "localhost"}, []*tls.Certificate{named, numbered}, []string{"localhost"}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var list config.Addresses
			var last *scripted
			for i, host := range tc.hosts {
				text := script
				if i+1 != tc.want {
					text = "TLS" // nothing is said over TLS that was not verified
				}
				last = play(t, text, tc.certs[i])
				list = append(list, last.at(host))
			}
			session, err := login(t, server(t, config.IMAP, config.Server{Address: list, TLS: config.TLSImplicit, CAFile: ca.file()}), secret)
			if tc.want == 0 {
				if upstream.OutcomeOf(err) != upstream.Unavailable || !strings.Contains(err.Error(), "correct the address") {
					t.Errorf("%v", err)
				}
			} else if err != nil {
				t.Error(err)
			} else {
				if want := net.JoinHostPort(list[tc.want-1].Host, fmt.Sprint(list[tc.want-1].Port)); session.Server != want {
					t.Errorf("the session is with %s, want %s", session.Server, want)
				}
				_ = session.Conn.Close()
			}
			if got := last.asked(); !slices.Equal(got, tc.asked) {
				t.Errorf("asked for %q, want %q", got, tc.asked)
			}
		})
	}
}

// startTLSOnly is a server whose handshake must fail.
const startTLSOnly = `S: * OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN] ready
	C: m1 STARTTLS
	S: m1 OK begin
	TLS`

func TestProbe(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue("localhost", time.Now().Add(time.Hour))
	s := play(t, `S: * OK [CAPABILITY IMAP4rev1 STARTTLS] Example Mail ready
		C: m1 STARTTLS
		S: m1 OK begin
		TLS
		C: m2 CAPABILITY
		S: * CAPABILITY imap4rev1 ID
		S: m2 OK done
		C: m0 LOGOUT`, cert)
	srv := server(t, config.IMAP, config.Server{Address: config.Addresses{s.at("localhost")},
		TLS: config.TLSStartTLS, CAFile: ca.file()})
	p, err := srv.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p.Server != srv.Address() || p.Remote == "" || p.TLSVersion != "TLS 1.3" || p.CipherSuite == "" ||
		p.CertificateSHA256 != pin(cert) || time.Until(p.CertificateExpires) <= 0 ||
		p.Greeting != "Example Mail ready" || fmt.Sprint(p.Capabilities) != "[IMAP4REV1 ID]" || !p.TakesClientAddress {
		t.Errorf("%+v", p)
	}

	s = play(t, "S: +OK [XCLIENT] Dovecot ready.\nC: CAPA\nS: +OK\nS: UIDL\nS: SASL PLAIN\nS: .\nC: QUIT", nil)
	srv = server(t, config.POP3, config.Server{Address: config.Addresses{s.at("127.0.0.1")}, TLS: config.TLSNone})
	p, err = srv.Probe(t.Context())
	if err != nil || p.TLSVersion != "" || !p.TakesClientAddress || fmt.Sprint(p.Capabilities) != "[UIDL SASL PLAIN]" {
		t.Errorf("%+v %v", p, err)
	}

	s = play(t, "S: * BYE no", nil)
	srv = server(t, config.IMAP, config.Server{Address: config.Addresses{s.at("127.0.0.1")}, TLS: config.TLSNone})
	if _, err := srv.Probe(t.Context()); upstream.OutcomeOf(err) != upstream.Unavailable || err == nil {
		t.Errorf("%v", err)
	}
}

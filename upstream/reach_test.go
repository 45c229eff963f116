package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/upstream"
)

// nobody is an address at which nobody listens.
func nobody(t *testing.T) config.Address {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return config.Address{Host: "127.0.0.1", Port: uint16(ln.Addr().(*net.TCPAddr).Port)}
}

// The next address is asked only when one cannot be reached: a server that
// answered has answered.
func TestAddressesInOrder(t *testing.T) {
	in := saslIR + "S: m1 OK [CAPABILITY A] in"
	for _, tc := range []struct {
		name   string
		first  string // script; empty: nobody listens
		within time.Duration
		want   upstream.Outcome
		asked  int // how often the second was dialled
	}{
		{"the first is there", in, patience, upstream.Accepted, 0},
		{"nobody listens", "", patience, upstream.Accepted, 1},
		{"turned away", "S: * BYE too many connections", patience, upstream.Accepted, 1},
		{"closed before the greeting", "CLOSE", patience, upstream.Accepted, 1},
		{"silent", "S:", 3 * time.Second, upstream.Accepted, 1},
		{"miss", saslIR + "S: m1 NO no", patience, upstream.Miss, 0},
		{"refused", saslIR + "S: m1 NO [EXPIRED] no", patience, upstream.Refused, 0},
		{"unavailable at login", saslIR + "S: m1 NO [UNAVAILABLE] no", patience, upstream.Unavailable, 0},
		{"closed at login", saslIR + "CLOSE", patience, upstream.Unavailable, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			first := nobody(t)
			if tc.first == "S:" {
				first = silent(t)
			} else if tc.first != "" {
				first = play(t, tc.first, nil).at("127.0.0.1")
			}
			second := play(t, in, nil)
			srv := server(t, config.IMAP, config.Server{
				Address: config.Addresses{first, second.at("127.0.0.1")}, TLS: config.TLSNone})
			ctx, cancel := context.WithTimeout(t.Context(), tc.within)
			defer cancel()
			session, err := srv.Login(ctx, upstream.Credentials{Identity: anna, Password: config.NewSecret(secret)}, upstream.Client{})
			if got := upstream.OutcomeOf(err); got != tc.want {
				t.Fatalf("%v (%v)", got, err)
			}
			if session != nil {
				session.Conn.Close()
			}
			if got := second.dialled(); got != tc.asked {
				t.Errorf("the second was asked %d times", got)
			}
		})
	}
}

func TestNoAddressReachable(t *testing.T) {
	a, b := nobody(t), nobody(t)
	srv := server(t, config.IMAP, config.Server{Address: config.Addresses{a, b}, TLS: config.TLSNone})
	_, err := login(t, srv, secret)
	if upstream.OutcomeOf(err) != upstream.Unavailable {
		t.Fatal(err)
	}
	var op *net.OpError
	if !errors.As(err, &op) || strings.Count(err.Error(), "refused") != 2 || strings.Contains(err.Error(), "\n") {
		t.Errorf("%q", err)
	}
}

// silent accepts connections and says nothing until the test ends.
func silent(t *testing.T) config.Address {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return config.Address{Host: "127.0.0.1", Port: uint16(ln.Addr().(*net.TCPAddr).Port)}
}

// A server that falls silent at any point costs no more than the deadline, and
// nothing once nobody waits any more.
func TestSilence(t *testing.T) {
	ca := newAuthority(t)
	for _, tc := range []struct {
		name     string
		protocol config.Protocol
		mode     config.TLSMode
		script   string
	}{
		{"no greeting", config.IMAP, config.TLSNone, ""},
		{"no handshake", config.IMAP, config.TLSImplicit, ""},
		{"no real greeting", config.IMAP, config.TLSNone, "S: * OK Waiting for authentication process to respond.."},
		{"no capabilities", config.IMAP, config.TLSNone, "S: * OK ready\nC: m1 CAPABILITY"},
		{"no handshake after STARTTLS", config.IMAP, config.TLSStartTLS, "S: * OK [CAPABILITY STARTTLS] ready\nC: m1 STARTTLS\nS: m1 OK begin"},
		{"no answer to the login", config.IMAP, config.TLSNone, saslIR},
		{"no capabilities after login", config.IMAP, config.TLSNone, saslIR + "S: m1 OK in\nC: m2 CAPABILITY"},
		{"no answer to PASS", config.POP3, config.TLSNone, userPass},
	} {
		for _, ending := range []string{"deadline", "cancel"} {
			t.Run(tc.name+", "+ending, func(t *testing.T) {
				t.Parallel()
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				quiet := make(chan struct{})
				done := make(chan struct{})
				go func() {
					defer close(done)
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					defer conn.Close()
					playUntilSilent(conn, tc.script)
					close(quiet)
					_, _ = io.Copy(io.Discard, conn)
				}()
				srv := server(t, tc.protocol, config.Server{TLS: tc.mode, CAFile: ca.file(),
					Address: config.Addresses{{Host: "127.0.0.1", Port: uint16(ln.Addr().(*net.TCPAddr).Port)}}})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				if ending == "deadline" {
					ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
				} else {
					go func() {
						<-quiet
						cancel()
					}()
				}
				defer cancel()
				_, err = srv.Login(ctx, upstream.Credentials{Identity: anna, Password: config.NewSecret(secret)}, upstream.Client{})
				if err == nil || upstream.OutcomeOf(err) != upstream.Unavailable {
					t.Errorf("%v", err)
				}
				if ending == "cancel" && !errors.Is(err, context.Canceled) {
					t.Errorf("not cancelled: %v", err)
				}
				<-done
			})
		}
	}
}

// playUntilSilent plays the S: lines of a script; a C: line waits for one line.
func playUntilSilent(conn net.Conn, script string) {
	r := bufio.NewReader(conn)
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		if text, ok := strings.CutPrefix(line, "S: "); ok {
			_, _ = io.WriteString(conn, text+"\r\n")
		} else if line != "" {
			_, _ = r.ReadString('\n')
		}
	}
}

// What follows the login in the same packet belongs to whoever gets the
// session, and the login's deadline does not outlive the login.
func TestSessionGoesOn(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	goOn := make(chan struct{})
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		playUntilSilent(conn, saslIR)
		_, _ = io.WriteString(conn, "m1 OK [CAPABILITY A] in\r\n* 1 EXISTS\r\n* 2 EX")
		<-goOn
		_, _ = io.WriteString(conn, "ISTS\r\n")
	}()
	srv := server(t, config.IMAP, config.Server{TLS: config.TLSNone,
		Address: config.Addresses{{Host: "127.0.0.1", Port: uint16(ln.Addr().(*net.TCPAddr).Port)}}})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	session, err := srv.Login(ctx, upstream.Credentials{Identity: anna, Password: config.NewSecret(secret)}, upstream.Client{})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Conn.Close()
	<-ctx.Done()
	close(goOn)
	rest, err := io.ReadAll(session.Reader)
	if string(rest) != "* 1 EXISTS\r\n* 2 EXISTS\r\n" || err != nil {
		t.Errorf("%q %v", rest, err)
	}
}

// No server can make a login take memory without end.
func TestTooMuch(t *testing.T) {
	long := strings.Repeat("x", 1<<10)
	for _, tc := range []struct {
		name     string
		protocol config.Protocol
		piece    string
	}{
		{"endless line", config.IMAP, long},
		{"endless greeting", config.IMAP, "* OK Waiting for authentication " + long + "\r\n"},
		{"endless line over POP3", config.POP3, long},
		{"large literal", config.IMAP, "* X {70000}\r\n" + long},
		{"literals without end", config.IMAP, "* OK hello\r\n* X {1024}\r\n" + long + "\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			sent := make(chan int, 1)
			go func() {
				total := 0
				defer func() { sent <- total }()
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				for err == nil {
					var n int
					n, err = io.WriteString(conn, tc.piece)
					total += n
				}
			}()
			srv := server(t, tc.protocol, config.Server{TLS: config.TLSNone,
				Address: config.Addresses{{Host: "127.0.0.1", Port: uint16(ln.Addr().(*net.TCPAddr).Port)}}})
			if _, err := login(t, srv, secret); upstream.OutcomeOf(err) != upstream.Unavailable || err == nil {
				t.Errorf("%v", err)
			}
			if n := <-sent; n > 64<<20 {
				t.Errorf("the server could send %d octets", n)
			}
		})
	}
}

// The servers hear who the client is, in their own ways and only if they
// offered to listen. Nothing in it can end a string or a line.
func TestWhoTheClientIs(t *testing.T) {
	who := upstream.Client{Remote: netip.MustParseAddrPort("[::ffff:192.0.2.7]:4711"),
		Local: netip.MustParseAddrPort("[fe80::1%eth0]:993"), SessionID: "a\"b\\c\r\nd e", TTL: 3, TLS: true}
	for _, tc := range []struct {
		name     string
		protocol config.Protocol
		who      upstream.Client
		script   string
	}{
		{"ID", config.IMAP, who, `S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN] ready
			C: m1 ID ("x-originating-ip" "192.0.2.7" "x-originating-port" "4711" "x-connected-ip" "fe80::1" "x-connected-port" "993" "x-session-id" "abcde" "x-proxy-ttl" "3" "x-client-transport" "TLS")
			S: * ID NIL
			S: m1 OK done
			C: m2 AUTHENTICATE PLAIN <PLAIN>
			S: m2 OK [CAPABILITY A] in`},
		{"ID refused", config.IMAP, upstream.Client{SessionID: "x"}, `S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN] ready
			C: m1 ID ("x-session-id" "x" "x-proxy-ttl" "5" "x-client-transport" "insecure")
			S: m1 BAD no
			C: m2 AUTHENTICATE PLAIN <PLAIN>
			S: m2 OK [CAPABILITY A] in`},
		{"ID not offered", config.IMAP, who, saslIR + "S: m1 OK [CAPABILITY A] in"},
		{"migproxy itself", config.IMAP, upstream.Client{}, `S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN] ready
			C: m1 AUTHENTICATE PLAIN <PLAIN>
			S: m1 OK [CAPABILITY A] in`},
		{"XCLIENT", config.POP3, who, `S: +OK [XCLIENT] Dovecot ready.
			C: CAPA
			S: -ERR what
			C: XCLIENT ADDR=192.0.2.7 PORT=4711 SESSION=abcde TTL=3
			S: +OK Updated
			C: USER anna@example.com
			S: +OK
			C: PASS s3cret
			S: +OK in`},
		{"XCLIENT refused", config.POP3, upstream.Client{SessionID: "x"}, `S: +OK [XCLIENT] Dovecot ready.
			C: CAPA
			S: -ERR what
			C: XCLIENT SESSION=x TTL=5
			S: -ERR no
			C: USER anna@example.com
			S: +OK
			C: PASS s3cret
			S: +OK in`},
		{"XCLIENT not offered", config.POP3, who, userPass + "S: +OK in"},
		{"a client gets no UTF8 that it has not asked for", config.POP3, who, `S: +OK ready.
			C: CAPA
			S: +OK list
			S: UTF8 USER
			S: .
			C: USER anna@example.com
			S: +OK
			C: PASS s3cret
			S: +OK in`},
		{"migproxy itself, with UTF8", config.POP3, upstream.Client{}, `S: +OK ready.
			C: CAPA
			S: +OK list
			S: UTF8 USER
			S: .
			C: UTF8
			S: +OK
			C: USER anna@example.com
			S: +OK
			C: PASS s3cret
			S: +OK in`},
		{"migproxy itself, UTF8 refused", config.POP3, upstream.Client{}, `S: +OK ready.
			C: CAPA
			S: +OK list
			S: utf8
			S: .
			C: UTF8
			S: -ERR what
			C: USER anna@example.com
			S: +OK
			C: PASS s3cret
			S: +OK in`},
		{"migproxy itself over POP3", config.POP3, upstream.Client{}, `S: +OK [XCLIENT] Dovecot ready.
			C: CAPA
			S: -ERR what
			C: USER anna@example.com
			S: +OK
			C: PASS s3cret
			S: +OK in`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := play(t, tc.script, nil)
			srv := server(t, tc.protocol, config.Server{Address: config.Addresses{s.at("127.0.0.1")}, TLS: config.TLSNone})
			session, err := srv.Login(t.Context(), upstream.Credentials{Identity: anna, Password: config.NewSecret(secret)}, tc.who)
			if err != nil {
				t.Fatal(err)
			}
			session.Conn.Close()
		})
	}
}

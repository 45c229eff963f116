package upstream_test

import (
	"strconv"
	"strings"
	"testing"

	"migproxy/config"
	"migproxy/upstream"
)

// ways are the ways in which a password reaches a server, as scripts with
// <U>, <UN> (the name and its length), <P>, <PN> and <SASL> in them.
var ways = map[string]struct {
	protocol config.Protocol
	sasl     bool
	script   string
}{
	"imap initial response": {config.IMAP, true, `S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready
		C: m1 AUTHENTICATE PLAIN <SASL>
		S: m1 OK [CAPABILITY A] in`},
	"imap continuation": {config.IMAP, true, `S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready
		C: m1 AUTHENTICATE PLAIN
		S: +
		C: <SASL>
		S: m1 OK [CAPABILITY A] in`},
	"imap literal": {config.IMAP, false, `S: * OK [CAPABILITY IMAP4rev1] ready
		C: m1 LOGIN {<UN>}
		S: +
		C: <U> {<PN>}
		S: +
		C: <P>
		S: m1 OK [CAPABILITY A] in`},
	"imap literal+": {config.IMAP, false, `S: * OK [CAPABILITY IMAP4rev1 LITERAL+] ready
		C: m1 LOGIN {<UN>+}
		C: <U> {<PN>+}
		C: <P>
		S: m1 OK [CAPABILITY A] in`},
	"pop3 sasl": {config.POP3, true, `S: +OK ready
		C: CAPA
		S: +OK list
		S: SASL PLAIN
		S: .
		C: AUTH PLAIN
		S: +
		C: <SASL>
		S: +OK in`},
	"pop3 pass": {config.POP3, false, `S: +OK ready
		C: CAPA
		S: -ERR what
		C: USER <U>
		S: +OK
		C: PASS <P>
		S: +OK in`},
}

// The bytes that the client sent are the bytes that the server gets.
func TestPasswordsSurvive(t *testing.T) {
	passwords := map[string]string{
		"quote": `a"b`, "backslash": `a\b\`, "brace": "a{5}", "percent": "100%s%", "colon": "a:b:c",
		"leading space": " a", "trailing space": "a ", "spaces": "   ", "utf-8": "pässwörd€",
		"8 bit": "\xff\xfe\x80", "controls": "\x01\t\x7f", "long": strings.Repeat("0123456789", 30),
		"very long": strings.Repeat("x", 5000), "star": "*", "brackets": "(a) [b]", "dot": ".", "tag": "m1 OK",
	}
	for name, password := range passwords {
		for way, w := range ways {
			t.Run(way+", "+name, func(t *testing.T) {
				t.Parallel()
				script := strings.NewReplacer("<U>", anna.Address(), "<UN>", strconv.Itoa(len(anna.Address())),
					"<P>", password, "<PN>", strconv.Itoa(len(password)),
					"<SASL>", plain("", anna.Address(), password)).Replace(w.script)
				s := play(t, script, nil)
				srv := server(t, w.protocol, config.Server{Address: config.Addresses{s.at("127.0.0.1")}, TLS: config.TLSNone})
				session, err := login(t, srv, password)
				if err != nil {
					t.Fatal(err)
				}
				session.Conn.Close()
			})
		}
	}
}

// A literal above 4096 octets waits for the server under LITERAL- (RFC 7888).
func TestLiteralMinus(t *testing.T) {
	password := strings.Repeat("x", 4097)
	s := play(t, `S: * OK [CAPABILITY IMAP4rev1 LITERAL-] ready
		C: m1 LOGIN {16+}
		C: anna@example.com {4097}
		S: +
		C: `+password+`
		S: m1 OK [CAPABILITY A] in`, nil)
	srv := server(t, config.IMAP, config.Server{Address: config.Addresses{s.at("127.0.0.1")}, TLS: config.TLSNone})
	session, err := login(t, srv, password)
	if err != nil {
		t.Fatal(err)
	}
	session.Conn.Close()
}

// A password that the protocol cannot carry cannot be right. It is not sent,
// in no part and no other form.
func TestPasswordsThatCannotBe(t *testing.T) {
	beforeLogin := func(script, command string) string {
		before, _, _ := strings.Cut(script, "C: "+command)
		return before
	}
	for _, tc := range []struct {
		name, way, command, password string
	}{
		{"NUL", "imap initial response", "m1", "a\x00b"},
		{"NUL", "imap literal", "m1", "\x00"},
		{"NUL", "pop3 sasl", "AUTH", "a\x00"},
		{"NUL", "pop3 pass", "USER", "a\x00"},
		{"CR", "pop3 pass", "USER", "a\r"},
		{"LF", "pop3 pass", "USER", "a\nDELE 1"},
		{"empty", "imap initial response", "m1", ""},
		{"empty", "imap literal", "m1", ""},
		{"empty", "pop3 pass", "USER", ""},
	} {
		t.Run(tc.way+", "+tc.name, func(t *testing.T) {
			t.Parallel()
			w := ways[tc.way]
			s := play(t, beforeLogin(w.script, tc.command), nil)
			srv := server(t, w.protocol, config.Server{Address: config.Addresses{s.at("127.0.0.1")}, TLS: config.TLSNone})
			if _, err := login(t, srv, tc.password); upstream.OutcomeOf(err) != upstream.Miss {
				t.Errorf("%v", err)
			}
		})
	}
	// SASL carries CR and LF, and so do literals: the server decides.
	for _, way := range []string{"imap initial response", "imap continuation", "pop3 sasl"} {
		w := ways[way]
		s := play(t, strings.ReplaceAll(w.script, "<SASL>", plain("", anna.Address(), "a\r\nb\r")), nil)
		srv := server(t, w.protocol, config.Server{Address: config.Addresses{s.at("127.0.0.1")}, TLS: config.TLSNone})
		session, err := login(t, srv, "a\r\nb\r")
		if err != nil {
			t.Fatalf("%s: %v", way, err)
		}
		session.Conn.Close()
	}
}

// An authorisation identity goes by SASL PLAIN or not at all.
func TestAuthzid(t *testing.T) {
	for way, w := range ways {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			script := strings.ReplaceAll(w.script, "<SASL>", plain("berta@example.com", anna.Address(), secret))
			want := upstream.Accepted
			if !w.sasl {
				want = upstream.Unavailable
				script, _, _ = strings.Cut(script, "C: m1")
				script, _, _ = strings.Cut(script, "C: USER")
			}
			s := play(t, script, nil)
			srv := server(t, w.protocol, config.Server{Address: config.Addresses{s.at("127.0.0.1")}, TLS: config.TLSNone})
			session, err := srv.Login(t.Context(), upstream.Credentials{Identity: anna, Authzid: "berta@example.com",
				Password: config.NewSecret(secret)}, upstream.Client{})
			if got := upstream.OutcomeOf(err); got != want {
				t.Fatalf("%v (%v)", got, err)
			}
			if session != nil {
				session.Conn.Close()
			}
		})
	}
}

// The name that is sent is made by the settings' template.
func TestUsernameTemplate(t *testing.T) {
	s := play(t, "S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\nC: m1 AUTHENTICATE PLAIN "+
		plain("", "example.com+anna", secret)+"\nS: m1 OK [CAPABILITY A] in", nil)
	srv := server(t, config.IMAP, config.Server{Address: config.Addresses{s.at("127.0.0.1")}, TLS: config.TLSNone,
		Username: "{domain}+{local}"})
	session, err := login(t, srv, secret)
	if err != nil {
		t.Fatal(err)
	}
	session.Conn.Close()
}

// A server that repeats what it got does not put the password into the log.
func TestEchoedPassword(t *testing.T) {
	for name, tc := range map[string]struct {
		protocol config.Protocol
		script   string
	}{
		"text":         {config.IMAP, saslIR + "S: m1 NO wrong password s3cret for anna"},
		"code":         {config.IMAP, saslIR + "S: m1 NO [s3cret] x"},
		"code's text":  {config.IMAP, saslIR + "S: m1 NO [X s3cret] x"},
		"sasl":         {config.IMAP, saslIR + "S: m1 BAD what is <PLAIN>"},
		"line":         {config.IMAP, saslIR + "S: m1"},
		"tag":          {config.IMAP, saslIR + "S: s3cret NO x"},
		"name":         {config.IMAP, saslIR + "S: m1 s3cret x"},
		"BYE":          {config.IMAP, saslIR + "S: * BYE s3cret"},
		"challenge":    {config.IMAP, saslIR + "S: + s3cret"},
		"pop3 text":    {config.POP3, userPass + "S: -ERR s3cret"},
		"pop3 code":    {config.POP3, userPass + "S: -ERR [s3cret] x"},
		"pop3 garbage": {config.POP3, userPass + "S: s3cret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := play(t, strings.ReplaceAll(tc.script, "what is <PLAIN>", "what is "+plain("", anna.Address(), secret)), nil)
			srv := server(t, tc.protocol, config.Server{Address: config.Addresses{s.at("127.0.0.1")}, TLS: config.TLSNone})
			_, err := login(t, srv, secret)
			if err == nil {
				t.Fatal("logged in")
			}
			text := strings.ToLower(err.Error())
			if strings.Contains(text, secret) || strings.Contains(err.Error(), plain("", anna.Address(), secret)) {
				t.Errorf("the password is in %q", text)
			}
		})
	}
}

package upstream_test

import (
	"slices"
	"strings"
	"testing"

	"migproxy/config"
	"migproxy/upstream"
)

// saslIR is a whole login up to its answer.
const saslIR = `S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready
	C: m1 AUTHENTICATE PLAIN <PLAIN>
	`

// plainLogin is the same with LOGIN.
const plainLogin = `S: * OK [CAPABILITY IMAP4rev1] ready
	C: m1 LOGIN {16}
	S: + go on
	C: anna@example.com {6}
	S: + go on
	C: s3cret
	`

func TestIMAPLogin(t *testing.T) {
	for _, tc := range []struct {
		name   string
		script string
		want   upstream.Outcome
		caps   string // after login
	}{
		// How the password gets there.
		{"initial response", saslIR + "S: m1 OK [CAPABILITY IMAP4rev1 idle] in", upstream.Accepted, "IMAP4REV1 IDLE"},
		{"continuation", `S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready
			C: m1 AUTHENTICATE PLAIN
			S: +
			C: <PLAIN>
			S: m1 OK [CAPABILITY A] in`, upstream.Accepted, "A"},
		{"LOGIN", plainLogin + "S: m1 OK [CAPABILITY A] in", upstream.Accepted, "A"},
		{"LOGIN with LITERAL+", `S: * OK [CAPABILITY IMAP4rev1 LITERAL+] ready
			C: m1 LOGIN {16+}
			C: anna@example.com {6+}
			C: s3cret
			S: m1 OK [CAPABILITY A] in`, upstream.Accepted, "A"},
		{"LOGIN with LITERAL-", `S: * OK [CAPABILITY IMAP4rev1 LITERAL-] ready
			C: m1 LOGIN {16+}
			C: anna@example.com {6+}
			C: s3cret
			S: m1 OK [CAPABILITY A] in`, upstream.Accepted, "A"},

		// Capabilities before and after.
		{"capabilities asked before login", `S: * OK hello
			C: m1 CAPABILITY
			S: * CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR
			S: m1 OK done
			C: m2 AUTHENTICATE PLAIN <PLAIN>
			S: m2 OK [CAPABILITY A] in`, upstream.Accepted, "A"},
		{"capabilities untagged", saslIR + "S: * CAPABILITY A B\nS: m1 OK in", upstream.Accepted, "A B"},
		{"capabilities asked after login", saslIR + `S: m1 OK in
			C: m2 CAPABILITY
			S: * CAPABILITY A
			S: m2 OK done`, upstream.Accepted, "A"},
		{"capabilities asked after a continuation", `S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready
			C: m1 AUTHENTICATE PLAIN
			S: +
			C: <PLAIN>
			S: m1 OK in
			C: m2 CAPABILITY
			S: * CAPABILITY A
			S: m2 OK done`, upstream.Accepted, "A"},
		{"capabilities asked after LOGIN", plainLogin + `S: m1 OK in
			C: m2 CAPABILITY
			S: * CAPABILITY A
			S: m2 OK done`, upstream.Accepted, "A"},
		{"capabilities asked after LOGIN with LITERAL+", `S: * OK [CAPABILITY IMAP4rev1 LITERAL+] ready
			C: m1 LOGIN {16+}
			C: anna@example.com {6+}
			C: s3cret
			S: m1 OK in
			C: m2 CAPABILITY
			S: * CAPABILITY A
			S: m2 OK done`, upstream.Accepted, "A"},
		{"those of the greeting do not last", saslIR + "S: m1 OK in\nC: m2 CAPABILITY\nS: m2 NO not now", upstream.Unavailable, ""},
		{"capabilities refused", "S: * OK hello\nC: m1 CAPABILITY\nS: m1 BAD what", upstream.Unavailable, ""},
		{"no capabilities at all", "S: * OK hello\nC: m1 CAPABILITY\nS: m1 OK done", upstream.Unavailable, ""},

		// Answers (RFC 5530).
		{"miss", saslIR + "S: m1 NO [AUTHENTICATIONFAILED] no", upstream.Miss, ""},
		{"miss, lower case", saslIR + "S: m1 no [authenticationfailed] no", upstream.Miss, ""},
		{"miss by LOGIN", plainLogin + "S: m1 NO [AUTHENTICATIONFAILED] no", upstream.Miss, ""},
		{"miss without code", saslIR + "S: m1 NO Login failed.", upstream.Miss, ""},
		{"miss without text", saslIR + "S: m1 NO", upstream.Miss, ""},
		{"AUTHORIZATIONFAILED", saslIR + "S: m1 NO [AUTHORIZATIONFAILED] no", upstream.Refused, ""},
		{"EXPIRED", saslIR + "S: m1 NO [EXPIRED] no", upstream.Refused, ""},
		{"CONTACTADMIN", saslIR + "S: m1 NO [CONTACTADMIN] no", upstream.Refused, ""},
		{"UNAVAILABLE", saslIR + "S: m1 NO [UNAVAILABLE] no", upstream.Unavailable, ""},
		{"LIMIT", saslIR + "S: m1 NO [LIMIT] no", upstream.Unavailable, ""},
		{"INUSE", saslIR + "S: m1 NO [INUSE] no", upstream.Unavailable, ""},
		{"PRIVACYREQUIRED", saslIR + "S: m1 NO [PRIVACYREQUIRED] no", upstream.Unavailable, ""},
		{"ALERT", saslIR + "S: m1 NO [ALERT] no", upstream.Unavailable, ""},
		{"unknown code", saslIR + "S: m1 NO [X-NEW 1 2] no", upstream.Unavailable, ""},
		{"broken code", saslIR + "S: m1 NO [AUTHENTICATIONFAILED no", upstream.Unavailable, ""},
		{"BAD", saslIR + "S: m1 BAD [AUTHENTICATIONFAILED] no", upstream.Unavailable, ""},
		{"something else", saslIR + "S: m1 MAYBE", upstream.Unavailable, ""},
		{"BYE first", saslIR + "S: * BYE too many\nS: m1 NO [AUTHENTICATIONFAILED] no", upstream.Unavailable, ""},
		{"closed", saslIR + "CLOSE", upstream.Unavailable, ""},
		{"wrong tag", saslIR + "S: m7 NO [AUTHENTICATIONFAILED] no", upstream.Unavailable, ""},
		{"another challenge", saslIR + "S: + more", upstream.Unavailable, ""},
		{"no IMAP", saslIR + "S: \tx", upstream.Unavailable, ""},
		{"alert on the way", saslIR + "S: * OK [ALERT] maintenance tonight {9}\nS: m1 NO no", upstream.Miss, ""},
		{"literal on the way", saslIR + "S: * ID (\"name\" {4}\nS: x {9} \"y\" {0}\nS: )\nS: m1 NO no", upstream.Miss, ""},

		// What nobody needs is bounded (maxLine, maxDialogue).
		{"literal of 64 KiB", saslIR + "S: * ID (\"x\" {65536}\nS: " + strings.Repeat("x", 65534) + "\nS: )\nS: m1 NO no", upstream.Miss, ""},
		{"literal of one octet more", saslIR + "S: * ID (\"x\" {65537}\nS: " + strings.Repeat("x", 65535) + "\nS: )\nS: m1 NO no", upstream.Unavailable, ""},
		{"announced literal of 2 GiB", saslIR + "S: * ID (\"x\" {2147483647}", upstream.Unavailable, ""},
		{"a megabyte of literals", saslIR + strings.Repeat("S: * ID (\"x\" {65536}\nS: "+strings.Repeat("x", 65534)+"\nS: )\n", 16) +
			"S: m1 NO no", upstream.Unavailable, ""},

		// A NO before the password was seen is none about the password.
		{"NO to AUTHENTICATE", `S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready
			C: m1 AUTHENTICATE PLAIN
			S: m1 NO not here`, upstream.Unavailable, ""},
		{"NO to the name", `S: * OK [CAPABILITY IMAP4rev1] ready
			C: m1 LOGIN {16}
			S: m1 NO no`, upstream.Unavailable, ""},
		{"NO to the password's size", `S: * OK [CAPABILITY IMAP4rev1] ready
			C: m1 LOGIN {16}
			S: + go on
			C: anna@example.com {6}
			S: m1 NO no`, upstream.Unavailable, ""},
		{"LOGINDISABLED", "S: * OK [CAPABILITY IMAP4rev1 LOGINDISABLED] ready", upstream.Unavailable, ""},
		{"LOGINDISABLED but SASL", `S: * OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=PLAIN SASL-IR] ready
			C: m1 AUTHENTICATE PLAIN <PLAIN>
			S: m1 OK [CAPABILITY A] in`, upstream.Accepted, "A"},

		// Greetings.
		{"before the real greeting", "S: * OK Waiting for authentication process to respond..\n" +
			"S: * OK Waiting for authentication master process to respond..\n" + saslIR + "S: m1 NO no", upstream.Miss, ""},
		{"PREAUTH", "S: * PREAUTH [CAPABILITY IMAP4rev1 AUTH=PLAIN] hello", upstream.Unavailable, ""},
		{"BYE", "S: * BYE go away", upstream.Unavailable, ""},
		{"BYE while waiting", "S: * OK Waiting for authentication process to respond..\nS: * BYE gone", upstream.Unavailable, ""},
		{"NO", "S: * NO [AUTHENTICATIONFAILED] no", upstream.Unavailable, ""},
		{"POP3", "S: +OK hello", upstream.Unavailable, ""},
		{"SMTP", "S: 220 mail.example.com ESMTP", upstream.Unavailable, ""},
		{"nothing", "CLOSE", upstream.Unavailable, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := play(t, tc.script, nil)
			checkLogin(t, server(t, config.IMAP, config.Server{
				Address: config.Addresses{s.at("127.0.0.1")}, TLS: config.TLSNone}), tc.want, tc.caps)
		})
	}
}

// checkLogin logs anna in and compares the outcome. Whatever the outcome, no
// error has the password in it.
func checkLogin(t *testing.T, s *upstream.Server, want upstream.Outcome, caps string) {
	t.Helper()
	session, err := login(t, s, secret)
	if got := upstream.OutcomeOf(err); got != want {
		t.Fatalf("%v (%v), want %v", got, err, want)
	}
	if err != nil {
		if session != nil {
			t.Error("a session and an error")
		}
		if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), plain("", anna.Address(), secret)) {
			t.Errorf("the password is in %q", err)
		}
		if !strings.HasPrefix(err.Error(), s.Address()+": "+want.String()+": ") {
			t.Errorf("the error does not name server and outcome: %q", err)
		}
		return
	}
	defer session.Conn.Close()
	if got := strings.Fields(caps); !slices.Equal(session.Capabilities, got) {
		t.Errorf("capabilities %q, want %q", session.Capabilities, got)
	}
	if session.Server != s.Address() {
		t.Errorf("server %q", session.Server)
	}
}

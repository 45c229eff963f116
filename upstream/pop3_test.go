package upstream_test

import (
	"testing"

	"migproxy/config"
	"migproxy/upstream"
)

// userPass is a whole login up to its answer, at a server without CAPA.
const userPass = `S: +OK ready
	C: CAPA
	S: -ERR what
	C: USER anna@example.com
	S: +OK
	C: PASS s3cret
	`

// popPlain is the same with SASL PLAIN.
const popPlain = `S: +OK ready
	C: CAPA
	S: +OK list
	S: TOP
	S: SASL LOGIN PLAIN
	S: .
	C: AUTH PLAIN
	S: +
	C: <PLAIN>
	`

func TestPOP3Login(t *testing.T) {
	for _, tc := range []struct {
		name   string
		script string
		want   upstream.Outcome
	}{
		{"USER and PASS", userPass + "S: +OK in", upstream.Accepted},
		{"SASL PLAIN", popPlain + "S: +OK in", upstream.Accepted},
		{"CAPA without SASL PLAIN", `S: +OK ready
			C: CAPA
			S: +OK list
			S: SASL CRAM-MD5
			S: IMPLEMENTATION SASL PLAIN
			S: USER
			S: .
			C: USER anna@example.com
			S: +OK
			C: PASS s3cret
			S: +OK in`, upstream.Accepted},

		{"AUTH", userPass + "S: -ERR [AUTH] no", upstream.Miss},
		{"AUTH, lower case", userPass + "S: -err [auth] no", upstream.Miss},
		{"AUTH by SASL", popPlain + "S: -ERR [AUTH] no", upstream.Miss},
		{"AUTH beats a text of locks", userPass + "S: -ERR [AUTH] account locked", upstream.Miss},
		{"without code", userPass + "S: -ERR Logon failure: unknown user name or bad password.", upstream.Miss},
		{"without text", userPass + "S: -ERR", upstream.Miss},
		{"try again", userPass + "S: -ERR Invalid password. Please try again.", upstream.Miss},
		{"lock", userPass + "S: -ERR maildrop already locked", upstream.Unavailable},
		{"busy", userPass + "S: -ERR Mailbox is BUSY", upstream.Unavailable},
		{"another session", userPass + "S: -ERR There is another session.", upstream.Unavailable},
		{"temporary", userPass + "S: -ERR Temporary problem, please try again later", upstream.Unavailable},
		{"temporary by SASL", popPlain + "S: -ERR temporary authentication failure", upstream.Unavailable},
		{"unavailable", userPass + "S: -ERR Server Unavailable.", upstream.Unavailable},
		{"too many", userPass + "S: -ERR Too many connections", upstream.Unavailable},
		{"IN-USE", userPass + "S: -ERR [IN-USE] no", upstream.Unavailable},
		{"LOGIN-DELAY", userPass + "S: -ERR [LOGIN-DELAY] no", upstream.Unavailable},
		{"SYS/TEMP", userPass + "S: -ERR [SYS/TEMP] no", upstream.Unavailable},
		{"SYS/PERM", userPass + "S: -ERR [SYS/PERM] no", upstream.Unavailable},
		{"unknown code", userPass + "S: -ERR [X] no", upstream.Unavailable},
		{"broken code", userPass + "S: -ERR [AUTH no", upstream.Unavailable},
		{"another challenge", popPlain + "S: + more", upstream.Unavailable},
		{"no POP3", userPass + "S: m1 NO no", upstream.Unavailable},
		{"closed", userPass + "CLOSE", upstream.Unavailable},

		// An -ERR before the password was seen is none about the password: USER
		// is refused in the clear with this very code.
		{"USER refused", `S: +OK ready
			C: CAPA
			S: -ERR what
			C: USER anna@example.com
			S: -ERR [AUTH] Plaintext authentication disallowed`, upstream.Unavailable},
		{"AUTH refused", `S: +OK ready
			C: CAPA
			S: +OK list
			S: SASL PLAIN
			S: .
			C: AUTH PLAIN
			S: -ERR [AUTH] Plaintext authentication disallowed`, upstream.Unavailable},

		{"greets with -ERR", "S: -ERR [AUTH] go away", upstream.Unavailable},
		{"greets as IMAP", "S: * OK hello", upstream.Unavailable},
		{"nothing", "CLOSE", upstream.Unavailable},
		{"list without end", "S: +OK ready\nC: CAPA\nS: +OK list\nS: TOP\nCLOSE", upstream.Unavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := play(t, tc.script, nil)
			checkLogin(t, server(t, config.POP3, config.Server{
				Address: config.Addresses{s.at("127.0.0.1")}, TLS: config.TLSNone}), tc.want, "")
		})
	}
}

package upstream

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"io"
	"net"
	"strings"
	"testing"

	"migproxy/config"
)

// canned is a server that has said everything already.
type canned struct {
	net.Conn
	io.Reader
	heard *bytes.Buffer
}

func (c canned) Read(p []byte) (int, error)  { return c.Reader.Read(p) }
func (c canned) Write(p []byte) (int, error) { return c.heard.Write(p) }

// fuzzedSecret has a form in errors that no server says by accident.
const fuzzedSecret = "\x01s3cret\x01"

// loginTo goes through a whole login to a server that says this, and returns
// what the server heard.
func loginTo(p config.Protocol, said []byte) (heard string, err error) {
	conn := canned{Reader: bytes.NewReader(said), heard: new(bytes.Buffer)}
	l := &link{conn: conn, reader: bufio.NewReader(conn), budget: maxDialogue}
	l.dialogue = &imap{link: l}
	if p == config.POP3 {
		l.dialogue = &pop3{link: l}
	}
	if err = l.dialogue.greet(); err == nil {
		if _, err = l.dialogue.capabilities(); err == nil {
			if err = l.dialogue.tell(Client{SessionID: "x"}); err == nil {
				_, err = l.dialogue.authenticate("anna", "", config.NewSecret(fuzzedSecret))
			}
		}
	}
	return conn.heard.String(), err
}

// checkFuzzed holds what must be so whatever a server says: nobody is in, and
// nothing is a miss or a refusal, unless the server said so after it heard the
// password; and no error repeats a password that the server heard.
func checkFuzzed(t *testing.T, said []byte, heard, ok, no string, err error) {
	t.Helper()
	asked := strings.Contains(heard, fuzzedSecret) ||
		strings.Contains(heard, base64.StdEncoding.EncodeToString([]byte("\x00anna\x00"+fuzzedSecret)))
	upper := strings.ToUpper(string(said))
	switch OutcomeOf(err) {
	case Accepted:
		if !asked || !strings.Contains(upper, ok) {
			t.Errorf("let in by %q", said)
		}
	case Miss, Refused:
		if !asked || !strings.Contains(upper, no) {
			t.Errorf("%v from %q", err, said)
		}
	case Unavailable:
	default:
		t.Errorf("%v is no server's outcome", OutcomeOf(err))
	}
	if err == nil {
		return
	}
	if asked && strings.Contains(err.Error(), `\x01s3cret\x01`) || strings.ContainsAny(err.Error(), "\r\n\x00") {
		t.Errorf("the error is %q", err)
	}
}

func FuzzIMAPLogin(f *testing.F) {
	for _, said := range []string{
		"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hi\r\nm1 OK [CAPABILITY A B] in\r\n",
		"* OK Waiting for authentication process to respond..\r\n* OK [CAPABILITY AUTH=PLAIN ID] hi\r\n* ID (\"name\" {3}\r\nabc)\r\nm1 OK\r\n+ \r\nm2 NO [AUTHENTICATIONFAILED] no\r\n",
		"* OK hi\r\n* CAPABILITY IMAP4rev1\r\nm1 OK\r\n+\r\n+\r\nm2 NO [EXPIRED] no\r\n",
		"* OK [CAPABILITY LITERAL+] hi\r\n* BYE \x01s3cret\x01\r\n",
		"* PREAUTH hi\r\n", "* BYE\r\n", "+OK\r\n", "* OK [", "* OK []\r\n", "*\r\n", "\r\n", "* X {2147483647}\r\n", "* X {-1+}\r\n",
	} {
		f.Add([]byte(said))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		heard, err := loginTo(config.IMAP, said)
		checkFuzzed(t, said, heard, "OK", "NO", err)
	})
}

func FuzzPOP3Login(f *testing.F) {
	for _, said := range []string{
		"+OK hi\r\n+OK\r\nSASL PLAIN\r\n.\r\n+ \r\n+OK in\r\n",
		"+OK [XCLIENT] hi\r\n-ERR\r\n+OK\r\n+OK\r\n-ERR [AUTH] no\r\n",
		"+OK\r\n-ERR\r\n+OK\r\n-ERR maildrop locked\r\n",
		"+OK\r\n-ERR\r\n+OK\r\n-ERR \x01s3cret\x01\r\n",
		"-ERR [", "+OK", "+\r\n", "* OK\r\n", "\r\n", "+OK\r\n+OK\r\n",
	} {
		f.Add([]byte(said))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		heard, err := loginTo(config.POP3, said)
		checkFuzzed(t, said, heard, "+OK", "-ERR", err)
	})
}

// The parser of single responses keeps all of a status response's text, and
// names a code only where there is one.
func FuzzParseIMAP(f *testing.F) {
	for _, line := range []string{"* OK [CAPABILITY A B] hi", "m1 NO [X", "m1 NO []", "+ x", "* 3 EXISTS", "* CAPABILITY a b", "x {12+}", "{}"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseIMAP(line)
		if err != nil {
			return
		}
		if !strings.HasSuffix(line, r.Text) {
			t.Errorf("the text of %q is %q", line, r.Text)
		}
		if r.Code != "" && !r.HasCode || r.HasCode != (r.isStatus() && strings.HasPrefix(r.Text, "[")) {
			t.Errorf("%q: %+v", line, r)
		}
		if n, ok := literalSize(line); ok && (n < 0 || !strings.HasSuffix(line, "}")) {
			t.Errorf("%q announces a literal of %d", line, n)
		}
	})
}

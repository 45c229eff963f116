package proxy

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"

	"migproxy/config"
)

// Errors of a SASL exchange that a dialogue answers and survives.
var (
	errCancelled = errors.New("authentication cancelled")
	errBadSASL   = errors.New("invalid SASL response")
	errMechanism = errors.New("unsupported authentication mechanism")
)

// saslExchange takes credentials by PLAIN (RFC 4616) or LOGIN
// (draft-murchison-sasl-login-00). initial is the client's initial response in
// base64, "=" for an empty one, or "" where there was none (RFC 4959, RFC 5034).
func saslExchange(c *Conn, mechanism, initial string) (*Attempt, error) {
	switch strings.ToUpper(mechanism) {
	case "PLAIN":
		message, err := saslFirst(c, initial, "")
		if err != nil {
			return nil, err
		}
		return parsePlain(message)
	case "LOGIN":
		// An empty initial response is no user name: ask for one.
		if initial == "=" {
			initial = ""
		}
		login, err := saslFirst(c, initial, "Username:")
		if err != nil {
			return nil, err
		}
		password, err := saslAsk(c, "Password:")
		if err != nil {
			return nil, err
		}
		return &Attempt{Login: string(login), Password: config.NewSecret(password)}, nil
	}
	return nil, errMechanism
}

// parsePlain splits a PLAIN message: [authzid] NUL authcid NUL passwd.
func parsePlain(message []byte) (*Attempt, error) {
	parts := bytes.Split(message, []byte{0})
	if len(parts) != 3 {
		return nil, errBadSASL
	}
	a := &Attempt{Authzid: string(parts[0]), Login: string(parts[1]), Password: config.NewSecret(parts[2])}
	if a.Authzid == a.Login {
		a.Authzid = ""
	}
	return a, nil
}

// saslFirst gives the initial response, or asks for it.
func saslFirst(c *Conn, initial, challenge string) ([]byte, error) {
	switch initial {
	case "":
		return saslAsk(c, challenge)
	case "=":
		return nil, nil
	}
	return decodeSASL(initial)
}

// saslAsk sends a challenge and reads the answer.
func saslAsk(c *Conn, challenge string) ([]byte, error) {
	if err := c.write("+ " + base64.StdEncoding.EncodeToString([]byte(challenge)) + "\r\n"); err != nil {
		return nil, err
	}
	line, err := c.readLine()
	if err != nil {
		return nil, err
	}
	if string(line) == "*" {
		return nil, errCancelled
	}
	return decodeSASL(string(line))
}

func decodeSASL(text string) ([]byte, error) {
	// The decoder would skip CR and LF.
	if strings.ContainsAny(text, "\r\n") {
		return nil, errBadSASL
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errBadSASL // the decoder's own text could quote the password
	}
	return b, nil
}

package config

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"go.uber.org/zap/zapcore"
)

// Secret is a password, exactly as the client sent it. Every way of printing
// it gives ***; the bytes come out through Reveal alone. Secrets cannot be
// compared with ==.
type Secret struct {
	_ [0]func()
	// A pointer, because fmt prints the unexported fields of a structure that
	// holds a Secret without asking for its methods.
	p *string
}

const masked = "***"

// NewSecret keeps a password.
func NewSecret[T string | []byte](password T) Secret {
	s := string(password)
	return Secret{p: &s}
}

// ReadPassword reads a file that holds a password. One line end behind it is
// the editor's, not the password's.
func ReadPassword(path string) (Secret, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Secret{}, err
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 {
		return Secret{}, fmt.Errorf("%s is empty; write the password into it", path)
	}
	return NewSecret(b), nil
}

// Reveal returns the password. Callers hand it to a server or a cipher and
// keep no copy.
func (s Secret) Reveal() string {
	if s.p == nil {
		return ""
	}
	return *s.p
}

// IsZero reports whether there is no password.
func (s Secret) IsZero() bool { return s.p == nil || *s.p == "" }

// Format answers every verb of fmt; without it %d would print the fields.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, masked) }

func (Secret) String() string                               { return masked }
func (Secret) GoString() string                             { return masked }
func (Secret) MarshalText() ([]byte, error)                 { return []byte(masked), nil }
func (Secret) MarshalJSON() ([]byte, error)                 { return []byte(`"` + masked + `"`), nil }
func (Secret) MarshalLogObject(zapcore.ObjectEncoder) error { return nil }

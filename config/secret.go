package config

import "go.uber.org/zap/zapcore"

// Secret is a password, exactly as the client sent it. Every way of printing
// it gives ***; the bytes come out through Reveal alone.
type Secret struct{ b string }

const masked = "***"

// NewSecret keeps a password.
func NewSecret[T string | []byte](password T) Secret { return Secret{string(password)} }

// Reveal returns the password. Callers hand it to a server or a cipher and
// keep no copy.
func (s Secret) Reveal() string { return s.b }

// IsZero reports whether there is no password.
func (s Secret) IsZero() bool { return s.b == "" }

func (Secret) String() string                               { return masked }
func (Secret) GoString() string                             { return masked }
func (Secret) MarshalText() ([]byte, error)                 { return []byte(masked), nil }
func (Secret) MarshalJSON() ([]byte, error)                 { return []byte(`"` + masked + `"`), nil }
func (Secret) MarshalLogObject(zapcore.ObjectEncoder) error { return nil }

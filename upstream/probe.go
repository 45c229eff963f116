package upstream

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"slices"
	"time"
)

// Probe is what a server shows to whoever connects, without a login.
type Probe struct {
	Server string // the host:port that answered
	Remote string // the IP address and port behind it

	// TLSVersion and CipherSuite are empty where the connection is in the clear.
	TLSVersion  string
	CipherSuite string
	// CertificateExpires and CertificateSHA256 (hexadecimal, as for pin_sha256)
	// are those of the server's own certificate.
	CertificateExpires time.Time
	CertificateSHA256  string

	// Greeting is the greeting's text, which often names the software.
	Greeting string
	// Capabilities before login and after TLS, upper case. POP3: the lines of
	// CAPA (RFC 2449), empty where the server does not know it.
	Capabilities []string
	// TakesClientAddress: the server offers ID (IMAP), or XCLIENT (POP3). A
	// Dovecot offers XCLIENT only to those it trusts, but ID to everybody.
	TakesClientAddress bool
}

// Probe reaches the server as a login does and says what it found. Every error
// is an *Error.
func (s *Server) Probe(ctx context.Context) (Probe, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	l, err := s.open(ctx)
	if err != nil {
		return Probe{}, s.failure(ctx, nil, err)
	}
	defer l.cut()
	caps, err := l.dialogue.capabilities()
	if err != nil {
		return Probe{}, s.failure(ctx, l, err)
	}
	p := Probe{Server: l.server, Remote: l.raw.RemoteAddr().String(), Greeting: l.dialogue.greeting(),
		Capabilities: slices.Clone(caps), TakesClientAddress: l.dialogue.tellable()}
	if c, ok := l.conn.(*tls.Conn); ok {
		state := c.ConnectionState()
		leaf := state.PeerCertificates[0]
		sum := sha256.Sum256(leaf.Raw)
		p.TLSVersion = tls.VersionName(state.Version)
		p.CipherSuite = tls.CipherSuiteName(state.CipherSuite)
		p.CertificateExpires = leaf.NotAfter
		p.CertificateSHA256 = hex.EncodeToString(sum[:])
	}
	l.dialogue.goodbye()
	return p, nil
}

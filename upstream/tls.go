package upstream

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"migproxy/config"
)

// errPin says that a server showed another certificate than the pinned one.
var errPin = errors.New("the server's certificate is not the one of pin_sha256")

// tlsConfig makes the client configuration: system roots, the authorities of
// ca_file and only those, or one pinned certificate. With a pin neither chain
// nor name is looked at: the pin alone says which server it is.
func tlsConfig(cfg config.Server) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s: no PEM certificate in it", cfg.CAFile)
		}
	}
	if cfg.PinSHA256 != "" {
		// openssl x509 -fingerprint writes colons between the bytes.
		pin, err := hex.DecodeString(strings.ReplaceAll(cfg.PinSHA256, ":", ""))
		if err != nil || len(pin) != sha256.Size {
			return nil, errors.New("pin_sha256: write the 64 hexadecimal digits of the certificate's SHA-256 fingerprint")
		}
		t.InsecureSkipVerify = true
		t.VerifyConnection = func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return errPin
			}
			if sum := sha256.Sum256(state.PeerCertificates[0].Raw); string(sum[:]) != string(pin) {
				return fmt.Errorf("%w: it has %x", errPin, sum)
			}
			return nil
		}
	}
	return t, nil
}

// explainTLS says what to do about a failed handshake.
func explainTLS(err error) error {
	if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(v.UnverifiedCertificates) > 0 {
		return fmt.Errorf("%w: set ca_file, correct the address, or, if this is the right server, set pin_sha256 to %x",
			err, sha256.Sum256(v.UnverifiedCertificates[0].Raw))
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fmt.Errorf("%w: this port does not speak TLS at once, so tls should be starttls", err)
	}
	return fmt.Errorf("TLS: %w", err)
}

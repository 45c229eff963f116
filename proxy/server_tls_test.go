package proxy

import (
	"crypto/tls"
	"os"
	"testing"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/upstream"
)

// startTLS puts TLS over a client's connection.
func startTLS(f *fixture, p *peer) *peer {
	f.t.Helper()
	c := tls.Client(p.Conn, f.clientTLS())
	if err := c.Handshake(); err != nil {
		f.t.Fatal(err)
	}
	return newPeer(f.t, c)
}

// hello is one of a modern client that asks for a name.
func hello(name string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13},
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}, SupportedCurves: []tls.CurveID{tls.CurveP256}}
}

func served(t *testing.T, c *certificates, name string) string {
	t.Helper()
	cert, err := c.pick(hello(name))
	if err != nil {
		t.Fatal(err)
	}
	return cert.Leaf.Subject.CommonName + " " + cert.Leaf.SerialNumber.String()
}

func TestCertificateIsChosenByName(t *testing.T) {
	dir := t.TempDir()
	a, _ := newCertificate(t, dir, "a.example")
	b, _ := newCertificate(t, dir, "b.example")
	c, err := loadCertificates([]config.Certificate{a, b}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a.example": "a.example", "b.example": "b.example", "c.example": "a.example", "": "a.example"} {
		if got := served(t, c, name); got[:len(want)] != want {
			t.Errorf("%q got %s, want %s", name, got, want)
		}
	}
}

func TestRenewedCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	files, _ := newCertificate(t, dir, "a.example")
	c, err := loadCertificates([]config.Certificate{files}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	first := served(t, c, "a.example")
	newCertificate(t, dir, "a.example")
	later := time.Now().Add(time.Second) // whatever the file system's resolution is
	if err := os.Chtimes(files.Cert, later, later); err != nil {
		t.Fatal(err)
	}
	if got := served(t, c, "a.example"); got != first {
		t.Error("the files are looked at for every client")
	}
	c.checked = c.checked.Add(-certificateCheck)
	second := served(t, c, "a.example")
	if second == first {
		t.Error("a renewed certificate is not served")
	}

	if err := os.WriteFile(files.Cert, []byte("half written"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.checked = c.checked.Add(-certificateCheck)
	if got := served(t, c, "a.example"); got != second {
		t.Error("a broken file ended the service")
	}
}

func TestMinimumTLSVersion(t *testing.T) {
	f := start(t, rejecting(upstream.Miss), func(c *config.Config) { c.TLS.MinVersion = "1.3" })
	p := f.connect(imapPlain)
	p.send("a STARTTLS\r\n")
	p.expect("a OK")
	cfg := f.clientTLS()
	cfg.MaxVersion = tls.VersionTLS12
	if tls.Client(p.Conn, cfg).Handshake() == nil {
		t.Error("TLS 1.2 was let in")
	}
	f.connect(imapTLS).Close()
}

package proxy

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
)

// certificateCheck is how often the certificate files are looked at.
const certificateCheck = time.Minute

// certificates serves the certificates of the settings and reads them again
// when their files change, so that a renewed one needs no restart.
type certificates struct {
	files []config.Certificate
	log   *zap.Logger

	mu      sync.Mutex
	checked time.Time
	changed []time.Time // the youngest file of each pair
	loaded  []*tls.Certificate
}

// loadCertificates reads all of them; the error names the file.
func loadCertificates(files []config.Certificate, log *zap.Logger) (*certificates, error) {
	c := &certificates{files: files, log: log, checked: time.Now(),
		changed: make([]time.Time, len(files)), loaded: make([]*tls.Certificate, len(files))}
	for i := range files {
		if err := c.load(i); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// load reads pair i if it is younger than what is loaded.
func (c *certificates) load(i int) error {
	f := c.files[i]
	var youngest time.Time
	for _, name := range []string{f.Cert, f.Key} {
		info, err := os.Stat(name)
		if err != nil {
			return fmt.Errorf("tls.certificates: %w", err)
		}
		if t := info.ModTime(); t.After(youngest) {
			youngest = t
		}
	}
	if c.loaded[i] != nil && youngest.Equal(c.changed[i]) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return fmt.Errorf("tls.certificates: %s with key %s: %w", f.Cert, f.Key, err)
	}
	c.loaded[i], c.changed[i] = &pair, youngest
	return nil
}

// pick gives the first certificate that suits the client's hello, the first of
// all where none does.
func (c *certificates) pick(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= certificateCheck {
		c.checked = now
		for i := range c.files {
			if err := c.load(i); err != nil {
				c.log.Error("a changed certificate cannot be read; the old one is still used", zap.Error(err))
			}
		}
	}
	for _, cert := range c.loaded {
		if hello.SupportsCertificate(cert) == nil {
			return cert, nil
		}
	}
	return c.loaded[0], nil
}

// serverTLS is what listeners offer, or nil without certificates.
func serverTLS(cfg config.TLS, log *zap.Logger) (*tls.Config, error) {
	if len(cfg.Certificates) == 0 {
		return nil, nil
	}
	certs, err := loadCertificates(cfg.Certificates, log)
	if err != nil {
		return nil, err
	}
	version := uint16(tls.VersionTLS12)
	if cfg.MinVersion == "1.3" {
		version = tls.VersionTLS13
	}
	return &tls.Config{GetCertificate: certs.pick, MinVersion: version}, nil
}

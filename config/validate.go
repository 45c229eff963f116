package config

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// maxSocketPath is what a Unix socket's address holds (sun_path, less the NUL
// at its end).
const maxSocketPath = 107

// sqliteScheme begins the URL of an SQLite database; its absolute path follows.
const sqliteScheme = "sqlite://"

func (s *settings) validate(c *Config) {
	if !hostName.MatchString(c.Hostname) {
		s.report("hostname", "%q is not a host name; write one such as mail.example.com", c.Hostname)
	}
	s.state(c.State)
	s.certificates(c.TLS.Certificates)
	s.domains(c)
	s.listeners(c)
	if len(c.Admin.Socket) > maxSocketPath {
		s.report("admin.socket", "is longer than a socket's path may be; write at most %d bytes", maxSocketPath)
	}
	s.positive("limits.login_timeout", int64(c.Limits.LoginTimeout))
	s.positive("limits.idle_timeout", int64(c.Limits.IdleTimeout))
	s.positive("limits.per_address", int64(c.Limits.PerAddress))
	s.positive("limits.per_account", int64(c.Limits.PerAccount))
	s.positive("migration.concurrency", int64(c.Migration.Concurrency))
	s.positive("migration.catch_up", int64(c.Migration.CatchUp))
	s.positive("migration.settle_quiet", int64(c.Migration.SettleQuiet))
	s.notNegative("migration.rate.messages", c.Migration.Rate.Messages)
	s.notNegative("migration.rate.octets", c.Migration.Rate.Octets)
	s.notNegative("migration.rate.connections", c.Migration.Rate.Connections)
	if len(c.Migration.AfterAccount) > 0 {
		s.command("migration.after_account", c.Migration.AfterAccount)
	}
	s.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	s.oneOf("log.format", c.Log.Format, "console", "json")
}

func (s *settings) state(st State) {
	path := strings.TrimPrefix(st.URL, sqliteScheme)
	switch {
	case st.URL == "":
		s.report("state.url", "is missing; write where the database is to be, such as sqlite:///var/lib/migproxy/migproxy.db")
	case strings.HasPrefix(st.URL, "postgres://"), strings.HasPrefix(st.URL, "postgresql://"):
		s.report("state.url", "PostgreSQL is not supported yet; write sqlite:// and an absolute path")
	// The value is not repeated: it may be a URL with a password in it.
	case !strings.HasPrefix(st.URL, sqliteScheme), !filepath.IsAbs(path), strings.HasSuffix(path, "/"), strings.ContainsAny(st.URL, "?#"):
		s.report("state.url", "is not the URL of a database; write sqlite:// and an absolute path, such as sqlite:///var/lib/migproxy/migproxy.db")
	}
	if st.KeyFile == "" {
		s.report("state.key_file", "is missing; write where the key that seals passwords is to be, such as /var/lib/migproxy/key")
	}
	s.positive("state.credentials_max_age", int64(st.CredentialsMaxAge))
}

func (s *settings) certificates(certificates []Certificate) {
	for i, c := range certificates {
		key := fmt.Sprintf("tls.certificates[%d]", i)
		readable := s.namedFile(key+".cert", c.Cert, "write the PEM file with the certificate chain")
		readable = s.namedFile(key+".key", c.Key, "write the PEM file with the private key") && readable
		if !readable {
			continue
		}
		if _, err := tls.LoadX509KeyPair(c.Cert, c.Key); err != nil {
			s.report(key, "cannot be used (%s); name a PEM certificate chain and the key that belongs to it", strings.TrimPrefix(err.Error(), "tls: "))
		}
	}
}

func (s *settings) listeners(c *Config) {
	if len(c.Listeners) == 0 {
		s.report("listeners", `is missing; write at least one, such as - { protocol: imap, address: ":143", tls: starttls }`)
	}
	for i, l := range c.Listeners {
		key := fmt.Sprintf("listeners[%d]", i)
		if l.Protocol == "" {
			s.report(key+".protocol", "is missing; write %s", oneOf(l.Protocol.Values()))
		}
		if !s.written[key+".address"] {
			s.report(key+".address", "is missing; write host:port or :port")
		}
		if l.TLS == TLSDetect {
			s.report(key+".tls", "detect is for servers; write starttls, implicit or none")
		}
		if l.TLS != TLSNone && len(c.TLS.Certificates) == 0 {
			s.report(key+".tls", "%s needs a certificate; name one under tls.certificates", l.TLS)
		}
		s.configured(key+".domain", l.Domain, c)
		for j, other := range c.Listeners[:i] {
			if overlap(l.Address, other.Address) {
				s.report(key+".address", "is taken by listeners[%d] already; write another port or take one of them away", j)
			}
		}
		if overlap(l.Address, c.Admin.Address) {
			s.report("admin.address", "is taken by %s already; write another port", key)
		}
	}
	s.configured("default_domain", c.DefaultDomain, c)
}

// overlap reports whether two listeners would want the same port of the same
// address. Port 0 is a different one each time.
func overlap(a, b Address) bool {
	if a.Port != b.Port || a.Port == 0 {
		return false
	}
	every := []string{"", "0.0.0.0", "::"}
	return strings.EqualFold(a.Host, b.Host) || slices.Contains(every, a.Host) || slices.Contains(every, b.Host)
}

// configured checks that a domain, if any, is one that is served.
func (s *settings) configured(key, domain string, c *Config) {
	if domain != "" && c.Domain(domain) == nil {
		s.report(key, "%q is not configured; add it under domains, or name one that is", domain)
	}
}

func (s *settings) positive(key string, n int64) {
	if n <= 0 {
		s.report(key, "must be more than nothing; write a larger value or leave it out")
	}
}

func (s *settings) notNegative(key string, n int) {
	if n < 0 {
		s.report(key, "must not be negative; write 0 for no limit")
	}
}

func (s *settings) oneOf(key, value string, values ...string) {
	if err := known(value, values); err != nil {
		s.report(key, "%s", err)
	}
}

// namedFile checks that a file that must be named can be read; what says which
// file to name.
func (s *settings) namedFile(key, path, what string) bool {
	if path == "" {
		s.report(key, "is missing; %s", what)
		return false
	}
	return s.readableFile(key, path)
}

func (s *settings) readableFile(key, path string) bool {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		s.report(key, "%s is not a regular file; name one", path)
		return false
	}
	var f *os.File
	if err == nil {
		f, err = os.Open(path)
	}
	if err != nil {
		s.report(key, "%s cannot be read (%v); name a file that is there and that this user may read", path, cause(err))
		return false
	}
	_ = f.Close() // nothing was written
	return true
}

// cause is an error without the operation and the path around it.
func cause(err error) error {
	if pe, ok := err.(*fs.PathError); ok {
		return pe.Err
	}
	return err
}

// pinned is a SHA-256 as hexadecimal digits.
var pinned = regexp.MustCompile(`^[0-9a-f]{64}$`)

package upstream

import (
	"fmt"
	"strings"

	"go.uber.org/zap"

	"migproxy/config"
)

// Domain is one mail domain with its servers ready to be reached.
type Domain struct {
	Config *config.Domain
	Source Side
	Target Side
}

// Side is one of a domain's two servers, by protocol; a protocol that it does
// not serve is nil.
type Side struct {
	IMAP *Server
	POP3 *Server
	// Master may log in for every user of this side; nil where the settings
	// name none.
	Master *Master
}

// Over returns the server for a protocol, or nil.
func (s Side) Over(p config.Protocol) *Server {
	if p == config.POP3 {
		return s.POP3
	}
	return s.IMAP
}

// Domains prepares every domain of the configuration, by lower-case name. The
// error names the domain and the setting that is wrong.
func Domains(cfg *config.Config, log *zap.Logger) (map[string]*Domain, error) {
	domains := make(map[string]*Domain, len(cfg.Domains))
	for i := range cfg.Domains {
		c := &cfg.Domains[i]
		name := strings.ToLower(c.Name)
		if domains[name] != nil {
			return nil, fmt.Errorf("domains: %s is there twice: remove one", name)
		}
		d := &Domain{Config: c}
		for _, side := range []struct {
			name       string
			imap, pop3 *config.Server
			master     config.Master
			side       *Side
		}{
			{"source", c.Source.IMAP, c.Source.POP3, c.Source.Master, &d.Source},
			{"target", c.Target.IMAP, c.Target.POP3, c.Target.Master, &d.Target},
		} {
			var err error
			if side.side.IMAP, err = optional(config.IMAP, side.imap, log); err != nil {
				return nil, fmt.Errorf("domains: %s: %s.imap: %w", name, side.name, err)
			}
			if side.side.POP3, err = optional(config.POP3, side.pop3, log); err != nil {
				return nil, fmt.Errorf("domains: %s: %s.pop3: %w", name, side.name, err)
			}
			if side.side.Master, err = newMaster(side.master); err != nil {
				return nil, fmt.Errorf("domains: %s: %s.master: %w", name, side.name, err)
			}
		}
		domains[name] = d
	}
	return domains, nil
}

// newMaster reads a master user's password; nil where the settings name none.
func newMaster(cfg config.Master) (*Master, error) {
	if cfg.User == "" {
		return nil, nil
	}
	password, err := config.ReadPassword(cfg.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("password_file: %w", err)
	}
	return &Master{User: cfg.User, Password: password, Style: cfg.Style}, nil
}

// optional prepares a server that may not be configured.
func optional(p config.Protocol, cfg *config.Server, log *zap.Logger) (*Server, error) {
	if cfg == nil {
		return nil, nil
	}
	return NewServer(p, *cfg, log)
}

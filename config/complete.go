package config

import (
	"fmt"
	"os"
	"strings"
)

// complete fills in the defaults that no tag can give, and brings names into
// the one form in which they are compared.
func (s *settings) complete(c *Config) {
	if c.Hostname == "" {
		name, err := os.Hostname()
		if err != nil || name == "" {
			s.report("hostname", "this machine has no name (%v); write the name that clients connect to", err)
		}
		c.Hostname = name
	}
	c.DefaultDomain = strings.ToLower(c.DefaultDomain)
	for i := range c.Listeners {
		c.Listeners[i].Domain = strings.ToLower(c.Listeners[i].Domain)
	}
	for i := range c.Domains {
		c.Domains[i].complete()
		if d := &c.Domains[i]; d.Target.Provision.Driver == DriverNone && !s.written[fmt.Sprintf("domains[%d].adopt", i)] {
			d.Adopt = true
		}
		if a := &c.Domains[i].Aliases; !s.written[fmt.Sprintf("domains[%d].aliases.approval", i)] {
			a.Approval = a.AccountsFile == ""
		}
	}
}

func (d *Domain) complete() {
	d.Name = strings.ToLower(d.Name)
	if p := &d.Target.Provision; p.Driver == DriverPasswdFile && p.Lock == "" {
		p.Lock = p.Path + ".lock"
	}
	if len(d.Source.Protocols) == 0 {
		switch {
		case d.Source.IMAP != nil:
			d.Source.Protocols = []Protocol{IMAP}
		case d.Source.POP3 != nil:
			d.Source.Protocols = []Protocol{POP3}
		}
	}
	if p := &d.Parking; p.Mode == "" {
		p.Mode = ParkSource
		if p.Account != "" {
			p.Mode = ParkAccount
		}
	}
	for _, server := range []*Server{d.Source.IMAP, d.Source.POP3, d.Target.IMAP, d.Target.POP3} {
		if server != nil {
			server.PinSHA256 = strings.ToLower(strings.ReplaceAll(server.PinSHA256, ":", ""))
		}
	}
}

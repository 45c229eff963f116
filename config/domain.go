package config

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func (s *settings) domains(c *Config) {
	if len(c.Domains) == 0 {
		s.report("domains", "is missing; write at least one, with name, source and target")
	}
	names := map[string]int{}
	for i := range c.Domains {
		d := &c.Domains[i]
		key := fmt.Sprintf("domains[%d]", i)
		first, twice := names[d.Name]
		switch {
		case d.Name == "":
			s.report(key+".name", "is missing; write the domain, such as example.com")
		case !hostName.MatchString(d.Name) || strings.HasSuffix(d.Name, "."):
			s.report(key+".name", "%q is not a domain; write what stands behind the @, such as example.com", d.Name)
		case twice:
			s.report(key+".name", "%q is domains[%d] already; take one of them away", d.Name, first)
		default:
			names[d.Name] = i
		}
		s.side(key+".source", d.Source.IMAP, d.Source.POP3, false)
		s.side(key+".target", d.Target.IMAP, d.Target.POP3, d.Mode == ModeAccounts)
		s.protocols(key+".source", d.Source)
		s.master(key+".source.master", d.Source.Master)
		s.master(key+".target.master", d.Target.Master)
		s.provision(key+".target.provision", d.Target.Provision)
		if d.Target.Provision.Driver == DriverNone && d.Mode == ModePasswords {
			s.report(key+".mode", "passwords cannot be set with the driver none; name another driver under target.provision")
		}
		s.parking(key+".parking", d.Parking)
		s.aliases(key+".aliases", d.Aliases)
		s.notNegative(key+".wave.max_failed", d.Wave.MaxFailed)
	}
}

// side checks one of a domain's two servers; written says that the copy writes to it.
func (s *settings) side(key string, imap, pop3 *Server, written bool) {
	switch {
	case imap == nil && written:
		s.report(key+".imap", "is missing; the copy writes by IMAP: write how to reach the server, such as { address: \"mail.example.com:993\", tls: implicit }")
	case imap == nil && pop3 == nil:
		s.report(key, "has no server; write how to reach it under imap, pop3 or both")
	}
	s.server(key+".imap", imap)
	s.server(key+".pop3", pop3)
}

// protocols checks what the copy reads from. IMAP comes first: it alone has
// folders, flags and dates.
func (s *settings) protocols(key string, source Source) {
	at := key + ".protocols"
	for i, p := range source.Protocols {
		switch {
		case slices.Contains(source.Protocols[:i], p):
			s.report(at, "has %s twice; take one away", p)
		case p == IMAP && i > 0:
			s.report(at, "has pop3 before imap; write [imap, pop3], which takes the mail by IMAP")
		case p == IMAP && source.IMAP == nil, p == POP3 && source.POP3 == nil:
			s.report(at, "names %[1]s, and %[2]s.%[1]s is missing; write how to reach the server there", p, key)
		}
	}
	if source.POP3ExpireOK && !slices.Contains(source.Protocols, POP3) {
		s.report(key+".pop3_expire_ok", "is for a source that is read over POP3; take it away, or name pop3 under protocols")
	}
}

func (s *settings) master(key string, m Master) {
	switch {
	case m.User != "":
		s.namedFile(key+".password_file", m.PasswordFile, "write a file with the password of the master user")
	case m.PasswordFile != "":
		s.report(key+".user", "is missing; write the name of the master user whose password is in password_file")
	}
}

func (s *settings) server(key string, server *Server) {
	if server == nil {
		return
	}
	if len(server.Address) == 0 {
		s.report(key+".address", "is missing; write host:port, or a list of them")
	}
	for i, a := range server.Address {
		at := key + ".address"
		if _, list := s.lines[fmt.Sprintf("%s[%d]", at, i)]; list {
			at = fmt.Sprintf("%s[%d]", at, i)
		}
		if a.Host == "" || a.Port == 0 {
			s.report(at, "%q is no server's address; write host and port, such as mail.example.com:993", a)
		}
	}
	s.template(key+".username", string(server.Username))
	if server.PinSHA256 != "" && !pinned.MatchString(server.PinSHA256) {
		s.report(key+".pin_sha256", "is not a SHA-256; write 64 hexadecimal digits, with or without colons")
	}
	if server.CAFile == "" || !s.readableFile(key+".ca_file", server.CAFile) {
		return
	}
	pem, err := os.ReadFile(server.CAFile)
	if err != nil || !x509.NewCertPool().AppendCertsFromPEM(pem) {
		s.report(key+".ca_file", "%s holds no certificate; name a PEM file with at least one", server.CAFile)
	}
}

// template checks that what is in braces is known, and that the account is in it.
func (s *settings) template(key, text string) {
	left := text
	for _, known := range []string{"{address}", "{local}", "{login}", "{domain}"} {
		left = strings.ReplaceAll(left, known, "")
	}
	if strings.ContainsAny(left, "{}") {
		s.report(key, "%q has braces that stand for nothing; write {address}, {local}, {domain} or {login}", text)
		return
	}
	if strings.ReplaceAll(text, "{domain}", "") == left {
		s.report(key, "%q gives every user the same name; write {address}, {local} or {login} in it", text)
	}
}

func (s *settings) provision(key string, p Provision) {
	s.positive(key+".timeout", int64(p.Timeout))
	switch p.Driver {
	case DriverExec:
		s.noFile(key, p)
		s.command(key+".command", p.Command)
	case DriverNone:
		s.noFile(key, p)
		s.noCommand(key, p)
	case DriverPasswdFile:
		s.noCommand(key, p)
		s.namedFile(key+".path", p.Path, "write the passwd-file that the target reads")
	default:
		s.report(key+".driver", "is missing; write %s", oneOf(p.Driver.Values()))
	}
}

// noFile refuses what belongs to the driver passwd-file.
func (s *settings) noFile(key string, p Provision) {
	for _, f := range []struct{ name, value string }{{"path", p.Path}, {"lock", p.Lock}} {
		if f.value != "" {
			s.report(key+"."+f.name, "belongs to the driver passwd-file; take it away or write driver: passwd-file")
		}
	}
}

// noCommand refuses what belongs to the driver exec.
func (s *settings) noCommand(key string, p Provision) {
	if len(p.Command) > 0 {
		s.report(key+".command", "belongs to the driver exec; take it away or write driver: exec")
	}
}

func (s *settings) command(key string, command []string) {
	if len(command) == 0 {
		s.report(key, "is missing; write the program and its arguments, such as [/usr/local/bin/create-account]")
		return
	}
	program := command[0]
	if !filepath.IsAbs(program) {
		s.report(key, "%q has no absolute path; write where the program is, such as /usr/local/bin/create-account", program)
		return
	}
	info, err := os.Stat(program)
	switch {
	case err != nil:
		s.report(key, "%s cannot be run (%v); name a program that is there", program, cause(err))
	case info.IsDir() || info.Mode()&0o111 == 0:
		s.report(key, "%s cannot be run; name a program, and make it executable (chmod +x)", program)
	}
}

func (s *settings) aliases(key string, a Aliases) {
	s.positive(key+".minimum", int64(a.Minimum))
	switch {
	case a.AccountsFile != "":
		s.readableFile(key+".accounts_file", a.AccountsFile)
	case !a.Approval:
		s.report(key+".approval", "cannot be false without a list of the source's accounts; name one under accounts_file, or take this away")
	}
}

func (s *settings) parking(key string, p Parking) {
	s.positive(key+".max", int64(p.Max))
	s.notNegative(key+".flip.messages", p.Flip.Messages)
	s.notNegative(key+".flip.octets", p.Flip.Octets)
	if p.Mode == ParkAccount {
		if local, domain, ok := strings.Cut(p.Account, "@"); !ok || local == "" || domain == "" {
			s.report(key+".account", "mode account needs the migration account; write its address on the target, such as migration@example.com")
		}
		s.namedFile(key+".password_file", p.PasswordFile, "write a file with the password of the migration account")
	}
	if p.Template != "" {
		s.readableFile(key+".template", p.Template)
	}
}

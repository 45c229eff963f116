package proxy

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"migproxy/config"
)

// resolve says which account a login name stands for: user@domain, or user
// with the domain that the TLS server name (or a parent of it), the listener
// or the settings give, in this order. The zero Identity means that the name
// is not one of ours, or no plain address.
func resolve(cfg *config.Config, a *Attempt) config.Identity {
	return resolveName(cfg, a, a.Login)
}

func resolveName(cfg *config.Config, a *Attempt, name string) config.Identity {
	if !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return config.Identity{}
	}
	local, domain := name, ""
	if at := strings.LastIndexByte(name, '@'); at >= 0 {
		local, domain = name[:at], configured(cfg, name[at+1:])
	} else {
		domain = impliedDomain(cfg, a)
	}
	if domain == "" || !plainLocal(local) {
		return config.Identity{}
	}
	return config.Identity{Login: name, Local: strings.ToLower(local), Domain: domain}
}

// plainLocal reports whether a local part is what may stand unquoted in an
// address, a dot-atom (RFC 5322 section 3.2.3, with UTF-8 as in RFC 6531
// section 3.3). Of its characters * % ! # | / are left out: servers take them to
// mean somebody else, such as the master user in anna's mailbox (anna*master, in
// Dovecot), anna@example.com (anna%example.com) or another mailbox of anna's
// (anna/office). Such a login must not become an account of its own, with
// the master's password. Nor is a path such as ../anna ever a name.
func plainLocal(local string) bool {
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" || strings.ContainsFunc(atom, func(r rune) bool { return !plainRune(r) }) {
			return false
		}
	}
	return true
}

func plainRune(r rune) bool {
	switch {
	case r >= utf8.RuneSelf:
		return unicode.IsPrint(r) // nothing invisible, no space
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return true
	}
	return strings.ContainsRune("$&'+-=?^_`{}~", r)
}

// impliedDomain is the domain of a login name that has none.
func impliedDomain(cfg *config.Config, a *Attempt) string {
	// A client that was told mail.example.com means example.com.
	for name := strings.TrimSuffix(a.ServerName, "."); name != ""; {
		if d := configured(cfg, name); d != "" {
			return d
		}
		_, name, _ = strings.Cut(name, ".")
	}
	if a.ListenerDomain != "" {
		return configured(cfg, a.ListenerDomain)
	}
	return configured(cfg, cfg.DefaultDomain)
}

// configured returns the domain in lower case, or nothing if it is not ours.
func configured(cfg *config.Config, domain string) string {
	for i := range cfg.Domains {
		if strings.EqualFold(cfg.Domains[i].Name, domain) {
			return strings.ToLower(cfg.Domains[i].Name)
		}
	}
	return ""
}

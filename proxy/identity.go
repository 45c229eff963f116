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
	if !printable(name) {
		return config.Identity{}
	}
	local, domain := name, ""
	if at := strings.LastIndexByte(name, '@'); at >= 0 {
		local, domain = name[:at], configured(cfg, name[at+1:])
	} else {
		domain = impliedDomain(cfg, a)
	}
	if domain == "" || !config.PlainLocal(local) {
		return config.Identity{}
	}
	return config.Identity{Login: name, Local: strings.ToLower(local), Domain: domain}
}

func printable(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
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

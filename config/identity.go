package config

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Identity is what a login name stands for.
type Identity struct {
	Login  string // as the client typed it
	Local  string // before the last @, case folded
	Domain string // a configured domain, lower case
}

// Address is the canonical address, local@domain.
func (i Identity) Address() string { return i.Local + "@" + i.Domain }

// Template is a user name to send to a server, with {address}, {local},
// {domain} and {login} in it.
type Template string

// Expand fills the template for one identity. An empty template is {address}.
func (t Template) Expand(i Identity) string {
	if t == "" {
		return i.Address()
	}
	return strings.NewReplacer("{address}", i.Address(), "{local}", i.Local,
		"{domain}", i.Domain, "{login}", i.Login).Replace(string(t))
}

// PlainLocal reports whether a local part is what may stand unquoted in an
// address, a dot-atom (RFC 5322 section 3.2.3, with UTF-8 as in RFC 6531
// section 3.3). Of its characters * % ! # | / are left out: servers take them to
// mean somebody else, such as the master user in anna's mailbox (anna*master, in
// Dovecot), anna@example.com (anna%example.com) or another mailbox of anna's
// (anna/office). Such a login must not become an account of its own, with
// the master's password. Nor is a path such as ../anna ever a name.
func PlainLocal(local string) bool {
	afterDot := true
	for _, r := range local {
		if r == '.' && afterDot || r != '.' && !plainRune(r) {
			return false
		}
		afterDot = r == '.'
	}
	return !afterDot
}

func plainRune(r rune) bool {
	switch {
	case r >= utf8.RuneSelf:
		return r != utf8.RuneError && unicode.IsPrint(r) // nothing invisible, no space, no broken UTF-8
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return true
	}
	return strings.ContainsRune("$&'+-=?^_`{}~", r)
}

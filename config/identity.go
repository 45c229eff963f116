package config

import "strings"

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

package aliasresolve

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"

	"migproxy/config"
)

// Lengths of an address in octets (RFC 5321 sections 4.5.3.1.1, 4.5.3.1.2).
const (
	maxLocal  = 64
	maxDomain = 255
)

// Normalise gives the form in which addresses are compared: the local part in
// lower case and NFC, unquoted; the domain in lower case as A-labels (RFC 5890
// section 2.3.2.1). It reports false for what is no address, or not a plain one.
func Normalise(address string) (string, bool) {
	p := addressParser{in: []byte(address)}
	local, domain, ok := p.next()
	if !ok {
		return "", false
	}
	normal, ok := appendNormal(nil, local, domain)
	if !ok {
		return "", false
	}
	_, _, more := p.next()
	return string(normal), !more && p.single()
}

// appendNormal appends the normal form of an address whose parts a parser has
// freed from quotes, comments and white space.
func appendNormal(dst, local, domain []byte) ([]byte, bool) {
	if len(local) > maxLocal || len(domain) > maxDomain {
		return dst, false
	}
	start := len(dst)
	dst, ok := appendLower(dst, local)
	if !ok { // octets that are no UTF-8 become U+FFFD, which is in no plain one
		dst = norm.NFC.AppendString(dst[:start], strings.ToLower(string(local)))
	}
	if len(dst)-start > maxLocal || !config.PlainLocal(string(dst[start:])) {
		return dst[:start], false
	}
	dst = append(dst, '@')
	dst, ok = appendDomain(dst, domain)
	if !ok {
		return dst[:start], false
	}
	return dst, true
}

// appendLower appends ASCII in lower case, and reports false for anything else.
func appendLower(dst, text []byte) ([]byte, bool) {
	for _, c := range text {
		if c >= utf8.RuneSelf {
			return dst, false
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst, true
}

// appendDomain appends a domain as A-labels.
func appendDomain(dst, domain []byte) ([]byte, bool) {
	start := len(dst)
	dst, ok := appendLower(dst, domain)
	if !ok {
		ascii, err := idna.Lookup.ToASCII(string(domain))
		if err != nil || !utf8.Valid(domain) {
			return dst[:start], false
		}
		dst = append(dst[:start], ascii...)
	}
	if n := len(dst); n > start && dst[n-1] == '.' {
		dst = dst[:n-1]
	}
	if !hostName(dst[start:]) {
		return dst[:start], false
	}
	return dst, true
}

// hostName reports whether a name in lower case has the letters, digits and
// hyphens of a host's, and no empty label. Underscores are found in practice.
func hostName(name []byte) bool {
	afterDot := true
	for _, c := range name {
		switch {
		case c == '.':
			if afterDot {
				return false
			}
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
		afterDot = c == '.'
	}
	return !afterDot && len(name) <= maxDomain
}

// Base is an address without a subaddress (RFC 5233): anna+shop@example.com
// reaches anna@example.com, on servers which know subaddresses.
func Base(address string) string {
	local, domain, _ := strings.Cut(address, "@")
	user, _, found := strings.Cut(local, "+")
	if !found || user == "" {
		return address
	}
	return user + "@" + domain
}

// Domains is a domain's own domains, in the form in which they are compared.
type Domains map[string]bool

// NewDomains makes a set of domains. A name that is no domain is in no set.
func NewDomains(names ...string) Domains {
	d := Domains{}
	for _, name := range names {
		if normal, ok := appendDomain(nil, []byte(name)); ok {
			d[string(normal)] = true
		}
	}
	return d
}

// Own reports whether an address in normal form is in one of the domains.
func (d Domains) Own(address string) bool {
	return d[address[strings.LastIndexByte(address, '@')+1:]]
}

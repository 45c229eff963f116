package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// patternMax is how long an address can be, in octets (RFC 5321 section 4.5.3.1).
const patternMax = 320

// errPattern does not repeat what is no address: it may be a password, if the
// list is one of another kind.
var errPattern = errors.New("this is neither an address nor a pattern; write anna@example.com, or a pattern such as a*@example.com")

// Includes reports whether the account with this address may migrate: some
// pattern of Include matches and none of Exclude does. Case does not count.
func (w Wave) Includes(address string) bool {
	matches := func(pattern string) bool {
		return matchPattern(strings.ToLower(pattern), strings.ToLower(address))
	}
	return slices.ContainsFunc(w.Include, matches) && !slices.ContainsFunc(w.Exclude, matches)
}

// Of is the wave of a domain as it is kept: each pattern once, in lower case, and
// in Exclude alone where it is in both. Patterns that no address of the domain
// matches are left out; the error joins what is wrong with each.
func (w Wave) Of(domain string) (Wave, error) {
	of := Wave{MaxFailed: w.MaxFailed}
	seen := map[string]bool{}
	var errs []error
	for _, l := range []struct {
		from []string
		to   *[]string
	}{{w.Exclude, &of.Exclude}, {w.Include, &of.Include}} {
		for _, text := range l.from {
			pattern, err := WavePattern(text, domain)
			if err != nil {
				errs = append(errs, fmt.Errorf("%q: %w", text, err))
			} else if !seen[pattern] {
				seen[pattern] = true
				*l.to = append(*l.to, pattern)
			}
		}
	}
	return of, errors.Join(errs...)
}

// WavePattern reads an address of a domain, or a pattern with * that addresses
// of it can match, and returns it in lower case. The error says what to write
// instead.
func WavePattern(text, domain string) (string, error) {
	pattern := strings.ToLower(text)
	local, host, at := strings.Cut(pattern, "@")
	wildcard := strings.Contains(pattern, "*")
	switch {
	case len(pattern) > patternMax, strings.ContainsFunc(local, notInPattern), at && strings.ContainsFunc(host, notInPattern),
		!wildcard && !(at && PlainLocal(local)), at && local == "":
		return "", errPattern
	case at && !matchPattern(host, domain):
		return "", fmt.Errorf("%q is not in the domain %s; write an address or a pattern of this domain, or name the other one", pattern, domain)
	case !at && !strings.HasSuffix(domain, local[strings.LastIndexByte(local, '*')+1:]):
		return "", fmt.Errorf("%q matches no address of %s, which ends in @%[2]s; write %[1]s@%[2]s", pattern, domain)
	}
	return pattern, nil
}

func notInPattern(r rune) bool { return r != '*' && r != '.' && !plainRune(r) }

// matchPattern matches text against a pattern in which * is any run of
// characters: the first and last piece are anchored, and each piece between
// takes its earliest place, which leaves the most to the others.
func matchPattern(pattern, text string) bool {
	pieces := strings.Split(pattern, "*")
	text, ok := strings.CutPrefix(text, pieces[0])
	if len(pieces) == 1 {
		return ok && text == ""
	}
	for _, piece := range pieces[1 : len(pieces)-1] {
		i := strings.Index(text, piece)
		if i < 0 {
			return false
		}
		text = text[i+len(piece):]
	}
	return ok && strings.HasSuffix(text, pieces[len(pieces)-1])
}

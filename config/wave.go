package config

import (
	"slices"
	"strings"
)

// Includes reports whether the account with this address may migrate: some
// pattern of Include matches and none of Exclude does. Case does not count.
func (w Wave) Includes(address string) bool {
	matches := func(pattern string) bool {
		return matchPattern(strings.ToLower(pattern), strings.ToLower(address))
	}
	return slices.ContainsFunc(w.Include, matches) && !slices.ContainsFunc(w.Exclude, matches)
}

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

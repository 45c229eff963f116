package aliasresolve

import (
	"fmt"
	"strings"
)

// Summary is the line for the log: what was found for an account. Addresses in
// the account's own domain are told by their local part.
func Summary(login string, claims []Claim) string {
	if len(claims) == 0 {
		return "No Aliases were discovered, Using Username"
	}
	own := Domains{}
	if normal, ok := Normalise(login); ok {
		_, domain, _ := strings.Cut(normal, "@")
		own[domain] = true
	}
	var found []string
	for _, c := range claims {
		name := c.Address
		if own.Own(name) {
			name, _, _ = strings.Cut(name, "@")
		}
		found = append(found, fmt.Sprintf("%s - %d x", name, c.Messages))
	}
	return "Available Aliases: " + strings.Join(found, ", ")
}

package imapwire

import (
	"bufio"
	"slices"
	"strings"
	"testing"
)

func parseNamespaces(s string) [][]string {
	var p parser
	p.br = bufio.NewReader(strings.NewReader(s + "\r\n"))
	p.begin()
	groups, _ := p.namespaces()
	return groups
}

// The prefixes of other people's mailboxes are found wherever they stand (RFC
// 2342 section 5).
func TestNamespaces(t *testing.T) {
	for line, want := range map[string]string{
		`(("" "/")) NIL NIL`: ";;",
		`(("INBOX." ".")) (("user." ".")) (("shared." ".")("pub." "."))`: "INBOX.;user.;shared.,pub.",
		`NIL NIL ((#mh "/"))`: ";;",
		`(("" "/" "X-PARAM" ("FLAG1" "FLAG2"))) (("~" "/")) NIL`: ";~;",
		`(("a" NIL)) ((`: "a;",
		"":               "",
	} {
		var got []string
		for _, g := range parseNamespaces(line) {
			got = append(got, strings.Join(g, ","))
		}
		if s := strings.Join(got, ";"); s != want {
			t.Errorf("%s: %q", line, s)
		}
	}
}

func FuzzNamespaces(f *testing.F) {
	for _, s := range []string{`(("" "/")) NIL NIL`, `((`, `))((`, `{3}`, `"`, "((\"a\" {1}\r\nb))"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, g := range parseNamespaces(s) {
			if slices.Contains(g, "") {
				t.Fatalf("%q: an empty prefix would shut everything out", s)
			}
		}
	})
}

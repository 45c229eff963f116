package aliasresolve

import (
	"net/mail"
	"slices"
	"strings"
	"testing"
)

// parseAll gives the plain addresses of a list in normal form.
func parseAll(list string) []string {
	p := addressParser{in: []byte(list)}
	var all []string
	for {
		local, domain, ok := p.next()
		if !ok {
			return all
		}
		if normal, ok := appendNormal(nil, local, domain); ok {
			all = append(all, string(normal))
		}
	}
}

// Address lists as mail has them. strict says that net/mail takes the list as
// well; the others are why it is not used.
func TestAddressLists(t *testing.T) {
	for _, test := range []struct {
		list   string
		want   string // separated by spaces
		strict bool
	}{
		{"a@example.com", "a@example.com", true},
		{"A <A@Example.COM>", "a@example.com", true},
		{"<a@example.com>, B <b@example.com>", "a@example.com b@example.com", true},
		{`"Rossi, Anna" <a@example.com>`, "a@example.com", true},
		{`"a \"b@example.com\" <c@example.com>," <a@example.com>`, "a@example.com", true},
		{"=?utf-8?Q?B=C3=BCro=2C_b=40example.com?= <a@example.com>", "a@example.com", true},
		{"Team: a@example.com, B <b@example.com>;", "a@example.com b@example.com", true},
		{"undisclosed-recipients:;", "", true},
		{"a@example.com (b@example.com)", "a@example.com", true},
		{`A (x (y@example.com) \) z) <a@example.com>`, "a@example.com", true},
		{`"a.b"@example.com`, "a.b@example.com", true},
		{`"a b"@example.com`, "", true},
		{`"a@b"@example.com`, "", true},
		{"ä@example.com, a@bücher.example", "ä@example.com a@xn--bcher-kva.example", true},
		{"a@[192.0.2.1]", "", true},
		{"a+b@example.com", "a+b@example.com", true},
		{"a%b@example.com, a!b@example.com, a/b@example.com, *@example.com", "", true},

		{"", "", false},
		{",, a@example.com,, b@example.com,", "a@example.com b@example.com", true},
		{"a@example.com; b@example.com;", "a@example.com b@example.com", false},
		{"Rossi, Anna <a@example.com>", "a@example.com", false},
		{"M\xfcller <a@example.com>", "a@example.com", false},
		{"=?unknown?Q?=FC?= <a@example.com>", "a@example.com", false},
		{"b@example.com <a@example.com>", "a@example.com", false},
		{"Anna @ Home <a@example.com>", "a@example.com", false},
		{"<@c.example,@d.example:a@example.com>", "a@example.com", false},
		{"a . b @ example . com", "a.b@example.com", false},
		{"a (x) . (y) b (z) @ (w) example.com", "a.b@example.com", false},
		{`a."b".c@example.com`, "a.b.c@example.com", false},
		{"<a@example.com> <b@example.com>", "a@example.com b@example.com", false},
		{"<a@example.com> junk, b@example.com", "a@example.com b@example.com", false},
		{"<<a@example.com>>", "a@example.com", false},
		{"a@example.com.", "a@example.com", false},
		{"x: y: a@example.com;", "a@example.com", false},

		{"a b@example.com", "", false},
		{`"x" a@example.com`, "", false},
		{`x"a"@example.com`, "", false},
		{`"a"x@example.com`, "", false},
		{`a@"example.com"`, "", false},
		{"a@b@example.com", "", false},
		{"@example.com, a@, @, <>, <a>, .a@example.com, a.@example.com, a..b@example.com", "", false},
		{"a@.example.com, a@example..com, a@exa mple.com, a@exa$mple.com", "", false},
		{"\xfc@example.com, a@b\xfccher.example, \uFFFD@example.com", "", false},
		{"<a@example.com", "", false},
		{`"a@example.com`, "", false},
		{"(a@example.com", "", false},
		{"a@example.com\x00, \x07b@example.com, c\u200bd@example.com", "", false},
		{strings.Repeat("a", 65) + "@example.com, b@" + strings.Repeat("c.", 130) + "com", "", true},
		{`=?utf-8?q?a?= =?utf-8?q?b?= @example.com`, "", false},
	} {
		got := parseAll(test.list)
		if strings.Join(got, " ") != test.want {
			t.Errorf("%q: got %q, want %q", test.list, got, test.want)
		}
		if _, err := mail.ParseAddressList(test.list); (err == nil) != test.strict {
			t.Errorf("%q: net/mail says %v", test.list, err)
		}
	}
}

func TestNormalise(t *testing.T) {
	for address, want := range map[string]string{
		"Anna@Example.COM":                            "anna@example.com",
		"<anna@example.com>":                          "anna@example.com",
		`"anna.rossi"@example.com`:                    "anna.rossi@example.com",
		"anna@B\u00dcCHER.example":                    "anna@xn--bcher-kva.example",
		"anna@Bu\u0308cher.example":                   "anna@xn--bcher-kva.example",
		"A\u0308nna@example.com":                      "\u00e4nna@example.com",
		"anna@example.com.":                           "anna@example.com",
		strings.Repeat("\u023a", 32) + "@example.com": "", // longer in lower case
		"anna":                           "",
		"anna@example.com bert@b.com":    "",
		"anna@example.com, x":            "",
		"x: anna@example.com":            "",
		"":                               "",
		"anna\n@example.com\nrm -rf":     "",
		"../anna@example.com":            "",
		"anna@xn--bcher-kva.example\x00": "",
	} {
		got, ok := Normalise(address)
		if got != want && ok || ok != (want != "") {
			t.Errorf("%q: got %q %v, want %q", address, got, ok, want)
		}
	}
}

// FuzzAddresses: wherever net/mail reads a list, this package's parser finds
// the same plain addresses in it, and a normal form stays what it is.
func FuzzAddresses(f *testing.F) {
	for _, seed := range []string{
		`a@example.com, "B, \" (C)" <b@example.com> (x (y)), Team: c@example.com;`,
		"=?utf-8?Q?=C3=BC?= <a@bücher.example>", `"a.b"@example.com, ä@x`, "<@a:b@c>", "a . b@c; d@e", `(\)) a@b`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		got := parseAll(list)
		for _, address := range got {
			if again, ok := Normalise(address); !ok || again != address {
				t.Errorf("%q of %q is not in normal form: %q %v", address, list, again, ok)
			}
		}
		strict, err := mail.ParseAddressList(list)
		if err != nil {
			return
		}
		var want []string
		for _, a := range strict {
			at := strings.LastIndexByte(a.Address, '@')
			if normal, ok := appendNormal(nil, []byte(a.Address[:at]), []byte(a.Address[at+1:])); ok {
				want = append(want, string(normal))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %q, net/mail has %q", list, got, want)
		}
	})
}

package proxy

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"migproxy/config"
)

func TestResolve(t *testing.T) {
	cfg := &config.Config{
		DefaultDomain: "default.example",
		Domains:       []config.Domain{{Name: "Example.com"}, {Name: "sub.example.com"}, {Name: "default.example"}},
	}
	tests := []struct {
		name                    string
		login, server, listener string
		want                    string // address; empty for the zero Identity
	}{
		{"full address", "anna@example.com", "", "", "anna@example.com"},
		{"case is folded", "ANNA@EXAMPLE.COM", "", "", "anna@example.com"},
		{"all that stands unquoted", "o'brien-r&d.x+y=z_1~$?^`{}@example.com", "", "", "o'brien-r&d.x+y=z_1~$?^`{}@example.com"},
		{"the last @ counts", "odd@example.com@elsewhere.example", "", "", ""},
		{"@ in the local part", "odd@name@example.com", "", "", ""},
		{"address beats server name", "anna@example.com", "default.example", "default.example", "anna@example.com"},
		{"foreign domain", "anna@elsewhere.example", "example.com", "example.com", ""},
		{"server name", "anna", "example.com", "default.example", "anna@example.com"},
		{"server name below a domain", "anna", "IMAP.mail.example.com", "", "anna@example.com"},
		{"nearest domain of the server name", "anna", "imap.sub.example.com", "", "anna@sub.example.com"},
		{"server name with final dot", "anna", "mail.example.com.", "", "anna@example.com"},
		{"no part of a label", "anna", "notexample.com", "", "anna@default.example"},
		{"listener", "anna", "elsewhere.example", "Example.com", "anna@example.com"},
		{"listener of a foreign domain", "anna", "", "elsewhere.example", ""},
		{"default", "anna", "", "", "anna@default.example"},
		{"folded umlaut", "ÄNNE", "", "", "änne@default.example"},
		{"Chinese", "安娜", "", "", "安娜@default.example"},
		{"combining mark", "a\u0308nne", "", "", "a\u0308nne@default.example"},
		{"space inside", "anna b", "", "", ""},
		{"wide space", "anna\u3000b", "", "", ""},
		{"invisible", "anna\u200b", "", "", ""},
		{"turned around", "anna\u202e", "", "", ""},
		{"quoted", `"anna b"@example.com`, "", "", ""},
		{"Windows domain", `EXAMPLE\anna`, "", "", ""},
		{"dot first", ".anna@example.com", "", "", ""},
		{"dot last", "anna.@example.com", "", "", ""},
		{"two dots", "an..na@example.com", "", "", ""},
		{"path", "../anna@example.com", "", "", ""},
		{"parent", "..", "", "", ""},
		{"line of a passwd-file", "anna:x", "", "", ""},
		{"master user", "anna*master", "", "", ""},
		{"master user, in a domain", "anna*master@example.com", "", "", ""},
		{"master user, behind the address", "anna@example.com*master", "", "", ""},
		{"percent", "anna%example.com", "", "", ""},
		{"bang path", "host!anna", "", "", ""},
		{"hash", "anna#master", "", "", ""},
		{"bar", "anna|master", "", "", ""},
		{"another mailbox", "anna/office", "", "", ""},
		{"empty", "", "", "", ""},
		{"empty local part", "@example.com", "", "", ""},
		{"empty domain", "anna@", "", "", ""},
		{"line feed", "anna\n@example.com", "", "", ""},
		{"NUL", "anna\x00", "", "", ""},
		{"C1 control", "anna\u0085", "", "", ""},
		{"not UTF-8", "ann\xe9", "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := resolve(cfg, &Attempt{Login: tt.login, ServerName: tt.server, ListenerDomain: tt.listener})
			if tt.want == "" {
				if got != (config.Identity{}) {
					t.Fatalf("got %+v, want none", got)
				}
				return
			}
			if got.Address() != tt.want || got.Login != tt.login {
				t.Fatalf("got %+v, want %s", got, tt.want)
			}
		})
	}
}

func TestNoDefaultDomain(t *testing.T) {
	cfg := &config.Config{Domains: []config.Domain{{Name: "example.com"}}}
	if got := resolve(cfg, &Attempt{Login: "anna"}); got != (config.Identity{}) {
		t.Fatalf("got %+v, want none", got)
	}
}

// FuzzResolve: whatever a client types, an account's address is of a configured
// domain, has no control characters, and gives itself again.
func FuzzResolve(f *testing.F) {
	for _, name := range []string{"anna@example.com", "ANNA", "@", "a@b@example.com", "ÄNNE", "İ@EXAMPLE.com", "\x00", "ann\xe9", "Kelvin@example.com"} {
		f.Add(name, "mail.example.com")
	}
	cfg := &config.Config{DefaultDomain: "example.com", Domains: []config.Domain{{Name: "example.com"}}}
	f.Fuzz(func(t *testing.T, login, server string) {
		id := resolve(cfg, &Attempt{Login: login, ServerName: server})
		if id == (config.Identity{}) {
			return
		}
		if id.Domain != "example.com" || id.Local == "" || !utf8.ValidString(id.Address()) || strings.ContainsFunc(id.Address(), unicode.IsControl) {
			t.Fatalf("%q gave %+v", login, id)
		}
		if again := resolve(cfg, &Attempt{Login: id.Address()}); again.Address() != id.Address() {
			t.Fatalf("%q gave %s, which gave %s", login, id.Address(), again.Address())
		}
	})
}

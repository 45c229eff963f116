package command

import (
	"strings"
	"testing"

	"migproxy/config"
)

func TestTailIsBounded(t *testing.T) {
	w := &tail{limit: stderrKept}
	for range 100 {
		if _, err := w.Write(make([]byte, 10_000)); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.kept) != stderrKept {
		t.Errorf("%d octets kept", len(w.kept))
	}
}

// A password that a script repeats is found in each spelling, wherever the
// text was cut.
func TestReasonNamesNoPassword(t *testing.T) {
	for _, c := range []struct{ name, password, written string }{
		{"as it is", `p"a\s'ü <1>`, `p"a\s'ü <1>`},
		{"JSON", `p"a\s'ü <1>`, `{"password":"p\"a\\s'ü <1>"}`},
		{"JSON for HTML", `p"a\s'ü <1>`, `p\"a\\s'ü \u003c1\u003e`},
		{"JSON in ASCII", `p"a\s'ü <1>`, `p\"a\\s'\u00fc <1>`},
		{"a shell's trace", `pa's`, `+ mailadm 'pa'\''s'`},
		{"Python's repr", `p"a\s'ü`, `{'password': 'p"a\\s\'ü'}`},
		{"Python's repr in double quotes", `pa\s'ü`, `["pa\\s'ü"]`},
		{"a form", `p&a s/ü`, `password=p%26a+s%2F%C3%BC`},
		{"a URL", `p&a s/ü`, `/set/p&a%20s%2F%C3%BC`},
	} {
		t.Run(c.name, func(t *testing.T) {
			reason := func(limit int) string {
				out := &tail{limit: limit}
				// In pieces, as a pipe gives them.
				for _, b := range []byte("before " + c.written + " after") {
					if _, err := out.Write([]byte{b}); err != nil {
						t.Fatal(err)
					}
				}
				return out.reason(config.NewSecret(c.password))
			}
			if got := reason(stderrKept); !strings.HasPrefix(got, ": before ") || !strings.Contains(got, "***") || !strings.HasSuffix(got, " after") {
				t.Errorf("got %q", got)
			}
			for limit := range len(c.written) + len(" after") {
				if got := reason(limit); strings.Contains(got, c.password[len(c.password)-4:]) {
					t.Errorf("cut to %d: %q has the end of the password", limit, got)
				}
			}
		})
	}
}

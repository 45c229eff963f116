package aliasresolve

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestReadAccounts(t *testing.T) {
	a, err := ReadAccounts(strings.NewReader("\ufeff# accounts\r\n\r\n  \t\nAnna@Example.com\r\nbert@example.com b@example.com,\tb2@example.com , INFO@example.com # comment, x y\n" +
		"carla@example.com,info@example.com\n<ines@bücher.example> \"i.i\"@bücher.example\nanna@example.com anna@example.com\n#dora@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string][]string{
		"anna@example.com": {"anna@example.com"}, "bert@example.com": {"bert@example.com"}, "b2@example.com": {"bert@example.com"},
		"info@example.com": {"bert@example.com", "carla@example.com"}, "i.i@xn--bcher-kva.example": {"ines@xn--bcher-kva.example"},
		"dora@example.com": nil, "x": nil,
	} {
		if got := a.Owners(address); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", address, got, want)
		}
	}
	if (*Accounts)(nil).Owners("anna@example.com") != nil {
		t.Error("no list has an owner")
	}
}

func TestReadAccountsNamesTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"anna":                        `line 1: "anna" is no address; write local@domain, and # before a comment`,
		"a@example.com\n\n#x\nb@c d@": `line 4: "d@" is no address; write local@domain, and # before a comment`,
		"a@example.com;b@example.com": `line 1: "a@example.com;b@example.com" is no address; write local@domain, and # before a comment`,
		"a@example.com#x":             `line 1: "a@example.com#x" is no address; write local@domain, and # before a comment`,
		"a@example.com\n\x00":         `line 2: "\x00" is no address; write local@domain, and # before a comment`,
		"a@example.com\n" + strings.Repeat(" ", maxAccountsLine+1): `line 2: is longer than 65536 octets; write one account a line`,
		strings.Repeat("x", 300):                                   `line 1: "` + strings.Repeat("x", 80) + `" is no address; write local@domain, and # before a comment`,
	} {
		a, err := ReadAccounts(strings.NewReader(text))
		var mistake *AccountsError
		if !errors.As(err, &mistake) || err.Error() != want || a != nil {
			t.Errorf("%.40q: got %v, %v, want %s", text, a, err, want)
		}
	}
	if _, err := ReadAccounts(iotest.TimeoutReader(strings.NewReader(strings.Repeat("a@example.com\n", 1000)))); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("a list that cannot be read: %v", err)
	}
}

// An address that stands on all lines costs no more than others do, and makes no
// text that names everybody.
func TestAddressOfAllAccounts(t *testing.T) {
	var b strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&b, "a%d@example.com all@example.com\n", i)
	}
	begun := time.Now()
	accounts, err := ReadAccounts(strings.NewReader(b.String()))
	if took := time.Since(begun); err != nil || took > 5*time.Second {
		t.Fatal(err, took)
	}
	m := Mailbox{"anna@example.com", counts(t, "all@example.com Delivered-To 9")}
	if got, want := tell(Decide(m, Rules{Mode: Extended, Domains: own}, Known{Accounts: accounts})),
		"all@example.com: another's in the accounts file a0@example.com a10000@example.com a10001@example.com"; got != want {
		t.Errorf("%.200q", got)
	}
}

// endless is a list without an end.
type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	e.n++
	return copy(p, fmt.Sprintf("a%d@example.com\n", e.n)), nil
}

func TestReadAccountsIsBounded(t *testing.T) {
	var mistake *AccountsError
	if _, err := readAccounts(&endless{}, 1000); !errors.As(err, &mistake) || mistake.Line != 1001 {
		t.Errorf("got %v", err)
	}
}

// FuzzAccounts: a list is either taken, or its mistake has a line that exists;
// what is taken is in normal form.
func FuzzAccounts(f *testing.F) {
	for _, seed := range []string{"a@example.com b@example.com # c\n\nd@example.com,e@example.com", "\ufeff,a@b,\r", "x", "a@b\n#\n \"c\"@d", strings.Repeat(",", 70_000)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ReadAccounts(strings.NewReader(text))
		if err != nil {
			var mistake *AccountsError
			if !errors.As(err, &mistake) || mistake.Line < 1 || mistake.Line > 1+strings.Count(text, "\n") {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		for address, owners := range a.owners {
			for _, name := range append(owners, address) {
				if normal, ok := Normalise(name); !ok || normal != name {
					t.Errorf("%q: %q is not in normal form", text, name)
				}
			}
		}
	})
}

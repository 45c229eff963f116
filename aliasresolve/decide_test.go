package aliasresolve

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// counts makes a tally of "address headers messages" lines.
func counts(t *testing.T, lines ...string) Tally {
	t.Helper()
	var tally Tally
	for _, line := range lines {
		var c Count
		var names string
		if _, err := fmt.Sscan(line, &c.Address, &names, &c.Messages); err != nil {
			t.Fatal(err)
		}
		if err := c.Headers.UnmarshalText([]byte(strings.ReplaceAll(names, "+", ", "))); err != nil {
			t.Fatal(err)
		}
		tally.Counts = append(tally.Counts, c)
	}
	return tally
}

// tell writes a decision as lines: claims, then what was withdrawn and why.
func tell(d Decision) string {
	var lines []string
	for _, c := range d.Claims {
		lines = append(lines, fmt.Sprintf("%s %d", c.Address, c.Messages))
	}
	for _, w := range d.Withdrawn {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s: %s %s", w.Address, w.Reason, strings.Join(w.By, " "))))
	}
	return strings.Join(lines, "\n")
}

func TestDecide(t *testing.T) {
	accounts, err := ReadAccounts(strings.NewReader("anna@example.com a2@example.com\nbert@example.com b2@example.com five@example.com\ncarla@example.com five@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	known := Known{
		Accounts: accounts,
		Logins:   map[string]string{"anna@example.com": "anna@example.com", "rossi@example.com": "anna@example.com", "dora@example.com": "dora@example.com"},
		Shown:    Shown{"both@example.com": {"emil@example.com", "anna@example.com", "bert@example.com"}, "x@example.com": {"anna@example.com"}},
		Aliases:  map[string]string{"given@example.com": "emil@example.com", "mine@example.com": "anna@example.com", "both@example.com": "emil@example.com"},
	}
	for _, test := range []struct {
		name  string
		rules Rules
		shows []string
		want  string
	}{
		{"nothing", Rules{Mode: Extended}, nil, ""},
		{"username", Rules{Mode: Username}, []string{"x@example.com Delivered-To 9"}, ""},
		{"the login itself", Rules{Mode: Extended}, []string{"anna@example.com Delivered-To 9"}, ""},
		{"most first", Rules{Mode: Extended}, []string{"x@example.com Delivered-To 3", "y@example.com Received 9", "y@example.com Received+Delivered-To+To 4", "z@example.com Envelope-To 3"}, "y@example.com 13\nx@example.com 3\nz@example.com 3"},
		{"reasons", Rules{Mode: Extended}, []string{"x@example.net Delivered-To 9", "l@example.com Delivered-To 8", "l@example.com List 1", "dora@example.com Received 7", "bert@example.com Received 7",
			"b2@example.com Received 6", "five@example.com Received 5", "both@example.com Received 4", "anna+x@example.com Received 3", "f@example.com From 9", "few@example.com Received 2", "to@example.com To 9", "x@example.com Delivered-To 3"},
			"x@example.com 3\nx@example.net: not in own domains\nl@example.com: mailing list\nbert@example.com: another's in the accounts file bert@example.com\ndora@example.com: somebody's login dora@example.com\n" +
				"b2@example.com: another's in the accounts file bert@example.com\nfive@example.com: another's in the accounts file bert@example.com carla@example.com\nboth@example.com: shown by another mailbox as well bert@example.com emil@example.com\n" +
				"anna+x@example.com: subaddress anna@example.com\nfew@example.com: below minimum\nf@example.com: no evidence\nto@example.com: no evidence"},
		{"another's aliases", Rules{Mode: Extended}, []string{"given@example.com Received 9", "given+x@example.com Received 8", "mine@example.com Received 7"},
			"mine@example.com 7\ngiven@example.com: another account's alias emil@example.com\ngiven+x@example.com: another account's alias emil@example.com"},
		{"own names", Rules{Mode: Extended}, []string{"a2@example.com Received 3", "rossi@example.com Received 3"}, "a2@example.com 3\nrossi@example.com 3"},
		{"subaddresses", Rules{Mode: Extended}, []string{"a2+x@example.com Received 9", "rossi+x@example.com Received 8", "x@example.com Received 7", "x+y+z@example.com Received 6", "bert+x@example.com Received 5", "dora+x@example.com Received 4", "both+x@example.com Received 3", "u+v@example.com Received 3", "+v@example.com Received 3"},
			"x@example.com 7\n+v@example.com 3\nu+v@example.com 3\na2+x@example.com: subaddress a2@example.com\nrossi+x@example.com: subaddress rossi@example.com\nx+y+z@example.com: subaddress x@example.com\nbert+x@example.com: another's in the accounts file bert@example.com\ndora+x@example.com: somebody's login dora@example.com\nboth+x@example.com: shown by another mailbox as well bert@example.com emil@example.com"},
		{"ignore received", Rules{Mode: Extended, IgnoreReceived: true}, []string{"x@example.com Received+To 9", "y@example.com Received+X-Envelope-To 5"}, "y@example.com 5\nx@example.com: no evidence"},
		{"ignore x-envelope-to", Rules{Mode: Extended, IgnoreXEnvelopeTo: true}, []string{"x@example.com Received 9", "y@example.com X-Envelope-To 5", "z@example.com Envelope-To 3"}, "x@example.com 9\nz@example.com 3\ny@example.com: no evidence"},
		{"standard", Rules{Mode: Standard}, []string{"anna@example.com From 8", "x@example.com From 9", "both@example.com From 20", "y@example.com From 5", "z@example.com Delivered-To 99", "few@example.com From 2"},
			"x@example.com 9\nboth@example.com: shown by another mailbox as well bert@example.com emil@example.com\ny@example.com: outranked x@example.com\nfew@example.com: below minimum\nz@example.com: no evidence"},
		{"standard, from the login", Rules{Mode: Standard}, []string{"anna@example.com From 9", "x@example.com From 9"}, "x@example.com: outranked anna@example.com"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.rules.Domains, test.rules.Minimum = own, 3
			if got := tell(Decide(Mailbox{"anna@example.com", counts(t, test.shows...)}, test.rules, known)); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

// What a mailbox shows does not depend on the mode or the minimum: one message
// forbids others the address.
func TestShown(t *testing.T) {
	m := Mailbox{"anna@example.com", counts(t, "a@example.com Delivered-To 1", "b@example.com From 1", "c@example.com To+Cc 9", "d@example.com Received 1",
		"e@example.com X-Envelope-To 1", "f@example.net Delivered-To 9", "g@example.com List 9", "a@example.com Received 1")}
	for want, r := range map[string]Rules{
		"a b d e": {Mode: Standard, Domains: own, Minimum: 3},
		"a b d":   {Mode: Extended, Domains: own, Minimum: 3, IgnoreXEnvelopeTo: true},
		"a b":     {Mode: Username, Domains: own, Minimum: 3, IgnoreXEnvelopeTo: true, IgnoreReceived: true},
	} {
		var got []string
		for address, by := range shown([]Mailbox{m}, r) {
			got = append(got, strings.TrimSuffix(address, "@example.com"))
			if !slices.Equal(by, []string{"anna@example.com"}) {
				t.Errorf("%s is shown by %v", address, by)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%+v: got %v, want %s", r, got, want)
		}
	}
}

// A minimum of nothing still wants evidence.
func TestDecideWithoutMinimum(t *testing.T) {
	m := Mailbox{"anna@example.com", counts(t, "x@example.com Received 1", "y@example.com To 9")}
	if got, want := tell(Decide(m, Rules{Mode: Extended, Domains: own}, Known{})), "x@example.com 1\ny@example.com: no evidence"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// An account is known by what its domain is called in the settings, its mail by
// A-labels.
func TestDecideBeyondASCII(t *testing.T) {
	m := Mailbox{"ines@bücher.example", counts(t, "ines@xn--bcher-kva.example Received 9", "x@xn--bcher-kva.example Received 5")}
	r := Rules{Mode: Extended, Domains: own, Minimum: 3}
	accounts, err := ReadAccounts(strings.NewReader("Ines@BÜCHER.example"))
	if err != nil {
		t.Fatal(err)
	}
	known := Known{Shown: shown([]Mailbox{m}, r), Accounts: accounts, Logins: map[string]string{"ines@xn--bcher-kva.example": m.Login}}
	d := Decide(m, r, known)
	if got := tell(d); got != "x@xn--bcher-kva.example 5" || d.Claims[0].Proposed {
		t.Errorf("got %s, %+v", got, d.Claims)
	}
	if got := Summary(m.Login, d.Claims); got != "Available Aliases: x - 5 x" {
		t.Error(got)
	}
}

// A login that stands on the lines of other accounts as well, as info@ does, has
// no share in what else is theirs.
func TestDecideForASharedLogin(t *testing.T) {
	m := Mailbox{"info@example.com", counts(t, "b2@example.com Delivered-To 9", "carla@example.com Delivered-To 8", "x@example.com Delivered-To 7")}
	for list, proposed := range map[string]bool{
		"bert@example.com b2@example.com info@example.com\ncarla@example.com info@example.com":                   true,
		"bert@example.com b2@example.com info@example.com\ncarla@example.com info@example.com\ninfo@example.com": false,
	} {
		accounts, err := ReadAccounts(strings.NewReader(list))
		if err != nil {
			t.Fatal(err)
		}
		d := Decide(m, Rules{Mode: Extended, Domains: own, Minimum: 3}, Known{Accounts: accounts})
		want := "x@example.com 7\nb2@example.com: another's in the accounts file bert@example.com\ncarla@example.com: another's in the accounts file carla@example.com"
		if got := tell(d); got != want || d.Claims[0].Proposed != proposed {
			t.Errorf("%q: got\n%s\n%+v", list, got, d.Claims)
		}
	}
}

// Where addresses had to be forgotten, nothing is claimed unapproved.
func TestDecideProposesWhatIsIncomplete(t *testing.T) {
	accounts, err := ReadAccounts(strings.NewReader("anna@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	m := Mailbox{"anna@example.com", counts(t, "x@example.com Received 9")}
	r := Rules{Mode: Extended, Domains: own, Minimum: 3}
	for forgotten, want := range map[int64]bool{0: false, 1: true} {
		m.Tally.Forgotten = forgotten
		if c := Decide(m, r, Known{Accounts: accounts}).Claims; len(c) != 1 || c[0].Proposed != want {
			t.Errorf("%d forgotten: %+v", forgotten, c)
		}
	}
}

func TestEvidenceOfAClaim(t *testing.T) {
	m := Mailbox{"anna@example.com", counts(t, "x@example.com Received 2", "x@example.com Received+Delivered-To+To 3", "x@example.com Cc 9")}
	d := Decide(m, Rules{Mode: Extended, Domains: own, Minimum: 3}, Known{})
	got, err := json.Marshal(d.Claims)
	want := `[{"address":"x@example.com","messages":5,"evidence":[{"header":"Cc","messages":9},{"header":"Received","messages":5},{"header":"Delivered-To","messages":3},{"header":"To","messages":3}],"proposed":true}]`
	if err != nil || string(got) != want {
		t.Errorf("got  %s %v\nwant %s", got, err, want)
	}
	for r := NotOwnDomain; r <= Outranked; r++ {
		var again Reason
		if text, err := r.MarshalText(); err != nil || again.UnmarshalText(text) != nil || again != r {
			t.Errorf("%v becomes %v", r, again)
		}
	}
	if new(Reason).UnmarshalText([]byte("x")) == nil {
		t.Error("x is a reason")
	}
}

// For any mailboxes: what two of them show is claimed by neither, whatever else
// is known, and of two that show the same each has it withdrawn for a reason
// that is about others.
func TestWithdrawalIsSymmetric(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		r := Rules{Mode: Standard + Mode(random.IntN(2)), Domains: own, Minimum: int64(random.IntN(4)),
			IgnoreReceived: random.IntN(2) == 0, IgnoreXEnvelopeTo: random.IntN(2) == 0}
		var mailboxes []Mailbox
		for i := range 2 + random.IntN(4) {
			m := Mailbox{Login: fmt.Sprintf("login%d@example.com", i)}
			c := NewCollector(DefaultLimit)
			for range random.IntN(30) {
				c.Message([]Sighting{{fmt.Sprintf("a%d@example.com", random.IntN(8)), Headers(1 + random.IntN(255))}})
			}
			m.Tally = c.Tally()
			mailboxes = append(mailboxes, m)
		}
		known := Known{Shown: shown(mailboxes, r), Logins: map[string]string{}}
		for _, m := range mailboxes {
			known.Logins[m.Login] = m.Login
		}
		decided := map[string]Decision{}
		for _, m := range mailboxes {
			decided[m.Login] = Decide(m, r, known)
		}
		for address, by := range known.Shown {
			for _, login := range by {
				d := decided[login]
				claimed := slices.ContainsFunc(d.Claims, func(c Claim) bool { return c.Address == address })
				i := slices.IndexFunc(d.Withdrawn, func(w Withdrawal) bool { return w.Address == address })
				switch {
				case len(by) == 1 && i >= 0 && d.Withdrawn[i].Reason == ShownByAnother:
					t.Fatalf("%s alone shows %s, and has it withdrawn as %v's", login, address, d.Withdrawn[i].By)
				case len(by) > 1 && (claimed || i < 0 || d.Withdrawn[i].Reason != ShownByAnother):
					t.Fatalf("%v show %s, and %s claims it: %+v", by, address, login, d)
				case len(by) > 1 && len(d.Withdrawn[i].By) != min(len(by)-1, maxNames):
					t.Fatalf("%v show %s, and %s is told of %v", by, address, login, d.Withdrawn[i].By)
				}
			}
		}
	}
}

func TestSummary(t *testing.T) {
	for want, claims := range map[string][]Claim{
		"No Aliases were discovered, Using Username":                            nil,
		"Available Aliases: john.smith - 214 x, j.smith - 3 x":                  {{Address: "john.smith@example.com", Messages: 214}, {Address: "j.smith@example.com", Messages: 3}},
		"Available Aliases: john@example.org - 9 x, john@sub.example.com - 1 x": {{Address: "john@example.org", Messages: 9}, {Address: "john@sub.example.com", Messages: 1}},
	} {
		if got := Summary("john@example.com", claims); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

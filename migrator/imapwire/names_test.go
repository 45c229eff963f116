package imapwire

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	"unicode/utf8"
)

var names = []struct{ name, wire string }{
	{"INBOX", "INBOX"},
	{"R&D", "R&-D"},
	{"Gesendete Objekte", "Gesendete Objekte"},
	{"Entwürfe", "Entw&APw-rfe"},
	{"~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"}, // RFC 3501 section 5.1.3
	{"😀", "&2D3eAA-"},
	{"tab\there", "tab&AAk-here"},
	{"&", "&-"},
	{"", ""},
}

func TestNames(t *testing.T) {
	for _, tt := range names {
		if got := EncodeName(tt.name); got != tt.wire {
			t.Errorf("EncodeName(%q) = %q, want %q", tt.name, got, tt.wire)
		}
		if got, ok := DecodeName(tt.wire); got != tt.name || !ok {
			t.Errorf("DecodeName(%q) = %q, %v", tt.wire, got, ok)
		}
	}
	if got, ok := DecodeName("Grüße"); got != "Grüße" || !ok {
		t.Errorf("UTF-8: %q, %v", got, ok)
	}
	if got := EncodeName("\xff"); got != "&,,0-" {
		t.Errorf("no UTF-8: %q", got)
	}
	for _, wire := range []string{"R&D", "&", "&A-", "&AP-", "&AAAA-", "&2D0-", "&3gA-", "&3gDYPQ-", "&APw=-", "&AP/-", "\xfc", "&AP\r\nw-"} {
		if got, ok := DecodeName(wire); got != wire || ok {
			t.Errorf("DecodeName(%q) = %q, %v", wire, got, ok)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, tt := range names {
		f.Add(tt.name)
		f.Add(tt.wire)
	}
	f.Add("R&D &3gDYPQ-")
	f.Fuzz(func(t *testing.T, s string) {
		if name, ok := DecodeName(s); ok && !utf8.ValidString(name) {
			t.Errorf("DecodeName(%q) = %q, which is not UTF-8", s, name)
		}
		wire := EncodeName(s)
		for i := range len(wire) {
			if wire[i] < ' ' || wire[i] > '~' {
				t.Errorf("EncodeName(%q) = %q", s, wire)
			}
		}
		if name, ok := DecodeName(wire); utf8.ValidString(s) && (name != s || !ok) {
			t.Errorf("%q came back as %q, %v", s, name, ok)
		}
	})
}

func FuzzUIDSet(f *testing.F) {
	for _, set := range []string{"1", "1:3", "3:1", "9,3:4", "1,1", "0", "*", "4294967295", "1:4294967295", "", ",", ":"} {
		f.Add(set, 3)
	}
	f.Fuzz(func(t *testing.T, set string, count int) {
		uids, ok := parseUIDSet(set, count)
		if !ok {
			return
		}
		sorted := slices.Compact(slices.Sorted(slices.Values(uids)))
		if len(uids) != count || len(sorted) != count || sorted[0] == 0 {
			t.Fatalf("parseUIDSet(%q, %d) = %v", set, count, uids)
		}
		b, n := appendSet(nil, sorted)
		if again, ok := parseUIDSet(string(b), n); !ok || !slices.Equal(again, sorted[:n]) || len(b) > maxSet {
			t.Fatalf("%v became %q", sorted, b)
		}
	})
}

func TestSeenSet(t *testing.T) {
	var set seenSet
	seen := map[uint32]bool{}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		uid := r.Uint32N(5000) + 1
		if set.add(uid) == seen[uid] {
			t.Fatalf("UID %d", uid)
		}
		seen[uid] = true
	}
	for i := 1; i < len(set); i++ {
		if set[i-1].last+1 >= set[i].first {
			t.Fatalf("%v and %v should be one", set[i-1], set[i])
		}
	}
	if !set.add(1<<32-1) || set.add(1<<32-1) {
		t.Error("the last UID")
	}
}

func TestDates(t *testing.T) {
	z := zones{}
	for s, want := range map[string]string{
		" 1-Feb-2003 04:05:06 -0730": "2003-02-01T04:05:06-07:30",
		"1-Feb-2003 04:05:06 +0000":  "2003-02-01T04:05:06Z",
		"01-FEB-2003 04:05:06 +1400": "2003-02-01T04:05:06+14:00",
		"29-Feb-2000 23:59:59 +0100": "2000-02-29T23:59:59+01:00",
		"29-Feb-2001 00:00:00 +0000": "",
		"00-Jan-0000 00:00:00 +0000": "",
		"01-Jan-0000 00:00:00 +0000": "",
		"01-Jan-2001 24:00:00 +0000": "",
		"01-Jan-2001 00:00:00":       "",
		"01-Jan-2001":                "",
		"":                           "",
	} {
		got := z.parse([]byte(s))
		if got.IsZero() != (want == "") || want != "" && got.Format(time.RFC3339) != want {
			t.Errorf("%q: got %v, want %q", s, got, want)
		}
		if sendable(got) && got.Format(dateLayout) != z.parse([]byte(got.Format(dateLayout))).Format(dateLayout) {
			t.Errorf("%v does not come back", got)
		}
	}
}

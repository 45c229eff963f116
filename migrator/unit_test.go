package migrator

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

func boxes(names ...string) []imapwire.Mailbox {
	var list []imapwire.Mailbox
	for _, n := range names {
		name, attrs, _ := strings.Cut(n, "|")
		list = append(list, imapwire.Mailbox{Name: name, Attrs: strings.Fields(attrs)})
	}
	return list
}

func TestMapFolders(t *testing.T) {
	slash, dot := hierarchy{"", '/'}, hierarchy{"INBOX.", '.'}
	for name, c := range map[string]struct {
		from, to hierarchy
		source   []string
		target   []string
		want     string
	}{
		"prefix and separator":       {dot, slash, []string{"INBOX", "INBOX.a", "INBOX.a.b"}, nil, "INBOX=INBOX INBOX.a=a INBOX.a.b=a/b"},
		"the other way":              {slash, dot, []string{"INBOX", "a", "a/b"}, nil, "INBOX=INBOX a=INBOX.a a/b=INBOX.a.b"},
		"target's separator in name": {dot, slash, []string{"INBOX.a/b"}, nil, "INBOX.a/b=a_b"},
		"two become one":             {dot, slash, []string{"INBOX.a/b", "INBOX.a_b"}, nil, "INBOX.a/b=a_b INBOX.a_b=a_b_2"},
		"names that differ in case":  {slash, slash, []string{"Work", "work", "work/x"}, nil, "Work=Work work=work work/x=work/x"},
		"INBOX in any case":          {slash, slash, []string{"Inbox"}, nil, "Inbox=INBOX"},
		"children of INBOX":          {slash, slash, []string{"INBOX", "INBOX/a"}, nil, "INBOX=INBOX INBOX/a=INBOX/a"},
		"children of INBOX, prefix":  {slash, dot, []string{"INBOX", "a", "INBOX/a", "INBOX/b"}, nil, "INBOX=INBOX a=INBOX.a INBOX/a=INBOX.a_2 INBOX/b=INBOX.b"},
		"a folder named INBOX":       {dot, slash, []string{"INBOX", "INBOX.inbox"}, nil, "INBOX=INBOX INBOX.inbox=inbox_2"},
		"special use":                {dot, slash, []string{`INBOX.Gesendet|\Sent`, "INBOX.Gesendet.old", "INBOX.Sent"}, []string{`Sent Items|\Sent`}, "INBOX.Gesendet=Sent Items INBOX.Sent=Sent INBOX.Gesendet.old=Sent Items/old"},
		"well-known name":            {dot, slash, []string{"INBOX.Gesendet", "INBOX.Entw&APw-rfe"}, []string{`Sent|\Sent`, `Drafts|\Drafts`}, "INBOX.Entw&APw-rfe=Drafts INBOX.Gesendet=Sent"},
		"the same name before":       {slash, slash, []string{"Sent", "Sent Items"}, []string{`Sent Items|\Sent`}, "Sent=Sent Sent Items=Sent Items"},
		"no use on the target":       {slash, slash, []string{`Gesendet|\Sent`}, nil, "Gesendet=Gesendet"},
		"use taken by another":       {slash, slash, []string{`Gesendet|\Sent`, "Sent"}, []string{`Sent|\Sent`}, "Gesendet=Sent Sent=Sent_2"},
		"bare ampersand":             {slash, slash, []string{"R&D"}, nil, "R&D=R&-D"},
		"UTF-8 and Latin-1":          {slash, slash, []string{"Entwürfe", "Entw\xfcrfe"}, nil, "Entwürfe=Entw&APw-rfe Entw\xfcrfe=Entw&APw-rfe_2"},
		"odd separators":             {slash, slash, []string{"a//b", "c/"}, nil, "c/=c a//b=a/b"},
		"no hierarchy on the target": {slash, hierarchy{}, []string{"a/b"}, nil, "a/b=a_b"},
		"no hierarchy on the source": {hierarchy{}, slash, []string{"a/b"}, nil, "a/b=a_b"},
		"outside of the prefix":      {dot, slash, []string{"user.bob", "INBOX.a"}, nil, "INBOX.a=a"},
		"unselectable parents":       {slash, slash, []string{`a|\Noselect`, "a/b"}, nil, "a=a a/b=a/b"},
	} {
		t.Run(name, func(t *testing.T) {
			source, target := side{hierarchy: c.from, mailboxes: boxes(c.source...)}, side{hierarchy: c.to, mailboxes: boxes(c.target...)}
			got := mapFolders(nil, source, target)
			var pairs []string
			for _, f := range got {
				pairs = append(pairs, f.Source+"="+f.Target)
			}
			if s := strings.Join(pairs, " "); s != c.want {
				t.Errorf("got  %q\nwant %q", s, c.want)
			}
			for i := range got {
				got[i].ID = int64(i + 1)
			}
			if more := mapFolders(got, source, target); len(more) > 0 {
				t.Errorf("mapped anew: %v", more)
			}
		})
	}
}

// A mapping is followed back for all folders of the target but those that have an
// original, however the target spells INBOX.
func TestMapBack(t *testing.T) {
	slash := hierarchy{"", '/'}
	here := side{hierarchy: slash, mailboxes: boxes("INBOX", "Work")}
	for _, inbox := range []string{"INBOX", "Inbox"} {
		known := mapFolders(nil, here, side{hierarchy: slash})
		back := mapBack(known, here, side{hierarchy: slash, mailboxes: boxes(inbox, "Work", "Work/Done", "Own")})
		if len(back) != 2 || back[0].Target != "Own" || back[0].Source != "Own" || back[1].Source != "Work/Done" {
			t.Errorf("%s: %+v", inbox, back)
		}
	}
}

// The mapping is injective, and a folder that comes later changes nothing.
func TestMappingIsInjective(t *testing.T) {
	alphabet := []string{"a", "A", "/", ".", "_", "_2", "INBOX", "&APw-", "Sent"}
	check := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 1))
		var names []string
		for range r.IntN(12) {
			name := ""
			for range 1 + r.IntN(4) {
				name += alphabet[r.IntN(len(alphabet))]
			}
			names = append(names, name)
		}
		source, target := side{hierarchy: hierarchy{"", '.'}, mailboxes: boxes(names...)}, side{hierarchy: hierarchy{"", '/'}, mailboxes: boxes(`Sent|\Sent`)}
		first := source
		first.mailboxes = source.mailboxes[:len(names)/2]
		known := mapFolders(nil, first, target)
		all := append(slices.Clone(known), mapFolders(known, source, target)...)
		seen := map[string]bool{}
		for _, f := range all {
			if seen[f.Target] {
				t.Logf("%q: %v", names, all)
				return false
			}
			seen[f.Target] = true
		}
		return true
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 1000}); err != nil {
		t.Error(err)
	}
}

// n equal originals and m equal candidates make min(n, m) pairs, and no message
// is in two of them.
func TestMatchIsAMultiset(t *testing.T) {
	check := func(here, there []uint8) bool {
		sum := func(b uint8) digests {
			return digests{canonical: store.Digest{b % 4}, full: [32]byte{b % 8}}
		}
		var originals []original
		var candidates []candidate
		var n, m [4]int
		var exactHere, exactThere [8]int
		for i, b := range here {
			originals = append(originals, original{uid: uint32(i + 1), sum: sum(b)})
			n[b%4]++
			exactHere[b%8]++
		}
		for i, b := range there {
			candidates = append(candidates, candidate{uid: uint32(i + 1), sum: sum(b)})
			m[b%4]++
			exactThere[b%8]++
		}
		var got [4]int
		exact := 0
		from, to := map[uint32]bool{}, map[uint32]bool{}
		for _, p := range match(originals, candidates) {
			if from[p.original.uid] || to[p.candidate.uid] || p.original.sum.canonical != p.candidate.sum.canonical {
				return false
			}
			from[p.original.uid], to[p.candidate.uid] = true, true
			got[p.original.sum.canonical[0]]++
			if p.original.sum.full == p.candidate.sum.full {
				exact++
			}
		}
		for i := range exactHere {
			exact -= min(exactHere[i], exactThere[i])
		}
		for i := range got {
			if got[i] != min(n[i], m[i]) {
				return false
			}
		}
		return exact == 0
	}
	if err := quick.Check(check, nil); err != nil {
		t.Error(err)
	}
}

func digestOf(writes ...string) digests {
	d := newDigester()
	for _, w := range writes {
		_, _ = d.Write([]byte(w))
	}
	return d.sum()
}

func TestDigest(t *testing.T) {
	plain := digestOf("a\r\nb\r\n")
	if plain.fragile || plain.octets != 6 || plain.full != sha256.Sum256([]byte("a\r\nb\r\n")) {
		t.Error("plain", plain)
	}
	for _, same := range [][]string{{"a\nb\n"}, {"a\r", "\nb\n"}, {"a\rb\r"}, {"a\r\nb\r"}} {
		if d := digestOf(same...); d.canonical != plain.canonical || d.fragile != (len(same) != 1 || !strings.Contains(same[0], "a\r\nb\r\n")) {
			t.Errorf("%q: %v", same, d)
		}
	}
	if a, b := digestOf("\r\nx\x00y"), digestOf("\r\nx\x80y"); a.canonical != b.canonical || a.full == b.full || !a.fragile || b.fragile {
		t.Error("NUL", a, b)
	}
	// In the header, and nowhere else, octets above 127 may become X.
	if a, b := digestOf("A: \xfc\r\n", "\r\n\xfc"), digestOf("A: X\r\n\r\n\xfc"); a.canonical != b.canonical || a.full == b.full || !a.fragile || b.fragile {
		t.Error("8 bits in the header", a, b)
	}
	if digestOf("A: b\r\n\r\n\xfc").canonical == digestOf("A: b\r\n\r\nX").canonical {
		t.Error("8 bits in the text")
	}
	if digestOf("ab").canonical == digestOf("a\r\nb").canonical || digestOf("a\n\nb").canonical == digestOf("a\r\nb").canonical {
		t.Error("different messages are alike")
	}
	// However the octets are cut, and after another message.
	long := []byte("A: \xfc\r\n\n\r" + strings.Repeat("line\xfc\r\nbare\nnul\x00\r", 9000))
	d := newDigester()
	_, _ = d.Write(long)
	want := d.sum()
	for chunk := range slices.Chunk(long, 7) {
		_, _ = d.Write(chunk)
	}
	if d.sum() != want {
		t.Error("the digest depends on how the octets are cut")
	}
}

func TestLedgerIntervals(t *testing.T) {
	l := newLedger([]store.Run{
		{SourceFirst: 5, TargetFirst: 100, TargetUIDValidity: 7, Digests: make([]store.Digest, 3)},
		{SourceFirst: 1, TargetFirst: 200, TargetUIDValidity: 7, Digests: make([]store.Digest, 2)},
		{SourceFirst: 20, TargetFirst: 0, Digests: make([]store.Digest, 9)},                         // in another folder
		{SourceFirst: 40, TargetFirst: 250, TargetUIDValidity: 6, Digests: make([]store.Digest, 4)}, // in a folder that was removed
	}, 7)
	var source, target []uint32
	for uid := range uint32(300) {
		if l.hasSource(uid) {
			source = append(source, uid)
		}
		if l.hasTarget(uid) {
			target = append(target, uid)
		}
	}
	if !slices.Equal(source, []uint32{1, 2, 5, 6, 7, 20, 21, 22, 23, 24, 25, 26, 27, 28, 40, 41, 42, 43}) || !slices.Equal(target, []uint32{100, 101, 102, 200, 201}) {
		t.Error(source, target)
	}
}

func TestFlagFilter(t *testing.T) {
	flags := []string{`\Seen`, `\Recent`, "$MDNSent", "NonJunk"}
	for _, c := range []struct {
		permanent  []string
		send, lost string
	}{
		{nil, `\Seen $MDNSent NonJunk`, ""},
		{[]string{`\Seen`, `\*`}, `\Seen $MDNSent NonJunk`, ""},
		{[]string{`\seen`, "$mdnsent"}, `\Seen $MDNSent`, "NonJunk"},
		{[]string{`\*`}, `\Seen $MDNSent NonJunk`, ""},
	} {
		send, lost := newFlagFilter(c.permanent).split(flags)
		if strings.Join(send, " ") != c.send || strings.Join(lost, " ") != c.lost {
			t.Errorf("%q: %q %q", c.permanent, send, lost)
		}
	}
}

func TestPausesGrow(t *testing.T) {
	for attempts := range 20 {
		want := pauses[min(attempts, len(pauses)-1)]
		if p := pause(attempts); p < want-want/5 || p > want+want/5 {
			t.Errorf("%d: %v", attempts, p)
		}
	}
	if pauses[0] > 2*time.Second || pauses[len(pauses)-1] > 15*time.Minute {
		t.Error(pauses)
	}
}

func FuzzFolderNames(f *testing.F) {
	for _, s := range []string{"INBOX", "a/b", "R&D", "Entw&APw-rfe", "&2D3eAA-", "\xfc", "a//", "/", "", "&-", "INBOX.a.b", "x\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		for _, from := range []hierarchy{{"", '/'}, {"INBOX.", '.'}, {}} {
			for _, to := range []hierarchy{{"", '/'}, {"INBOX.", '.'}, {}} {
				for _, m := range mapFolders(nil, side{hierarchy: from, mailboxes: []imapwire.Mailbox{{Name: name}}}, side{hierarchy: to}) {
					if m.Target == "" || bytes.ContainsAny([]byte(m.Target), "\x00\r\n") {
						t.Fatalf("%q became %q", name, m.Target)
					}
					_ = to.cautious(m.Target)
				}
			}
		}
	})
}

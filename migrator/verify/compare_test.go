package verify

import (
	"crypto/sha256"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/store"
)

// shown is a message as a test's server shows it.
type shown struct {
	uid    uint32
	text   string
	octets int64 // that the server tells; those of the text where it is 0
	flags  string
	date   int64
	unread bool // the server does not give it
}

func viewOf(validity uint32, permanent []string, list []shown) *view {
	v := &view{uidValidity: validity, permits: permitted(permanent)}
	for _, m := range list {
		octets := m.octets
		if octets == 0 {
			octets = int64(len(m.text))
		}
		date := time.Time{}
		if m.date >= 0 {
			date = time.Unix(1e9+m.date, 0)
		}
		v.add(m.uid, octets, date, strings.Fields(m.flags))
	}
	v.order()
	return v
}

// outcome compares two folders as Run does.
func outcome(e store.Evidence, source, target *view, here, there []shown, deep bool) (f Folder, ofSource, ofTarget []int32) {
	c := compare(&f, e, source, target, deep)
	ofSource, ofTarget = c.toRead()
	read := func(v *view, list []shown, which []int32) {
		for _, i := range which {
			at := slices.IndexFunc(list, func(m shown) bool { return m.uid == v.messages[i].uid })
			if m := list[at]; !m.unread {
				v.read(i, sha256.Sum256([]byte(m.text)))
			}
		}
	}
	read(source, here, ofSource)
	read(target, there, ofTarget)
	c.conclude()
	return f, ofSource, ofTarget
}

func run1(source, target, messages uint32) store.LedgerRun {
	return store.LedgerRun{SourceUIDValidity: 1, SourceFirst: source, TargetUIDValidity: 2, TargetFirst: target, Messages: messages}
}

// said lists the differences, as kind:source UID:target UID.
func said(f *Folder) []string {
	all := []string{}
	for _, d := range f.Differences {
		all = append(all, fmt.Sprintf("%s:%d:%d", d.Kind, d.SourceUID, d.TargetUID))
	}
	slices.Sort(all)
	return all
}

func TestCompare(t *testing.T) {
	a, b, c, twin := shown{uid: 1, text: "a"}, shown{uid: 2, text: "bb"}, shown{uid: 3, text: "ccc"}, shown{uid: 4, text: "bb"}
	as := func(m shown, uid uint32) shown { m.uid = uid; return m }
	sum := func(text string) [32]byte { return sha256.Sum256([]byte(text)) }
	noted := store.Altered{SourceUID: 2, TargetUID: 12, SourceSHA256: sum("bb"), TargetSHA256: sum("b-b"), SourceOctets: 2, TargetOctets: 3}
	type sides = []shown
	for _, tc := range []struct {
		name      string
		evidence  store.Evidence // SourceUIDValidity is 1 unless given
		source    sides
		target    sides
		validity  uint32 // of the target, 2 unless given
		permanent []string
		plain     []string // what is said
		deep      []string // where that is something else
		counts    Counts   // without the sides and Digest, of the plain one
		read      int      // how many are read without deep
	}{
		{name: "nothing at all", counts: Counts{}},
		{name: "the same", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 3)}},
			source: sides{a, b, c}, target: sides{as(a, 11), as(b, 12), as(c, 13)}, counts: Counts{Same: 3}},
		{name: "one missing", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 3)}},
			source: sides{a, b, c}, target: sides{as(a, 11), as(c, 13)},
			plain: []string{"missing:2:0"}, counts: Counts{Same: 2, Missing: 1}},
		{name: "missing on both sides", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 3)}},
			source: sides{a, c}, target: sides{as(a, 11), as(c, 13)},
			plain: []string{"missing:2:0"}, counts: Counts{Same: 2, Missing: 1}},
		{name: "gone from the source", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 3)}},
			source: sides{a}, target: sides{as(a, 11), as(b, 12), as(c, 13)}, counts: Counts{Same: 1, Gone: 2}},
		{name: "other octets of another size", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 1)}},
			source: sides{a}, target: sides{{uid: 11, text: "aX"}},
			plain: []string{"octets:1:11"}, counts: Counts{Octets: 1}, read: 2},
		{name: "other octets of the same size", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 1)}},
			source: sides{a}, target: sides{{uid: 11, text: "X"}},
			plain: []string{}, deep: []string{"octets:1:11"}, counts: Counts{Same: 1}},
		{name: "a server that counts wrong", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 1)}},
			source: sides{{uid: 1, text: "a", octets: 9}}, target: sides{as(a, 11)}, counts: Counts{Same: 1}, read: 2},
		{name: "flags", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 4)}},
			source: sides{{uid: 1, flags: `\Seen $x`}, {uid: 2, flags: `\Seen`}, {uid: 3}, {uid: 4, flags: `\Recent NonJunk`}},
			target: sides{{uid: 11, flags: `$X \SEEN`}, {uid: 12}, {uid: 13, flags: `\Seen`}, {uid: 14, flags: "nonjunk"}},
			plain:  []string{"flags:2:12", "flags:3:13"}, counts: Counts{Same: 2, Flags: 2}},
		{name: "flags that the target does not permit", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 3)}},
			source:    sides{{uid: 1, flags: `\Seen $x`}, {uid: 2, flags: `\Seen $x`}, {uid: 3, flags: `$x`}},
			target:    sides{{uid: 11, flags: `\Seen`}, {uid: 12}, {uid: 13, flags: `\Draft`}},
			permanent: []string{`\Seen`, `\Draft`}, plain: []string{"flags:2:12", "flags:3:13"}, counts: Counts{Same: 1, NotPermitted: 1, Flags: 2}},
		{name: "flags, where the target does not tell", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 1)}},
			source: sides{{uid: 1, flags: "$x"}}, target: sides{{uid: 11}}, permanent: []string{},
			plain: []string{"flags:1:11"}, counts: Counts{Flags: 1}},
		{name: "flags, where the target permits all", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 1)}},
			source: sides{{uid: 1, flags: "$x"}}, target: sides{{uid: 11}}, permanent: []string{`\Seen`, `\*`},
			plain: []string{"flags:1:11"}, counts: Counts{Flags: 1}},
		{name: "dates", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 3)}},
			source: sides{{uid: 1, date: 5}, {uid: 2, date: 5}, {uid: 3, date: -1}},
			target: sides{{uid: 11, date: 5}, {uid: 12, date: 6}, {uid: 13, date: 7}},
			plain:  []string{"date:2:12"}, counts: Counts{Same: 2, Dates: 1}},
		{name: "a date that the target does not tell", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 1)}},
			source: sides{{uid: 1, date: 5}}, target: sides{{uid: 11, date: -1}}, plain: []string{"date:1:11"}, counts: Counts{Dates: 1}},
		{name: "all at once", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 1)}},
			source: sides{{uid: 1, text: "a", date: 5}}, target: sides{{uid: 11, text: "bb", flags: `\Seen`, date: 6}},
			plain: []string{"date:1:11", "flags:1:11", "octets:1:11"}, counts: Counts{Octets: 1, Flags: 1, Dates: 1}, read: 2},
		{name: "doubled, of another date", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 2)}},
			source: sides{a, b}, target: sides{as(a, 11), as(b, 12), {uid: 13, text: "bb", date: 99}},
			plain: []string{"doubled:2:13"}, counts: Counts{Same: 2, Doubled: 1}, read: 2},
		{name: "twins are two, a third is one too many", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 4)}},
			source: sides{a, b, c, twin}, target: sides{as(a, 11), as(b, 12), as(c, 13), as(twin, 14), as(twin, 15)},
			plain: []string{"doubled:4:15"}, counts: Counts{Same: 4, Doubled: 1}, read: 3},
		{name: "doubled, and the original has left the source", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 2)}},
			source: sides{a}, target: sides{as(a, 11), as(b, 12), as(b, 13)},
			plain: []string{"doubled:0:13"}, counts: Counts{Same: 1, Gone: 1, Doubled: 1}, read: 2},
		{name: "deliveries, one of them of the size of a copy", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 2)}},
			source: sides{a, b}, target: sides{as(a, 11), as(b, 12), {uid: 13, text: "new mail"}, {uid: 14, text: "B!"}},
			counts: Counts{Same: 2, Surplus: 2}, read: 2},
		{name: "not copied yet", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 1)}},
			source: sides{a, b}, target: sides{as(a, 11)},
			plain: []string{"not_copied:2:0"}, counts: Counts{Same: 1, NotCopied: 1}},
		{name: "a folder that the copy does not know", source: sides{a, b},
			plain: []string{"not_copied:1:0", "not_copied:2:0"}, counts: Counts{NotCopied: 2}},
		{name: "copied since the ledger was read, the twin of another", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 2)}},
			source: sides{a, b, twin}, target: sides{as(a, 11), as(b, 12), as(twin, 13)},
			counts: Counts{Same: 3}, read: 3},
		{name: "under another UID than the ledger says", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 2)}},
			source: sides{a, b}, target: sides{as(a, 11), as(b, 19)}, counts: Counts{Same: 2}, read: 2},
		{name: "a new folder on the target", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 2)}}, validity: 3,
			source: sides{a, b}, target: sides{as(a, 11), {uid: 12, text: "cc"}},
			plain: []string{"missing:2:0"}, counts: Counts{Same: 1, Missing: 1, Surplus: 1}, read: 4},
		{name: "new UIDs on the source", evidence: store.Evidence{SourceUIDValidity: 9,
			Runs: []store.LedgerRun{{SourceUIDValidity: 9, SourceFirst: 5, TargetUIDValidity: 2, TargetFirst: 11, Messages: 3}}},
			source: sides{a, b}, target: sides{as(a, 11), as(b, 12), as(c, 13)},
			counts: Counts{Same: 2, Gone: 1}, read: 4},
		{name: "new UIDs on the source, recognised", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 2),
			{SourceUIDValidity: 9, SourceFirst: 5, TargetUIDValidity: 2, TargetFirst: 11, Messages: 3}}},
			source: sides{a, b}, target: sides{as(a, 11), as(b, 12), as(c, 13)},
			counts: Counts{Same: 2, Gone: 1}},
		{name: "set aside", evidence: store.Evidence{SetAside: []store.SetAside{{SourceUID: 2, Reason: "too large"}, {SourceUID: 7}}},
			source: sides{b, c}, plain: []string{"not_copied:3:0", "set_aside:2:0"}, counts: Counts{SetAside: 1, NotCopied: 1}},
		{name: "set aside under other UIDs", evidence: store.Evidence{SourceUIDValidity: 9, SetAside: []store.SetAside{{SourceUID: 2}}},
			source: sides{b}, plain: []string{"not_copied:2:0"}, counts: Counts{NotCopied: 1}},
		{name: "altered, as was noted", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 2)}, Altered: []store.Altered{noted}},
			source: sides{a, b}, target: sides{as(a, 11), {uid: 12, text: "b-b"}},
			plain: []string{"altered:2:12"}, counts: Counts{Same: 2, Altered: 1}},
		{name: "altered otherwise than was noted", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 2)}, Altered: []store.Altered{noted}},
			source: sides{a, b}, target: sides{as(a, 11), {uid: 12, text: "b+b"}},
			plain: []string{"altered:2:12"}, deep: []string{"octets:2:12"}, counts: Counts{Same: 2, Altered: 1}},
		{name: "altered, noted of another message", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 21, 2)}, Altered: []store.Altered{noted}},
			source: sides{a, b}, target: sides{as(a, 21), {uid: 22, text: "b-b"}},
			plain: []string{"octets:2:22"}, counts: Counts{Same: 1, Octets: 1}, read: 2},
		{name: "moved on the source out of another folder", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 1), run1(2, 0, 3)}},
			source: sides{a, b, c}, target: sides{as(a, 11)}, counts: Counts{Same: 1, Moved: 2}},
		{name: "one message of the target for two of the source", evidence: store.Evidence{Runs: []store.LedgerRun{run1(2, 12, 1), run1(4, 12, 1)}},
			source: sides{b, twin}, target: sides{as(b, 12)}, plain: []string{"missing:4:0"}, counts: Counts{Same: 1, Missing: 1}},
		{name: "the source does not give one", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 1)}},
			source: sides{{uid: 1, text: "a", unread: true}}, target: sides{{uid: 11, text: "aa"}},
			plain: []string{"unread:1:11"}, counts: Counts{Unread: 1}, read: 2},
		{name: "the target does not give one, of the same size", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 1)}},
			source: sides{a}, target: sides{{uid: 11, text: "a", unread: true}},
			deep: []string{"unread:1:11"}, counts: Counts{Same: 1}},
		{name: "an empty message", evidence: store.Evidence{Runs: []store.LedgerRun{run1(1, 11, 1)}},
			source: sides{{uid: 1}}, target: sides{{uid: 11}}, counts: Counts{Same: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.evidence.SourceUIDValidity == 0 {
				tc.evidence.SourceUIDValidity = 1
			}
			if tc.validity == 0 {
				tc.validity = 2
			}
			if tc.plain == nil {
				tc.plain = []string{}
			}
			if tc.deep == nil {
				tc.deep = tc.plain
			}
			sides := func() (*view, *view) { return viewOf(1, nil, tc.source), viewOf(tc.validity, tc.permanent, tc.target) }
			source, target := sides()
			f, ofSource, ofTarget := outcome(tc.evidence, source, target, tc.source, tc.target, false)
			if have := said(&f); !slices.Equal(have, tc.plain) {
				t.Errorf("plain says %q, want %q", have, tc.plain)
			}
			tc.counts.SourceSide, tc.counts.TargetSide, tc.counts.Digest = f.SourceSide, f.TargetSide, f.Digest
			if f.Counts != tc.counts {
				t.Errorf("have %+v\nwant %+v", f.Counts, tc.counts)
			}
			if n := len(ofSource) + len(ofTarget); n != tc.read {
				t.Errorf("plain reads %d messages, want %d", n, tc.read)
			}
			source, target = sides()
			f, _, _ = outcome(tc.evidence, source, target, tc.source, tc.target, true)
			if have := said(&f); !slices.Equal(have, tc.deep) {
				t.Errorf("deep says %q, want %q", have, tc.deep)
			}
			// Whatever the source has is accounted for, one way or the other.
			n := f.NotCopied + f.SetAside + f.Moved + int64(len(tc.source)) - f.SourceSide.Messages
			for _, d := range f.Differences {
				if d.Kind == Missing && source.find(d.SourceUID) >= 0 {
					n++
				}
			}
			if paired := f.SourceSide.Messages - n; f.Same > paired || f.Digest+f.Unread != paired {
				t.Errorf("of %d messages of the source %d are accounted for without the other side, and %+v", f.SourceSide.Messages, n, f.Counts)
			}
		})
	}
}

// What is listed is bounded, what is counted is not.
func TestManyDifferences(t *testing.T) {
	var list []shown
	for uid := range uint32(3 * maxDifferences) {
		list = append(list, shown{uid: uid + 1, text: "x"})
	}
	f, _, _ := outcome(store.Evidence{SourceUIDValidity: 1}, viewOf(1, nil, list), &view{}, list, nil, false)
	if f.NotCopied != 3*maxDifferences || len(f.Differences) != maxDifferences || f.Unlisted != 2*maxDifferences {
		t.Errorf("%d counted, %d listed, %d not", f.NotCopied, len(f.Differences), f.Unlisted)
	}
	r := &run{}
	for range 30 {
		r.add(f)
	}
	listed := 0
	for _, f := range r.result.Folders {
		listed += len(f.Differences)
	}
	if listed != maxListed || int64(listed)+r.result.Total.Unlisted != r.result.Total.NotCopied || r.result.Total.NotCopied != 30*3*maxDifferences {
		t.Errorf("%d listed, %+v", listed, r.result.Total)
	}
}

// Each count of a folder reaches the account's, and each kind has its count.
func TestCountsAddUp(t *testing.T) {
	var part, sum Counts
	for i, n := range part.all() {
		*n = int64(i + 1)
	}
	v := reflect.ValueOf(part)
	if fields := v.NumField() + 2; len(part.all()) != fields {
		t.Errorf("%d counts are added, there are %d", len(part.all()), fields)
	}
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s is not added", v.Type().Field(i).Name)
		}
	}
	sum.Add(&part)
	sum.Add(&part)
	seen := map[int64]bool{}
	for i, n := range sum.all() {
		if *n != 2*int64(i+1) {
			t.Errorf("count %d is %d", i, *n)
		}
	}
	for _, k := range Kinds() {
		seen[sum.Of(k)] = true
	}
	if len(seen) != len(Kinds()) {
		t.Errorf("%d kinds have %d counts", len(Kinds()), len(seen))
	}
}

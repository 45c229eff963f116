package store

import (
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func digest(n uint32) (d Digest) {
	binary.BigEndian.PutUint32(d[:], n)
	return d
}

// settled is a message of the ledger, without its octets.
type settled struct {
	Message
	targetUIDValidity uint32
}

// expand lists the messages of runs, by source UID.
func expand(runs []Run) map[uint32]settled {
	all := make(map[uint32]settled)
	for _, r := range runs {
		for n, d := range r.Digests {
			uid := r.SourceFirst + uint32(n)
			m := Message{SourceUID: uid, TargetUID: r.TargetFirst + uint32(n), Digest: d, Appended: r.Appended}
			all[uid] = settled{m, r.TargetUIDValidity}
		}
	}
	return all
}

// TestLedgerIsAMap settles random batches, with gaps on either side, among
// changes of UIDVALIDITY on both servers, and compares with plain maps.
func TestLedgerIsAMap(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "x")
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	type ledger struct {
		messages map[uint32]settled
		octets   int64
	}
	want := map[uint32]*ledger{}
	var bytes int64
	sourceNext, targetNext := map[uint32]uint32{}, uint32(1)
	for range 50 {
		switch rnd.IntN(12) {
		case 0: // to another or back to an earlier one
			f.SourceUIDValidity = 1 + rnd.Uint32N(3)
			ok(t, c.PutFolder(t.Context(), &f))
		case 1:
			f.TargetUIDValidity++
			ok(t, c.PutFolder(t.Context(), &f))
		}
		v := f.SourceUIDValidity
		if want[v] == nil {
			want[v] = &ledger{messages: map[uint32]settled{}}
			sourceNext[v] = 1
		}
		var done []Message
		for range rnd.IntN(200) {
			if rnd.IntN(40) == 0 {
				sourceNext[v] += 1 + rnd.Uint32N(5)
			}
			if rnd.IntN(40) == 0 {
				targetNext += 1 + rnd.Uint32N(5)
			}
			m := Message{SourceUID: sourceNext[v], TargetUID: targetNext, Digest: digest(rnd.Uint32()),
				Octets: rnd.Int64N(1000), Appended: rnd.IntN(60) > 0}
			sourceNext[v]++
			targetNext++
			done = append(done, m)
			if m.Appended {
				bytes += m.Octets
			}
			want[v].octets += m.Octets
			m.Octets = 0
			want[v].messages[m.SourceUID] = settled{m, f.TargetUIDValidity}
		}
		var i *Intent
		if rnd.IntN(3) > 0 {
			i = &Intent{FolderID: f.ID, SourceUIDValidity: v, TargetUIDValidity: f.TargetUIDValidity, TargetUIDNext: targetNext}
			ok(t, c.OpenIntent(t.Context(), i))
		}
		rnd.Shuffle(len(done), func(a, b int) { done[a], done[b] = done[b], done[a] })
		ok(t, c.Settle(t.Context(), f.ID, i, done))
	}
	past, total := 0, 0
	for _, l := range want {
		total += len(l.messages)
	}
	for v, l := range want {
		f.SourceUIDValidity = v
		ok(t, c.PutFolder(t.Context(), &f))
		runs, err := c.Ledger(t.Context(), f.ID)
		ok(t, err)
		if have := expand(runs); !reflect.DeepEqual(have, l.messages) {
			t.Errorf("UIDVALIDITY %d: %d messages, want %d", v, len(have), len(l.messages))
		}
		var octets int64
		for _, r := range runs {
			octets += r.Octets
			if len(r.Digests) > maxRun || len(r.Digests) == 0 {
				t.Errorf("a run of %d", len(r.Digests))
			}
		}
		if octets != l.octets || !slices.IsSortedFunc(runs, func(a, b Run) int { return int(a.SourceFirst) - int(b.SourceFirst) }) {
			t.Errorf("UIDVALIDITY %d: %d octets, want %d, or not in order", v, octets, l.octets)
		}
		ok(t, c.Refresh(t.Context()))
		if c.Account.Messages != int64(total) || c.Account.Bytes != bytes {
			t.Errorf("counted %d messages, %d bytes", c.Account.Messages, c.Account.Bytes)
		}
		earlier, err := c.PastLedger(t.Context(), f.ID)
		ok(t, err)
		for _, r := range earlier {
			past += len(r.Digests)
		}
	}
	if past != total*(len(want)-1) {
		t.Errorf("%d past messages of %d under %d UIDVALIDITYs", past, total, len(want))
	}
}

// TestRunsGrowInPlace: the ledger's size follows the gaps, not the batches.
func TestRunsGrowInPlace(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "x")
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	for first := uint32(1); first <= 2000; first += 50 {
		ok(t, c.Settle(t.Context(), f.ID, nil, batch(first, 50, 100)))
	}
	runs, err := c.Ledger(t.Context(), f.ID)
	ok(t, err)
	if len(runs) != 2 {
		t.Errorf("%d rows", len(runs))
	}
}

// batch makes messages whose target UIDs lie shift above their source UIDs.
func batch(first, n, shift uint32) []Message {
	var all []Message
	for uid := first; uid < first+n; uid++ {
		all = append(all, Message{SourceUID: uid, TargetUID: uid + shift, Digest: digest(uid), Octets: 10, Appended: true})
	}
	return all
}

func TestNothingIsRecordedTwice(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "x")
	c := claim(t, s)
	for name, again := range map[string][]Message{
		"the same":     batch(11, 10, 100),
		"its end":      batch(20, 1, 500),
		"over its end": batch(19, 5, 500),
		"its start":    batch(5, 7, 500),
		"around it":    batch(5, 100, 500),
		"within":       batch(15, 2, 500),
		"twins":        append(batch(50, 1, 500), batch(50, 1, 501)...),
	} {
		t.Run(name, func(t *testing.T) {
			f := folder(t, c, name)
			ok(t, c.Settle(t.Context(), f.ID, nil, batch(11, 10, 100)))
			before := dump(t, s)
			i := Intent{FolderID: f.ID, SourceUIDValidity: 1, TargetUIDValidity: 2}
			ok(t, c.OpenIntent(t.Context(), &i))
			expect(t, c.Settle(t.Context(), f.ID, &i, again), ErrRecorded)
			open, err := c.Intents(t.Context())
			if err != nil || len(open) != 1 {
				t.Error("the intent went with what failed", err)
			}
			ok(t, c.Settle(t.Context(), f.ID, &i, nil))
			if after := dump(t, s); after != before {
				t.Errorf("%s\n%s", before, after)
			}
		})
	}
}

// A message of the target is counted once, however often the source numbers it
// anew, and stays counted when the source has it no more.
func TestMessagesAreCountedOnce(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "x")
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	recognised := func(first, n, shift uint32) []Message {
		all := batch(first, n, shift)
		for i := range all {
			all[i].Appended = false
		}
		return all
	}
	for n, step := range []struct {
		validity, target uint32 // UIDVALIDITYs
		done             []Message
		want             int64
	}{
		{1, 2, batch(1, 10, 100), 10},                                                        // target UIDs 101 to 110
		{1, 2, recognised(20, 2, 100), 12},                                                   // 120 and 121: were there before
		{7, 2, nil, 12},                                                                      // numbered anew
		{7, 2, recognised(6, 5, 100), 12},                                                    // 106 to 110
		{7, 2, batch(20, 3, 200), 15},                                                        // new ones
		{7, 2, []Message{{SourceUID: 40, Digest: digest(1)}}, 15},                            // moved here from another folder
		{3, 2, append(recognised(8, 3, 100), recognised(19, 3, 100)...), 16},                 // 108 to 110 and 119 to 121
		{3, 9, recognised(50, 3, 51), 19},                                                    // the same UIDs in another folder of that name
		{5, 2, append(recognised(1, 40, 90), Message{SourceUID: 99, TargetUID: 1}), 19 + 28}, // 91 to 130, 13 of them known, and 1
	} {
		f.SourceUIDValidity, f.TargetUIDValidity = step.validity, step.target
		ok(t, c.PutFolder(t.Context(), &f))
		ok(t, c.Settle(t.Context(), f.ID, nil, step.done))
		ok(t, c.Refresh(t.Context()))
		if c.Account.Messages != step.want || c.Account.Bytes > 130 {
			t.Errorf("step %d: %d messages, want %d; %d bytes", n, c.Account.Messages, step.want, c.Account.Bytes)
		}
	}
}

func TestIntents(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "x")
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	first := Intent{FolderID: f.ID, SourceUIDValidity: 1, TargetUIDValidity: 2, TargetUIDNext: 4294967295, Messages: []IntentMessage{
		{SourceUID: 4294967295, Size: 1 << 40, Date: time.Date(2026, 3, 1, 23, 59, 59, 0, time.FixedZone("", -5*3600-1800))},
		{SourceUID: 7, Date: time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC)},
		{SourceUID: 8},
	}}
	second := Intent{FolderID: f.ID, SourceUIDValidity: 9, Messages: []IntentMessage{}}
	ok(t, c.OpenIntent(t.Context(), &first))
	ok(t, c.OpenIntent(t.Context(), &second))
	have, err := c.Intents(t.Context())
	ok(t, err)
	if len(have) != 2 || have[0].ID != first.ID || !reflect.DeepEqual(have[1], second) {
		t.Fatalf("%+v", have)
	}
	for n, m := range have[0].Messages {
		w := first.Messages[n]
		_, zone := m.Date.Zone()
		_, want := w.Date.Zone()
		if m.SourceUID != w.SourceUID || m.Size != w.Size || !m.Date.Equal(w.Date) || zone != want || m.Date.IsZero() != w.Date.IsZero() {
			t.Errorf("%+v, want %+v", m, w)
		}
	}
	ok(t, c.Settle(t.Context(), f.ID, &first, nil))
	expect(t, c.Settle(t.Context(), f.ID, &first, nil), ErrChanged)
	// What was sent under an earlier UIDVALIDITY is recorded there, and is on
	// the target all the same.
	ok(t, c.Settle(t.Context(), f.ID, &second, batch(1, 3, 0)))
	ok(t, c.Refresh(t.Context()))
	runs, err := c.Ledger(t.Context(), f.ID)
	if err != nil || len(runs) != 0 || c.Account.Messages != 3 || c.Account.Bytes != 30 {
		t.Errorf("%v %+v %v", runs, c.Account, err)
	}
	if past, err := c.PastLedger(t.Context(), f.ID); err != nil || len(past) != 1 {
		t.Errorf("%v %v", past, err)
	}
}

func TestFolders(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "x")
	c := claim(t, s)
	want := []Folder{
		{Source: "INBOX.R&D\xff", Target: "R&-D", Selectable: true, SpecialUse: `\Sent`},
		{Source: "INBOX", Target: "INBOX", Subscribed: true, Matched: true, SourceUIDValidity: 4294967295, TargetUIDValidity: 1},
	}
	for n := range want {
		ok(t, c.PutFolder(t.Context(), &want[n]))
	}
	want[0].SourceUIDValidity, want[0].TargetUIDValidity, want[0].Subscribed, want[0].Matched = 3, 4, true, true
	ok(t, c.PutFolder(t.Context(), &want[0]))
	have, err := c.Folders(t.Context())
	if err != nil || !reflect.DeepEqual(have, want) {
		t.Errorf("%+v %v", have, err)
	}
	for name, f := range map[string]Folder{
		"a source twice": {Source: "INBOX", Target: "other"}, "a target twice": {Source: "other", Target: "R&-D"},
		"another account's": {ID: 99},
	} {
		if c.PutFolder(t.Context(), &f) == nil {
			t.Error(name)
		}
	}
	// Another account may have the same names, and not this one's folders.
	begin(t, s, "bert", "x")
	other := claim(t, s)
	folder(t, other, "INBOX")
	if err := other.Settle(t.Context(), want[0].ID, nil, batch(1, 1, 0)); err == nil {
		t.Error("settled in another account's folder")
	}
}

// The administrator sees an account's folders while nobody has a claim on it.
func TestFolderCounts(t *testing.T) {
	s := openDir(t, t.TempDir())
	a := begin(t, s, "anna", "x")
	c := claim(t, s)
	inbox, empty := folder(t, c, "INBOX"), folder(t, c, "Empty")
	ok(t, c.Settle(t.Context(), inbox.ID, nil, batch(1, 3, 0)))
	ok(t, c.Settle(t.Context(), inbox.ID, nil, batch(9, 2, 0)))
	ok(t, c.PutAside(t.Context(), &SetAside{FolderID: inbox.ID, SourceUID: 4}, strings.NewReader("x")))
	ok(t, c.NoteAltered(t.Context(), Altered{FolderID: inbox.ID, SourceUID: 1}, Altered{FolderID: inbox.ID, SourceUID: 2}))
	ok(t, c.Release(t.Context(), Copying, "", time.Now(), false))
	// Another account's are not shown.
	begin(t, s, "bert", "x")
	expectFolders := func(want ...FolderCounts) {
		t.Helper()
		if have, err := s.Folders(t.Context(), a.ID); err != nil || !reflect.DeepEqual(have, want) {
			t.Errorf("%+v %v, want %+v", have, err, want)
		}
	}
	expectFolders(FolderCounts{Folder: inbox, Messages: 5, SetAside: 1, Altered: 2}, FolderCounts{Folder: empty})
	// Under another UIDVALIDITY nothing is there yet, and nothing is forgotten.
	c = claim(t, s)
	inbox.SourceUIDValidity++
	ok(t, c.PutFolder(t.Context(), &inbox))
	expectFolders(FolderCounts{Folder: inbox, SetAside: 1, Altered: 2}, FolderCounts{Folder: empty})
}

func BenchmarkSettle50(b *testing.B) {
	s := openDir(b, b.TempDir())
	begin(b, s, "anna", "x")
	c := claim(b, s)
	f := folder(b, c, "INBOX")
	first := uint32(1)
	for b.Loop() {
		i := Intent{FolderID: f.ID, SourceUIDValidity: 1, TargetUIDValidity: 2, Messages: make([]IntentMessage, 50)}
		ok(b, c.OpenIntent(b.Context(), &i))
		ok(b, c.Settle(b.Context(), f.ID, &i, batch(first, 50, 7)))
		first += 50
	}
}

package store

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// A message that is refused again after the source changed its UIDs is not kept
// twice; of two equal ones both are.
func TestPutAsideUnderAnotherUIDValidity(t *testing.T) {
	s := openDir(t, t.TempDir())
	a := begin(t, s, "anna", "x")
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	for range 2 {
		for uid := range uint32(2) {
			m := SetAside{FolderID: f.ID, SourceUID: uid + 1, Digest: digest(7)}
			ok(t, c.PutAside(t.Context(), &m, strings.NewReader("refused")))
		}
		have, err := s.SetAside(t.Context(), a.ID)
		now, _ := s.Account(t.Context(), a.Identity.Address())
		if err != nil || len(have) != 2 || now.SetAside != 2 {
			t.Fatalf("%d messages, %d counted, %v", len(have), now.SetAside, err)
		}
		f.SourceUIDValidity++
		ok(t, c.PutFolder(t.Context(), &f))
	}
}

func TestPutAside(t *testing.T) {
	s := openDir(t, t.TempDir())
	a := begin(t, s, "anna", "x")
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	var want []SetAside
	var contents [][]byte
	for n, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize} {
		octets := make([]byte, size)
		for i := range octets {
			octets[i] = byte(rand.Uint32())
		}
		m := SetAside{FolderID: f.ID, FolderName: "INBOX", SourceUID: uint32(n + 1), Flags: []string{`\Seen`, "$MDNSent"},
			Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600)), Reason: "8-bit in the header"}
		// The digest is known after the last octet only.
		digested := iotest.DataErrReader(io.MultiReader(bytes.NewReader(octets), readFunc(func([]byte) (int, error) {
			m.Digest = digest(uint32(n))
			return 0, io.EOF
		})))
		ok(t, c.PutAside(t.Context(), &m, digested))
		if m.ID == 0 || m.Octets != int64(size) || m.At.IsZero() {
			t.Errorf("%+v", m)
		}
		want, contents = append(want, m), append(contents, octets)
	}
	expect(t, c.PutAside(t.Context(), &SetAside{FolderID: f.ID, SourceUID: 1}, strings.NewReader("again")), ErrRecorded)
	have, err := s.SetAside(t.Context(), a.ID)
	ok(t, err)
	if len(have) != len(want) {
		t.Fatalf("%d of %d", len(have), len(want))
	}
	for n, m := range have {
		if !m.Date.Equal(want[n].Date) || m.Date.String() == m.Date.UTC().String() {
			t.Errorf("%v, want %v", m.Date, want[n].Date)
		}
		m.Date = want[n].Date
		if !reflect.DeepEqual(m, want[n]) {
			t.Errorf("%+v, want %+v", m, want[n])
		}
		var b bytes.Buffer
		ok(t, s.SetAsideOctets(t.Context(), m.ID, &b))
		if !bytes.Equal(b.Bytes(), contents[n]) {
			t.Errorf("%d octets came back other than they were", len(contents[n]))
		}
	}
	uids, err := c.SetAsideUIDs(t.Context(), f.ID)
	if err != nil || !slices.Equal(uids, []uint32{1, 2, 3, 4, 5, 6}) {
		t.Error(uids, err)
	}
	f.SourceUIDValidity++
	ok(t, c.PutFolder(t.Context(), &f))
	if uids, err := c.SetAsideUIDs(t.Context(), f.ID); err != nil || len(uids) != 0 {
		t.Error("UIDs of another UIDVALIDITY:", uids, err)
	}
	now, err := s.Account(t.Context(), a.Identity.Address())
	if err != nil || now.SetAside != 6 || now.ProgressAt.IsZero() {
		t.Errorf("%+v %v", now, err)
	}
	expect(t, s.SetAsideOctets(t.Context(), 99, io.Discard), ErrNotFound)
}

// TestCutMessageIsNotSetAside: a source that ends inside a message must not
// leave the first half of it as if it were the whole.
func TestCutMessageIsNotSetAside(t *testing.T) {
	s := openDir(t, t.TempDir())
	a := begin(t, s, "anna", "x")
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	for _, cut := range []error{io.ErrUnexpectedEOF, errors.New("reset")} {
		for _, size := range []int{10, chunkSize, chunkSize + 10} {
			octets := io.MultiReader(strings.NewReader(strings.Repeat("x", size)), iotest.ErrReader(cut))
			expect(t, c.PutAside(t.Context(), &SetAside{FolderID: f.ID, SourceUID: 1}, octets), cut)
		}
	}
	if all, err := s.SetAside(t.Context(), a.ID); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
	ok(t, c.PutAside(t.Context(), &SetAside{FolderID: f.ID, SourceUID: 1}, strings.NewReader("whole")))
}

func TestAltered(t *testing.T) {
	s := openDir(t, t.TempDir())
	a := begin(t, s, "anna", "x")
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	first := Altered{FolderID: f.ID, SourceUID: 1, TargetUID: 5, SourceSHA256: [32]byte{1}, TargetSHA256: [32]byte{2}, SourceOctets: 11, TargetOctets: 14}
	second := Altered{FolderID: f.ID, SourceUID: 2, TargetUID: 6}
	ok(t, c.NoteAltered(t.Context(), second, Altered{FolderID: f.ID, SourceUID: 1}))
	ok(t, c.NoteAltered(t.Context(), first))
	first.FolderName, second.FolderName = "INBOX", "INBOX"
	have, err := s.AlteredMessages(t.Context(), a.ID, 10)
	if err != nil || !reflect.DeepEqual(have, []Altered{first, second}) {
		t.Errorf("%+v %v", have, err)
	}
	if have, err = s.AlteredMessages(t.Context(), a.ID, 1); err != nil || len(have) != 1 {
		t.Errorf("more than the limit: %+v %v", have, err)
	}
	if err := c.NoteAltered(t.Context(), second, Altered{FolderID: 99}); err == nil {
		t.Error("noted for another account's folder")
	}
}

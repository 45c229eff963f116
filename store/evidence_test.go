package store

import (
	"reflect"
	"strings"
	"testing"
)

// Evidence has the runs of every UIDVALIDITY, and what was set aside or altered
// under the present one alone.
func TestEvidence(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "x")
	c := claim(t, s)
	f, other := folder(t, c, "INBOX"), folder(t, c, "Sent")
	f.SourceUIDValidity, f.TargetUIDValidity = 7, 70
	ok(t, c.PutFolder(t.Context(), &f))
	var want Evidence
	for _, validity := range []uint32{7, 8} {
		f.SourceUIDValidity = validity
		ok(t, c.PutFolder(t.Context(), &f))
		ok(t, c.Settle(t.Context(), f.ID, nil, []Message{{SourceUID: 1, TargetUID: 11}, {SourceUID: 2, TargetUID: 12}, {SourceUID: 5, TargetUID: 13}}))
		ok(t, c.Settle(t.Context(), other.ID, nil, []Message{{SourceUID: validity, TargetUID: validity}}))
		m := SetAside{FolderID: f.ID, SourceUID: 3, Digest: digest(validity), Reason: "too large"}
		ok(t, c.PutAside(t.Context(), &m, strings.NewReader("octets")))
		a := Altered{FolderID: f.ID, SourceUID: 2, TargetUID: 12, SourceSHA256: [32]byte{1}, TargetSHA256: [32]byte{2}, SourceOctets: 10, TargetOctets: 11}
		ok(t, c.NoteAltered(t.Context(), a))
		want.Runs = append(want.Runs, LedgerRun{validity, 1, 70, 11, 2}, LedgerRun{validity, 5, 70, 13, 1})
		want.SourceUIDValidity, want.Altered = validity, []Altered{a}
		want.SetAside = []SetAside{{ID: m.ID, FolderID: f.ID, SourceUID: 3, Octets: 6, Reason: "too large"}}
	}
	have, err := s.Evidence(t.Context(), f.ID)
	if err != nil || !reflect.DeepEqual(have, want) {
		t.Errorf("%v\nhave %+v\nwant %+v", err, have, want)
	}
	if _, err := s.Evidence(t.Context(), 99); err == nil {
		t.Error("evidence of a folder that is not there")
	}
}

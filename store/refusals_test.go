package store

import (
	"reflect"
	"testing"
)

// Of a refused message is kept, over a crash, what speaks against it; what may
// be the target's fault is forgotten.
func TestRefusals(t *testing.T) {
	s := openDir(t, t.TempDir())
	begin(t, s, "anna", "secret")
	c := claim(t, s)
	f := folder(t, c, "INBOX")
	ok(t, c.NoteRefusals(t.Context(), Refusal{FolderID: f.ID, SourceUID: 1, Reason: "together"}, Refusal{FolderID: f.ID, SourceUID: 2, Reason: "together"}))
	ok(t, c.OutliveRefusals(t.Context()))
	ok(t, c.NoteRefusals(t.Context(), Refusal{FolderID: f.ID, SourceUID: 2, Alone: true, Reason: "alone"}, Refusal{FolderID: f.ID, SourceUID: 3, Alone: true, Reason: "alone"}))
	ok(t, c.ForgetRefusals(t.Context()))
	got, err := c.Refusals(t.Context())
	ok(t, err)
	want := []Refusal{
		{FolderID: f.ID, SourceUIDValidity: f.SourceUIDValidity, SourceUID: 1, Outlived: true, Reason: "together"},
		{FolderID: f.ID, SourceUIDValidity: f.SourceUIDValidity, SourceUID: 2, Alone: true, Outlived: true, Reason: "alone"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

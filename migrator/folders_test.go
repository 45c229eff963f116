package migrator_test

import (
	"testing"

	"migproxy/store"
)

// Folders whose names differ in case only stay two folders, whether or not the
// target tells such names apart.
func TestNamesThatDifferInCase(t *testing.T) {
	fill := func(f *fakeServer) {
		f.box("INBOX")
		f.box("Archive").fill(3, false)
		f.box("archive").fill(5, false)
		f.box("archive/Old").fill(7, false)
	}
	t.Run("told apart", func(t *testing.T) {
		source, target, _, b := fakes(t, fill)
		b.anna(t)
		b.run(t, b.options(t), "anna", store.Active)
		equal(t, source, target, "Archive", "archive", "archive/Old")
	})
	t.Run("folded", func(t *testing.T) {
		source, target, _, b := fakes(t, fill)
		target.foldsCase = true
		b.anna(t)
		b.run(t, b.options(t), "anna", store.Active)
		equal(t, source, target, "Archive", "archive/Old")
		if was, is := source.contents("archive"), target.contents("archive_2"); len(was) != 5 || len(is) != 5 {
			t.Errorf("source %d, target %d", len(was), len(is))
		}
	})
	t.Run("folded, one is there", func(t *testing.T) {
		_, target, _, b := fakes(t, func(f *fakeServer) { f.box("work").fill(3, false) })
		target.foldsCase = true
		target.box("Work").fill(1, false)
		b.anna(t)
		b.run(t, b.options(t), "anna", store.Active)
		if is := target.contents("Work"); len(is) != 3 {
			t.Errorf("%d messages instead of 3, one of which was there", len(is))
		}
	})
}

package migrator_test

import (
	"fmt"
	"testing"

	"migproxy/config"
)

// What was appended, and was not settled before a crash, is on the target as it is on
// the source whatever its owner does before the next process looks: also what is not
// there any more to be held against it.
func TestParkedBatchSettledAfterItsOwnerWorked(t *testing.T) {
	folders := []string{"Work", "Tree", "Tree/a", "Gone"}
	deletes := func(f *fakeServer, suffix string) {
		for _, name := range []string{"INBOX", "Work" + suffix, "Tree" + suffix, "Tree" + suffix + "/a", "Gone" + suffix} {
			if box := f.find(name); box != nil {
				box.mails = box.mails[2:]
			}
		}
	}
	renames := func(f *fakeServer) {
		for _, name := range []string{"Work", "Tree", "Gone"} {
			f.rename(name, name+"2")
		}
	}
	for name, work := range map[string]struct{ meanwhile, later func(f *fakeServer) }{
		"deletes":                {meanwhile: func(f *fakeServer) { deletes(f, "") }},
		"renames and deletes":    {meanwhile: func(f *fakeServer) { renames(f); deletes(f, "2") }},
		"renames, deletes later": {meanwhile: renames, later: func(f *fakeServer) { deletes(f, "2") }},
		"removes folders": {meanwhile: func(f *fakeServer) {
			for _, name := range folders {
				f.remove(name)
			}
		}},
		"makes folders anew": {meanwhile: func(f *fakeServer) {
			for _, name := range folders {
				mails := f.find(name).mails
				f.remove(name)
				for _, m := range mails[1:] {
					f.box(name).add(m)
				}
			}
		}},
	} {
		for n := range 7 { // batches
			t.Run(fmt.Sprintf("%s/%d", name, n), func(t *testing.T) {
				t.Parallel()
				source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
				h := b.hold(t, nil)
				b.anna(t)
				o := b.options(t)
				o.Concurrency = 1
				k := &killer{name: "batch.acked", n: n + 1, died: make(chan struct{})}
				o.Step = k.step
				crash(t, b, o, k)
				if k.n > 0 {
					t.Fatal("the step was never passed")
				}
				source.on(func() { work.meanwhile(source) })
				h.mu.Lock()
				h.before = func(n int) bool {
					if n == 1 && work.later != nil {
						source.on(func() { work.later(source) })
					}
					return true
				}
				h.mu.Unlock()
				b.flips(t, b.options(t), source, target)
			})
		}
	}
}

package migrator_test

import (
	"testing"

	"migproxy/config"
)

// What was appended, and went from the source before that was settled, leaves the
// target too.
func TestParkedGoneBeforeItWasSettled(t *testing.T) {
	for _, step := range []string{"batch.sent", "batch.acked", "settle.before"} {
		t.Run(step, func(t *testing.T) {
			source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
			b.hold(t, nil)
			b.anna(t)
			o := b.options(t)
			o.Concurrency = 1
			k := &killer{name: step, n: 1, died: make(chan struct{})}
			o.Step = k.step
			crash(t, b, o, k)
			if k.n > 0 {
				t.Fatal("the step was never passed")
			}
			source.on(func() {
				for _, name := range []string{"INBOX", "Work", "Tree", "Tree/a", "Gone"} {
					box := source.box(name)
					box.mails = box.mails[2:]
				}
			})
			b.flips(t, b.options(t), source, target)
		})
	}
}

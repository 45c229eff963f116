package migrator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"migproxy/config"
	"migproxy/store"
)

// Wherever the process dies around the removal of a folder, the next one goes on with
// whatever its owner has put in its place meanwhile, and leaves what was delivered
// there alone.
func TestParkedCrashAroundRemoval(t *testing.T) {
	const delivered = "a: delivered\r\n\r\n"
	for _, step := range []string{"mirror.deleted", "mirror.forgotten", "remove.committed", "DELETE", "folder.removed"} {
		for name, work := range map[string]func(f *fakeServer){
			"nothing":           func(*fakeServer) {},
			"made anew":         func(f *fakeServer) { f.box("Gone").fill(8, true) },
			"made anew, empty":  func(f *fakeServer) { f.box("Gone") },
			"another renamed":   func(f *fakeServer) { f.rename("Work", "Gone") },
			"a tree renamed":    func(f *fakeServer) { f.rename("Tree", "Gone") },
			"made anew below":   func(f *fakeServer) { f.box("Gone/below").fill(3, false) },
			"made, and renamed": func(f *fakeServer) { f.box("Gone").fill(3, false); f.rename("Gone", "Again") },
		} {
			for _, delivers := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/%v", step, name, delivers), func(t *testing.T) {
					t.Parallel()
					source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
					source.box("Gone").subscribed = true
					source.onCommand = func(name, _ string) string { // a subscription outlives its folder
						if name != "LSUB" {
							return ""
						}
						all := `* LSUB () "/" Gone` + "\r\n"
						for _, box := range source.boxes {
							if box.subscribed {
								all += fmt.Sprintf("* LSUB () %q %q\r\n", source.delim, box.name)
							}
						}
						return all + "OK done"
					}
					b.hold(t, nil)
					b.anna(t)
					o := b.options(t)
					o.Concurrency = 1
					atStep(&o, "flip.closing", 1, func() { source.on(func() { source.remove("Gone") }) })
					meanwhile := func() { // the target's mu is held
						source.on(func() {
							work(source)
							if box := source.find("Gone"); box != nil {
								box.subscribed = true
							}
						})
						if delivers {
							target.box("Gone").add(fakeMail{body: delivered})
						}
					}
					if step == "DELETE" { // it is done, and its answer is lost
						target.onCommand = func(name, args string) string {
							if name != "DELETE" {
								return ""
							}
							target.onCommand = nil
							target.remove(unquote(args))
							meanwhile()
							return "* BYE"
						}
					} else {
						k := &killer{name: step, n: 1, died: make(chan struct{})}
						remove := o.Step
						o.Step = func(name string) { remove(name); k.step(name) }
						crash(t, b, o, k)
						if k.n > 0 {
							t.Error("the step was never passed")
						}
						target.on(meanwhile)
						o = b.options(t)
					}
					if !delivers {
						b.flips(t, o, source, target)
						return
					}
					if a := b.run(t, o, "anna", rest...); a.State != store.Active {
						t.Fatal(a.State, a.Reason)
					}
					was, is := source.sorted("Gone"), target.sorted("Gone")
					at := slices.IndexFunc(is, func(s string) bool { return strings.HasSuffix(s, delivered) })
					if at < 0 || !slices.Equal(was, slices.Delete(is, at, at+1)) {
						t.Errorf("source has %q, target %q", was, is)
					}
				})
			}
		}
	}
}

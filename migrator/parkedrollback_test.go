package migrator_test

import (
	"slices"
	"strings"
	"testing"

	"migproxy/config"
	"migproxy/store"
)

// parkedAndBack is an account that was parked on the source, lived on the target,
// where it got mail, and was taken back.
func parkedAndBack(t *testing.T) (source, target *fakeServer, b *bench) {
	t.Helper()
	source, target, b = parkedFakes(t, config.FlipAt{}, workFolders)
	b.hold(t, nil)
	b.anna(t)
	b.flips(t, b.options(t), source, target)
	for n := range 3 {
		target.put("INBOX", message(1000+n, "new"))
	}
	if a := b.rollback(t, b.options(t), "anna"); a.State != store.Excluded {
		t.Fatalf("%+v", a)
	}
	return source, target, b
}

func (f *fakeServer) mark(box, body string, flags ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.box(box)
	at := slices.IndexFunc(b.mails, func(m fakeMail) bool { return m.body == body })
	if at < 0 {
		f.t.Fatalf("%s has no such message", box)
	}
	b.mails[at].flags = flags
}

// What an account that was taken back has marked on the source since, of mail
// that came to it on the target, does not keep it from moving anew.
func TestParkedAgainWithReturnedMailMarked(t *testing.T) {
	source, target, b := parkedAndBack(t)
	source.mark("INBOX", message(1000, "new"), `\Seen`, `\Answered`)
	want := source.all()
	b.forth(t, b.options(t), "anna", secret)
	once(t, "source", source, want)
	once(t, "target", target, want)
	if text := strings.Join(b.events(t), "\n"); strings.Contains(text, "taken back, since the two sides") {
		t.Error(text)
	}
}

// A source that alters what is copied back to it has other octets than the target,
// which does not keep the account from moving anew.
func TestParkedAgainWithAlteredReturnedMail(t *testing.T) {
	for name, alter := range map[string]func(string) string{
		"a header": func(s string) string { return "X-Stamp: yes\r\n" + s },
		"same":     func(s string) string { return s },
	} {
		t.Run(name, func(t *testing.T) {
			source, target, b := parkedFakes(t, config.FlipAt{}, workFolders)
			b.hold(t, nil)
			b.anna(t)
			b.flips(t, b.options(t), source, target)
			target.put("INBOX", message(1000, "new"))
			source.on(func() {
				source.onAppend = func(int, []fakeMail) verdict { return verdict{tamperer: alter} }
			})
			if a := b.rollback(t, b.options(t), "anna"); a.State != store.Excluded {
				t.Fatalf("%+v", a)
			}
			there := target.all()
			b.forth(t, b.options(t), "anna", secret)
			once(t, "target", target, there)
		})
	}
}

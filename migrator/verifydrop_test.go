package migrator_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/migrator"
	"migproxy/store"
)

// A maildrop is compared with what was copied out of it, whatever its server can
// do; neither the server nor the store keeps anything of it.
func TestVerifyOverPOP3(t *testing.T) {
	message := func(i int) string { return message(i, strings.Repeat("x", i)+"\r\n") }
	for name, c := range map[string]struct {
		before, after func(*fakePOP3) // the copy
		want          string          // what verify says
	}{
		"plain":           {},
		"no line end":     {before: func(f *fakePOP3) { f.add("Subject: open\r\n\r\nno line end") }},
		"no UIDL":         {before: func(f *fakePOP3) { f.noUIDL, f.caps = true, nil }},
		"each UIDL twice": {before: func(f *fakePOP3) { each(f, func(i int, m *popMail) { m.uidl = fmt.Sprint("twice-", i/2) }) }},
		"no TOP":          {before: func(f *fakePOP3) { f.top = func(popMail, int) (string, bool) { return "", true } }},
		"sizes of files":  {before: func(f *fakePOP3) { f.size = func(m popMail) int { return len(m.body) - strings.Count(m.body, "\n") } }},
		"another order":   {after: func(f *fakePOP3) { slices.Reverse(f.mails) }},
		"locked at first": {after: func(f *fakePOP3) {
			first := f.sessions + 1
			f.login = func(n int) string {
				if n <= first+1 {
					return "[IN-USE] another session has it"
				}
				return ""
			}
		}},
		"cut once": {after: func(f *fakePOP3) {
			cut := true
			f.onMessage = func(string, popMail) (bool, bool) { was := cut; cut = false; return false, was }
		}},
		"other UIDLs":          {after: func(f *fakePOP3) { each(f, func(i int, m *popMail) { m.uidl = fmt.Sprint("renamed-", i) }) }},
		"a UIDL is shared now": {after: func(f *fakePOP3) { f.mails[1].uidl = f.mails[0].uidl }},
		"new mail":             {after: func(f *fakePOP3) { f.add("Subject: new\r\n\r\n") }, want: "[not_copied 7]"},
		"a message has left":   {after: func(f *fakePOP3) { f.mails = f.mails[1:] }},
		"not given": {after: func(f *fakePOP3) {
			bad := f.mails[2]
			f.onMessage = func(_ string, m popMail) (bool, bool) { return m == bad, false }
		}, want: "[unread 3]"},
		"altered": {after: func(f *fakePOP3) { f.mails[3].body = strings.Replace(f.mails[3].body, "x", "y", 1) }, want: "[octets 4]"},
	} {
		t.Run(name, func(t *testing.T) {
			source, _, b := popFakes(t, func(f *fakePOP3) {
				for i := range 6 {
					f.add(message(i))
				}
				if c.before != nil {
					c.before(f)
				}
			})
			b.anna(t)
			account := b.run(t, b.options(t), "anna", rest...)
			if account.State != store.Active {
				t.Fatal(account.State, account.Reason)
			}
			uidls := func() []store.UIDL {
				list, err := b.store.UIDLs(t.Context(), account.ID, 1)
				if err != nil {
					t.Fatal(err)
				}
				return list
			}
			before := uidls()
			if c.after != nil {
				c.after(source)
			}
			for _, deep := range []bool{true, false} {
				m, err := migrator.New(b.options(t))
				if err != nil {
					t.Fatal(err)
				}
				m.Hasten(20*time.Millisecond, 20*time.Second)
				m.ShortSessions(time.Nanosecond, time.Minute) // each message in a session of its own
				v := m.Verify(t.Context(), account, deep, nil)
				if len(v.Folders) != 1 || v.Problem != "" || v.Folders[0].Problem != "" {
					t.Fatalf("%+v", v)
				}
				said := ""
				for _, d := range v.Folders[0].Differences {
					said += fmt.Sprintf("[%s %d]", d.Kind, d.SourceUID)
				}
				if deep && said != c.want || c.want == "" && !v.OK() {
					t.Errorf("deep %v: %q, %+v", deep, said, v)
				}
			}
			if after := uidls(); !reflect.DeepEqual(before, after) {
				t.Errorf("%v became %v", before, after)
			}
			source.mu.Lock()
			defer source.mu.Unlock()
			if source.quitsAfterRETR() {
				t.Errorf("%v", source.log)
			}
		})
	}
}

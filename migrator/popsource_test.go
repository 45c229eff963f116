package migrator_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
)

// popFakes is a POP3 source, an empty target and a store.
func popFakes(t testing.TB, fill func(*fakePOP3)) (source *fakePOP3, target *fakeServer, b *bench) {
	source, target = newFakePOP3(t, secret), newFake(t, "")
	if fill != nil {
		fill(source)
	}
	b = newBench(t, 1, target.port, &fakeDriver{f: target})
	return source, target, b.readBy(t, source.port, config.POP3)
}

// inbox holds the target's INBOX against the maildrop, octet by octet.
func (f *fakePOP3) inbox(t testing.TB, target *fakeServer) {
	t.Helper()
	var is []string
	target.mu.Lock()
	for _, m := range target.box("INBOX").mails {
		is = append(is, m.body)
		if len(m.flags) > 0 {
			t.Errorf("flags %v", m.flags)
		}
	}
	target.mu.Unlock()
	slices.Sort(is)
	if was := f.contents(); !slices.Equal(was, is) {
		t.Errorf("the source has %d messages, the target %d, and they are not equal", len(was), len(is))
	}
}

// commands are those that the source was sent after logins, by name.
func (f *fakePOP3) commands() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	count := map[string]int{}
	for _, line := range f.log {
		name, _, _ := strings.Cut(line, " ")
		count[name]++
	}
	return count
}

// quitsAfterRETR reports whether QUIT put into effect what RETR may have marked.
func (f *fakePOP3) quitsAfterRETR() bool {
	retr := false
	for _, line := range f.log {
		switch name, _, _ := strings.Cut(line, " "); name {
		case "CAPA": // a session begins
			retr = false
		case "RETR":
			retr = true
		case "QUIT":
			if retr {
				return true
			}
		}
	}
	return false
}

const popDate = "Received: from a by b; Thu, 14 Mar 2019 05:06:07 +0100\r\nReceived: from x by a; Mon, 1 Jan 2018 00:00:00 +0000\r\n"

// Whatever a message looks like and a server does, INBOX has each message once,
// with the octets that POP3 gives, and nothing but reading was asked for.
func TestPOP3Sources(t *testing.T) {
	const ok = ""
	big := "Subject: big\r\n\r\n" + strings.Repeat("0123456789abcdef0123456789abcdef\r\n", 32_000)
	bigger := "Subject: bigger\r\n\r\n" + strings.Repeat(".0123456789abcdef0123456789abcdef\r\n", 32_000)
	odd := []string{
		".begins with a dot\r\n..two\r\n.\r\n\r\n.text\r\n...\r\n", "Subject: long\r\n\r\n" + strings.Repeat("x", 100_000) + "\r\n" + strings.Repeat(".", 70_000) + "\r\n",
		"Subject: bare\n\nLF\n.\nand\n..more\r\n", "Subject: NUL\r\n\r\na\x00b\x00\r\n", "Subject: open\r\n\r\nno line end", "Subject: CR\r\n\r\na\r.\r\rb\r\n",
		"no header\r\n", "\r\n", ".\r\n", "Subject: dot\r\n\r\n.", "Subject: \xfc\r\n\r\n\xfc\r\n", big, bigger + "no line end", "",
	}
	small := slices.DeleteFunc(slices.Clone(odd), func(body string) bool { return len(body) > 1<<20 })
	once := func() func() bool { first := true; return func() bool { was := first; first = false; return was } }
	lf := func(m popMail) int { return len(m.body) - strings.Count(m.body, "\n") }
	cutTop := func(m popMail, lines int) (string, bool) { return topLines(m.sent(), min(lines, 10)), false }
	for name, c := range map[string]struct {
		mails  []string
		spoil  func(*fakePOP3)
		retr   string // "never", "always" or, empty, as it comes
		reason string // why it waits; ok is empty
	}{
		"plain":           {retr: "never"},
		"odd messages":    {mails: odd, retr: "never"},
		"nothing in it":   {mails: []string{}},
		"one large alone": {mails: []string{big}, retr: "never"},
		"no CAPA":         {spoil: func(f *fakePOP3) { f.caps = nil }, retr: "never"},
		"USER and PASS": {spoil: func(f *fakePOP3) {
			f.caps = []string{"USER", "TOP", "UIDL"}
			f.password = strings.Trim(secret, " ")
		}},
		"sizes of files":       {mails: odd, spoil: func(f *fakePOP3) { f.size = lf }},
		"sizes of files, TOP":  {mails: []string{message(1, "\r\n"), big, message(2, "\r\n")}, spoil: func(f *fakePOP3) { f.size = lf }, retr: "never"},
		"sizes are nonsense":   {mails: odd, spoil: func(f *fakePOP3) { f.size = func(popMail) int { return 17 } }},
		"sizes are far larger": {spoil: func(f *fakePOP3) { f.size = func(popMail) int { return 3 << 20 } }},
		"large ones are wrong": {mails: []string{message(1, "\r\n"), message(2, "\r\n"), big + "x", bigger + "x", message(3, "\r\n")}, retr: "never"},
		"a large one is short": {mails: []string{message(1, "\r\n"), big, bigger, message(3, "\r\n")}, spoil: func(f *fakePOP3) {
			f.size = func(m popMail) int {
				if m.body == big {
					return len(m.body) + 1
				}
				return len(m.body)
			}
		}},
		"no UIDL":               {spoil: func(f *fakePOP3) { f.noUIDL, f.caps = true, []string{"TOP"} }, retr: "never"},
		"no UIDL, odd":          {mails: small, spoil: func(f *fakePOP3) { f.noUIDL, f.caps = true, nil }},
		"each UIDL twice":       {spoil: func(f *fakePOP3) { each(f, func(i int, m *popMail) { m.uidl = fmt.Sprint("twice-", i/2) }) }, retr: "never"},
		"one UIDL for all":      {mails: small, spoil: func(f *fakePOP3) { each(f, func(_ int, m *popMail) { m.uidl = "x" }) }},
		"UIDL in another order": {spoil: func(f *fakePOP3) { f.uidls = func(names []string) []string { slices.Reverse(names); return names } }, retr: "never"},
		"another order each time": {spoil: func(f *fakePOP3) {
			f.login = func(int) string { slices.Reverse(f.mails); return ok }
		}, retr: "never"},
		"no TOP":                    {mails: odd, spoil: func(f *fakePOP3) { f.top = func(popMail, int) (string, bool) { return "", true } }, retr: "always"},
		"TOP cuts":                  {mails: odd, spoil: func(f *fakePOP3) { f.top = cutTop }},
		"TOP cuts, sizes of files":  {mails: odd, spoil: func(f *fakePOP3) { f.top, f.size = cutTop, lf }},
		"TOP cuts, sizes are wrong": {mails: odd, spoil: func(f *fakePOP3) { f.top, f.size = cutTop, func(popMail) int { return 99 } }},
		"TOP adds a field": {mails: odd, spoil: func(f *fakePOP3) {
			f.top = func(m popMail, lines int) (string, bool) { return "X-Top: 1\r\n" + topLines(m.sent(), lines), false }
		}},
		"cut once": {mails: odd, spoil: func(f *fakePOP3) {
			cut := once()
			f.onMessage = func(string, popMail) (bool, bool) { return false, cut() }
		}},
		"every sixth is cut": {spoil: func(f *fakePOP3) {
			n := 0
			f.onMessage = func(string, popMail) (bool, bool) { n++; return false, n%6 == 5 }
		}},
		"a large one is cut": {mails: []string{message(1, "\r\n"), big, message(2, "\r\n")}, spoil: func(f *fakePOP3) {
			cut := once()
			f.onMessage = func(_ string, m popMail) (bool, bool) { return false, m.body == big && cut() }
		}},
		"locked at times": {spoil: func(f *fakePOP3) {
			f.login = func(n int) string {
				if n%2 == 0 {
					return ok
				}
				return []string{"[IN-USE] busy", "maildrop is locked", "[SYS/TEMP] not now", "[LOGIN-DELAY] later"}[n/2%4]
			}
		}},
		"EXPIRE 0":         {spoil: func(f *fakePOP3) { f.caps = append(f.caps, "EXPIRE 0") }, reason: "pop3_expire_ok"},
		"EXPIRE 0 at most": {spoil: func(f *fakePOP3) { f.caps = append(f.caps, "EXPIRE 0 USER") }, reason: "pop3_expire_ok"},
		"lists a message and does not give it": {spoil: func(f *fakePOP3) {
			bad := f.mails[7]
			f.onMessage = func(_ string, m popMail) (bool, bool) { return m == bad, false }
		}, reason: "UID 8 in INBOX"},
		"always breaks off": {spoil: func(f *fakePOP3) {
			bad := f.mails[7]
			f.onMessage = func(_ string, m popMail) (bool, bool) { return false, m == bad }
		}, reason: "UID 8 in INBOX"},
		"always breaks off at a large one": {mails: []string{message(1, "\r\n"), message(2, "\r\n"), big, message(3, "\r\n")}, spoil: func(f *fakePOP3) {
			bad := f.mails[2]
			f.onMessage = func(_ string, m popMail) (bool, bool) { return false, m == bad }
		}, reason: "UID 3 in INBOX"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, b := popFakes(t, func(f *fakePOP3) {
				if c.mails == nil {
					f.fill(40)
				}
				f.add(c.mails...)
				if c.spoil != nil {
					c.spoil(f)
				}
			})
			password := source.password
			b.begin(t, store.NewAccount{Identity: identity("anna"), Password: config.NewSecret(password)})
			a := b.run(t, b.options(t), "anna", rest...)
			for name := range source.commands() {
				if !slices.Contains([]string{"CAPA", "LIST", "UIDL", "TOP", "RETR", "QUIT"}, name) {
					t.Errorf("the source was sent %s", name)
				}
			}
			if c.reason != "" {
				if a.State != store.Waiting || !strings.Contains(a.Reason, c.reason) {
					t.Fatalf("%s: %s", a.State, a.Reason)
				}
				return
			}
			if a.State != store.Active || a.Messages != int64(len(source.mails)) || a.SetAside != 0 {
				t.Fatalf("%s, %d of %d messages: %s", a.State, a.Messages, len(source.mails), a.Reason)
			}
			source.inbox(t, target)
			retr := source.commands()["RETR"]
			if c.retr == "never" && retr > 0 || c.retr == "always" && retr < len(source.mails) {
				t.Errorf("RETR was sent %d times", retr)
			}
			if source.quitsAfterRETR() {
				t.Errorf("a session in which RETR was sent has ended with QUIT")
			}
		})
	}
}

func each(f *fakePOP3, change func(int, *popMail)) {
	for i := range f.mails {
		change(i, &f.mails[i])
	}
}

// The administrator may let EXPIRE 0 pass.
func TestPOP3ExpireOK(t *testing.T) {
	source, target, b := popFakes(t, func(f *fakePOP3) { f.fill(3); f.caps = append(f.caps, "EXPIRE 0") })
	b.domains[domain].Config.Source.POP3ExpireOK = true
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	source.inbox(t, target)
}

// The date is that of the topmost Received field, else that of Date, else none.
func TestPOP3Dates(t *testing.T) {
	bodies := map[string]string{
		popDate + "Date: Tue, 2 Jan 2018 00:00:00 +0000\r\n\r\nreceived\r\n":                      "14-Mar-2019 05:06:07 +0100",
		"Date: Tue, 2 Jan 2018 00:00:00 +0000\r\n\r\ndate\r\n":                                    "2-Jan-2018 00:00:00 +0000",
		"Received: from a\r\n by b;\r\n\tTue, 2 Jan 2018 00:00:00 -0800 (PST)\r\n\r\nfolded\r\n":  "2-Jan-2018 00:00:00 -0800",
		"Received: from a by b; once\r\ndate: Tue, 2 Jan 2018 00:00:00 +0000\r\n\r\nfallback\r\n": "2-Jan-2018 00:00:00 +0000",
		"Date: never\r\n\r\nnone\r\n":                                                                  "",
		"\r\nDate: Tue, 2 Jan 2018 00:00:00 +0000\r\n":                                                 "",
		"nonsense\r\n:\r\nDate: Tue, 2 Jan 2018 00:00:00 +0000\r\n\r\nbehind\r\n":                      "2-Jan-2018 00:00:00 +0000",
		"X: " + strings.Repeat("x", 2<<20) + "\r\nDate: Tue, 2 Jan 2018 00:00:00 +0000\r\n\r\nfar\r\n": "",
	}
	_, target, b := popFakes(t, func(f *fakePOP3) {
		for body := range bodies {
			f.add(body)
		}
	})
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	target.mu.Lock()
	defer target.mu.Unlock()
	for _, m := range target.box("INBOX").mails {
		if m.date != bodies[m.body] {
			t.Errorf("%.80q: %s", m.body, m.date)
		}
	}
}

// A crash at any step of a move from a POP3 server costs only time.
func TestCrashAtEveryStepOverPOP3(t *testing.T) {
	for _, step := range migrator.Steps() {
		for _, noUIDL := range []bool{false, true} {
			if noUIDL && !slices.Contains([]string{"intent.committed", "batch.sent.half", "batch.sent", "settle.committed"}, step) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%v", step, noUIDL), func(t *testing.T) {
				t.Parallel()
				source, target, b := popFakes(t, func(f *fakePOP3) {
					f.fill(150)
					f.noUIDL = noUIDL
					if noUIDL {
						f.caps = nil
					}
				})
				target.onAppend = func(n int, _ []fakeMail) verdict {
					if n == 2 {
						return verdict{cut: true, late: 50 * time.Millisecond}
					}
					return verdict{}
				}
				b.anna(t)
				o := b.options(t)
				o.Concurrency = 1
				k := &killer{name: step, n: 1, died: make(chan struct{})}
				o.Step = k.step
				crash(t, b, o, k)
				if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active || a.Messages != 150 {
					t.Fatalf("%s, %d messages: %s", a.State, a.Messages, a.Reason)
				}
				source.inbox(t, target)
			})
		}
	}
}

// catchUp runs until the account was caught up once more, and returns it.
func (b *bench) catchUpAnna(t testing.TB) store.Account {
	t.Helper()
	ctx := context.Background()
	before := time.Now()
	a, err := b.store.Account(ctx, identity("anna").Address())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.CatchUpNow(ctx, a.ID, time.Now()); err != nil {
		t.Fatal(err)
	}
	return b.runUntil(t, b.options(t), "anna", nil, func(a store.Account) bool { return a.CaughtUpAt.After(before) || a.Reason != "" })
}

// After the flip what arrives is added, once, and nothing that its owner deleted
// on the target comes back; not if the server names its messages anew, nor if
// another message takes a name that was shared.
func TestPOP3CatchUp(t *testing.T) {
	for name, noUIDL := range map[string]bool{"UIDL": false, "no UIDL": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, b := popFakes(t, func(f *fakePOP3) {
				f.fill(20)
				if f.noUIDL = noUIDL; noUIDL {
					f.caps = nil
				}
			})
			b.anna(t)
			if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active {
				t.Fatal(a.State, a.Reason)
			}
			source.inbox(t, target)
			expect := func(what string, want []string) {
				t.Helper()
				if a := b.catchUpAnna(t); a.State != store.Active || a.Reason != "" {
					t.Fatal(what, a.State, a.Reason)
				}
				target.mu.Lock()
				defer target.mu.Unlock()
				var is []string
				for _, m := range target.box("INBOX").mails {
					is = append(is, m.body)
				}
				slices.Sort(is)
				slices.Sort(want)
				if !slices.Equal(is, want) {
					t.Errorf("%s: %d messages, not %d", what, len(is), len(want))
				}
			}
			want := source.contents()
			appends := target.appends
			expect("nothing new", want)
			if target.appends != appends {
				t.Errorf("%d appends for nothing", target.appends-appends)
			}
			fresh := message(100, "fresh\r\n")
			source.add(fresh)
			expect("a new one", append(want, fresh))
			target.mu.Lock()
			target.box("INBOX").mails = target.box("INBOX").mails[5:] // its owner deletes
			var kept []string
			for _, m := range target.box("INBOX").mails {
				kept = append(kept, m.body)
			}
			target.mu.Unlock()
			expect("deleted on the target", kept)
			source.mu.Lock()
			each(source, func(i int, m *popMail) { m.uidl = fmt.Sprint("anew-", i) })
			source.mu.Unlock()
			expect("named anew", kept)
			newer := message(101, "newer\r\n")
			source.add(newer)
			source.mu.Lock()
			source.mails[len(source.mails)-1].uidl = source.mails[3].uidl // shared from now on
			source.mu.Unlock()
			expect("a shared name", append(kept, newer))
			newest := message(102, "newest\r\n")
			source.add(newest)
			source.mu.Lock()
			last := len(source.mails) - 1
			source.mails[last].uidl = source.mails[3].uidl
			source.mails = slices.Delete(source.mails, 3, 4)
			slices.Reverse(source.mails)
			source.mu.Unlock()
			expect("a shared name, and another order", append(kept, newer, newest))
		})
	}
}

// Names that change in the middle of a move, or fail for a while, double nothing.
func TestPOP3NamesInMidMove(t *testing.T) {
	for name, change := range map[string]func(*fakePOP3){
		"named anew":       func(f *fakePOP3) { each(f, func(i int, m *popMail) { m.uidl = fmt.Sprint("anew-", i) }) },
		"one name for all": func(f *fakePOP3) { each(f, func(_ int, m *popMail) { m.uidl = "uid-7" }) },
		"no names for a while": func(f *fakePOP3) {
			was, sessions := f.caps, f.sessions
			f.noUIDL, f.caps = true, nil
			f.login = func(n int) string {
				if n > sessions+3 {
					f.noUIDL, f.caps = false, was
				}
				return ""
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, b := popFakes(t, func(f *fakePOP3) { f.fill(350) })
			b.anna(t)
			o := b.options(t)
			o.Concurrency = 1
			k := &killer{name: "settle.committed", n: 2, died: make(chan struct{})}
			o.Step = k.step
			crash(t, b, o, k)
			if a, err := b.store.Account(context.Background(), identity("anna").Address()); err != nil || a.Messages == 0 || a.Messages == 350 {
				t.Fatal("killed too early or too late:", a.Messages, err)
			}
			source.mu.Lock()
			change(source)
			source.mu.Unlock()
			if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active || a.Messages != 350 {
				t.Fatal(a.State, a.Messages, a.Reason)
			}
			source.inbox(t, target)
		})
	}
}

// A session ends when its time is up and when nothing is read, so that others
// get the maildrop, and what comes next is read in another one.
func TestPOP3SessionsAreShort(t *testing.T) {
	source, target, b := popFakes(t, func(f *fakePOP3) { f.fill(60) })
	b.anna(t)
	o := b.options(t)
	a := b.runUntil(t, o, "anna", nil, func(a store.Account) bool { return slices.Contains(rest, a.State) },
		func(m *migrator.Migrator) { m.ShortSessions(time.Nanosecond, time.Minute) })
	if a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	source.inbox(t, target)
	if source.sessions < 10 || source.commands()["QUIT"] < 10 {
		t.Errorf("%d sessions, %v", source.sessions, source.commands())
	}
}

package migrator_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/store"
)

// popBeside is a source that is read over IMAP, with POP3 beside it that shows
// the same INBOX, whose UIDs begin at 100.
func popBeside(t testing.TB, bodies []string) (imap *fakeServer, pop *fakePOP3, b *bench) {
	imap, _, _, b = fakes(t, func(f *fakeServer) {
		f.box("INBOX").next = 100
		f.box("Work").fill(3, false)
	})
	pop = newFakePOP3(t, secret)
	for _, body := range bodies {
		imap.box("INBOX").add(fakeMail{body: body, date: "14-Mar-2019 05:06:07 +0100"})
	}
	pop.add(bodies...)
	return imap, pop, b.readBy(t, pop.port, config.IMAP, config.POP3)
}

// kept are the UIDs of anna's messages by UIDL and occurrence.
func (b *bench) kept(t testing.TB, validity uint32) map[string]uint32 {
	t.Helper()
	ctx := context.Background()
	a, err := b.store.Account(ctx, identity("anna").Address())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.CatchUpNow(ctx, a.ID, time.Now()); err != nil {
		t.Fatal(err)
	}
	c, err := b.store.ClaimNext(ctx, "reader", time.Minute)
	if err != nil || c == nil {
		t.Fatal("no claim", err)
	}
	list, err := c.UIDLs(ctx, validity)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CaughtUp(ctx, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	all := map[string]uint32{}
	for _, u := range list {
		all[fmt.Sprintf("%s/%d", u.Name, u.Occurrence)] = u.SourceUID
	}
	return all
}

// UIDLs are matched with the messages that came by IMAP: by order and size
// without reading, and by digest where these do not agree.
func TestUIDLsBesideIMAP(t *testing.T) {
	var bodies []string
	for i := range 6 {
		bodies = append(bodies, message(i, strings.Repeat("x", i)+"\r\n"))
	}
	same := func(n int) string { return message(n, "as long as others\r\n") }
	all := map[string]uint32{"uid-1/0": 100, "uid-2/0": 101, "uid-3/0": 102, "uid-4/0": 103, "uid-5/0": 104, "uid-6/0": 105}
	without := func(names ...string) map[string]uint32 {
		m := maps.Clone(all)
		for _, n := range names {
			delete(m, n)
		}
		return m
	}
	for name, c := range map[string]struct {
		bodies []string
		spoil  func(imap *fakeServer, pop *fakePOP3)
		want   map[string]uint32
		reads  int    // at most so many messages
		event  string // that says why there are none
	}{
		"the same":             {bodies: bodies, want: all},
		"all of one size":      {bodies: []string{same(1), same(2), same(3), same(4), same(5), same(6)}, want: all},
		"newer mail over POP3": {bodies: bodies, spoil: func(_ *fakeServer, pop *fakePOP3) { pop.add("new: 1\r\n\r\n") }, want: all, reads: 1},
		"newer mail by IMAP": {bodies: bodies, spoil: func(imap *fakeServer, _ *fakePOP3) { imap.box("INBOX").add(fakeMail{body: "new: 1\r\n\r\n"}) },
			want: all},
		"one is missing over POP3": {bodies: bodies, spoil: func(_ *fakeServer, pop *fakePOP3) { pop.mails = slices.Delete(pop.mails, 2, 3) },
			want: without("uid-3/0")},
		"one is missing among equal sizes": {bodies: []string{same(1), same(2), same(3), bodies[3], same(5), same(6)},
			spoil: func(_ *fakeServer, pop *fakePOP3) { pop.mails = slices.Delete(pop.mails, 1, 2) }, want: without("uid-2/0"), reads: 4},
		"another order": {bodies: bodies, spoil: func(_ *fakeServer, pop *fakePOP3) { slices.Reverse(pop.mails) }, want: all, reads: 6},
		"another way to count": {bodies: bodies, spoil: func(_ *fakeServer, pop *fakePOP3) {
			pop.size = func(m popMail) int { return len(m.body) - strings.Count(m.body, "\n") }
		}, want: all, reads: 6},
		"twins, and a name for two": {bodies: []string{bodies[0], bodies[1], bodies[1], bodies[3]}, spoil: func(_ *fakeServer, pop *fakePOP3) {
			pop.mails[2].uidl = "uid-2"
			pop.size = func(popMail) int { return 1 }
		}, want: map[string]uint32{"uid-1/0": 100, "uid-2/0": 101, "uid-2/1": 102, "uid-4/0": 103}, reads: 8},
		"POP3 does not let him in": {bodies: bodies, spoil: func(_ *fakeServer, pop *fakePOP3) { pop.password = "another" }, event: "UIDL"},
		"POP3 is locked":           {bodies: bodies, spoil: func(_ *fakeServer, pop *fakePOP3) { pop.locked = true }, event: "IN-USE"},
		"no UIDL":                  {bodies: bodies, spoil: func(_ *fakeServer, pop *fakePOP3) { pop.noUIDL, pop.caps = true, nil }, event: "no unique-ids"},
		"EXPIRE 0":                 {bodies: bodies, spoil: func(_ *fakeServer, pop *fakePOP3) { pop.caps = append(pop.caps, "EXPIRE 0") }, event: "pop3_expire_ok"},
		"breaks off": {bodies: bodies, spoil: func(_ *fakeServer, pop *fakePOP3) {
			slices.Reverse(pop.mails)
			pop.onMessage = func(string, popMail) (bool, bool) { return false, true }
		}, event: "closed the connection"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			imap, pop, b := popBeside(t, c.bodies)
			if c.spoil != nil {
				c.spoil(imap, pop)
			}
			b.anna(t)
			if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active {
				t.Fatal(a.State, a.Reason)
			}
			events, err := b.store.Events(context.Background(), identity("anna").Address(), 0, 100)
			if err != nil {
				t.Fatal(err)
			}
			said := slices.ContainsFunc(events, func(e store.Event) bool {
				return strings.Contains(e.Text, "could not be learnt") && strings.Contains(e.Text, c.event)
			})
			if said != (c.event != "") {
				t.Errorf("%v", events)
			}
			if kept := b.kept(t, imap.box("INBOX").validity); !maps.Equal(kept, c.want) {
				t.Errorf("kept %v, want %v", kept, c.want)
			}
			if commands := pop.commands(); commands["TOP"] > c.reads && c.event == "" || commands["RETR"] > 0 && c.reads < 8 {
				t.Errorf("%v", commands)
			}
		})
	}
}

// What arrives after the flip gets its UIDL as well.
func TestUIDLsOfLaterMail(t *testing.T) {
	imap, pop, b := popBeside(t, []string{message(1, "a\r\n"), message(2, "b\r\n")})
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	fresh := message(3, "c\r\n")
	imap.mu.Lock()
	imap.box("INBOX").add(fakeMail{body: fresh})
	imap.mu.Unlock()
	pop.add(fresh)
	if a := b.catchUpAnna(t); a.Reason != "" {
		t.Fatal(a.Reason)
	}
	want := map[string]uint32{"uid-1/0": 100, "uid-2/0": 101, "uid-3/0": 102}
	if kept := b.kept(t, imap.box("INBOX").validity); !maps.Equal(kept, want) {
		t.Errorf("kept %v", kept)
	}
}

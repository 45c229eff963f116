package migrator_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"migproxy/migrator"
	"migproxy/store"
)

// tellSizes has a fake server tell the sizes of its mailboxes in one answer.
func tellSizes(f *fakeServer) {
	f.caps += " LIST-STATUS STATUS=SIZE"
	f.onCommand = func(name, args string) string {
		if name != "LIST" || !strings.Contains(args, "SIZE") {
			return ""
		}
		var answer strings.Builder
		for _, b := range f.boxes {
			fmt.Fprintf(&answer, "* LIST () %q %q\r\n* STATUS %q (MESSAGES %d SIZE %d)\r\n", f.delim, b.name, b.name, len(b.mails), octetsIn(f, b.name))
		}
		return answer.String() + "OK done"
	}
}

// An account that cannot fit waits before anything is copied, with the sizes as
// the reason, and goes on by itself when there is room, or when the administrator
// says so.
func TestNoRoomIsForeseen(t *testing.T) {
	for name, c := range map[string]struct {
		told  bool   // the source tells sizes
		quota string // of the target
		want  string // in the reason; empty if the account is to be moved
		retry bool
	}{
		"too few octets":              {quota: "STORAGE 1 10", want: "octets, and the account's quota on the target leaves room for 9216"},
		"too few octets, sizes told":  {told: true, quota: "STORAGE 1 10 MESSAGE 0 1000", want: "octets, and the account's quota on the target leaves room for 9216"},
		"too few messages":            {quota: "MESSAGE 5 184", want: "180 messages, and the account's quota on the target leaves room for 179"},
		"too few messages, told":      {told: true, quota: "MESSAGE 5 184", want: "180 messages, and the account's quota on the target leaves room for 179"},
		"nothing left":                {quota: "STORAGE 20 10", want: "leaves room for 0"},
		"retried":                     {quota: "STORAGE 1 10", want: "leaves room", retry: true},
		"enough":                      {quota: "STORAGE 0 1000 MESSAGE 4 184"},
		"enough, told":                {told: true, quota: "STORAGE 0 1000 MESSAGE 4 184"},
		"another resource":            {quota: "MAILBOX 0 1"},
		"no limit":                    {quota: ""},
		"a limit beyond all measures": {quota: "STORAGE 0 9223372036854775807"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, _, b := fakes(t, twoFolders)
			if c.told {
				tellSizes(source)
			}
			target.caps += " QUOTA"
			quota := c.quota
			target.onCommand = func(command, args string) string {
				if command != "GETQUOTAROOT" {
					return ""
				}
				return `* QUOTAROOT "INBOX" ""` + "\r\n" + `* QUOTA "" (` + quota + ")\r\nOK done"
			}
			b.anna(t)
			a := b.run(t, b.options(t), "anna", rest...)
			if c.want != "" {
				if a.State != store.Waiting || !strings.Contains(a.Reason, c.want) || a.Messages != 0 || target.appends != 0 {
					t.Fatalf("%s, %d messages, %d appends: %s", a.State, a.Messages, target.appends, a.Reason)
				}
				if octets := octetsIn(source, "INBOX") + octetsIn(source, "Work"); !strings.Contains(a.Reason, fmt.Sprint(octets)) && !strings.Contains(c.want, "180") {
					t.Errorf("%d octets: %s", octets, a.Reason)
				}
				o := b.options(t)
				if c.retry {
					a = b.retryOnWaiting(t, o)
				} else {
					target.mu.Lock()
					quota = "STORAGE 0 100000"
					target.mu.Unlock()
					a = b.run(t, o, "anna", store.Active, store.Failed)
				}
			}
			if a.State != store.Active || a.Messages != 180 {
				t.Fatalf("%s, %d messages: %s", a.State, a.Messages, a.Reason)
			}
			equal(t, source, target, "INBOX", "Work")
		})
	}
}

// retryOnWaiting runs a Migrator and says retry whenever the account waits.
func (b *bench) retryOnWaiting(t *testing.T, o migrator.Options) store.Account {
	t.Helper()
	changes, unsubscribe := b.store.Subscribe(false)
	var said sync.WaitGroup
	said.Go(func() {
		for c := range changes {
			if c.State == store.Waiting {
				// It may have gone on meanwhile.
				if _, err := b.store.Retry(context.Background(), identity("anna").Address()); err != nil && !errors.Is(err, store.ErrChanged) {
					t.Error(err)
				}
			}
		}
	})
	a := b.run(t, o, "anna", store.Active, store.Failed)
	unsubscribe()
	said.Wait()
	return a
}

// Messages that are larger than the target allows are named before the first is
// copied, and set aside.
func TestLargeMessagesAreNamedFirst(t *testing.T) {
	for name, c := range map[string]struct {
		told, perFolder bool
	}{"listed": {}, "sizes told": {told: true}, "a limit for each folder": {told: true, perFolder: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			large := message(7, strings.Repeat("x", 3000))
			source, target, _, b := fakes(t, func(f *fakeServer) {
				f.box("Work").fill(2, false)
				f.box("Work").add(fakeMail{body: large})
				f.box("INBOX").fill(150, true)
			})
			if c.told {
				tellSizes(source)
			}
			target.caps += " APPENDLIMIT=3000"
			if c.perFolder {
				target.caps = strings.Replace(target.caps, "APPENDLIMIT=3000", "APPENDLIMIT LIST-STATUS", 1)
				target.onCommand = func(name, args string) string {
					if name == "LIST" && strings.Contains(args, "APPENDLIMIT") {
						return "* STATUS INBOX (APPENDLIMIT NIL)\r\n* STATUS Work (APPENDLIMIT 3000)\r\nOK done"
					}
					return ""
				}
			}
			b.anna(t)
			if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active || a.Messages != 152 || a.SetAside != 1 {
				t.Fatalf("%s, %d messages, %d aside: %s", a.State, a.Messages, a.SetAside, a.Reason)
			}
			events, err := b.store.Events(context.Background(), "", 0, 100)
			if err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("message UID 3 of Work has %d octets, and the target takes messages of up to 3000 (APPENDLIMIT): it will be set aside", len(large))
			if len(events) < 2 || !strings.Contains(events[1].Text, want) {
				t.Errorf("%v", events)
			}
		})
	}
}

func octetsIn(f *fakeServer, box string) (n int) {
	for _, m := range f.box(box).mails {
		n += len(m.body)
	}
	return n
}

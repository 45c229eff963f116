package migrator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"migproxy/config"
	"migproxy/e2e/servers"
	"migproxy/store"
)

// uidsOf selects a mailbox and lists its UIDs.
func uidsOf(t testing.TB, c *imapclient.Client, box string) []imap.UID {
	t.Helper()
	if _, err := c.Select(box, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	found, err := c.UIDSearch(&imap.SearchCriteria{}, nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	return found.AllUIDs()
}

func expunge(t testing.TB, c *imapclient.Client, box string, which ...int) {
	t.Helper()
	uids := uidsOf(t, c, box)
	var set imap.UIDSet
	for _, i := range which {
		set.AddNum(uids[i])
	}
	change(t, c, set, imap.StoreFlagsAdd, imap.FlagDeleted)
	if err := c.UIDExpunge(set).Close(); err != nil {
		t.Fatal(err)
	}
}

func change(t testing.TB, c *imapclient.Client, set imap.UIDSet, op imap.StoreFlagsOp, flags ...imap.Flag) {
	t.Helper()
	if err := c.Store(set, &imap.StoreFlags{Op: op, Flags: flags, Silent: true}, nil).Close(); err != nil {
		t.Fatal(err)
	}
}

func subscribed(t testing.TB, c *imapclient.Client) (names []string) {
	t.Helper()
	boxes, err := c.List("", "*", &imap.ListOptions{SelectSubscribed: true}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range boxes {
		if !slices.Contains(b.Attrs, imap.MailboxAttrNonExistent) {
			names = append(names, b.Mailbox)
		}
	}
	slices.Sort(names)
	return names
}

// What an owner does in a real mailbox before his flip is in the new one,
// between servers with other separators.
func TestParkedDovecot(t *testing.T) {
	do := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	folders := func(t *testing.T, c *imapclient.Client) {
		do(t, c.Rename("INBOX.Tree", "INBOX.Bush", nil).Wait())
		do(t, c.Subscribe("INBOX.Bush").Wait())
		do(t, c.Unsubscribe("INBOX.Tree").Wait())
		do(t, c.Unsubscribe("INBOX.Work").Wait())
		do(t, c.Subscribe("INBOX.Empty").Wait())
		do(t, c.Delete("INBOX.Gone.below").Wait())
		do(t, c.Delete("INBOX.Gone").Wait())
		do(t, c.Rename("INBOX.Empty", "INBOX.Bush.Void", nil).Wait())
		do(t, c.Create("INBOX.New.below", nil).Wait())
		appendMail(t, c, "INBOX.New.below", message(902, ""), time.Unix(1e9, 0))
		expunge(t, c, "INBOX.Bush", 0)
	}
	for name, work := range map[string]func(t *testing.T, c *imapclient.Client){
		"messages": func(t *testing.T, c *imapclient.Client) {
			expunge(t, c, "INBOX", 3, 4, 5, 17)
			uids := uidsOf(t, c, "INBOX")
			var moved, marked imap.UIDSet
			moved.AddNum(uids[0], uids[1], uids[9])
			marked.AddNum(uids[10], uids[11])
			_, err := c.Move(moved, "INBOX.Work").Wait()
			do(t, err)
			change(t, c, marked, imap.StoreFlagsAdd, imap.FlagFlagged, "$New")
			change(t, c, marked, imap.StoreFlagsDel, imap.FlagSeen, "$Forwarded")
			appendMail(t, c, "INBOX", message(900, ""), time.Unix(1e9, 0))
			appendMail(t, c, "INBOX.Tree", message(901, ""), time.Unix(1e9, 0))
		},
		"folders":                      folders,
		"folders, over one connection": folders,
		"one folder removed": func(t *testing.T, c *imapclient.Client) {
			do(t, c.Delete("INBOX.Gone.below").Wait())
		},
		"swapped and made anew": func(t *testing.T, c *imapclient.Client) {
			do(t, c.Rename("INBOX.Tree", "INBOX.x", nil).Wait())
			do(t, c.Rename("INBOX.Work", "INBOX.Tree", nil).Wait())
			do(t, c.Rename("INBOX.x", "INBOX.Work", nil).Wait())
			do(t, c.Delete("INBOX.Gone").Wait())
			do(t, c.Create("INBOX.Gone", nil).Wait())
			appendMail(t, c, "INBOX.Gone", message(1, ""), time.Unix(1e9, 0))
			appendMail(t, c, "INBOX.Gone", message(903, ""), time.Unix(1e9, 0))
		},
		"all of INBOX moved": func(t *testing.T, c *imapclient.Client) {
			do(t, c.Create("INBOX.Old", nil).Wait())
			var all imap.UIDSet
			all.AddNum(uidsOf(t, c, "INBOX")...)
			_, err := c.Move(all, "INBOX.Old").Wait()
			do(t, err)
			appendMail(t, c, "INBOX", message(904, ""), time.Unix(1e9, 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			extra := noSync
			if name == "folders, over one connection" {
				extra += "\nprotocol imap {\n  mail_max_userip_connections = 1\n}"
			}
			source := servers.StartDovecot(t, servers.DovecotOptions{Separator: ".", Prefix: "INBOX.", Extra: noSync})
			target := servers.StartDovecot(t, servers.DovecotOptions{Separator: "/", Extra: extra})
			source.AddUser("anna@example.com", secret)
			c := dial(t, source.IMAP, "anna@example.com", secret)
			for _, box := range []string{"INBOX.Work", "INBOX.Tree", "INBOX.Tree.a.b", "INBOX.Gone", "INBOX.Gone.below", "INBOX.Empty"} {
				do(t, c.Create(box, nil).Wait())
				do(t, c.Subscribe(box).Wait())
				for i := range 4 {
					if !strings.HasSuffix(box, "Empty") {
						appendMail(t, c, box, message(i, box), time.Unix(int64(1e9+i), 0), imap.FlagSeen)
					}
				}
			}
			for i := range 110 { // enough for several lanes
				appendMail(t, c, "INBOX", message(i/2, ""), time.Unix(int64(1e9+i), 0), imap.FlagSeen, "$Forwarded")
			}
			b := newBench(t, source.IMAP, target.IMAP, &dovecotDriver{d: target}).park(t, config.FlipAt{})
			b.begin(t, store.NewAccount{Identity: identity("anna"), Password: config.NewSecret(secret)})
			a := b.until(t, b.options(t), "anna", func(a store.Account) bool {
				if a.Flipping == store.FlipClosing {
					work(t, c)
					_, err := b.store.Hold(t.Context(), a.ID)
					do(t, err)
				}
				return slices.Contains(rest, a.State)
			})
			if a.State != store.Active {
				t.Fatal(a.State, a.Reason)
			}
			there := dial(t, target.IMAP, "anna@example.com", secret)
			was, is := mailbox(t, c), mailbox(t, there)
			n, rename := 0, strings.NewReplacer("INBOX.", "", ".", "/")
			for from, mails := range was {
				to := rename.Replace(from)
				n += len(mails)
				if got, have := is[to]; !have || !slices.Equal(mails, got) {
					t.Errorf("%s: %d messages, %s: %d messages", from, len(mails), to, len(got))
				}
				delete(is, to)
			}
			for to := range is {
				t.Errorf("%s is on the target only", to)
			}
			if a.Messages != int64(n) {
				t.Errorf("%d messages are counted, and there are %d", a.Messages, n)
			}
			var want []string
			for _, name := range subscribed(t, c) {
				want = append(want, rename.Replace(name))
			}
			if slices.Sort(want); !slices.Equal(want, subscribed(t, there)) {
				t.Errorf("subscribed are %q, not %q", subscribed(t, there), want)
			}
			text := strings.Join(b.events(t), "\n")
			if !strings.Contains(text, fmt.Sprintf("Verified before the flip: %d folders, %d messages, ", len(was), n)) || strings.Contains(text, "beside") {
				t.Error(text)
			}
		})
	}
}

package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"migproxy/e2e/servers"
)

// mail is one message of a fixture.
type mail struct {
	octets []byte
	flags  []imap.Flag
	date   time.Time
}

// login opens a connection of the tests' own to a server.
func login(t testing.TB, port int, name, pass string) *imapclient.Client {
	t.Helper()
	c, err := imapclient.DialInsecure(servers.Address(port), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Login(name, pass).Wait(); err != nil {
		t.Fatal(err)
	}
	return c
}

// appendTo stores messages in a folder; the octets must have CRLF line ends.
func appendTo(t testing.TB, c *imapclient.Client, folder string, mails ...mail) {
	t.Helper()
	for _, m := range mails {
		cmd := c.Append(folder, int64(len(m.octets)), &imap.AppendOptions{Flags: m.flags, Time: m.date})
		if _, err := cmd.Write(m.octets); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := cmd.Wait(); err != nil {
			t.Fatalf("append to %s: %v", folder, err)
		}
	}
}

// note is a small message that nobody would mistake for another.
func note(id string) mail {
	return mail{octets: fmt.Appendf(nil, "From: <b@example.net>\r\nTo: <anna@example.com>\r\nSubject: %s\r\nMessage-ID: <%s@example.net>\r\n\r\nAbout %s.\r\n", id, id, id),
		date: time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)}
}

// oddities are messages of the kinds that copiers lose or change.
func oddities() []mail {
	r := rand.New(rand.NewPCG(1, 2))
	blob := make([]byte, 700_000)
	for i := range blob {
		blob[i] = byte(r.Uint32())
	}
	var attachment bytes.Buffer
	for chunk := range slices.Chunk(blob, 57) {
		attachment.WriteString(base64.StdEncoding.EncodeToString(chunk) + "\r\n")
	}
	at := func(text, zone string) time.Time {
		d, err := time.Parse("2006-01-02 15:04:05 -0700", text+" "+zone)
		if err != nil {
			panic(err)
		}
		return d
	}
	twin := mail{octets: []byte("Subject: twin\r\n\r\nWe are two.\r\n"), date: at("2019-01-01 10:00:00", "+0100")}
	return []mail{
		{octets: []byte("Subject: no id, seen\r\n\r\nbody\r\n"), flags: []imap.Flag{imap.FlagSeen}, date: at("1996-07-17 02:44:25", "-0700")},
		twin, twin,
		{octets: []byte("Subject: the twins' cousin\r\n\r\nWe are two.\r\n"), flags: []imap.Flag{imap.FlagAnswered, imap.FlagFlagged}, date: twin.date},
		{octets: []byte("Subject: keywords\r\n\r\nx\r\n"), flags: []imap.Flag{imap.FlagSeen, "$Forwarded", "$MDNSent", "NonJunk"}, date: at("2020-02-29 23:59:59", "+0545")},
		{octets: []byte("Subject: raw \xfc\xe4\xf6 8 bit\r\n\r\nGr\xfc\xdfe\r\n"), date: at("2015-06-30 00:00:00", "+0000")},
		{octets: []byte("Subject: no body\r\n\r\n"), date: at("2001-09-09 01:46:40", "+0000")},
		{octets: []byte("no header at all\r\n"), date: at("2001-09-09 01:46:40", "+0000")},
		{octets: []byte("Subject: traps\r\n\r\nFrom the start\r\n.\r\n..\r\n* 1 FETCH (UID 7)\r\n{10}\r\n)\r\n"), date: at("2024-12-31 12:00:00", "-1100")},
		{octets: []byte("Subject: no line end at the end\r\n\r\nend"), date: at("2023-01-01 00:00:00", "+0000")},
		{octets: []byte("Subject: a long line\r\n\r\n" + strings.Repeat("x", 120_000) + "\r\n"), date: at("2022-01-01 00:00:00", "+0000")},
		{octets: append([]byte("Subject: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\n"), attachment.Bytes()...), flags: []imap.Flag{imap.FlagDraft}, date: at("2025-05-05 05:05:05", "+0200")},
		{octets: []byte("Subject: deleted, not gone\r\n\r\nx\r\n"), flags: []imap.Flag{imap.FlagDeleted}, date: at("2025-05-05 05:05:05", "+0200")},
	}
}

// folderPaths are nested, empty, oddly named and unsubscribed folders. sent is
// the name of the one that holds sent mail.
func folderPaths(sent string) [][]string {
	return [][]string{
		{sent}, {"Archive", "2024", "Q1"}, {"Entwürfe & Notizen"}, {"Lists", `quote"and\back`}, {"empty"}, {"日本語", "子"}, {"archive"}, {"not subscribed"},
	}
}

// fill makes a mailbox with folderPaths, and oddities in its INBOX.
func fill(t testing.TB, port int, name, pass, prefix, sep, sent string) {
	t.Helper()
	fillWith(t, login(t, port, name, pass), prefix, sep, oddities(), folderPaths(sent))
}

// fillWith makes a mailbox of what is given. The first folder may be there.
func fillWith(t testing.TB, c *imapclient.Client, prefix, sep string, inbox []mail, paths [][]string) {
	t.Helper()
	appendTo(t, c, "INBOX", inbox...)
	for i, path := range paths {
		folder := prefix + strings.Join(path, sep)
		if err := c.Create(folder, nil).Wait(); err != nil && i > 0 {
			t.Fatalf("create %s: %v", folder, err)
		}
		if path[0] != "not subscribed" {
			if err := c.Subscribe(folder).Wait(); err != nil {
				t.Fatal(err)
			}
		}
		if path[0] != "empty" {
			appendTo(t, c, folder, note(fmt.Sprintf("folder-%d", i)), inbox[0], note(fmt.Sprintf("second-%d", i)))
		}
	}
	if err := c.Logout().Wait(); err != nil {
		t.Fatal(err)
	}
}

// view is what one server's mailbox is, without that server's own way of
// writing names.
type view struct {
	folders    map[string][]string // messages: digest, flags, date
	subscribed []string
}

// viewOf takes a prefix and a separator away. rename gives what special-use
// folders are called on the other server.
func viewOf(t testing.TB, a answer, prefix, sep string, rename map[string]string) view {
	t.Helper()
	if !a.OK {
		t.Fatalf("cannot read the mailbox: %s", a.Error)
	}
	plain := func(name string) string {
		name = strings.ReplaceAll(strings.TrimPrefix(name, prefix), sep, "\x00")
		if to, ok := rename[name]; ok {
			return to
		}
		return name
	}
	v := view{folders: map[string][]string{}}
	for _, f := range a.Folders {
		list := []string{}
		for _, m := range f.Messages {
			date, err := time.Parse("_2-Jan-2006 15:04:05 -0700", m.Date)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, fmt.Sprintf("%s %d %v %s", m.SHA256, m.Octets, m.Flags, date.UTC().Format(time.RFC3339)))
		}
		sort.Strings(list)
		v.folders[plain(f.Name)] = list
	}
	for _, s := range a.Subscribed {
		v.subscribed = append(v.subscribed, plain(s))
	}
	sort.Strings(v.subscribed)
	return v
}

// sameMail fails unless the target shows what the source has, and nothing else.
func sameMail(t testing.TB, source, target view) {
	t.Helper()
	for name, want := range source.folders {
		got, ok := target.folders[name]
		if !ok {
			t.Errorf("%q is missing on the target, which has %q", name, keys(target.folders))
			continue
		}
		if !slices.Equal(want, got) {
			t.Errorf("%q differs\nonly on the source: %v\nonly on the target: %v", name, minus(want, got), minus(got, want))
		}
	}
	for name, got := range target.folders {
		if _, ok := source.folders[name]; !ok && len(got) > 0 {
			t.Errorf("%q is on the target only, with %d messages", name, len(got))
		}
	}
	if !slices.Equal(source.subscribed, target.subscribed) {
		t.Errorf("subscribed %q, on the target %q", source.subscribed, target.subscribed)
	}
}

func keys(m map[string][]string) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// minus is the multiset difference.
func minus(a, b []string) []string {
	count := map[string]int{}
	for _, x := range b {
		count[x]++
	}
	var rest []string
	for _, x := range a {
		if count[x]--; count[x] < 0 {
			rest = append(rest, x)
		}
	}
	return rest
}

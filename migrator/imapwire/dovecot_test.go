package imapwire_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/e2e/servers"
	"migproxy/migrator/imapwire"
	"migproxy/upstream"
)

// dovecotConn logs in by hand, so that this room is tested without another.
func dovecotConn(t *testing.T, port int, user, password string) *imapwire.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", servers.Address(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	br := bufio.NewReader(nc)
	if _, err := fmt.Fprintf(nc, "a LOGIN \"%s\" \"%s\"\r\n", user, password); err != nil {
		t.Fatal(err)
	}
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(line, "a ") {
			continue
		}
		_, after, ok := strings.Cut(line, "[CAPABILITY ")
		if !ok {
			t.Fatalf("no capabilities: %s", line)
		}
		caps, _, _ := strings.Cut(after, "]")
		_ = nc.SetDeadline(time.Time{})
		c := imapwire.New(&upstream.Session{
			Conn: nc, Reader: br, Protocol: config.IMAP, Server: servers.Address(port),
			Capabilities: strings.Fields(strings.ToUpper(caps)),
		}, imapwire.Options{Timeout: 20 * time.Second})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
}

func startDovecot(t *testing.T) (*imapwire.Conn, context.Context) {
	t.Helper()
	d := servers.StartDovecot(t, servers.DovecotOptions{Separator: ".", Prefix: "INBOX."})
	d.AddUser("anna@example.com", "secret")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return dovecotConn(t, d.IMAP, "anna@example.com", "secret"), ctx
}

// What a real server is given comes back the same.
func TestDovecotRoundTrip(t *testing.T) {
	c, ctx := startDovecot(t)
	prefix, delim, err := c.Namespace(ctx)
	if err != nil || prefix != "INBOX." || delim != '.' {
		t.Fatalf("namespace %q %q %v", prefix, delim, err)
	}
	name := "INBOX." + imapwire.EncodeName("Grüße & \"mehr\"")
	if err := c.Create(ctx, name, ""); err != nil {
		t.Fatal(err)
	}
	if err := c.Subscribe(ctx, name); err != nil {
		t.Fatal(err)
	}
	subscribed, err := c.Subscriptions(ctx, "*")
	if err != nil || !slices.Contains(subscribed, name) {
		t.Fatalf("subscribed %q %v", subscribed, err)
	}
	boxes, err := c.List(ctx, "*")
	if err != nil {
		t.Fatal(err)
	}
	sent := slices.IndexFunc(boxes, func(m imapwire.Mailbox) bool { return slices.Contains(m.Attrs, `\Sent`) })
	if sent < 0 || boxes[sent].Name != "INBOX.Sent" || boxes[sent].Delim != '.' {
		t.Fatalf("no Sent among %v", boxes)
	}
	date := time.Date(2001, 2, 3, 4, 5, 6, 0, time.FixedZone("", -5*3600))
	messages := [][]byte{
		[]byte("Subject: one\r\n\r\n"),
		append([]byte("Subject: two\r\n\r\n"), bytes.Repeat([]byte("0123456789abcde\r\n"), 60_000)...),
		[]byte("Subject: three\r\n\r\n* BYE\r\n"),
	}
	a, err := c.Append(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if err := a.Add([]string{`\Seen`, `\Recent`, "$MDNSent", "key]word"}, date, int64(len(m)), bytes.NewReader(m)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.End(); err != nil {
		t.Fatal(err)
	}
	validity, uids, err := a.Wait(ctx)
	if err != nil || !slices.Equal(uids, []uint32{1, 2, 3}) {
		t.Fatalf("uids %v %v", uids, err)
	}
	status, err := c.Status(ctx, name)
	if err != nil || status.Messages != 3 || status.UIDNext != 4 || status.UIDValidity != validity {
		t.Fatalf("%+v %v", status, err)
	}
	selected, err := c.Examine(ctx, name)
	if err != nil || !selected.ReadOnly || selected.Exists != 3 || selected.UIDValidity != validity {
		t.Fatalf("%+v %v", selected, err)
	}
	var metas int
	err = c.FetchMeta(ctx, 1, 0, func(m imapwire.Meta) error {
		metas++
		slices.Sort(m.Flags)
		m.Flags = slices.DeleteFunc(m.Flags, func(f string) bool { return f == `\Recent` })
		if !m.Date.Equal(date) || !slices.Equal(m.Flags, []string{"$MDNSent", `\Seen`}) || m.Size != int64(len(messages[m.UID-1])) {
			t.Errorf("%+v", m)
		}
		return nil
	})
	if err != nil || metas != 3 {
		t.Fatalf("%d %v", metas, err)
	}
	var got int
	err = c.FetchBodies(ctx, []uint32{1, 2, 3, 9}, func(uid uint32, size int64, r io.Reader) error {
		got++
		b, err := io.ReadAll(r)
		if !bytes.Equal(b, messages[uid-1]) {
			t.Errorf("UID %d: %d octets", uid, len(b))
		}
		return err
	})
	if err != nil || got != 3 {
		t.Fatalf("%d %v", got, err)
	}
	header, err := c.FetchHeader(ctx, 2, "Subject", "Date")
	if err != nil || string(header) != "Subject: two\r\n\r\n" {
		t.Fatalf("%q %v", header, err)
	}
	if err := c.Logout(ctx); err != nil {
		t.Fatal(err)
	}
}

// Dovecot refuses at once and goes on to take the literals that do not wait.
// Whatever it refuses, the connection must be in step afterwards.
func TestDovecotRefusalKeepsInStep(t *testing.T) {
	c, ctx := startDovecot(t)
	body := bytes.Repeat([]byte("0123456789abcde\r\n"), 100_000)
	var under []*imapwire.Append
	for range 3 {
		a, err := c.Append(ctx, "INBOX.nowhere")
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := a.Add(nil, time.Time{}, int64(len(body)), bytes.NewReader(body)); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.End(); err != nil {
			t.Fatal(err)
		}
		under = append(under, a)
	}
	for _, a := range under {
		var refused *imapwire.StatusError
		if _, _, err := a.Wait(ctx); !errors.As(err, &refused) || refused.Code != "TRYCREATE" {
			t.Fatalf("got %v", err)
		}
	}
	if err := c.Noop(ctx); err != nil {
		t.Fatal(err)
	}
}

// A real server tells in one answer what a look at every message sums up to, and
// its quota beside it.
func TestSizesAndQuotaOfDovecot(t *testing.T) {
	d := servers.StartDovecot(t, servers.DovecotOptions{Extra: `mail_plugins = quota
protocol imap {
  mail_plugins = $mail_plugins imap_quota
}
plugin {
  quota = count:User quota
  quota_vsizes = yes
  quota_rule = *:storage=1M:messages=7
}
`})
	d.AddUser("u", "p")
	c, ctx := dovecotConn(t, d.IMAP, "u", "p"), t.Context()
	const body = "Subject: x\r\n\r\nx\r\n"
	for _, box := range []string{"INBOX", "INBOX", "Sent"} {
		a, err := c.Append(ctx, box)
		if err == nil {
			err = a.Add(nil, time.Time{}, int64(len(body)), strings.NewReader(body))
		}
		if err == nil {
			err = a.End()
		}
		if err == nil {
			_, _, err = a.Wait(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	sizes, ok, err := c.ListSizes(ctx, "*")
	if inbox := sizes["INBOX"]; err != nil || !ok || inbox.Messages != 2 || inbox.Size != 2*int64(len(body)) || sizes["Sent"].Size != int64(len(body)) {
		t.Errorf("%v %v %v", sizes, ok, err)
	}
	got, err := c.Quota(ctx, "INBOX")
	if want := []imapwire.Resource{{Name: "STORAGE", Usage: 1, Limit: 1024}, {Name: "MESSAGE", Usage: 3, Limit: 7}}; !c.HasQuota() || err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v %v", got, err)
	}
}

package demo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"migproxy/admin"
	"migproxy/store"
)

// show is the play itself.
type show struct {
	out        *os.File
	old, fresh *server
	settings   settings
	admin      *admin.Client
}

func (s *show) play(ctx context.Context) error {
	say(s.out, "An old server with %s and %s, a new one without anybody, and migproxy between them.\n", mover, stayer)
	say(s.out, "1. %s logs in through migproxy. Only the old server knows her.", mover)
	client, err := open(s.settings.proxy, mover, moverSecret)
	if err != nil {
		return fmt.Errorf("demo: the first login: %w", err)
	}
	defer func() { _ = client.Close() }()
	selected, err := client.Select("INBOX", nil).Wait()
	if err != nil {
		return fmt.Errorf("demo: the first login: %w", err)
	}
	say(s.out, "   She is in her mailbox, as always, with %d messages in her INBOX.", selected.NumMessages)
	say(s.out, "\n2. It is copied in the background (the old server sends %d kB/s, so that you can watch), while she works in it:", sourceRate>>10)
	if err := s.work(client); err != nil {
		return fmt.Errorf("demo: her work in the old mailbox: %w", err)
	}
	if err := s.watch(ctx); err != nil {
		return err
	}
	select {
	case <-client.Closed():
	case <-time.After(closedTimeout):
		return errors.New("demo: her client was not disconnected")
	}
	say(s.out, "   Her client was disconnected in a quiet moment; what she did is carried over.")
	say(s.out, "\n3. %s's client connects again by itself, with the same password.", mover)
	count, err := inboxOf(s.settings.proxy)
	if err != nil {
		return fmt.Errorf("demo: the second login: %w", err)
	}
	say(s.out, "   She is on the new server, with %d messages in her INBOX. The old server was not asked.", count)
	say(s.out, "\n4. Both servers are read again, folder by folder, and compared by the SHA-256 of each message.\n")
	return s.compare()
}

// work is what she does in the old mailbox meanwhile.
func (s *show) work(c *imapclient.Client) error {
	if err := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagFlagged}}, nil).Close(); err != nil {
		return err
	}
	say(s.out, "     she flags a message,")
	if err := c.Store(imap.SeqSetNum(2), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
		return err
	}
	if err := c.Expunge().Close(); err != nil {
		return err
	}
	say(s.out, "     deletes another,")
	if err := c.Create("Holidays", nil).Wait(); err != nil {
		return err
	}
	text := "From: <" + mover + ">\r\nSubject: Tickets\r\n\r\nTo be printed.\r\n"
	write := c.Append("Holidays", int64(len(text)), nil)
	if _, err := io.WriteString(write, text); err != nil {
		return err
	}
	if err := write.Close(); err != nil {
		return err
	}
	if _, err := write.Wait(); err != nil {
		return err
	}
	say(s.out, "     and makes a folder, with a new message in it.\n")
	return nil
}

func (s *show) invite() {
	say(s.out, `
Everything stays up until Ctrl-C. Try it with your own client:

  IMAP server   %s   (no TLS, on this machine only)
  has moved     %s   password: %s
  will move     %s   password: %s

  metrics       http://%s/metrics
  state         migproxy status --config %s`, s.settings.proxy, mover, moverSecret, stayer, stayerSecret, s.settings.admin, s.settings.path)
}

// watch shows the progress of the copy until the account lives on the new
// server.
func (s *show) watch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	p := newProgress(s.out)
	defer p.close()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		a, err := s.admin.Account(ctx, mover)
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		p.show(a.Messages, a.Expected)
		switch a.State {
		case store.Active, store.Finished:
			return nil
		case store.Failed, store.Waiting, store.Conflict:
			return fmt.Errorf("demo: the copy stopped: %s", a.Error)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("demo: the copy has not ended: %w", ctx.Err())
		}
	}
}

// progress is a bar on a terminal and plain lines elsewhere.
type progress struct {
	out   io.Writer
	bars  *mpb.Progress // nil without a terminal
	bar   *mpb.Bar
	shown int64
}

func newProgress(out *os.File) *progress {
	p := &progress{out: out, shown: -1}
	if term.IsTerminal(int(out.Fd())) {
		p.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(48), mpb.WithRefreshRate(100*time.Millisecond))
		p.bar = p.bars.New(0, mpb.BarStyle(),
			mpb.PrependDecorators(decor.Name("   "+mover+" ")),
			mpb.AppendDecorators(decor.CountersNoUnit(" %d of %d messages"), decor.Percentage(decor.WC{W: 6})))
	}
	return p
}

func (p *progress) show(messages, expected int64) {
	if p.bar != nil {
		p.bar.SetTotal(expected, false)
		p.bar.SetCurrent(messages)
		return
	}
	if expected > 0 && (messages-p.shown >= expected/5 || messages == expected && p.shown != expected) {
		say(p.out, "   %d of %d messages", messages, expected)
		p.shown = messages
	}
}

func (p *progress) close() {
	if p.bar != nil {
		p.bar.SetTotal(p.bar.Current(), true)
		p.bars.Wait()
	}
}

// compare reads both servers with go-imap's client, which the copier does not
// use, and prints a line for each folder.
func (s *show) compare() error {
	before, err := digests(s.old.addr)
	if err != nil {
		return fmt.Errorf("demo: reading the old server: %w", err)
	}
	after, err := digests(s.fresh.addr)
	if err != nil {
		return fmt.Errorf("demo: reading the new server: %w", err)
	}
	names := make([]string, 0, len(before))
	for name := range before {
		names = append(names, name)
	}
	sort.Strings(names)
	same := len(before) == len(after)
	for _, name := range names {
		verdict := "the same"
		if strings.Join(before[name], " ") != strings.Join(after[name], " ") {
			verdict, same = "DIFFERENT", false
		}
		// Column widths count characters, as a terminal does for most alphabets.
		say(s.out, "   %-30s %4d  %4d  %s", name, len(before[name]), len(after[name]), verdict)
	}
	if !same {
		return errors.New("demo: the new server does not have what the old one has")
	}
	return nil
}

// digests is what a server has in each folder: of each message the SHA-256 of
// its octets, its flags and its date.
func digests(addr string) (map[string][]string, error) {
	c, err := open(addr, mover, moverSecret)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	list, err := c.List("", "*", nil).Collect()
	if err != nil {
		return nil, err
	}
	all := map[string][]string{}
	for _, l := range list {
		selected, err := c.Select(l.Mailbox, &imap.SelectOptions{ReadOnly: true}).Wait()
		if err != nil {
			return nil, err
		}
		all[l.Mailbox] = []string{}
		if selected.NumMessages == 0 {
			continue
		}
		body := &imap.FetchItemBodySection{Peek: true}
		messages, err := c.Fetch(imap.SeqSet{{Start: 1}}, &imap.FetchOptions{Flags: true, InternalDate: true,
			BodySection: []*imap.FetchItemBodySection{body}}).Collect()
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			flags := slices.Sorted(slices.Values(m.Flags))
			all[l.Mailbox] = append(all[l.Mailbox], fmt.Sprintf("%x %v %d", sha256.Sum256(m.FindBodySection(body)), flags, m.InternalDate.Unix()))
		}
		sort.Strings(all[l.Mailbox])
	}
	return all, nil
}

func inboxOf(proxy string) (uint32, error) {
	c, err := open(proxy, mover, moverSecret)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	selected, err := c.Select("INBOX", nil).Wait()
	if err != nil {
		return 0, err
	}
	return selected.NumMessages, nil
}

func open(addr, name, password string) (*imapclient.Client, error) {
	c, err := imapclient.DialInsecure(addr, nil)
	if err != nil {
		return nil, err
	}
	if err := c.Login(name, password).Wait(); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

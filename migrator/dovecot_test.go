package migrator_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"migproxy/config"
	"migproxy/e2e/servers"
	"migproxy/migrator"
	"migproxy/provision"
	"migproxy/store"
	"migproxy/store/storetest"
	"migproxy/upstream"
)

const (
	domain = "example.com"
	// noSync spares the tests the time of a disk.
	noSync = "mail_fsync = never"
)

// dovecotDriver creates accounts in a test Dovecot.
type dovecotDriver struct {
	d  *servers.Dovecot
	mu sync.Mutex
	// sets counts passwords that were set on accounts that were there.
	sets int
}

func (p *dovecotDriver) Lookup(_ context.Context, id config.Identity) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, err := os.ReadFile(p.d.PasswdFile)
	if err == nil && strings.Contains("\n"+string(b), "\n"+id.Address()+":") {
		err = provision.ErrTaken
	}
	return err
}

func (p *dovecotDriver) Ensure(ctx context.Context, id config.Identity, password config.Secret) error {
	if errors.Is(p.Lookup(ctx, id), provision.ErrTaken) {
		return nil
	}
	p.d.AddUser(id.Address(), password.Reveal())
	return nil
}

func (p *dovecotDriver) SetPassword(_ context.Context, id config.Identity, password config.Secret) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sets++
	b, err := os.ReadFile(p.d.PasswdFile)
	if err != nil {
		return err
	}
	lines := slices.DeleteFunc(strings.SplitAfter(string(b), "\n"), func(l string) bool { return strings.HasPrefix(l, id.Address()+":") })
	if err := os.WriteFile(p.d.PasswdFile, []byte(strings.Join(lines, "")), 0o644); err != nil {
		return err
	}
	p.d.AddUser(id.Address(), password.Reveal())
	return nil
}

func (*dovecotDriver) AddAlias(context.Context, config.Identity, string) error    { return nil }
func (*dovecotDriver) RemoveAlias(context.Context, config.Identity, string) error { return nil }

// bench is a source, a target and a store.
type bench struct {
	store   *store.Store
	domains map[string]*upstream.Domain
	driver  provision.Driver
}

func newBench(t testing.TB, sourcePort, targetPort int, driver provision.Driver) *bench {
	t.Helper()
	server := func(port int) *config.Server {
		return &config.Server{Address: config.Addresses{{Host: "127.0.0.1", Port: uint16(port)}}, TLS: config.TLSNone}
	}
	cfg := &config.Config{Domains: []config.Domain{{Name: domain,
		Source: config.Source{IMAP: server(sourcePort)}, Target: config.Target{IMAP: server(targetPort)}}}}
	log := zap.NewNop()
	domains, err := upstream.Domains(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	dir := memoryDir(t)
	s, err := store.Open(context.Background(), storetest.State(t, dir), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &bench{store: s, domains: domains, driver: driver}
}

// memoryDir is a directory in memory where the system has one: the tests make
// many databases, and a disk's syncs take most of their time.
func memoryDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "migproxy-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (b *bench) options(t testing.TB) migrator.Options {
	drivers := map[string]provision.Driver{}
	if b.driver != nil {
		drivers[domain] = b.driver
	}
	return migrator.Options{Store: b.store, Domains: b.domains, Drivers: drivers, Owner: "test", Concurrency: 2, Grace: 10 * time.Second,
		CatchUp: time.Hour, SettleQuiet: 250 * time.Millisecond, Metrics: prometheus.NewRegistry(), Log: zaptest.NewLogger(t)}
}

func identity(local string) config.Identity {
	return config.Identity{Login: local + "@" + domain, Local: local, Domain: domain}
}

func (b *bench) begin(t testing.TB, n store.NewAccount) store.Account {
	t.Helper()
	if n.Mode == "" {
		n.Mode = config.ModeAccounts
	}
	a, begun, err := b.store.Begin(context.Background(), n)
	if err != nil || !begun {
		t.Fatalf("begin: %v %v", begun, err)
	}
	return a
}

// readBy has the source read over these protocols; pop3 is the port of its POP3.
func (b *bench) readBy(t testing.TB, pop3 int, protocols ...config.Protocol) *bench {
	t.Helper()
	cfg := *b.domains[domain].Config
	cfg.Source.Protocols = protocols
	cfg.Source.POP3 = &config.Server{Address: config.Addresses{{Host: "127.0.0.1", Port: uint16(pop3)}}, TLS: config.TLSNone}
	domains, err := upstream.Domains(&config.Config{Domains: []config.Domain{cfg}}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	b.domains = domains
	return b
}

// run runs a Migrator until the account is in one of the states, and returns it.
func (b *bench) run(t testing.TB, o migrator.Options, local string, states ...store.State) store.Account {
	t.Helper()
	return b.until(t, o, local, func(a store.Account) bool { return slices.Contains(states, a.State) })
}

// until runs a Migrator until the account is as wanted, and returns it.
func (b *bench) until(t testing.TB, o migrator.Options, local string, wanted func(store.Account) bool) store.Account {
	t.Helper()
	return b.untilDead(t, o, local, nil, wanted)
}

// untilDead is until, or until something has died.
func (b *bench) untilDead(t testing.TB, o migrator.Options, local string, died <-chan struct{}, wanted func(store.Account) bool) store.Account {
	t.Helper()
	return b.runUntil(t, o, local, died, wanted)
}

// runUntil runs a Migrator, prepared by some more.
func (b *bench) runUntil(t testing.TB, o migrator.Options, local string, died <-chan struct{}, wanted func(store.Account) bool, prepare ...func(*migrator.Migrator)) store.Account {
	t.Helper()
	m, err := migrator.New(o)
	if err != nil {
		t.Fatal(err)
	}
	m.Hasten(20*time.Millisecond, 20*time.Second)
	if o.Step != nil { // written for one goroutine
		m.OneLane()
	}
	for _, f := range prepare {
		f(m)
	}
	return b.untilOf(t, m, local, died, wanted)
}

// untilOf is untilDead with a Migrator that was made already.
func (b *bench) untilOf(t testing.TB, m *migrator.Migrator, local string, died <-chan struct{}, wanted func(store.Account) bool) store.Account {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	changes, unsubscribe := b.store.Subscribe(true)
	defer unsubscribe()
	ended := make(chan error, 1)
	work, stop := context.WithCancel(ctx)
	go func() { ended <- m.Run(work) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for {
		a, err := b.store.Account(ctx, identity(local).Address())
		if err != nil {
			t.Fatal(err)
		}
		if wanted(a) {
			return a
		}
		select {
		case <-changes:
		case <-died:
			return a
		case <-ctx.Done():
			t.Fatalf("still %s: %s; %+v", a.State, a.Reason, a)
		}
	}
}

// dial logs in with a client that is not the copier's.
func dial(t testing.TB, port int, user, password string) *imapclient.Client {
	t.Helper()
	c, err := imapclient.DialInsecure(servers.Address(port), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Login(user, password).Wait(); err != nil {
		t.Fatal(err)
	}
	return c
}

// mail is one message as another reader sees it.
type mail struct {
	sum   string
	flags string
	date  int64
}

// mailbox reads everything that a user has, by folder.
func mailbox(t testing.TB, c *imapclient.Client) map[string][]mail {
	t.Helper()
	boxes, err := c.List("", "*", nil).Collect()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]mail{}
	for _, box := range boxes {
		if slices.Contains(box.Attrs, imap.MailboxAttrNoSelect) {
			continue
		}
		opened, err := c.Select(box.Mailbox, &imap.SelectOptions{ReadOnly: true}).Wait()
		if err != nil {
			t.Fatal(err)
		}
		all[box.Mailbox] = []mail{}
		if opened.NumMessages == 0 {
			continue
		}
		section := &imap.FetchItemBodySection{Peek: true}
		got, err := c.Fetch(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{UID: true, Flags: true, InternalDate: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range got {
			var flags []string
			for _, f := range m.Flags {
				if !strings.EqualFold(string(f), `\Recent`) {
					flags = append(flags, string(f))
				}
			}
			slices.Sort(flags)
			all[box.Mailbox] = append(all[box.Mailbox], mail{fmt.Sprintf("%x", sha256.Sum256(m.FindBodySection(section))), strings.Join(flags, " "), m.InternalDate.Unix()})
		}
		slices.SortFunc(all[box.Mailbox], func(a, b mail) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	return all
}

func appendMail(t testing.TB, c *imapclient.Client, box, body string, date time.Time, flags ...imap.Flag) {
	t.Helper()
	cmd := c.Append(box, int64(len(body)), &imap.AppendOptions{Flags: flags, Time: date})
	if _, err := cmd.Write([]byte(body)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func message(n int, extra string) string {
	return fmt.Sprintf("From: a@%s\r\nSubject: message %d\r\nMessage-ID: <%d@x>\r\n\r\nHello %d\r\n%s", domain, n, n, n, extra)
}

// A mailbox with everything in it that a real one has comes over whole, into
// other separators, another prefix and other names for sent mail.
func TestDovecotToDovecot(t *testing.T) {
	source := servers.StartDovecot(t, servers.DovecotOptions{Separator: ".", Prefix: "INBOX.", SentName: "Gesendet", Extra: noSync})
	target := servers.StartDovecot(t, servers.DovecotOptions{Separator: "/", Extra: noSync})
	const password = `p"a\s%s `
	source.AddUser("anna@example.com", password)
	c := dial(t, source.IMAP, "anna@example.com", password)
	date := time.Date(2019, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	for i := range 230 {
		flags := []imap.Flag{}
		if i%2 == 0 {
			flags = append(flags, imap.FlagSeen, "$Forwarded")
		}
		appendMail(t, c, "INBOX", message(i/2, ""), date.Add(time.Duration(i)*time.Hour), flags...) // twins
	}
	for _, box := range []string{"INBOX.Archiv.2020", "INBOX.Entwürfe", "INBOX.empty", "INBOX.R&D x", "INBOX.Gesendet.old"} {
		if err := c.Create(box, nil).Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Subscribe("INBOX.Archiv.2020").Wait(); err != nil {
		t.Fatal(err)
	}
	appendMail(t, c, "INBOX.Archiv.2020", message(1, strings.Repeat("0123456789abcdef0123456789abcdef\r\n", 60_000)), date, imap.FlagFlagged)
	appendMail(t, c, "INBOX.Gesendet", message(2, ""), date)
	appendMail(t, c, "INBOX.R&D x", message(3, ""), date, imap.FlagAnswered, imap.FlagDraft, imap.FlagDeleted)

	b := newBench(t, source.IMAP, target.IMAP, &dovecotDriver{d: target})
	b.begin(t, store.NewAccount{Identity: identity("anna"), Password: config.NewSecret(password)})
	start := time.Now()
	a := b.run(t, b.options(t), "anna", store.Active, store.Failed, store.Waiting, store.Conflict)
	t.Log(time.Since(start))
	if a.State != store.Active || a.Messages != 233 {
		t.Fatalf("%s %d %s", a.State, a.Messages, a.Reason)
	}
	was, is := mailbox(t, c), mailbox(t, dial(t, target.IMAP, "anna@example.com", password))
	for from, to := range map[string]string{"INBOX": "INBOX", "INBOX.Archiv.2020": "Archiv/2020", "INBOX.Entwürfe": "Entwürfe",
		"INBOX.empty": "empty", "INBOX.R&D x": "R&D x", "INBOX.Gesendet": "Sent", "INBOX.Gesendet.old": "Sent/old"} {
		if _, there := is[to]; !there || !slices.Equal(was[from], is[to]) {
			t.Errorf("%s: %d messages, %s: %d messages", from, len(was[from]), to, len(is[to]))
		}
	}
	events, err := b.store.Events(context.Background(), "anna@example.com", 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, e := range events {
		texts = append(texts, e.Text)
	}
	want := []string{"Migrating 'anna@example.com'...", "Messages for 'anna@example.com' migrated, 233 messages", "'anna@example.com' migrated, 233 messages"}
	if !slices.Equal(texts, want) {
		t.Errorf("%q", texts)
	}
}

// What a real Dovecot does to odd messages is told: bare line feeds and NULs are
// altered with both digests kept, an empty message is set aside. This Dovecot
// lets each user in once only.
func TestDovecotTakesOddMessages(t *testing.T) {
	source := newFake(t, secret)
	target := servers.StartDovecot(t, servers.DovecotOptions{Separator: ".", Prefix: "INBOX.",
		Extra: noSync + "\nprotocol imap {\n  mail_max_userip_connections = 1\n}"})
	const date = "14-Mar-2019 05:06:07 +0100"
	odd := map[string]string{
		"bare LF": "Subject: lf\n\nx\n", "NUL": "Subject: nul\r\n\r\na\x00b\r\n", "8-bit header": "Subject: \xe4\r\n\r\nx\r\n",
		"no end of line": "Subject: open\r\n\r\nx", "From line": "From a@b Mon Jan  1\r\nSubject: from\r\n\r\nx\r\n",
		"long line": "Subject: long\r\n\r\n" + strings.Repeat("x", 100_000) + "\r\n", "no header": "\r\n\r\nx\r\n",
		"big": "Subject: big\r\n\r\n" + strings.Repeat("0123456789abcdef0123456789abcdef\r\n", 300_000),
	}
	for _, body := range odd {
		source.box("INBOX").add(fakeMail{body: body, date: date, flags: []string{`\Flagged`, "$MDNSent", "Odd]Keyword"}})
	}
	source.box("INBOX").add(fakeMail{body: "", date: date})
	source.box("INBOX").fill(30, true)
	b := newBench(t, source.port, target.IMAP, &dovecotDriver{d: target})
	a := b.begin(t, store.NewAccount{Identity: identity("anna"), Password: config.NewSecret(secret)})
	a = b.run(t, b.options(t), "anna", rest...)
	if a.State != store.Active || a.Messages != int64(30+len(odd)) || a.SetAside != 1 {
		t.Fatal(a.State, a.Messages, a.SetAside, a.Reason)
	}
	altered, err := b.store.AlteredMessages(context.Background(), a.ID, 100)
	if err != nil || len(altered) != 2 {
		t.Fatalf("%+v %v", altered, err)
	}
	for _, x := range altered {
		if x.SourceSHA256 == x.TargetSHA256 {
			t.Errorf("%+v", x)
		}
	}
	have := map[string]int{}
	for _, m := range mailbox(t, dial(t, target.IMAP, "anna@example.com", secret))["INBOX"] {
		have[m.sum]++
	}
	for name, body := range odd {
		sum := fmt.Sprintf("%x", sha256.Sum256([]byte(body)))
		if n := have[sum]; n != 1 && name != "bare LF" && name != "NUL" {
			t.Errorf("%s is there %d times", name, n)
		}
	}
}

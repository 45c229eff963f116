package proxy

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

// parkedLine is a client in a parked mailbox that speaks plain lines.
type parkedLine struct {
	t       *testing.T
	session *upstream.Session
}

// park logs anna in and expects the parked mailbox.
func (w *world) park() *parkedLine {
	w.t.Helper()
	session, err := w.broker.Login(w.ctx, w.attempt(config.IMAP))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { session.Conn.Close() })
	if session.Server != parkedServer || session.Protocol != config.IMAP {
		w.t.Fatalf("led to %s", session.Server)
	}
	deadline, _ := w.ctx.Deadline()
	w.check(session.Conn.SetDeadline(deadline))
	return &parkedLine{w.t, session}
}

// client is the same with go-imap.
func (w *world) parkClient() *imapclient.Client {
	w.t.Helper()
	p := w.park()
	c := imapclient.New(&greetedConn{Conn: p.session.Conn,
		r: io.MultiReader(strings.NewReader("* PREAUTH hello\r\n"), p.session.Reader)}, nil)
	w.t.Cleanup(func() { c.Close() })
	return c
}

func (p *parkedLine) send(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.session.Conn, s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *parkedLine) line() string {
	p.t.Helper()
	line, err := p.session.Reader.ReadString('\n')
	if err != nil {
		p.t.Fatalf("%v after %q", err, line)
	}
	return strings.TrimSpace(line)
}

// until reads up to a line with this prefix and returns all of it.
func (p *parkedLine) until(prefix string) string {
	p.t.Helper()
	var all []string
	for {
		line := p.line()
		all = append(all, line)
		if strings.HasPrefix(line, prefix) {
			return strings.Join(all, "\n")
		}
	}
}

func (p *parkedLine) do(command string) string {
	p.t.Helper()
	p.send("a " + command + "\r\n")
	return p.until("a ")
}

func TestParkedMailboxReads(t *testing.T) {
	w := newWorld(t)
	c := w.parkClient()
	list, err := c.List("", "*", nil).Collect()
	if err != nil || len(list) != 1 || list[0].Mailbox != "INBOX" {
		t.Fatalf("%v %v", list, err)
	}
	if list, err = c.List("", "", nil).Collect(); err != nil || len(list) != 1 || list[0].Delim != '/' {
		t.Errorf("delimiter: %v %v", list, err)
	}
	status, err := c.Status("INBOX", &imap.StatusOptions{NumMessages: true, UIDNext: true, UIDValidity: true, NumUnseen: true}).Wait()
	w.check(err)
	selected, err := c.Select("inbox", nil).Wait()
	w.check(err)
	if selected.NumMessages != 1 || *status.NumMessages != 1 || *status.NumUnseen != 1 || len(selected.PermanentFlags) != 0 ||
		selected.UIDValidity != status.UIDValidity || selected.UIDNext != status.UIDNext {
		t.Errorf("select %+v, status %+v", selected, status)
	}
	whole := &imap.FetchItemBodySection{} // not PEEK: nothing becomes seen
	header := &imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"Subject"}, Peek: true}
	messages, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{UID: true, Flags: true, Envelope: true, InternalDate: true,
		RFC822Size: true, BodyStructure: &imap.FetchItemBodyStructure{Extended: true},
		BodySection: []*imap.FetchItemBodySection{whole, header}}).Collect()
	w.check(err)
	m := messages[0]
	body := string(m.FindBodySection(whole))
	if m.Envelope.From[0].Addr() != "postmaster@example.com" || m.Envelope.To[0].Addr() != anna || len(m.Flags) != 0 ||
		m.UID+1 != selected.UIDNext || m.RFC822Size != int64(len(body)) || m.BodyStructure.MediaType() != "text/plain" ||
		!strings.Contains(body, "None of your mail is lost") ||
		!strings.HasPrefix(string(m.FindBodySection(header)), "Subject: Your mailbox is being moved") {
		t.Errorf("%+v\n%s", m, body)
	}
	for query, want := range map[string]*imap.SearchCriteria{
		"1 all":         {},
		"1 unseen":      {NotFlag: []imap.Flag{imap.FlagSeen}},
		"0 seen":        {Flag: []imap.Flag{imap.FlagSeen}},
		"1 subject":     {Header: []imap.SearchCriteriaHeaderField{{Key: "Subject", Value: "MAILBOX is"}}},
		"0 subject":     {Header: []imap.SearchCriteriaHeaderField{{Key: "Subject", Value: "invoice"}}},
		"1 body":        {Body: []string{"none of YOUR mail"}},
		"0 body":        {Body: []string{"postmaster@example.com"}},
		"1 text":        {Text: []string{"postmaster@example.com"}},
		"0 before":      {Before: time.Now().Add(-48 * time.Hour)},
		"1 sent since":  {SentSince: time.Now().Add(-48 * time.Hour)},
		"0 large":       {Larger: 1 << 20},
		"1 uid":         {UID: []imap.UIDSet{{imap.UIDRange{Start: 1, Stop: 0}}}},
		"0 not":         {Not: []imap.SearchCriteria{{}}},
		"1 or":          {Or: [][2]imap.SearchCriteria{{{Larger: 1 << 20}, {}}}},
		"0 or, neither": {Or: [][2]imap.SearchCriteria{{{Larger: 1 << 20}, {Smaller: 1}}}},
	} {
		data, err := c.UIDSearch(want, nil).Wait()
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(len(data.AllUIDs())); got != query[:1] {
			t.Errorf("search %q found %s", query, got)
		}
	}
	idle, err := c.Idle()
	w.check(err)
	w.check(idle.Close())
	w.check(idle.Wait())
	w.check(c.UnselectAndExpunge().Wait())
	w.check(c.Logout().Wait())
}

func TestParkedNumberSets(t *testing.T) {
	for _, tt := range []struct {
		n, start, stop uint32
		want           bool
	}{
		{3, 3, 3, true}, {3, 1, 5, true}, {3, 5, 1, true}, {3, 4, 5, false},
		{7, 0, 0, true}, {6, 0, 0, false}, {7, 3, 0, true}, {7, 99, 0, true}, {6, 99, 0, false}, {5, 0, 5, true},
	} {
		if got := inRange(tt.n, tt.start, tt.stop, 7); got != tt.want {
			t.Errorf("%+v", tt)
		}
	}
}

// What a parked user does changes nothing, is refused in a way that makes his
// client try again, and is seen by nobody.
func TestParkedMutationsAreRefused(t *testing.T) {
	w := newWorld(t)
	p, other := w.park(), w.park()
	before := other.do("SELECT INBOX") + other.do("FETCH 1:* (UID FLAGS)")
	p.do("SELECT INBOX")
	for _, command := range []string{
		`STORE 1 +FLAGS (\Deleted)`, `UID STORE 1:* FLAGS.SILENT (\Seen)`, `EXPUNGE`, `UID EXPUNGE 1:*`,
		`COPY 1 INBOX`, `UID MOVE 1:* Trash`, `CREATE Sent`, `DELETE INBOX`, `RENAME INBOX Old`, `SUBSCRIBE INBOX`,
		`UNSUBSCRIBE INBOX`, `SELECT Sent`, `STATUS Sent (MESSAGES)`,
		"APPEND INBOX {5+}\r\nhello", "APPEND Sent (\\Seen) {5+}\r\nhello",
		"APPEND Sent {6000+}\r\n" + strings.Repeat("x", 6000),
	} {
		answer := p.do(command)
		if last := answer[strings.LastIndex(answer, "\n")+1:]; !strings.HasPrefix(last, "a NO [UNAVAILABLE] ") {
			t.Errorf("%.20s: %s", command, answer)
		}
		if strings.HasPrefix(command, "SELECT") {
			p.do("SELECT INBOX")
		}
	}
	// The octets of a synchronising literal are read; they are no commands.
	p.send("b APPEND Drafts {12}\r\n")
	p.until("+ ")
	p.send("c LOGOUT\r\nde\r\n")
	if got := p.line(); !strings.HasPrefix(got, "b NO [UNAVAILABLE] ") {
		t.Error(got)
	}
	for _, c := range []*parkedLine{p, other, w.park()} {
		c.do("NOOP")
		if after := c.do("SELECT INBOX") + c.do("FETCH 1:* (UID FLAGS)"); strings.ReplaceAll(after, "* OK [CLOSED] Previous mailbox is now closed\n", "") != before {
			t.Errorf("before\n%s\nafter\n%s", before, after)
		}
	}
	if w.target.count() != 1 {
		t.Error("the target was asked again")
	}
}

// flip lets the migrator end its work.
func (w *world) flip() {
	w.t.Helper()
	c := w.claim()
	w.check(c.Flip(w.ctx, store.Active, c.Account.PasswordVersion, time.Time{}))
}

func TestParkedSessionsEndWithAByeAtTheFlip(t *testing.T) {
	w := newWorld(t)
	core, logs := observer.New(zap.InfoLevel)
	parking, err := newParking(t.Context(), w.store, zap.New(core))
	w.check(err)
	w.broker.parking.close()
	w.broker.parking = parking
	quiet, selected, idling := w.park(), w.park(), w.park()
	selected.do("SELECT INBOX")
	idling.do("SELECT INBOX")
	idling.send("i IDLE\r\n")
	idling.until("+ ")
	w.flip()
	for _, p := range []*parkedLine{quiet, selected, idling} {
		if got := p.line(); !strings.HasPrefix(got, "* BYE ") {
			t.Error(got)
		}
		if _, err := p.session.Reader.ReadByte(); err != io.EOF {
			t.Errorf("after the BYE: %v", err)
		}
	}
	w.broker.Close()
	if all := logs.All(); len(all) > 0 {
		t.Errorf("the end of a session was logged as a fault: %v", all)
	}
}

func TestAfterTheFlipTheTargetAnswers(t *testing.T) {
	w := newWorld(t)
	w.park()
	w.flip()
	if got := w.login(config.IMAP); got != "miss" {
		t.Errorf("with the source's password: %s", got)
	}
	w.target.set("yes")
	if got := w.login(config.IMAP); got != "target" {
		t.Error(got)
	}
	if w.source.count() != 1 {
		t.Error("the source was asked after the flip")
	}
}

// Closing the sessions leaves nothing behind.
func TestParkedSessionsAreLetGo(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		p := w.park()
		p.do("SELECT INBOX")
		w.check(p.session.Conn.Close())
	}
	p := w.park()
	p.send("a LOGOUT\r\n")
	p.until("a OK")
	w.check(p.session.Conn.Close())
	w.broker.Close()
	if len(w.broker.watches.byAddress) != 0 || len(w.broker.parking.boxes) != 0 {
		t.Errorf("%v %v", w.broker.watches.byAddress, w.broker.parking.boxes)
	}
}

// A client that half-closes after a command still gets the whole answer.
func TestParkedHalfClose(t *testing.T) {
	w := newWorld(t)
	p := w.park()
	go func() {
		io.WriteString(p.session.Conn, "a SELECT INBOX\r\nb FETCH 1 BODY[]\r\n")
		p.session.Conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	if all, err := io.ReadAll(p.session.Reader); err != nil || !strings.Contains(string(all), "\r\nb OK ") {
		t.Errorf("%v\n%s", err, all)
	}
}

var number = regexp.MustCompile(`UIDVALIDITY (\d+)[^$]*UIDNEXT (\d+)`)

// numbers gives UIDVALIDITY and UIDNEXT.
func (p *parkedLine) numbers() (string, string) {
	p.t.Helper()
	m := number.FindStringSubmatch(p.do("SELECT INBOX"))
	if m == nil {
		p.t.Fatal("no UIDVALIDITY")
	}
	return m[1], m[2]
}

func TestNoticeFollowsProgress(t *testing.T) {
	w := newWorld(t)
	p := w.park()
	validity, next := p.numbers()
	c := w.claim()
	w.check(c.SetOrigin(w.ctx, store.OriginFree))
	w.check(c.SetOrigin(w.ctx, store.OriginCreated))
	w.check(c.SetExpected(w.ctx, 200))
	if got := p.do("NOOP"); got != "a OK NOOP completed" {
		t.Errorf("rendered anew too soon: %s", got)
	}
	box := w.broker.parking.boxes[c.Account.ID]
	box.mu.Lock()
	box.now = func() time.Time { return time.Now().Add(noticeAge) }
	box.mu.Unlock()
	if got := p.do("FETCH 1 UID"); strings.Contains(got, "EXPUNGE") {
		t.Errorf("EXPUNGE in the answer to FETCH: %s", got)
	}
	if got := p.do("NOOP"); got != "* 1 EXPUNGE\n* 1 EXISTS\na OK NOOP completed" {
		t.Error(got)
	}
	if got := p.do("FETCH 1 BODY[TEXT]"); !strings.Contains(got, "Progress: 0 of 200 messages copied (0%).") {
		t.Error(got)
	}
	// Others see the same, and nothing changes without progress.
	for _, s := range []*parkedLine{p, w.park()} {
		v, n := s.numbers()
		if v != validity || n <= next {
			t.Errorf("UIDVALIDITY %s, then %s; UIDNEXT %s, then %s", validity, v, next, n)
		}
	}
	later := func(ages time.Duration) {
		box.mu.Lock()
		defer box.mu.Unlock()
		box.now = func() time.Time { return time.Now().Add(ages * noticeAge) }
	}
	later(3)
	if got := p.do("NOOP"); got != "a OK NOOP completed" {
		t.Error(got)
	}
	w.check(c.SetExpected(w.ctx, 300))
	later(5)
	p.send("i IDLE\r\n")
	if got := p.until("* 1 EXISTS"); !strings.HasPrefix(got, "+ idling\n* 1 EXPUNGE\n") {
		t.Error(got)
	}
}

// No server gives such a UIDVALIDITY, and a restart does not change it.
func TestParkedUIDValidity(t *testing.T) {
	a := store.Account{ID: 7, CreatedAt: time.Unix(1_790_000_000, 0)}
	one := parkedUIDValidity(a, 0)
	if one != 790_000_000 || one != parkedUIDValidity(a, 0) {
		t.Error(one)
	}
	if other := parkedUIDValidity(a, 12345); other == one || other < 500_000_000 || other >= 1_000_000_000 {
		t.Error(other)
	}
}

func TestParkedCapabilities(t *testing.T) {
	w := newWorld(t)
	p := w.park()
	for _, c := range []string{"IMAP4REV1", "IDLE", "UIDPLUS", "MOVE", "NAMESPACE", "LITERAL+"} {
		if !slices.Contains(p.session.Capabilities, c) {
			t.Errorf("%s is not in %v", c, p.session.Capabilities)
		}
	}
	if got := p.do("CAPABILITY"); !strings.Contains(strings.ToUpper(got), strings.Join(p.session.Capabilities, " ")) {
		t.Errorf("%s, at the login %v", got, p.session.Capabilities)
	}
}

// When nothing has moved for parking.max, who is parked comes back and gets his
// old mailbox.
func TestStoppedAccountsAreNotParkedForEver(t *testing.T) {
	w := newWorld(t)
	p := w.park()
	w.check(w.claim().Release(w.ctx, store.Waiting, "for the test", time.Time{}, true))
	w.broker.sweep(w.ctx)
	if got := p.do("NOOP"); got != "a OK NOOP completed" {
		t.Error(got)
	}
	w.broker.now = func() time.Time { return time.Now().Add(61 * time.Minute) }
	w.broker.sweep(w.ctx)
	if got := p.line(); !strings.HasPrefix(got, "* BYE ") {
		t.Error(got)
	}
	if got := w.login(config.IMAP); got != "source" {
		t.Error(got)
	}
}

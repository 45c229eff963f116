package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/e2e/hostile"
	"migproxy/store"
	"migproxy/store/storetest"
	"migproxy/upstream"
)

// anna's mailbox is on two servers, and the ledger says so.
type world struct {
	store          *store.Store
	account        store.Account
	source, target *hostile.Server
	logins         [2]atomic.Int32
}

var identity = config.Identity{Login: "anna", Local: "anna", Domain: "example.com"}

// mailboxes are what both servers have; UIDs are higher on the target.
func mailboxes(target bool) []*hostile.Mailbox {
	first := uint32(1)
	if target {
		first = 101
	}
	box := func(name string, validity uint32, texts ...string) *hostile.Mailbox {
		b := &hostile.Mailbox{Name: name, UIDValidity: validity, UIDNext: first + uint32(len(texts))}
		for i, text := range texts {
			b.Messages = append(b.Messages, hostile.Message{UID: first + uint32(i), Flags: `\Seen`, Date: "17-Jul-1996 02:44:25 -0700",
				Octets: "Subject: " + text + "\r\n\r\n" + text + "\r\n"})
		}
		return b
	}
	return []*hostile.Mailbox{box("INBOX", 7, "one", "two", "two", strings.Repeat("large", 20_000), "five"),
		box("Sent", 8, "sent"), box("empty", 9)}
}

// newWorld makes the servers, and a ledger in which everything is copied.
func newWorld(t *testing.T, prepare ...func(*world)) *world {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), storetest.State(t, dir), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	anybody := func(string, string) bool { return true }
	w := &world{store: s, source: hostile.Start(t, anybody, mailboxes(false)...), target: hostile.Start(t, anybody, mailboxes(true)...)}
	for _, f := range prepare {
		f(w)
	}
	if _, _, err := s.Begin(t.Context(), store.NewAccount{Identity: identity, Password: config.NewSecret("x"), Mode: config.ModeAccounts}); err != nil {
		t.Fatal(err)
	}
	c, err := s.ClaimNext(t.Context(), "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	w.account = c.Account
	for i, b := range w.source.Mailboxes {
		to := w.target.Mailboxes[i]
		f := store.Folder{Source: b.Name, Target: to.Name, Selectable: true, SourceUIDValidity: b.UIDValidity, TargetUIDValidity: to.UIDValidity}
		if err := c.PutFolder(t.Context(), &f); err != nil {
			t.Fatal(err)
		}
		var done []store.Message
		for i, m := range b.Messages {
			done = append(done, store.Message{SourceUID: m.UID, TargetUID: to.Messages[i].UID, Octets: int64(len(m.Octets)), Appended: true})
		}
		if err := c.Settle(t.Context(), f.ID, nil, done); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// login logs in on a server, and counts.
func (w *world) login(t *testing.T, s *hostile.Server, count *atomic.Int32) Login {
	t.Helper()
	server, err := upstream.NewServer(config.IMAP, config.Server{Address: config.Addresses{{Host: "127.0.0.1", Port: uint16(s.Port)}}, TLS: config.TLSNone}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context) (*upstream.Session, error) {
		count.Add(1)
		return server.Login(ctx, upstream.Credentials{Identity: identity, Password: config.NewSecret("x")}, upstream.Client{})
	}
}

func (w *world) options(t *testing.T) Options {
	return Options{Store: w.store, Account: w.account, Timeout: 20 * time.Second,
		Source: w.login(t, w.source, &w.logins[0]), Target: w.login(t, w.target, &w.logins[1])}
}

// all is every note, of the account and of its folders.
func all(a *Account) string {
	notes := slices.Clone(a.Notes)
	for _, f := range a.Folders {
		notes = append(notes, f.Notes...)
	}
	return strings.Join(notes, "\n")
}

// untouched fails if anything was written on either server.
func (w *world) untouched(t *testing.T) {
	t.Helper()
	for name, s := range map[string]*hostile.Server{"source": w.source, "target": w.target} {
		s.Lock()
		if s.Writes > 0 {
			t.Errorf("%d commands to the %s would have written", s.Writes, name)
		}
		s.Unlock()
	}
}

func TestRun(t *testing.T) {
	for _, deep := range []bool{false, true} {
		w := newWorld(t)
		o := w.options(t)
		o.Deep = deep
		last := Progress{}
		o.Progress = func(p Progress) { last = p }
		a := Run(t.Context(), o)
		digests := int64(0)
		if deep {
			digests = 6
		}
		if !a.OK() || len(a.Folders) != 3 || a.Total.Same != 6 || a.Total.Digest != digests || a.Total.SourceSide != a.Total.TargetSide ||
			a.Total.SourceSide.Messages != 6 || all(&a) != "" {
			t.Errorf("%+v", a)
		}
		if a.Source != fmt.Sprintf("127.0.0.1:%d", w.source.Port) || a.Target != fmt.Sprintf("127.0.0.1:%d", w.target.Port) || last.Address != "anna@example.com" {
			t.Errorf("%s, %s, %+v", a.Source, a.Target, last)
		}
		if here, there := w.logins[0].Load(), w.logins[1].Load(); here != 1 || there != 1 {
			t.Errorf("%d and %d logins", here, there)
		}
		w.untouched(t)
	}
}

// What is in folders of the target of which the copy knows nothing is counted.
func TestRunCountsTargetOnly(t *testing.T) {
	w := newWorld(t, func(w *world) {
		own := &hostile.Mailbox{Name: "Own", UIDValidity: 10, UIDNext: 103, Messages: w.target.Mailboxes[0].Messages[:2]}
		w.target.Mailboxes = append(w.target.Mailboxes, own, &hostile.Mailbox{Name: "Nothing", UIDValidity: 11, UIDNext: 1})
	})
	o := w.options(t)
	o.Deep = true
	a := Run(t.Context(), o)
	if !a.OK() || len(a.Folders) != 4 || a.Total.Same != 6 || a.Total.Surplus != 2 || a.Total.TargetSide.Messages != 8 {
		t.Fatalf("%+v", a)
	}
	if f := a.Folders[3]; f.Source != "" || f.Name() != "Own" || f.Surplus != 2 || f.SourceSide.Messages != 0 {
		t.Errorf("%+v", f)
	}
	w.untouched(t)
}

// go-imap drops messages without an error, and loses the connection at what it
// cannot parse. That is noticed, and nothing is missed by it.
func TestRunWhereGoImapFails(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*world)
		deep   bool // only there
		note   string
		logins int32 // to the source, 2 unless given
	}{
		{name: "bodies before UIDs", change: func(w *world) { w.source.Faults.BodyFirst = true }, deep: true,
			note: "The text of 5 messages of the source was read by the copier's own reader, not by go-imap: it did not give them"},
		{name: "responses that nobody asked for", change: func(w *world) { w.source.Faults.Unasked = true }, logins: maxFailures + 1,
			note: "The folder of the source was read by the copier's own reader, not by go-imap: "},
		{name: "flags that nobody asked for, before the answer", change: func(w *world) { w.target.Faults.Early = true }, logins: 1,
			note: "The folder of the target was read by the copier's own reader, not by go-imap: message 5 came without its UID, size, flags or date"},
		{name: "a name that is no modified UTF-7", change: func(w *world) { w.source.Mailboxes[1].Name = "R&D" },
			note: "The list of folders of the source was read by the copier's own reader, not by go-imap: ", logins: 3},
		{name: "no date", change: func(w *world) {
			for _, s := range []*hostile.Server{w.source, w.target} {
				s.Mailboxes[0].Messages[1].Date = "00-Jan-0000 00:00:00 +0000"
			}
		}, note: "The folder of the source was read by the copier's own reader, not by go-imap: ", logins: 3},
		{name: "an odd flag", change: func(w *world) {
			for _, s := range []*hostile.Server{w.source, w.target} {
				s.Mailboxes[1].Messages[0].Flags = "$Odd]Flag"
			}
		}, note: "The folder of the target was read by the copier's own reader, not by go-imap: ", logins: 3},
		{name: "cut bodies", change: func(w *world) { w.source.Faults.CutBody = 3 }, deep: true, logins: 5,
			note: "messages of the source was read by the copier's own reader, not by go-imap: "},
		{name: "one BYE", change: func(w *world) { w.source.Faults.ByeFetch = 1 }, deep: true},
		{name: "many BYEs", change: func(w *world) { w.source.Faults.ByeFetch = 3 }, deep: true, logins: 5,
			note: "messages of the source was read by the copier's own reader, not by go-imap: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, tc.change)
			for _, deep := range []bool{false, true} {
				if tc.deep && !deep {
					continue
				}
				w.logins[0].Store(0)
				o := w.options(t)
				o.Deep = deep
				a := Run(t.Context(), o)
				if !a.OK() || a.Total.Same != 6 || deep && a.Total.Digest != 6 {
					t.Errorf("%+v", a)
				}
				if !strings.Contains(all(&a), tc.note) {
					t.Errorf("noted %q", all(&a))
				}
				if tc.logins == 0 {
					tc.logins = 2
				}
				if n := w.logins[0].Load(); n != tc.logins {
					t.Errorf("%d logins", n)
				}
			}
			w.untouched(t)
		})
	}
}

func TestRunFindsWhatIsWrong(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*world)
		said   string // the differences of the account
		text   string // in its problems and notes
	}{
		{name: "a message that the source hides", change: func(w *world) { w.source.Faults.Hides = 3 },
			text: "the folder of the source cannot be read: of 5 messages 4 came with a UID of their own"},
		{name: "a message that leaves between the list and the reading", change: func(w *world) { w.target.Faults.Leaves = 104 },
			said: "unread:4:104"},
		{name: "a folder that the target lacks", change: func(w *world) { w.target.Mailboxes = slices.Delete(w.target.Mailboxes, 1, 2) },
			said: "missing:1:0", text: "The target does not have this folder."},
		{name: "a folder that the source has no more", change: func(w *world) { w.source.Mailboxes = slices.Delete(w.source.Mailboxes, 1, 2) },
			text: "The source does not have this folder any more."},
		{name: "a new folder on the source", change: func(w *world) {
			w.source.Mailboxes = append(w.source.Mailboxes, &hostile.Mailbox{Name: "new", UIDValidity: 1, Messages: mailboxes(false)[1].Messages})
		}, said: "not_copied:1:0"},
		{name: "a byte", change: func(w *world) {
			m := &w.target.Mailboxes[0].Messages[3]
			m.Octets = m.Octets[:len(m.Octets)-5] + "E" + m.Octets[len(m.Octets)-4:]
		}, said: "octets:4:104"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			tc.change(w)
			o := w.options(t)
			o.Deep = true
			a := Run(t.Context(), o)
			var have, problems []string
			for _, f := range a.Folders {
				have = append(have, said(&f)...)
				problems = append(problems, f.Problem)
			}
			if strings.Join(have, " ") != tc.said || a.OK() != (tc.said == "" && !strings.Contains(tc.text, "cannot")) {
				t.Errorf("%q, %+v", have, a)
			}
			if text := strings.Join(problems, "\n") + all(&a); !strings.Contains(text, tc.text) {
				t.Errorf("said %q", text)
			}
			w.untouched(t)
		})
	}
}

// A server that says nothing any more is given up, and tried anew.
func TestRunWithASilentServer(t *testing.T) {
	w := newWorld(t)
	w.source.Faults.SilentFetch = 2
	o := w.options(t)
	o.Deep, o.Timeout = true, time.Second
	a := Run(t.Context(), o)
	if !a.OK() || a.Total.Digest != 6 || !strings.Contains(all(&a), "the server was silent for 1s") {
		t.Errorf("%+v", a)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	w.source.Faults.SilentFetch = 100
	ctx, cancel := context.WithCancel(t.Context())
	o := w.options(t)
	o.Deep, o.Timeout = true, time.Hour
	o.Progress = func(Progress) { cancel() }
	if a := Run(ctx, o); a.OK() || !strings.Contains(a.Problem, context.Canceled.Error()) {
		t.Errorf("%+v", a)
	}
}

// A login that fails ends the account: another try could only lock it.
func TestRunWithoutALogin(t *testing.T) {
	for _, good := range []int32{0, 1} {
		w := newWorld(t)
		w.source.Faults.BodyFirst = true // the second login is for the copier's reader
		o := w.options(t)
		o.Deep = true
		login := o.Source
		var logins atomic.Int32
		o.Source = func(ctx context.Context) (*upstream.Session, error) {
			if logins.Add(1) <= good {
				return login(ctx)
			}
			return nil, errors.New("come back tomorrow")
		}
		a := Run(t.Context(), o)
		if a.OK() || a.Problem != "the source: come back tomorrow" || (a.Source == "") != (good == 0) || logins.Load() != good+1 {
			t.Errorf("%+v after %d logins", a, logins.Load())
		}
	}
}

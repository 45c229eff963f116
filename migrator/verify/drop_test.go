package verify

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"migproxy/e2e/hostile"
)

// fakeDrop is a maildrop with what a hostile server has in INBOX.
type fakeDrop struct {
	box    *hostile.Mailbox
	extra  int64  // is added to each size
	hides  uint32 // a UID that is listed and not given
	breaks int    // so many readings are cut
	failed error  // of the next logins
	opened int
	closed int
}

func (f *fakeDrop) open(context.Context) (Drop, error) {
	f.opened++
	return f, f.failed
}

func (f *fakeDrop) Server() string { return "pop.example.com:110" }
func (f *fakeDrop) Close() error   { f.closed++; return nil }

func (f *fakeDrop) List(context.Context) (list []DropMessage, err error) {
	for _, m := range f.box.Messages {
		list = append(list, DropMessage{UID: m.UID, Size: int64(len(m.Octets)) + f.extra})
	}
	return list, nil
}

func (f *fakeDrop) Read(_ context.Context, uid uint32, fn func(io.Reader) error) error {
	at := slices.IndexFunc(f.box.Messages, func(m hostile.Message) bool { return m.UID == uid })
	if at < 0 || uid == f.hides {
		return nil
	}
	r := io.Reader(strings.NewReader(f.box.Messages[at].Octets))
	if f.breaks > 0 {
		f.breaks--
		r = io.MultiReader(io.LimitReader(r, 5), brokenReader{})
	}
	return fn(r)
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, syscall.ECONNRESET }

// newDropWorld is newWorld with INBOX alone on the source, over POP3.
func newDropWorld(t *testing.T) (*world, *fakeDrop) {
	w := newWorld(t, func(w *world) {
		w.source.Mailboxes, w.target.Mailboxes = w.source.Mailboxes[:1], w.target.Mailboxes[:1]
		w.source.Mailboxes[0].UIDValidity = dropValidity
	})
	return w, &fakeDrop{box: w.source.Mailboxes[0]}
}

func TestRunOverPOP3(t *testing.T) {
	recognised := "1 messages were recognised by their octets"
	for _, tc := range []struct {
		name   string
		change func(*world, *fakeDrop)
		plain  string // the differences
		deep   string // with those that only deep finds
		same   int64  // with deep
		digest int64  // without deep
		text   string // in the notes
	}{
		{name: "the same, with other flags and dates", same: 5, change: func(w *world, _ *fakeDrop) {
			w.target.Mailboxes[0].Messages[0].Flags, w.target.Mailboxes[0].Messages[1].Date = "", "17-Jul-2006 02:44:25 -0700"
		}},
		{name: "missing", plain: "missing:2:0", deep: "missing:2:0", same: 4, change: func(w *world, _ *fakeDrop) {
			w.target.Mailboxes[0].Messages = slices.Delete(w.target.Mailboxes[0].Messages, 1, 2)
		}},
		{name: "altered, of the same size", deep: "octets:1:101", same: 4, change: func(w *world, _ *fakeDrop) {
			w.target.Mailboxes[0].Messages[0].Octets = "Subject: one\r\n\r\nONE\r\n"
		}},
		{name: "altered, of another size", plain: "octets:1:101", deep: "octets:1:101", same: 4, digest: 1, change: func(w *world, _ *fakeDrop) {
			w.target.Mailboxes[0].Messages[0].Octets += "more\r\n"
		}},
		{name: "doubled", plain: "doubled:5:106", deep: "doubled:5:106", same: 5, change: func(w *world, _ *fakeDrop) {
			m := w.target.Mailboxes[0].Messages[4]
			m.UID = 106
			w.target.Mailboxes[0].Messages = append(w.target.Mailboxes[0].Messages, m)
		}},
		{name: "sizes that are wrong", same: 5, digest: 5, change: func(_ *world, f *fakeDrop) { f.extra = 3 }},
		{name: "new mail", plain: "not_copied:9:0", deep: "not_copied:9:0", same: 5, change: func(_ *world, f *fakeDrop) {
			f.box.Messages = append(f.box.Messages, hostile.Message{UID: 9, Octets: "Subject: new\r\n\r\n"})
		}},
		{name: "a UID that the ledger does not have", same: 5, digest: 1, text: recognised, change: func(_ *world, f *fakeDrop) { f.box.Messages[4].UID = 9 }},
		{name: "the same, with sizes that are wrong", same: 5, digest: 5, text: recognised, change: func(_ *world, f *fakeDrop) {
			f.box.Messages[4].UID, f.extra = 9, -3
		}},
		{name: "not given", deep: "unread:3:103", same: 4, change: func(_ *world, f *fakeDrop) { f.hides = 3 }},
		{name: "cut", same: 5, change: func(_ *world, f *fakeDrop) { f.breaks = 2 }},
		{name: "nothing in it", change: func(_ *world, f *fakeDrop) { f.box.Messages = nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, f := newDropWorld(t)
			tc.change(w, f)
			for _, deep := range []bool{false, true} {
				o := w.options(t)
				o.SourceDrop, o.Deep = f.open, deep
				a := Run(t.Context(), o)
				if len(a.Folders) != 1 || a.Problem != "" || a.Folders[0].Problem != "" || a.Source != f.Server() {
					t.Fatalf("%+v", a)
				}
				want := tc.plain
				if deep {
					want = tc.deep
				}
				if have := strings.Join(said(&a.Folders[0]), " "); have != want || a.OK() != (want == "") {
					t.Errorf("deep %v: %q, %+v", deep, have, a.Total)
				}
				if deep && a.Total.Same != tc.same || !deep && a.Total.Digest != tc.digest {
					t.Errorf("deep %v: %+v", deep, a.Total)
				}
				for _, note := range []string{noteDrop, noteBare, tc.text} {
					if !strings.Contains(all(&a), note) {
						t.Errorf("%q is not in %q", note, all(&a))
					}
				}
			}
			if f.opened != f.closed || w.logins[0].Load() != 0 {
				t.Errorf("opened %d times, closed %d times, %d logins over IMAP", f.opened, f.closed, w.logins[0].Load())
			}
			w.untouched(t)
		})
	}
}

// A maildrop that cannot be opened ends the account, after one try.
func TestRunOverPOP3WithoutALogin(t *testing.T) {
	w, f := newDropWorld(t)
	f.failed = errors.New("come back tomorrow")
	o := w.options(t)
	o.SourceDrop = f.open
	if a := Run(t.Context(), o); a.OK() || a.Problem != "the source: come back tomorrow" || a.Source != "" || f.opened != 1 {
		t.Errorf("%+v after %d logins", a, f.opened)
	}
}

package migrator_test

import (
	"slices"
	"strings"
	"testing"

	"migproxy/migrator"
	"migproxy/migrator/verify"
	"migproxy/store"
)

const allMail, starred = "[Gmail]/AllMail", "[Gmail]/Starred"

// gmail makes a fake server one whose folders are labels.
func gmail(f *fakeServer) {
	f.caps += " X-GM-EXT-1"
	for _, b := range []struct{ name, attrs string }{{"[Gmail]", `\Noselect`}, {allMail, `\All`}, {"[Gmail]/Important", `\Important`},
		{"[Gmail]/SentMail", `\Sent`}, {"[Gmail]/Spam", `\Junk`}, {starred, `\Flagged`}, {"[Gmail]/Trash", `\Trash`}, {"Work", ""}} {
		f.box(b.name).attrs = b.attrs
	}
}

// label shows a message in these folders, and in All Mail. The server's mu is
// held, or nobody is connected.
func (f *fakeServer) label(m fakeMail, boxes ...string) {
	for _, name := range append(boxes, allMail) {
		f.box(name).add(m)
	}
}

// unlabel takes a message out of a folder.
func (f *fakeServer) unlabel(id uint64, box string) {
	b := f.box(box)
	b.mails = slices.DeleteFunc(b.mails, func(m fakeMail) bool { return m.gmail == id })
}

func gmailMail(i int) fakeMail {
	return fakeMail{body: message(i/2, ""), date: "14-Mar-2019 05:06:07 +0100", gmail: 1<<60 + uint64(i)} // twins, which are two messages
}

// bodies are the octets of the messages in mailboxes, sorted.
func bodies(f *fakeServer, boxes ...string) (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range boxes {
		if b := f.find(name); b != nil {
			for _, m := range b.mails {
				all = append(all, m.body)
			}
		}
	}
	slices.Sort(all)
	return all
}

func fillGmail(f *fakeServer) {
	gmail(f)
	for i := range 60 {
		var in []string
		for _, l := range []struct {
			box string
			in  bool
		}{{"INBOX", i%5 == 0}, {"Work", i%3 == 0}, {"[Gmail]/SentMail", i%10 == 9}, {starred, i%7 == 0}, {"[Gmail]/Important", i%2 == 0}} {
			if l.in {
				in = append(in, l.box)
			}
		}
		f.label(gmailMail(i), in...)
	}
	for i := range 3 {
		f.box("[Gmail]/Trash").add(gmailMail(1000 + 10*i))
		f.box("[Gmail]/Spam").add(gmailMail(2000 + 10*i))
	}
}

// Where a message shows in several folders it is copied once, from INBOX if it
// is there, else from a label, else from All Mail, which becomes the target's
// Archive. Every appearance is in the ledger.
func TestLabelsAreCopiedOnce(t *testing.T) {
	for name, c := range map[string]struct {
		archive  string // of the target
		onAppend func(n int, mails []fakeMail) verdict
	}{
		"an archive":       {archive: "Archive"},
		"no archive":       {},
		"cut and kept":     {onAppend: func(n int, _ []fakeMail) verdict { return verdict{cut: n == 1 || n == 3, keep: true} }},
		"refused for once": {onAppend: func(n int, _ []fakeMail) verdict { return verdict{no: map[bool]string{true: "no reason"}[n == 2]} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, _, b := fakes(t, fillGmail)
			archive := allMail
			if c.archive != "" {
				target.box(c.archive).attrs = `\Archive`
				archive = c.archive
			}
			target.onAppend = c.onAppend
			b.anna(t)
			a := b.run(t, b.options(t), "anna", rest...)
			if a.State != store.Active || a.Messages != 66 || a.Expected != 66 {
				t.Fatalf("%s, %d messages of %d: %s", a.State, a.Messages, a.Expected, a.Reason)
			}
			if !slices.Equal(bodies(target, "INBOX"), bodies(source, "INBOX")) {
				t.Error("INBOX is another one")
			}
			all := []string{"INBOX", "Work", "[Gmail]/SentMail", "[Gmail]/Trash", "[Gmail]/Spam", archive}
			if !slices.Equal(bodies(target, all...), bodies(source, allMail, "[Gmail]/Trash", "[Gmail]/Spam")) {
				t.Error("not every message is there once")
			}
			if n, gathered := len(bodies(target, "Work")), bodies(target, starred, "[Gmail]/Important"); n != 16 || len(gathered) > 0 {
				t.Errorf("%d in Work, %d starred or important", n, len(gathered))
			}
			if v := b.verify(t, a); !v.OK() {
				t.Errorf("verify: %+v", v)
			}
			for _, f := range target.boxes {
				if f.name == starred || c.archive != "" && f.name == allMail {
					t.Errorf("%s was made", f.name)
				}
			}
		})
	}
}

// Where All Mail is hidden from IMAP, what a flag alone gathers is copied from
// there.
func TestLabelsWithoutAllMail(t *testing.T) {
	source, target, _, b := fakes(t, func(f *fakeServer) {
		f.caps += " X-GM-EXT-1"
		f.box(starred).attrs = `\Flagged`
		f.box(starred).subscribed = true
		for i := range 10 {
			f.box("INBOX").add(gmailMail(i))
			f.box(starred).add(gmailMail(5 + i))
		}
	})
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active || a.Messages != 15 || a.Expected != 20 {
		t.Fatalf("%s, %d messages of %d: %s", a.State, a.Messages, a.Expected, a.Reason)
	}
	if n, m := len(bodies(target, "INBOX")), len(bodies(target, starred)); n != 10 || m != 5 || !target.box(starred).subscribed {
		t.Errorf("%d in INBOX, %d starred", n, m)
	}
	source.with(func() { // starred is taken away, a new label given
		source.unlabel(gmailMail(12).gmail, starred)
		source.box("Work").add(gmailMail(12))
		source.box(starred).add(gmailMail(1))
	})
	caughtUp(t, b.catchUp(t))
	if n := len(bodies(target, "INBOX", starred, "Work")); n != 15 {
		t.Errorf("%d messages after a catch-up", n)
	}
}

// What the target refuses of such a source is set aside once.
func TestRefusedMessageWithLabels(t *testing.T) {
	source, target, _, b := fakes(t, fillGmail)
	bad := message(1000, "bad")
	source.label(fakeMail{body: bad, gmail: 7}, "INBOX", "Work", starred)
	target.onAppend = func(_ int, mails []fakeMail) (v verdict) {
		if slices.ContainsFunc(mails, func(m fakeMail) bool { return m.body == bad }) {
			v.no = "[CANNOT] bad message"
		}
		return v
	}
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active || a.Messages != 66 || a.SetAside != 1 {
		t.Fatalf("%s, %d messages, %d aside: %s", a.State, a.Messages, a.SetAside, a.Reason)
	}
}

// After the flip a label that is given or taken away brings nothing new, and
// what arrives comes once.
func TestLabelsThatChange(t *testing.T) {
	source, target, _, b := fakes(t, fillGmail)
	b.anna(t)
	b.run(t, b.options(t), "anna", store.Active)
	source.mu.Lock()
	moved := gmailMail(1)
	source.box("Work").add(moved)  // of those that were in All Mail alone
	source.unlabel(1<<60, "INBOX") // archived
	source.box(starred).add(gmailMail(4))
	source.box("Receipts").add(gmailMail(7)) // a new label
	source.box("Receipts").add(gmailMail(0)) // of what was archived
	fresh := fakeMail{body: message(5000, ""), gmail: 5000}
	source.label(fresh, "INBOX", "Work", starred)
	source.label(fakeMail{body: message(0, ""), gmail: 6000}) // equal to two others, and another one
	source.mu.Unlock()
	before := len(bodies(target, "INBOX", "Work", "[Gmail]/SentMail", "[Gmail]/Trash", "[Gmail]/Spam", allMail))
	caughtUp(t, b.catchUp(t))
	caughtUp(t, b.catchUp(t))
	after := bodies(target, "INBOX", "Work", "[Gmail]/SentMail", "[Gmail]/Trash", "[Gmail]/Spam", allMail)
	if len(after) != before+2 || len(bodies(target, "INBOX")) != 13 || len(bodies(target, "Receipts", starred)) != 0 {
		t.Errorf("%d messages were there and %d are, %d in INBOX, %d in new folders", before, len(after),
			len(bodies(target, "INBOX")), len(bodies(target, "Receipts", starred)))
	}
	if n := strings.Count(strings.Join(after, "\x00"), fresh.body); n != 1 {
		t.Errorf("the new message is there %d times", n)
	}
}

// verify compares an account as the administrator would.
func (b *bench) verify(t *testing.T, a store.Account) verify.Account {
	t.Helper()
	m, err := migrator.New(b.options(t))
	if err != nil {
		t.Fatal(err)
	}
	return m.Verify(t.Context(), a, true, nil)
}

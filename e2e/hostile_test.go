package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"migproxy/e2e/hostile"
)

// All that a target may offer.
const extensions = "UIDPLUS MULTIAPPEND LITERAL+ SASL-IR AUTH=PLAIN"

// headerDate is in the Date field of most messages.
var headerDate = time.Date(1996, 7, 18, 12, 13, 14, 0, time.FixedZone("", -7*3600))

// oddMailboxes is what the hostile source has.
func oddMailboxes() []*hostile.Mailbox {
	var inbox []hostile.Message
	for i := range 40 {
		m := hostile.Message{UID: uint32(2*i + 3), Flags: `\Seen`, Date: "17-Jul-1996 02:44:25 -0700",
			Octets: fmt.Sprintf("Subject: number %d\r\nDate: %s\r\n\r\nText of message %d.\r\n", i, headerDate.Format(time.RFC1123Z), i)}
		switch i {
		case 5:
			m.Date = ""
		case 6:
			m.Date = "00-Jan-0000 00:00:00 +0000"
		case 13:
			m.Date = "31-Feb-2020 25:61:00 +9999"
		case 7:
			m.Flags = `\Flagged $Label1`
		case 14:
			m.Flags = `\Draft \XOdd +x ` + oddFlag
		case 8, 9, 30: // twins
			m.Octets = "Subject: twin\r\n\r\nWe are many.\r\n"
		case 10:
			m.Octets = "Subject: large\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 40_000)
		}
		inbox = append(inbox, m)
	}
	box := hostile.Inbox(inbox...)
	box.UIDNext = 100
	one := func(text string) []hostile.Message {
		return []hostile.Message{{UID: 4, Date: " 1-Feb-2003 04:05:06 +0000", Octets: "Subject: " + text + "\r\n\r\n" + text + "\r\n"}}
	}
	return []*hostile.Mailbox{box,
		{Name: "Sent", Attrs: `\Sent`, UIDValidity: 8, UIDNext: 9, Messages: one("sent")},
		{Name: "Vorschl\xe4ge", UIDValidity: 13, UIDNext: 9, Messages: one("Latin-1")},
		{Name: "R&D", UIDValidity: 9, UIDNext: 9, Messages: one("not modified UTF-7"), Subscribed: true},
		{Name: `quote"back\slash`, UIDValidity: 10, UIDNext: 9, Messages: one("quotes")},
		{Name: "parent", Attrs: `\Noselect`, UIDValidity: 11, UIDNext: 1},
		{Name: "parent/child", UIDValidity: 12, UIDNext: 9, Messages: one("child")},
	}
}

// plainNames is what a folder of oddMailboxes is called on the target.
var plainNames = map[string]string{"R&D": "R&-D", "Vorschl\xe4ge": "Vorschl&AOQ-ge"}

// oddFlag is no keyword by its syntax, and cannot be sent to any server.
const oddFlag = "$Odd]Flag"

// battle is a hostile source, a hostile target and a migproxy between them.
type battle struct {
	*proxy
	source, target *hostile.Server
	expected       []string
}

func newBattle(t testing.TB, source, target hostile.Faults) *battle {
	t.Helper()
	dir := t.TempDir()
	created := filepath.Join(dir, "created")
	command := filepath.Join(dir, "provision")
	script := fmt.Sprintf("#!/bin/sh\ngrep -q '\"op\":\"lookup\"' || touch %s\n", created)
	if err := os.WriteFile(command, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	b := &battle{}
	b.source = hostile.Start(t, func(u, p string) bool { return u == user && p == password }, oddMailboxes()...)
	b.target = hostile.Start(t, func(u, p string) bool {
		_, err := os.Stat(created)
		return err == nil && u == user && p == password
	}, hostile.Inbox())
	b.expected = contents(b.source)
	b.source.Faults, b.target.Faults = source, target
	b.proxy = newProxy(t, binary, settings{
		source: endpoint{imap: b.source.Port, tls: "none"}, target: endpoint{imap: b.target.Port, tls: "none"},
		provision: fmt.Sprintf("{ driver: exec, command: [%s] }", command),
	}).start()
	if first := ask(t, request{Op: "commands", Port: b.imap, TLS: "starttls"}); !first.OK {
		t.Fatalf("%+v", first)
	}
	return b
}

// contents is what all mailboxes of a server hold: of each message the folder,
// the octets, the flags that can be sent and the date, which is the header's
// where the server tells none; and what is subscribed.
func contents(s *hostile.Server) []string {
	s.Lock()
	defer s.Unlock()
	all := []string{}
	for _, b := range s.Mailboxes {
		folder := b.Name
		if plain, odd := plainNames[folder]; odd {
			folder = plain
		}
		if b.Subscribed {
			all = append(all, folder+" is subscribed")
		}
		for _, m := range b.Messages {
			date, err := time.Parse("_2-Jan-2006 15:04:05 -0700", m.Date)
			if err != nil {
				date = headerDate
			}
			flags := slices.DeleteFunc(strings.Fields(m.Flags), func(f string) bool { return f == oddFlag })
			sort.Strings(flags)
			all = append(all, fmt.Sprintf("%s: %.60q of %d, %v, %s", folder, m.Octets, len(m.Octets), flags, date.UTC()))
		}
	}
	sort.Strings(all)
	return all
}

// same fails unless the target has each message once, but for those given.
func (b *battle) same(but ...string) {
	b.t.Helper()
	got := contents(b.target)
	missing, extra := minus(b.expected, got), minus(got, b.expected)
	missing = slices.DeleteFunc(missing, func(m string) bool {
		return slices.ContainsFunc(but, func(part string) bool { return strings.Contains(m, part) })
	})
	if len(missing)+len(extra) > 0 {
		b.t.Errorf("missing: %q\nextra: %q", missing, extra)
	}
	b.source.Lock()
	defer b.source.Unlock()
	if b.source.Writes+b.source.Touches > 0 {
		b.t.Errorf("%d commands to the source would have written, %d would have marked messages", b.source.Writes, b.source.Touches)
	}
}

func TestHostileServers(t *testing.T) {
	t.Parallel()
	good := hostile.Faults{Capabilities: extensions}
	with := func(change func(*hostile.Faults)) hostile.Faults {
		f := good
		change(&f)
		return f
	}
	for _, tc := range []struct {
		name           string
		source, target hostile.Faults
		gone           []string // from the source before they could be fetched
	}{
		{name: "a target without any extension", target: hostile.Faults{}},
		{name: "a target with every extension", target: good},
		{name: "a target without UIDPLUS", target: hostile.Faults{Capabilities: "MULTIAPPEND LITERAL+"}},
		{name: "bodies before UIDs", source: hostile.Faults{BodyFirst: true}, target: good},
		{name: "unasked responses", source: hostile.Faults{Unasked: true}, target: good},
		{name: "both", source: hostile.Faults{BodyFirst: true, Unasked: true}, target: hostile.Faults{}},
		{name: "cut bodies", source: hostile.Faults{CutBody: 2}, target: good},
		{name: "BYE to a fetch", source: hostile.Faults{ByeFetch: 2}, target: good},
		{name: "a message leaves", source: hostile.Faults{Leaves: 3}, target: good, gone: []string{"number 0\\r"}},
		{name: "half-refused batch", target: with(func(f *hostile.Faults) { f.HalfRefuse = 1 })},
		{name: "late commits", target: with(func(f *hostile.Faults) { f.Unanswered, f.Late = 2, 200*time.Millisecond })},
		{name: "late commits without UIDPLUS", target: hostile.Faults{Capabilities: "MULTIAPPEND", Unanswered: 2, Late: 200 * time.Millisecond}},
		{name: "late commits one by one", target: hostile.Faults{Unanswered: 2, Late: 200 * time.Millisecond}},
		{name: "BYE to a batch", target: with(func(f *hostile.Faults) { f.ByeAppend = 2 })},
		{name: "BYE to a message", target: hostile.Faults{ByeAppend: 2}},
		{name: "cut batches", target: with(func(f *hostile.Faults) { f.CutAppend = 2 })},
		{name: "cut messages", target: hostile.Faults{CutAppend: 2}},
		{name: "wrong UIDs", target: with(func(f *hostile.Faults) { f.WrongUIDs = 1 })},
		{name: "OK without storing", target: with(func(f *hostile.Faults) { f.Forget = 1 })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBattle(t, tc.source, tc.target)
			b.awaitState(user, "active")
			b.same(tc.gone...)
		})
	}
}

// A flag that is none by its syntax stays behind, and the log says so.
func TestAFlagThatCannotBeSentIsReported(t *testing.T) {
	b := newBattle(t, hostile.Faults{}, hostile.Faults{Capabilities: extensions})
	b.awaitState(user, "active")
	b.same()
	if log, err := b.cli("log", user); err != nil || !strings.Contains(log, "the flags "+oddFlag+", which it does not permit or which cannot be sent") {
		t.Errorf("%v\n%s", err, log)
	}
}

// A message that the target refuses is kept, listed and exported, and the rest
// moves.
func TestARefusedMessageIsSetAside(t *testing.T) {
	for _, capabilities := range []string{extensions, ""} {
		b := newBattle(t, hostile.Faults{}, hostile.Faults{Capabilities: capabilities, Refuse: func(octets string) string {
			if strings.Contains(octets, "Text of message 12.") {
				return "message contains a curse"
			}
			return ""
		}})
		b.awaitState(user, "active")
		b.same("number 12\\r")
		out := t.TempDir()
		shown, err := b.cli("account", "show", user, "--export", out)
		if err != nil || !strings.Contains(shown, "curse") {
			t.Errorf("%v: %s", err, shown)
		}
		exported, err := filepath.Glob(filepath.Join(out, "*.eml"))
		if err != nil || len(exported) != 1 {
			t.Fatalf("exported %v, %v", exported, err)
		}
		if text := readFile(t, exported[0]); !strings.HasSuffix(text, "\r\n\r\nText of message 12.\r\n") {
			t.Errorf("exported %q", text)
		}
	}
}

// A target that refuses everything has a fault of its own: the account waits
// for the administrator, and nobody is flipped onto half a mailbox.
func TestTooManyRefusalsWait(t *testing.T) {
	b := newBattle(t, hostile.Faults{}, hostile.Faults{Capabilities: extensions, Refuse: func(octets string) string {
		if strings.Contains(octets, "Text of message") && !strings.Contains(octets, "0.\r\n") {
			return "I do not like this"
		}
		return ""
	}})
	b.awaitState(user, "waiting")
}

func TestAFullTargetIsTriedAgain(t *testing.T) {
	var room atomic.Bool
	b := newBattle(t, hostile.Faults{}, hostile.Faults{Capabilities: extensions, Refuse: func(octets string) string {
		if !room.Load() && strings.Contains(octets, "message 20.") {
			return "[OVERQUOTA] full"
		}
		return ""
	}})
	if a := b.awaitState(user, "waiting"); !strings.Contains(a.Error, "quota") {
		t.Errorf("%+v", a)
	}
	room.Store(true)
	if _, err := b.cli("account", "retry", user); err != nil {
		t.Fatal(err)
	}
	b.awaitState(user, "active")
	b.same()
}

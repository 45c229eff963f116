package e2e

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"migproxy/e2e/servers"
)

// withLineEnd gives the digests that messages have once POP3 has ended their
// last line, by their own.
func withLineEnd(mails []mail) map[string]string {
	ended := map[string]string{}
	for _, m := range mails {
		if !bytes.HasSuffix(m.octets, []byte("\r\n")) {
			ended[fmt.Sprintf("%x", sha256.Sum256(m.octets))] = fmt.Sprintf("%x", sha256.Sum256(append(m.octets, "\r\n"...)))
		}
	}
	return ended
}

// overPOP3 are the digests of a view's INBOX as POP3 shows it.
func overPOP3(v view, mails []mail) []string {
	ended := withLineEnd(mails)
	var digests []string
	for _, line := range v.folders["INBOX"] {
		digest, _, _ := strings.Cut(line, " ")
		digests = append(digests, cmp.Or(ended[digest], digest))
	}
	slices.Sort(digests)
	return digests
}

// sameInbox holds the target's INBOX against the source's as POP3 shows it.
func sameInbox(t testing.TB, source, target view, mails []mail) {
	t.Helper()
	want, got := overPOP3(source, mails), overPOP3(target, nil)
	if !slices.Equal(want, got) {
		t.Errorf("INBOX differs\nonly on the source: %v\nonly on the target: %v", minus(want, got), minus(got, want))
	}
	for _, line := range target.folders["INBOX"] {
		if !strings.Contains(line, " [] ") {
			t.Errorf("POP3 has no flags, and the target shows %s", line)
		}
	}
}

// uidls are what migproxy has kept of how POP3 names messages: UIDs by name. It
// must have ended.
func (p *proxy) uidls() map[string]int {
	p.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(p.dir, "state.db"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query("SELECT uidl, occurrence, source_uid FROM uidls")
	if err != nil {
		p.t.Fatal(err)
	}
	defer rows.Close()
	all := map[string]int{}
	for rows.Next() {
		var name []byte
		var occurrence, uid int
		if err := rows.Scan(&name, &occurrence, &uid); err != nil {
			p.t.Fatal(err)
		}
		if occurrence > 0 {
			name = fmt.Appendf(name, "/%d", occurrence)
		}
		all[string(name)] = uid
	}
	if err := rows.Err(); err != nil {
		p.t.Fatal(err)
	}
	return all
}

// pop3Settings move from a server that is reached over POP3 alone.
func pop3Settings(source endpoint, target *servers.Dovecot) settings {
	source.imap = 0
	return settings{source: source, target: dovecotEndpoint(target),
		provision: fmt.Sprintf("{ driver: passwd-file, path: %s, lock: %s }", target.PasswdFile, filepath.Join(target.Dir, "users", "lock"))}
}

// movesOverPOP3 moves an INBOX from a server of which the settings name POP3
// alone, and catches up with what is delivered afterwards. seen says what a login
// over POP3 makes of the source's files by itself.
func movesOverPOP3(t *testing.T, source endpoint, prefix string, mails []mail, maildir string, seen func(path string) string) {
	t.Helper()
	target := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
	fillWith(t, login(t, source.imap, user, password), prefix, ".", mails, nil)
	var before map[string][32]byte
	if maildir != "" {
		deliver(t, maildir, "1700000000.M1P1.old", "Subject: recent\n\nNobody has read this.\n")
		before = map[string][32]byte{}
		for path, sum := range filesOf(t, maildir) {
			before[seen(path)] = sum
		}
	}
	dump := func(port int, prefix, sep string) view {
		return viewOf(t, ask(t, request{Op: "dump", Port: port}), prefix, sep, nil)
	}
	was := view{}
	if maildir == "" {
		was = dump(source.imap, prefix, ".")
	}
	s := pop3Settings(source, target)
	s.migration = "settle_quiet: 500ms, catch_up: 1s"
	p := newProxy(t, binary, s).start()
	// The client speaks IMAP, and the source is asked over what it has.
	parked := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Commands: [][]any{{"select"}}})
	if !parked.OK {
		t.Fatalf("%+v", parked)
	}
	p.awaitState(user, "active")
	if maildir != "" {
		sameFiles(t, before, filesOf(t, maildir))
	} else if is := dump(source.imap, prefix, "."); !slices.Equal(was.folders["INBOX"], is.folders["INBOX"]) {
		t.Errorf("the source has changed: %v, then %v", was.folders["INBOX"], is.folders["INBOX"])
	}
	sourceSide := dump(source.imap, prefix, ".")
	sameInbox(t, sourceSide, dump(target.IMAP, "", targetSep), mails)

	// Its owner deletes one on the target; another one arrives on the source.
	c := login(t, target.IMAP, user, password)
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	deleteFirst(t, c)
	arrived := note("arrived later")
	appendTo(t, login(t, source.imap, user, password), "INBOX", arrived)
	digest := fmt.Sprintf("%x", sha256.Sum256(arrived.octets))
	want := len(sourceSide.folders["INBOX"])
	err := eventually(copyDeadline, func() error {
		got := overPOP3(dump(target.IMAP, "", targetSep), nil)
		if n := count(got, digest); n != 1 || len(got) != want {
			return fmt.Errorf("%d messages instead of %d, the new one %d times", len(got), want, n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p.stop(syscall.SIGTERM)
	names := ask(t, request{Op: "pop3dump", Port: source.pop3, TLS: source.tls})
	kept := p.uidls()
	for _, name := range names.UIDL {
		if kept[name] == 0 {
			t.Errorf("the UIDL %q is not kept", name)
		}
	}
	if len(kept) != len(names.UIDL) || len(kept) != want+1 {
		t.Errorf("%d UIDLs are kept, the source has %d", len(kept), len(names.UIDL))
	}
}

func deleteFirst(t testing.TB, c *imapclient.Client) {
	t.Helper()
	if err := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Expunge().Close(); err != nil {
		t.Fatal(err)
	}
}

func count(list []string, x string) (n int) {
	for _, y := range list {
		if x == y {
			n++
		}
	}
	return n
}

// notRecent is what a login over POP3 makes of a recent message's file: most
// servers say to one client only that it is recent.
func notRecent(path string) string {
	if name, recent := strings.CutPrefix(path, "/new/"); recent {
		return "/cur/" + name + ":2,"
	}
	return path
}

func TestPOP3FromDovecot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		extra string
		seen  func(string) string
	}{
		"as it comes":              {"", notRecent},
		"pop3_no_flag_updates=yes": {"pop3_no_flag_updates = yes", func(path string) string { return path }},
	} {
		t.Run(name, func(t *testing.T) {
			source := servers.StartDovecot(t, servers.DovecotOptions{Separator: ".", Extra: c.extra})
			source.AddUser(user, password)
			movesOverPOP3(t, dovecotEndpoint(source), "", oddities(), source.Maildir(user), c.seen)
		})
	}
}

func TestPOP3FromCourier(t *testing.T) {
	t.Parallel()
	source := servers.StartCourier(t, map[string]string{user: password})
	movesOverPOP3(t, endpoint{imap: source.IMAP, pop3: source.POP3, tls: "none"}, "INBOX.", oddities(), source.Maildir(user), notRecent)
}

func TestPOP3FromCyrus(t *testing.T) {
	t.Parallel()
	source := servers.StartCyrus(t, servers.CyrusOptions{})
	source.AddUser(user, password)
	movesOverPOP3(t, cyrusEndpoint(source), "", slices.DeleteFunc(oddities(), refusedByCyrus), "", nil)
}

// The mail comes by IMAP, and each UIDL is kept beside the UID of its message.
func TestUIDLsBesideIMAP(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) endpoint{
		"Dovecot": func(t *testing.T) endpoint {
			d := servers.StartDovecot(t, servers.DovecotOptions{})
			d.AddUser(user, password)
			return dovecotEndpoint(d)
		},
		"Courier": func(t *testing.T) endpoint {
			c := servers.StartCourier(t, map[string]string{user: password})
			return endpoint{imap: c.IMAP, pop3: c.POP3, tls: "none"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			source := start(t)
			source.protocols = "[imap, pop3]"
			target := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
			fillWith(t, login(t, source.imap, user, password), "", ".", oddities(), nil)
			s := pop3Settings(source, target)
			s.source = source
			p := moveBy(t, s)
			p.awaitState(user, "active")
			p.stop(syscall.SIGTERM)
			byIMAP := ask(t, request{Op: "dump", Port: source.imap})
			byPOP3 := ask(t, request{Op: "pop3dump", Port: source.pop3, TLS: source.tls})
			at := slices.IndexFunc(byIMAP.Folders, func(f folder) bool { return f.Name == "INBOX" })
			kept := p.uidls()
			if len(kept) != len(oddities()) || len(byPOP3.UIDL) != len(kept) || len(byIMAP.Folders[at].Messages) != len(kept) {
				t.Fatalf("%d kept, POP3 has %d, IMAP %d", len(kept), len(byPOP3.UIDL), len(byIMAP.Folders[at].Messages))
			}
			digests, ended := map[int]string{}, withLineEnd(oddities())
			for _, m := range byIMAP.Folders[at].Messages {
				digests[m.UID] = cmp.Or(ended[m.SHA256], m.SHA256)
			}
			for i, uidl := range byPOP3.UIDL {
				if digests[kept[uidl]] != byPOP3.Digests[i] {
					t.Errorf("%s is kept as UID %d, which is another message", uidl, kept[uidl])
				}
			}
		})
	}
}

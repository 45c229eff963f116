package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"migproxy/config"
	"migproxy/migrator/imapwire"
	"migproxy/upstream"
)

// specimen is a test message of a kind that servers are known to alter or to
// refuse.
type specimen struct {
	what   string
	octets string
	flags  []string
	date   time.Time
}

// specimens are sent one after the other. Each is told from the others by its
// place.
var specimens = []specimen{
	{what: "plain messages", octets: "Subject: plain\r\n\r\nplain\r\n"},
	{what: "messages with bare LF line ends", octets: "Subject: bare LF\n\nfirst\nsecond\n"},
	{what: "messages with a bare CR", octets: "Subject: bare CR\r\n\r\nfirst\rsecond\r\n"},
	{what: "messages with a NUL", octets: "Subject: NUL\r\n\r\na\x00b\r\n"},
	{what: "messages with 8-bit octets in a header", octets: "Subject: gr\xfc\xdfe\r\n\r\ngr\xfc\xdfe\r\n"},
	{what: "messages with a line of 100,000 octets", octets: "Subject: long\r\n\r\n" + strings.Repeat("x", 100_000) + "\r\n"},
	{what: "messages that begin with a From line", octets: "From anna@example.com Wed Jul 17 02:44:25 1996\r\nSubject: mbox\r\n\r\nx\r\n"},
	{what: "messages without a header", octets: "no header field\r\n"},
	{what: "empty messages", octets: ""},
	{what: "messages of 1996", octets: "Subject: old\r\n\r\nold\r\n", date: time.Date(1996, 7, 17, 2, 44, 25, 0, time.FixedZone("", -7*3600))},
	{what: "messages from before 1970", octets: "Subject: older\r\n\r\nolder\r\n", date: time.Date(1969, 7, 20, 20, 17, 40, 0, time.UTC)},
	{what: "messages with flags and keywords", octets: "Subject: flags\r\n\r\nflags\r\n",
		flags: []string{`\Answered`, `\Draft`, `\Flagged`, `\Seen`, "$Forwarded", "$MDNSent", "Label"}},
}

// trial is what a target does with the specimens, each a line for the
// administrator.
type trial struct {
	account string // whose mailbox it was tried in
	changes []string
	err     error // why it could not be tried to the end
	left    error // why the scratch folder could not be removed
}

// try appends the specimens to a scratch folder of the migration account, reads
// them back, and removes the folder again, on a connection of its own, so that
// it goes whatever became of the first. It returns nil where the settings name
// no such account, or neither its password nor a master user.
func try(ctx context.Context, server *upstream.Server, parking config.Parking, master *upstream.Master) *trial {
	local, domain, found := strings.Cut(parking.Account, "@")
	if !found || parking.PasswordFile == "" && master == nil {
		return nil
	}
	t := &trial{account: parking.Account}
	c := upstream.Credentials{Identity: config.Identity{Login: parking.Account, Local: local, Domain: domain}, Master: master}
	if parking.PasswordFile != "" {
		c.Master = nil
		if c.Password, t.err = config.ReadPassword(parking.PasswordFile); t.err != nil {
			return t
		}
	}
	session, err := server.Login(ctx, c, upstream.Client{})
	if err != nil {
		t.err = err
		return t
	}
	conn := imapwire.New(session, imapwire.Options{Timeout: probeTimeout})
	defer func() { _ = conn.Close() }()
	prefix, _, err := conn.Namespace(ctx)
	if err != nil {
		t.err = err
		return t
	}
	name := prefix + "migproxy-check-" + rand.Text()
	if t.err = conn.Create(ctx, name, ""); t.err == nil {
		t.changes, t.err = tryIn(ctx, conn, name)
		_ = conn.Logout(ctx) // the answers are known
	}
	if e, ok := errors.AsType[*imapwire.StatusError](t.err); !ok || e.Command != "CREATE" {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
		defer cancel()
		if err := removeScratch(ctx, server, c, name); err != nil {
			t.left = fmt.Errorf("the folder %s of %s could not be removed, please do so: %w", name, t.account, err)
		}
	}
	return t
}

// tryIn says what becomes of the specimens in an empty folder.
func tryIn(ctx context.Context, conn *imapwire.Conn, folder string) (changes []string, err error) {
	var taken []specimen
	for _, s := range specimens {
		err := appendOne(ctx, conn, folder, s)
		if e, ok := errors.AsType[*imapwire.StatusError](err); ok && e.Type != "BYE" {
			changes = append(changes, fmt.Sprintf("refuses %s: %v", s.what, err))
			continue
		}
		if err != nil {
			return changes, fmt.Errorf("at %s: %w", s.what, err)
		}
		taken = append(taken, s)
	}
	if _, err := conn.Examine(ctx, folder); err != nil {
		return changes, err
	}
	var metas []imapwire.Meta
	if err := conn.FetchMeta(ctx, 1, 0, func(m imapwire.Meta) error { metas = append(metas, m); return nil }); err != nil {
		return changes, err
	}
	if len(metas) != len(taken) {
		return changes, fmt.Errorf("it took %d messages and shows %d", len(taken), len(metas))
	}
	slices.SortFunc(metas, func(a, b imapwire.Meta) int { return int(int64(a.UID) - int64(b.UID)) })
	uids := make([]uint32, len(metas))
	for i, m := range metas {
		uids[i] = m.UID
	}
	bodies := map[uint32][]byte{}
	err = conn.FetchBodies(ctx, uids, func(uid uint32, _ int64, r io.Reader) (err error) {
		bodies[uid], err = io.ReadAll(r)
		return err
	})
	for i, m := range metas {
		changes = append(changes, taken[i].compare(m, bodies[m.UID])...)
	}
	return changes, err
}

func appendOne(ctx context.Context, conn *imapwire.Conn, folder string, s specimen) error {
	a, err := conn.Append(ctx, folder)
	if err != nil {
		return err
	}
	if err := a.Add(s.flags, s.date, int64(len(s.octets)), strings.NewReader(s.octets)); err != nil {
		return err
	}
	if err := a.End(); err != nil {
		return err
	}
	_, _, err = a.Wait(ctx)
	return err
}

// compare says how what the target shows differs from what it was sent.
func (s specimen) compare(m imapwire.Meta, octets []byte) (changes []string) {
	if is := []byte(s.octets); !bytes.Equal(is, octets) {
		how := fmt.Sprintf("%d octets became %d", len(is), len(octets))
		if len(is) == len(octets) {
			at := 0
			for is[at] == octets[at] {
				at++
			}
			how = fmt.Sprintf("%#02x became %#02x", is[at], octets[at])
		}
		changes = append(changes, fmt.Sprintf("alters %s (%s)", s.what, how))
	}
	if !s.date.IsZero() && !s.date.Equal(m.Date) {
		changes = append(changes, fmt.Sprintf("does not keep the internal date of %s (%s became %s)", s.what, s.date.Format(time.RFC3339), m.Date.Format(time.RFC3339)))
	}
	var lost []string
	for _, f := range s.flags {
		if !slices.ContainsFunc(m.Flags, func(is string) bool { return strings.EqualFold(is, f) }) {
			lost = append(lost, f)
		}
	}
	if len(lost) > 0 {
		changes = append(changes, "does not keep the flags "+strings.Join(lost, " "))
	}
	return changes
}

// removeScratch deletes the folder that was made for the trial. Nothing else of
// migproxy deletes anything on a target, so the copy's wire has no command for it.
func removeScratch(ctx context.Context, server *upstream.Server, c upstream.Credentials, name string) error {
	session, err := server.Login(ctx, c, upstream.Client{})
	if err != nil {
		return err
	}
	defer func() { _ = session.Conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = session.Conn.Close() })()
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name)
	if _, err := fmt.Fprintf(session.Conn, "d DELETE \"%s\"\r\n", quoted); err != nil {
		return err
	}
	for {
		line, err := session.Reader.ReadString('\n')
		if err != nil {
			return err
		}
		if answer, tagged := strings.CutPrefix(line, "d "); tagged {
			if !strings.HasPrefix(strings.ToUpper(answer), "OK") {
				return fmt.Errorf("the server answered %s", strings.TrimSpace(answer))
			}
			return nil
		}
	}
}

// trialNotes says what came of the trial of a target.
func trialNotes(f *finding) (all []string) {
	if f.trial == nil {
		return []string{f.name() + ": not tried whether it alters or refuses messages: name a migration account there under parking (account, password_file), and check tries it in a scratch folder"}
	}
	for _, c := range f.trial.changes {
		all = append(all, f.name()+": "+c)
	}
	switch {
	case f.trial.err != nil:
		all = append(all, fmt.Sprintf("%s: whether it alters messages could not be tried in the mailbox of %s: %v", f.name(), f.trial.account, f.trial.err))
	case len(all) == 0:
		all = append(all, f.name()+": keeps all test messages as they are")
	}
	if f.trial.left != nil {
		all = append(all, f.name()+": "+f.trial.left.Error())
	}
	return all
}

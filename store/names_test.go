package store

import (
	"errors"
	"strings"
	"testing"
	"time"

	"migproxy/config"
)

// uidlsOf puts names of messages under the UIDs from 1 on.
func uidlsOf(t *testing.T, c *Claim, names ...string) {
	t.Helper()
	var all []UIDL
	for i, name := range names {
		all = append(all, UIDL{Name: name, SourceUIDValidity: 1, SourceUID: uint32(i + 1)})
	}
	ok(t, c.PutUIDLs(t.Context(), all))
}

func taken(t *testing.T, err error) *NameTakenError {
	t.Helper()
	e, is := errors.AsType[*NameTakenError](err)
	if !is {
		t.Fatalf("error %v, want a name that is taken", err)
	}
	return e
}

func TestLoginAliasesAreGivenAndTaken(t *testing.T) {
	s, ctx := openDir(t, t.TempDir()), t.Context()
	owner := begin(t, s, "anna", "secret")
	const address = "anna@example.com"
	for _, name := range []string{"a.rossi@example.com", `d\anna`, `d\anna`} { // twice is once
		ok(t, s.GiveLoginAlias(ctx, name, address))
	}
	if a, err := s.LoginAlias(ctx, `d\anna`); err != nil || a.ID != owner.ID {
		t.Errorf("%+v, %v", a, err)
	}
	if l, err := s.LoginAliases(ctx, owner.ID); err != nil || len(l) != 2 || l[0].Name != "a.rossi@example.com" || l[1].Origin != AliasGiven {
		t.Errorf("%+v, %v", l, err)
	}
	_, err := s.LoginAlias(ctx, "nobody@example.com")
	expect(t, err, ErrNotFound)
	expect(t, s.GiveLoginAlias(ctx, "x@example.com", "nobody@example.com"), ErrNotFound)
	expect(t, s.GiveLoginAlias(ctx, address, address), ErrOwnName)

	// No name has an account of its own as well, whoever asks for one.
	n := NewAccount{Identity: identity("a.rossi"), Password: config.NewSecret("secret"), Mode: config.ModeAccounts}
	_, _, err = s.Begin(ctx, n)
	if e := taken(t, err); e.Owner != address {
		t.Errorf("%+v", e)
	}
	_, _, err = s.Migrate(ctx, n)
	taken(t, err)
	_, err = s.Note(ctx, n.Identity, AtSource)
	taken(t, err)
	_, err = s.Exclude(ctx, n.Identity)
	taken(t, err)

	begin(t, s, "bob", "secret")
	if e := taken(t, s.GiveLoginAlias(ctx, `d\anna`, "bob@example.com")); e.Owner != address {
		t.Errorf("%+v", e)
	}
	expect(t, s.RemoveLoginAlias(ctx, `d\anna`, "bob@example.com"), ErrNotFound)
	ok(t, s.RemoveLoginAlias(ctx, `d\anna`, address))
	ok(t, s.GiveLoginAlias(ctx, `d\anna`, "bob@example.com"))
	ok(t, s.RemoveLoginAlias(ctx, "a.rossi@example.com", address))
	begin(t, s, "a.rossi", "secret") // its own account again
}

func TestGivenNamesOfAccounts(t *testing.T) {
	for name, c := range map[string]struct {
		put  func(s *Store) error
		want State // of the account that keeps its name; empty: it is taken
	}{
		"at the source": {put: func(s *Store) error {
			_, err := s.Note(t.Context(), identity("other"), AtSource)
			return err
		}},
		"native": {want: Native, put: func(s *Store) error {
			_, err := s.Note(t.Context(), identity("other"), Native)
			return err
		}},
		"being looked at": {want: Provisioning, put: func(s *Store) error {
			begin(t, s, "other", "secret")
			return nil
		}},
		"waiting": {put: func(s *Store) error {
			begin(t, s, "other", "secret")
			return claim(t, s).Release(t.Context(), Waiting, "why", time.Time{}, true)
		}},
		"waiting, created on the target": {want: Waiting, put: func(s *Store) error {
			begin(t, s, "other", "secret")
			c := claim(t, s)
			ok(t, c.SetOrigin(t.Context(), OriginCreated))
			return c.Release(t.Context(), Waiting, "why", time.Time{}, true)
		}},
		"in conflict": {put: func(s *Store) error {
			begin(t, s, "other", "secret")
			return claim(t, s).Release(t.Context(), Conflict, "why", time.Time{}, true)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, ctx := openDir(t, t.TempDir()), t.Context()
			_, err := s.Note(ctx, identity("anna"), Native)
			ok(t, err)
			ok(t, c.put(s))
			err = s.GiveLoginAlias(ctx, "other@example.com", "anna@example.com")
			_, there := s.Account(ctx, "other@example.com")
			if c.want != "" {
				if e := taken(t, err); e.State != c.want || there != nil {
					t.Errorf("%+v, %v", e, there)
				}
				return
			}
			ok(t, err)
			expect(t, there, ErrNotFound)
		})
	}
}

func TestBecomeAlias(t *testing.T) {
	s, ctx := openDir(t, t.TempDir()), t.Context()
	owner := begin(t, s, "anna", "secret")
	ok(t, claim(t, s).Release(ctx, Provisioning, "", time.Time{}, false))
	_, _, err := s.Migrate(ctx, NewAccount{Identity: identity("a.rossi"), Password: config.NewSecret("secret"),
		Mode: config.ModeAccounts, Aliases: []string{"rossi@example.com"}})
	ok(t, err)
	c := claim(t, s)
	uidlsOf(t, c, "x")
	ok(t, s.GiveLoginAlias(ctx, `d\rossi`, "a.rossi@example.com"))
	_, err = c.Alike(ctx, Mark{UIDValidity: 7})
	ok(t, err)
	changes, cancel := s.Subscribe(false)
	defer cancel()
	ok(t, c.BecomeAlias(ctx, owner.ID))
	if change := <-changes; change.State != Removed || change.Address != "a.rossi@example.com" {
		t.Errorf("%+v", change)
	}
	for _, name := range []string{"a.rossi@example.com", `d\rossi`} {
		if a, err := s.LoginAlias(ctx, name); err != nil || a.ID != owner.ID {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	if l, err := s.AccountAliases(ctx, owner.ID); err != nil || len(l) != 1 || l[0].Address != "rossi@example.com" {
		t.Errorf("%+v, %v", l, err)
	}
	_, err = s.Account(ctx, "a.rossi@example.com")
	expect(t, err, ErrNotFound)
	_, _, err = s.Password(ctx, c.id, SideSource)
	expect(t, err, ErrNoPassword)
	expect(t, c.Renew(ctx, time.Minute), ErrFenced)
	// Whoever holds the removed account's id writes to nobody.
	if b := begin(t, s, "bob", "secret"); b.ID == c.id {
		t.Errorf("bob has the id %d again", b.ID)
	}
	// Only an account for which nothing was done becomes a name of another.
	c = claim(t, s)
	ok(t, c.SetOrigin(ctx, OriginFree))
	expect(t, c.BecomeAlias(ctx, owner.ID), ErrChanged)
}

// alike has an account of each mark's kind looked up.
func alike(t *testing.T, s *Store, local string, m Mark, uidls ...string) []string {
	t.Helper()
	begin(t, s, local, "secret")
	c := claim(t, s)
	uidlsOf(t, c, uidls...)
	all, err := c.Alike(t.Context(), m)
	ok(t, err)
	var found []string
	for _, a := range all {
		found = append(found, a.Identity.Local)
	}
	ok(t, c.Release(t.Context(), Waiting, "", time.Time{}, true))
	return found
}

func equalNames(t *testing.T, what string, have []string, want ...string) {
	t.Helper()
	if len(have) != len(want) {
		t.Errorf("%s: %q, want %q", what, have, want)
		return
	}
	for i := range have {
		if have[i] != want[i] {
			t.Errorf("%s: %q, want %q", what, have, want)
		}
	}
}

func TestAlike(t *testing.T) {
	s, ctx := openDir(t, t.TempDir()), t.Context()
	digest := func(b byte) Digest { return Digest{b} }
	begin(t, s, "anna", "secret")
	c := claim(t, s)
	uidlsOf(t, c, "one", "two", "three")
	inbox := Folder{Source: "Inbox", Target: "INBOX", Selectable: true, SourceUIDValidity: 1, TargetUIDValidity: 2}
	ok(t, c.PutFolder(ctx, &inbox))
	work := Folder{Source: "Work", Target: "Work", Selectable: true, SourceUIDValidity: 9, TargetUIDValidity: 2}
	ok(t, c.PutFolder(ctx, &work))
	ok(t, c.Settle(ctx, inbox.ID, nil, []Message{{SourceUID: 1, TargetUID: 1, Digest: digest(1)}, {SourceUID: 2, TargetUID: 2, Digest: digest(2)}}))
	ok(t, c.Settle(ctx, work.ID, nil, []Message{{SourceUID: 1, TargetUID: 1, Digest: digest(1)}}))
	ok(t, c.PutAside(ctx, &SetAside{FolderID: inbox.ID, SourceUID: 3, Digest: digest(3), Reason: "no"}, strings.NewReader("x")))
	ok(t, c.Release(ctx, Copying, "", time.Time{}, false))
	mark := func(m Mark, messages ...MarkMessage) Mark { m.Messages = messages; return m }
	one, two, three := MarkMessage{1, digest(1)}, MarkMessage{2, digest(2)}, MarkMessage{3, digest(3)}

	by := Mark{UIDValidity: 1}
	equalNames(t, "all agree", alike(t, s, "a1", mark(by, one, two, three)), "anna")
	equalNames(t, "one agrees", alike(t, s, "a2", mark(Mark{UIDValidity: 1, UIDNext: 3}, two)), "anna")
	equalNames(t, "one differs", alike(t, s, "a3", mark(by, one, MarkMessage{2, digest(9)})))
	equalNames(t, "one is unknown", alike(t, s, "a4", mark(by, one, MarkMessage{4, digest(4)})))
	equalNames(t, "another UIDVALIDITY", alike(t, s, "a5", mark(Mark{UIDValidity: 2}, one, two)))
	equalNames(t, "another folder", alike(t, s, "a6", mark(Mark{UIDValidity: 9}, one)))
	// A mailbox whose next UID is 2 has never had anna's second message: it has
	// the same welcome message, and is not hers.
	equalNames(t, "anna has had more", alike(t, s, "a7", mark(Mark{UIDValidity: 1, UIDNext: 2}, one)))
	equalNames(t, "the same mark before the copy", alike(t, s, "a8", mark(Mark{UIDValidity: 2}, one, two)), "a5")

	pop := Mark{UIDLs: true, UIDValidity: 1}
	equalNames(t, "UIDLs agree", alike(t, s, "p1", mark(pop, MarkMessage{1, digest(2)}, MarkMessage{2, digest(3)}), "two", "three"), "anna")
	equalNames(t, "a UIDL of another message", alike(t, s, "p2", mark(pop, MarkMessage{1, digest(1)}), "two"))
	equalNames(t, "other UIDLs", alike(t, s, "p3", mark(pop, one, two), "x-one", "x-two"))
	equalNames(t, "the same UIDLs before the copy", alike(t, s, "p4", mark(pop, one, two), "x-one", "x-two"), "p3")

	begin(t, s, "cora", "secret") // knows one of the two
	c = claim(t, s)
	inbox = folder(t, c, "INBOX")
	ok(t, c.Settle(ctx, inbox.ID, nil, []Message{{SourceUID: 2, TargetUID: 2, Digest: digest(2)}}))
	ok(t, c.Release(ctx, Copying, "", time.Time{}, false))
	equalNames(t, "one account knows one, another both", alike(t, s, "a9", mark(by, one, two)), "anna")

	other := NewAccount{Identity: config.Identity{Login: "o", Local: "o", Domain: "example.org"}, Password: config.NewSecret("x"), Mode: config.ModeAccounts}
	_, _, err := s.Begin(ctx, other)
	ok(t, err)
	c = claim(t, s)
	all, err := c.Alike(ctx, mark(by, one, two, three))
	if err != nil || len(all) != 0 {
		t.Errorf("in another domain: %+v, %v", all, err)
	}
}

func TestEmptyMailboxesAreAlike(t *testing.T) {
	s, ctx := openDir(t, t.TempDir()), t.Context()
	begin(t, s, "anna", "secret")
	c := claim(t, s)
	folder(t, c, "INBOX")
	empty := Mark{UIDValidity: 1, UIDNext: 5}
	ok(t, c.Release(ctx, Waiting, "", time.Time{}, true))
	equalNames(t, "not yet known to be empty", alike(t, s, "e1", empty))
	_, err := s.Retry(ctx, "anna@example.com")
	ok(t, err)
	ok(t, claim(t, s).Flip(ctx, Active, 1, time.Time{}))
	equalNames(t, "empty at the flip, and before the copy", alike(t, s, "e2", empty), "anna", "e1")
	equalNames(t, "another UIDVALIDITY", alike(t, s, "e3", Mark{UIDValidity: 2, UIDNext: 5}))
}

package imapwire

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestList(t *testing.T) {
	c := dial(t, "", Options{}, func(s *server) {
		s.command(`LIST "" "*"`)
		s.send(`* LIST (\HasChildren \Sent) "/" INBOX`,
			`* LIST () "/" "a \"b\" \\c"`,
			`* LIST () "\\" `+literal("with \"all\"\r\n({5}"),
			`* LIST () NIL R&D`,
			`* LIST () "." &&&-`,
			"* LIST () \".\" \"Gr\xfc\xdfe\"",
			`* list (\noselect) "." Sent Items`,
			`* LIST () "." "child" ("CHILDINFO" ("SUBSCRIBED" (x "y")))`,
			`* LIST () "." bare (CHILDINFO (SUBSCRIBED))`,
			`* LIST () "." INBOX`,
			`* LIST (\Subscribed \Sent) "." INBOX`,
			`* XLIST () "." no`,
			`* OK LIST () "." no`,
			`* LSUB () "." no`,
			"TAG OK")
		s.noop()
	})
	got, err := c.List(t.Context(), "*")
	if err != nil {
		t.Fatal(err)
	}
	want := []Mailbox{
		{"INBOX", '/', []string{`\HasChildren`, `\Sent`, `\Subscribed`}},
		{`a "b" \c`, '/', nil},
		{"with \"all\"\r\n({5}", '\\', nil},
		{"R&D", 0, nil},
		{"&&&-", '.', nil},
		{"Gr\xfc\xdfe", '.', nil},
		{"Sent Items", '.', []string{`\noselect`}},
		{"child", '.', nil},
		{"bare", '.', nil},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	usable(t, c)
}

// RETURN (SPECIAL-USE) is for servers that offer it, and some of those refuse it.
func TestListSpecialUse(t *testing.T) {
	for caps, refused := range map[string]bool{"SPECIAL-USE LIST-EXTENDED": false, "IMAP4REV2": true} {
		c := dial(t, caps, Options{}, func(s *server) {
			s.command(`LIST "" "%" RETURN (SPECIAL-USE)`)
			if refused {
				s.send("TAG BAD what")
				s.command(`LIST "" "%"`)
			}
			s.send(`* LIST (\Drafts) "/" d`, "TAG OK")
		})
		got, err := c.List(t.Context(), "%")
		if err != nil || len(got) != 1 || got[0].Name != "d" {
			t.Errorf("%s: %v %v", caps, got, err)
		}
	}
}

func TestSubscriptions(t *testing.T) {
	c := dial(t, "", Options{}, func(s *server) {
		s.command(`LSUB "" "*"`)
		s.send(`* LSUB () "." a`, `* LSUB (\NoSelect) "." parent`, `* LSUB () "." "parent.b"`, `* LSUB () "." a`, "TAG OK")
		s.noop()
	})
	got, err := c.Subscriptions(t.Context(), "*")
	if err != nil || !slices.Equal(got, []string{"a", "parent.b"}) {
		t.Errorf("%q %v", got, err)
	}
	usable(t, c)
}

func TestNamespace(t *testing.T) {
	for answer, want := range map[string]string{
		`* NAMESPACE (("INBOX." ".")) (("user." ".")) NIL`:    "INBOX. .",
		`* NAMESPACE (("" "/" X ("y"))("#mh/" "/")) NIL NIL`:  " /",
		`* NAMESPACE (({6}` + "\r\n" + `INBOX/ NIL)) NIL NIL`: "INBOX/ \x00",
		`* NAMESPACE NIL NIL NIL`:                             " !",
		`TAG BAD what`:                                        " !",
	} {
		c := dial(t, "NAMESPACE", Options{}, func(s *server) {
			s.command("NAMESPACE")
			s.send(answer)
			if !strings.HasPrefix(answer, "TAG") {
				s.send("TAG OK")
			}
			if strings.HasSuffix(want, "!") {
				s.command(`LIST "" ""`)
				s.send(`* LIST (\Noselect) "!" ""`, "TAG OK")
			}
			s.noop()
		})
		prefix, delim, err := c.Namespace(t.Context())
		if got := fmt.Sprintf("%s %c", prefix, delim); got != want || err != nil {
			t.Errorf("%s: got %q, want %q, %v", answer, got, want, err)
		}
		usable(t, c)
	}
}

func TestOtherNamespaces(t *testing.T) {
	for answer, want := range map[string][]string{
		`* NAMESPACE (("INBOX." ".")) (("user." ".")) (("shared." ".")("#news." "." X ("y" "z")))`: {"user.", "shared.", "#news."},
		`* NAMESPACE (("" "/")) NIL (({7}` + "\r\n" + `Public/ "/"))`:                              {"Public/"},
		`* NAMESPACE NIL NIL NIL`: nil,
		`* NAMESPACE ((`:          nil,
	} {
		c := dial(t, "NAMESPACE", Options{}, func(s *server) {
			s.command("NAMESPACE")
			s.send(answer, "TAG OK")
		})
		for range 2 { // the second time it does not ask
			got, err := c.OtherNamespaces(t.Context())
			if !slices.Equal(got, want) || err != nil {
				t.Errorf("%s: got %q, want %q, %v", answer, got, want, err)
			}
		}
	}
	c := dial(t, "NAMESPACE", Options{}, func(s *server) {
		s.command("NAMESPACE")
		s.send("TAG NO not here")
	})
	if got, err := c.OtherNamespaces(t.Context()); got != nil || err != nil {
		t.Errorf("refused: got %q, %v", got, err)
	}
}

func TestStatus(t *testing.T) {
	c := dial(t, "CONDSTORE", Options{}, func(s *server) {
		s.command(`STATUS "a" (MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ)`)
		s.send(`* STATUS b (MESSAGES 9)`,
			`* STATUS a (MESSAGES 3 X-LIST (1 2) uidnext 4294967295 UIDVALIDITY NIL HIGHESTMODSEQ 18446744073709551615)`,
			`* STATUS b (MESSAGES 9)`, "TAG OK")
		s.command(`STATUS "Sent Items" (MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ)`)
		s.send(`* STATUS "sent items" (MESSAGES 4`, "TAG OK")
		s.command(`STATUS "c" (MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ)`)
		s.send(`TAG NO [NONEXISTENT] none`)
	})
	if got, err := c.Status(t.Context(), "a"); err != nil || got != (Status{Messages: 3, UIDNext: 4294967295, HighestModSeq: 18446744073709551615}) {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := c.Status(t.Context(), "Sent Items"); err != nil || got != (Status{Messages: 4}) {
		t.Errorf("%+v %v", got, err)
	}
	var refused *StatusError
	if _, err := c.Status(t.Context(), "c"); !errors.As(err, &refused) || refused.Code != "NONEXISTENT" {
		t.Errorf("%v", err)
	}
}

func TestSelected(t *testing.T) {
	for name, tt := range map[string]struct {
		lines []string
		want  Selected
	}{
		"everything": {[]string{`* FLAGS (\Seen a]b "c")`, "* 12 EXISTS", "* 0 RECENT",
			`* OK [PERMANENTFLAGS (\Seen a]b \*)] Flags [permitted]`, "* OK [UIDVALIDITY 4000000000] valid", "* OK [UIDNEXT 13]", "* OK [closed] x",
			"* OK [NOMODSEQ]", "TAG OK [READ-ONLY] done"},
			Selected{12, 4000000000, 13, []string{`\Seen`, "a]b", "c"}, []string{`\Seen`, "a]b", `\*`}, true}},
		"little": {[]string{"* OK [UIDVALIDITY x]", "* OK [UIDNEXT", "* OK []", "* OK [", "TAG OK"}, Selected{ReadOnly: true}},
		"not read-only": {[]string{"* OK [PERMANENTFLAGS ()] none", "* 1 EXISTS", "TAG OK [read-write] done"},
			Selected{Exists: 1, PermanentFlags: []string{}}},
	} {
		c := dial(t, "", Options{}, func(s *server) {
			s.command(`EXAMINE "x"`)
			s.send(tt.lines...)
			s.noop()
		})
		got, err := c.Examine(t.Context(), "x")
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v, %v", name, got, tt.want, err)
		}
		usable(t, c)
	}
}

func TestCreateAndSubscribe(t *testing.T) {
	c := dial(t, "CREATE-SPECIAL-USE LITERAL+", Options{}, func(s *server) {
		s.command(`CREATE "Sent" (USE (\Sent))`)
		s.send("TAG OK")
		s.command(`CREATE "a"`)
		s.send("TAG NO [ALREADYEXISTS] it is there")
		s.command(`CREATE "b"`)
		s.send("TAG OK")
		s.command(`SUBSCRIBE {2+}`)
		if got := s.octets(2) + s.line(); got != "ü" {
			panic(errScript{fmt.Errorf("got %q", got)})
		}
		s.send("TAG OK")
		s.command(`SELECT "a"`)
		s.send("TAG OK [READ-WRITE]")
		s.command("LOGOUT")
		s.send("* BYE see you", "TAG OK")
	})
	ctx := t.Context()
	if err := c.Create(ctx, "Sent", `\Sent`); err != nil {
		t.Error(err)
	}
	var refused *StatusError
	if err := c.Create(ctx, "a", ""); !errors.As(err, &refused) || refused.Code != "ALREADYEXISTS" {
		t.Error(err)
	}
	if err := c.Create(ctx, "b", "x) injected"); err != nil {
		t.Error(err)
	}
	if err := c.Subscribe(ctx, "ü"); err != nil {
		t.Error(err)
	}
	if got, err := c.Select(ctx, "a"); err != nil || got.ReadOnly {
		t.Error(got, err)
	}
	if err := c.Logout(ctx); err != nil {
		t.Error(err)
	}
	closed(t, c)
}

// A name must never become a second command.
func TestNamesThatCannotBeSent(t *testing.T) {
	c := dial(t, "LITERAL+", Options{}, func(s *server) { s.noop() })
	ctx := t.Context()
	for _, name := range []string{"a\r\nM9 DELETE INBOX", "a\nb", "a\x00"} {
		_, status := c.Status(ctx, name)
		_, examine := c.Examine(ctx, name)
		_, list := c.List(ctx, name)
		_, appended := c.Append(ctx, name)
		for _, err := range []error{status, examine, list, appended, c.Create(ctx, name, ""), c.Subscribe(ctx, name)} {
			if err != ErrName {
				t.Errorf("%q: got %v", name, err)
			}
		}
	}
	usable(t, c)
}

// Some servers just leave.
func TestLogoutWithoutAnswer(t *testing.T) {
	c := dial(t, "", Options{}, func(s *server) {
		s.command("LOGOUT")
		s.send("* BYE")
	})
	if err := c.Logout(t.Context()); err != nil {
		t.Error(err)
	}
}

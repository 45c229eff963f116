package imapwire

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// Many commands go out before the first answer, and each answer counts for its
// own command, in whatever order they come.
func TestAtOnce(t *testing.T) {
	var tags []string
	c := dial(t, "CREATE-SPECIAL-USE", Options{}, func(s *server) {
		read := func(want string) {
			s.command(want)
			tags = append(tags, s.tag)
		}
		read(`CREATE "a"`)
		read(`CREATE "b" (USE (\Sent))`)
		read(`CREATE "c"`)
		s.send(tags[2]+" OK", "* 3 EXISTS", tags[0]+" OK", tags[1]+" NO [ALREADYEXISTS] is there")
		s.command(`SUBSCRIBE "a"`)
		s.send("TAG OK")
	})
	refused, err := c.CreateAll(t.Context(), []NewMailbox{{"a", ""}, {"b", `\Sent`}, {"c", ""}, {"d\r\n", ""}})
	if err != nil || refused[0] != nil || refused[2] != nil || !errors.Is(refused[3], ErrName) {
		t.Fatal(refused, err)
	}
	if no, ok := errors.AsType[*StatusError](refused[1]); !ok || no.Code != "ALREADYEXISTS" {
		t.Error(refused[1])
	}
	if refused, err := c.SubscribeAll(t.Context(), []string{"a"}); err != nil || refused[0] != nil {
		t.Error(refused, err)
	}
}

// A name that needs a literal which the server must grant goes alone.
func TestAtOnceLiteral(t *testing.T) {
	c := dial(t, "", Options{}, func(s *server) {
		s.command("CREATE {2}")
		s.send("+ go on")
		s.octets(2)
		s.line()
		s.send("TAG NO no such charset")
		s.command(`CREATE "a"`)
		s.send("TAG OK")
	})
	refused, err := c.CreateAll(t.Context(), []NewMailbox{{"a", ""}, {"\u00fc", ""}})
	if err != nil || refused[0] != nil || refused[1] == nil {
		t.Fatal(refused, err)
	}
}

// More commands than go out at once all get their answers; a server that leaves
// in between ends the connection.
func TestAtOnceMany(t *testing.T) {
	names := strings.Split(strings.Repeat("a,", maxAtOnce), ",")
	c := dial(t, "", Options{}, func(s *server) {
		for range names {
			tag, _, _ := strings.Cut(s.line(), " ")
			s.send(tag + " OK")
		}
		s.line()
		s.send("* BYE enough")
	})
	if refused, err := c.SubscribeAll(t.Context(), names); err != nil || slices.ContainsFunc(refused, func(err error) bool { return err != nil }) {
		t.Fatal(refused, err)
	}
	if _, err := c.SubscribeAll(t.Context(), names[:1]); err == nil || c.failed() == nil {
		t.Error(err)
	}
}

// FetchNewMeta has the server show what is new before it is asked for it.
func TestFetchNewMeta(t *testing.T) {
	c := dial(t, "", Options{}, func(s *server) {
		s.command("NOOP")
		noop := s.tag
		s.command("UID FETCH 2:3 (UID FLAGS INTERNALDATE RFC822.SIZE)")
		s.send("* 2 EXISTS", noop+" BAD what", "* 2 FETCH (UID 2 FLAGS () RFC822.SIZE 7)", "TAG OK")
	})
	var got []Meta
	err := c.FetchNewMeta(t.Context(), 2, 3, func(m Meta) error { got = append(got, m); return nil })
	if err != nil || len(got) != 1 || got[0].UID != 2 {
		t.Error(got, err)
	}
}

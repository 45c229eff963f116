package imapwire

import (
	"errors"
	"fmt"
	"testing"
)

// What is renamed and removed on a target.
func TestRenameDeleteUnsubscribe(t *testing.T) {
	c := dial(t, "LITERAL+", Options{}, func(s *server) {
		s.command(`RENAME "a" "b\"c"`)
		s.send("TAG OK")
		s.command(`RENAME "a" {2+}`)
		if got := s.octets(2) + s.line(); got != "ü" {
			panic(errScript{fmt.Errorf("got %q", got)})
		}
		s.send("TAG NO [ALREADYEXISTS] it is there")
		s.command(`DELETE "a"`)
		s.send("TAG NO [NONEXISTENT] it is not")
		s.command(`UNSUBSCRIBE "a"`)
		s.send("TAG OK")
		s.noop()
	})
	ctx := t.Context()
	if err := c.Rename(ctx, "a", `b"c`); err != nil {
		t.Error(err)
	}
	var refused *StatusError
	if err := c.Rename(ctx, "a", "ü"); !errors.As(err, &refused) || refused.Code != "ALREADYEXISTS" || refused.Command != "RENAME" {
		t.Error(err)
	}
	if err := c.Delete(ctx, "a"); !errors.As(err, &refused) || refused.Code != "NONEXISTENT" {
		t.Error(err)
	}
	if err := c.Unsubscribe(ctx, "a"); err != nil {
		t.Error(err)
	}
	for _, err := range []error{c.Rename(ctx, "a", "b\r\n"), c.Rename(ctx, "a\r\nx", "b"), c.Delete(ctx, "\n"), c.Unsubscribe(ctx, "\r")} {
		if !errors.Is(err, ErrName) {
			t.Error(err)
		}
	}
	usable(t, c)
}

// Exactly the messages named are expunged, in commands that servers take, whatever
// the server tells meanwhile.
func TestExpunge(t *testing.T) {
	var many []uint32
	for uid := uint32(1_000_000_001); len(many) < 1000; uid += 2 {
		many = append(many, uid)
	}
	c := dial(t, "UIDPLUS", Options{}, func(s *server) {
		s.command("UID EXPUNGE 3:5,9")
		s.send("* 3 EXPUNGE", "* VANISHED 4:5,9", "* 1 EXISTS", "* 1 FETCH (UID 1 FLAGS (\\Seen))", "TAG OK")
		for left := len(many); left > 0; {
			line := s.line()
			var tag, set string
			if _, err := fmt.Sscanf(line, "%s UID EXPUNGE %s", &tag, &set); err != nil || len(line) > 8000 {
				panic(errScript{fmt.Errorf("got %d octets: %.100s", len(line), line)})
			}
			for i := range set {
				if set[i] == ',' {
					left--
				}
			}
			left--
			s.send(tag + " OK")
		}
		s.command("UID EXPUNGE 1")
		s.send("TAG NO [NOPERM] not you")
		s.noop()
	})
	if err := c.Expunge(t.Context(), []uint32{3, 4, 5, 9}); err != nil {
		t.Error(err)
	}
	if err := c.Expunge(t.Context(), many); err != nil {
		t.Error(err)
	}
	var refused *StatusError
	if err := c.Expunge(t.Context(), []uint32{1}); !errors.As(err, &refused) || refused.Code != "NOPERM" {
		t.Error(err)
	}
	if err := c.Expunge(t.Context(), nil); err != nil {
		t.Error(err)
	}
	usable(t, c)
}

package imapwire

import (
	"maps"
	"slices"
	"testing"
)

func TestQuota(t *testing.T) {
	c := dial(t, "QUOTA", Options{}, func(s *server) {
		s.command(`GETQUOTAROOT "INBOX"`)
		s.send(`* QUOTAROOT INBOX "User quota" ""`, `* QUOTA "User quota" (STORAGE 10 512 message 1 20)`,
			`* QUOTA "" ()`, `* QUOTA x (STORAGE 5 many ANNOTATION-STORAGE 1)`, `* QUOTA {1}`, `y (STORAGE 7 18446744073709551615 STORAGE 7 9)`, "TAG OK")
		s.command(`GETQUOTAROOT "INBOX"`)
		s.send("TAG NO no quota here")
		s.noop()
	})
	got, err := c.Quota(t.Context(), "INBOX")
	if want := []Resource{{"STORAGE", 10, 512}, {"MESSAGE", 1, 20}, {"STORAGE", 7, 9}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v %v", got, err)
	}
	if got, err := c.Quota(t.Context(), "INBOX"); got != nil || err == nil {
		t.Errorf("%v %v", got, err)
	}
	usable(t, c)
}

func TestListSizesAndLimits(t *testing.T) {
	c := dial(t, "LIST-STATUS STATUS=SIZE APPENDLIMIT", Options{}, func(s *server) {
		s.command(`LIST "" "*" RETURN (STATUS (MESSAGES SIZE))`)
		s.send(`* LIST () "/" INBOX`, `* STATUS INBOX (SIZE 4294967296 MESSAGES 3)`, `* LIST () "/" "a b"`, `* STATUS "a b" (MESSAGES 0 SIZE 0)`, "TAG OK")
		s.command(`LIST "" "*" RETURN (STATUS (APPENDLIMIT))`)
		s.send(`* STATUS INBOX (APPENDLIMIT 1000)`, `* STATUS "a b" (APPENDLIMIT NIL)`, "TAG OK")
		s.command(`LIST "" "*" RETURN (STATUS (MESSAGES SIZE))`)
		s.send("TAG BAD what")
		s.noop()
	})
	sizes, ok, err := c.ListSizes(t.Context(), "*")
	if want := map[string]Status{"INBOX": {Messages: 3, Size: 1 << 32}, "a b": {}}; !ok || err != nil || !maps.Equal(sizes, want) {
		t.Error(sizes, ok, err)
	}
	limits, ok, err := c.ListAppendLimits(t.Context(), "*")
	if want := map[string]Status{"INBOX": {AppendLimit: 1000}, "a b": {}}; !ok || err != nil || !maps.Equal(limits, want) {
		t.Error(limits, ok, err)
	}
	if _, ok, err := c.ListSizes(t.Context(), "*"); ok || err != nil {
		t.Error(ok, err)
	}
	usable(t, c)
	plain := dial(t, "STATUS=SIZE APPENDLIMIT=5", Options{}, func(s *server) { s.noop() })
	if _, ok, err := plain.ListSizes(t.Context(), "*"); ok || err != nil {
		t.Error(ok, err)
	}
	if _, ok, err := plain.ListAppendLimits(t.Context(), "*"); ok || err != nil {
		t.Error(ok, err)
	}
	usable(t, plain)
}

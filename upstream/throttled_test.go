package upstream_test

import (
	"testing"
	"time"

	"migproxy/upstream"
)

// What servers were seen to answer when they were asked too much.
func TestThrottling(t *testing.T) {
	for _, c := range []struct {
		code, text string
		pause      time.Duration
		ok         bool
	}{
		{"", "Request is throttled. Suggested Backoff Time: 299961 milliseconds", 299961 * time.Millisecond, true},
		{"", "request is throttled. suggested backoff time: 1 milliseconds", time.Millisecond, true},
		{"ALERT", "Suggested Backoff Time:92415 milliseconds.", 92415 * time.Millisecond, true},
		{"", "Suggested Backoff Time: 999999999999 milliseconds", 999999999999 * time.Millisecond, true},
		{"", "Suggested Backoff Time: 9999999999999 milliseconds", 0, false},
		{"", "Suggested Backoff Time: -5 milliseconds", 0, false},
		{"", "Suggested Backoff Time: 5 minutes", 0, false},
		{"", "Suggested Backoff Time: milliseconds", 0, false},
		{"OVERQUOTA", "Account exceeded command or bandwidth limits.", 0, true},
		{"THROTTLED", "", 0, true},
		{"LIMIT", "Too many connections", 0, true},
		{"INUSE", "Mailbox in use", 0, true},
		{"LIMIT", "Suggested Backoff Time: 2000 milliseconds", 2 * time.Second, true},
		{"NONEXISTENT", "No such mailbox", 0, false},
		{"", "", 0, false},
	} {
		if pause, ok := upstream.Throttling(c.code, c.text); pause != c.pause || ok != c.ok {
			t.Errorf("[%s] %s: %v %v", c.code, c.text, pause, ok)
		}
	}
}

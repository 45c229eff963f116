package upstream

import (
	"regexp"
	"slices"
	"strconv"
	"time"
)

// Throttled says that a server serves nobody, or not this user, for a while,
// because it was asked too much. There is nothing wrong with a password then.
type Throttled struct {
	// Pause is how long the server wants to be left alone; 0 where it does not say.
	Pause time.Duration
	Said  string // the server's answer, for the log
}

func (e *Throttled) Error() string { return "the server was asked too much: " + e.Said }

// throttleCodes are the response codes of servers that were asked too much:
// those of RFC 5530, and Gmail's THROTTLED and, for an account's daily octets,
// OVERQUOTA.
var throttleCodes = []string{"INUSE", "LIMIT", "OVERQUOTA", "THROTTLED"}

// Throttling reads a NO, BAD or BYE of a server that mail is read from: its
// response code, upper case, and its text. ok is false where that speaks of
// something else.
func Throttling(code, text string) (pause time.Duration, ok bool) {
	pause, ok = backoff(text)
	return pause, ok || slices.Contains(throttleCodes, code)
}

// suggested is how Exchange says it, in a BAD or NO without a code.
var suggested = regexp.MustCompile(`(?i)\bSuggested Backoff Time: *(\d{1,12}) *milliseconds\b`)

// backoff reads the pause that Exchange suggests.
func backoff(text string) (pause time.Duration, ok bool) {
	found := suggested.FindStringSubmatch(text)
	if found == nil {
		return 0, false
	}
	ms, err := strconv.ParseInt(found[1], 10, 64)
	return time.Duration(ms) * time.Millisecond, err == nil
}

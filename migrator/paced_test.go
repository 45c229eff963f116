package migrator_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/store"
)

// Bodies come no faster than the settings allow, those that are read to
// recognise mail among them.
func TestRate(t *testing.T) {
	for name, limit := range map[string]config.Rate{
		"messages": {Messages: 50},
		"octets":   {Octets: 4000},
		"neither":  {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, _, b := fakes(t, twoFolders)
			octets := 0
			for _, box := range source.boxes {
				for _, m := range box.mails {
					octets += len(m.body)
				}
			}
			b.anna(t)
			o := b.options(t)
			o.Rate = limit
			began := time.Now()
			if a := b.run(t, o, "anna", rest...); a.State != store.Active || a.Messages != 180 {
				t.Fatalf("%s, %d messages: %s", a.State, a.Messages, a.Reason)
			}
			least := time.Duration(0)
			if limit.Messages > 0 { // the first second's may come at once
				least = time.Second * time.Duration(180-limit.Messages) / time.Duration(limit.Messages)
			}
			if limit.Octets > 0 {
				least = time.Second * time.Duration(octets-limit.Octets) / time.Duration(limit.Octets)
			}
			if took := time.Since(began); took < least || least == 0 && limit != (config.Rate{}) {
				t.Errorf("%d octets took %s, not %s", octets, took, least)
			}
			equal(t, source, target, "INBOX", "Work")
		})
	}
}

// A source that says it was asked too much is left alone, and asked again later.
// Nothing is held against the message under way, and the account's log says why.
func TestThrottlingSource(t *testing.T) {
	const exchange = "Request is throttled. Suggested Backoff Time: 30 milliseconds"
	for name, c := range map[string]struct{ command, answer string }{
		"login":          {"AUTHENTICATE", "NO [LIMIT] too many connections"},
		"login, no code": {"AUTHENTICATE", "NO " + exchange},
		"list":           {"LIST", "BAD " + exchange},
		"status":         {"STATUS", "NO [INUSE] mailbox in use"},
		"examine":        {"EXAMINE", "NO [THROTTLED] slow down"},
		"fetch":          {"UID", "NO [LIMIT] rate limit"},
		"bye":            {"UID", "* BYE [OVERQUOTA] Account exceeded command or bandwidth limits."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target, _, b := fakes(t, twoFolders)
			left := 4 // more than what makes a message suspicious that a connection was cut at
			source.onCommand = func(command, args string) string {
				if command == c.command && left > 0 && (command != "UID" || strings.Contains(args, "BODY.PEEK[]")) {
					left--
					return c.answer
				}
				return ""
			}
			b.anna(t)
			a := b.run(t, b.options(t), "anna", store.Active, store.Waiting, store.Failed, store.Conflict)
			if a.State != store.Active || a.Messages != 180 || left != 0 {
				t.Fatalf("%s, %d messages, %d left: %s", a.State, a.Messages, left, a.Reason)
			}
			equal(t, source, target, "INBOX", "Work")
			events, err := b.store.Events(context.Background(), "", 0, 100)
			if err != nil {
				t.Fatal(err)
			}
			said := false
			for _, e := range events {
				said = said || strings.Contains(e.Text, "is left alone for a while: the server was asked too much")
			}
			if !said {
				t.Errorf("no event says so: %v", events)
			}
		})
	}
}

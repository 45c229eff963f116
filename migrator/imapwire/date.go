package imapwire

import (
	"strings"
	"time"
)

// dateLayout is the date-time of RFC 9051 section 9, without its quotes.
const dateLayout = "_2-Jan-2006 15:04:05 -0700"

// maxZones bounds the zones that a connection remembers.
const maxZones = 128

// zones keeps one Location for each offset: a mailbox has few of them, and
// messages in hundreds of thousands.
type zones map[int]*time.Location

// parse reads an INTERNALDATE; what is no date gives the zero Time.
func (z zones) parse(s []byte) time.Time {
	t, err := time.Parse(dateLayout, strings.TrimSpace(string(s)))
	if err != nil || t.Year() == 0 {
		return time.Time{}
	}
	_, offset := t.Zone()
	location := z[offset]
	if location == nil {
		location = time.FixedZone("", offset)
		if len(z) < maxZones {
			z[offset] = location
		}
	}
	return t.In(location)
}

// sendable reports whether a date can be written as date-time, which has four
// digits for the year.
func sendable(t time.Time) bool {
	return !t.IsZero() && t.Year() > 0 && t.Year() < 10000
}

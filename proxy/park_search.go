package proxy

import (
	"bytes"
	"io"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	gomessage "github.com/emersion/go-message"
	"github.com/emersion/go-message/mail"
)

// Search implements SEARCH and UID SEARCH (RFC 9051 section 6.4.4).
func (s *parkSession) Search(kind imapserver.NumKind, criteria *imap.SearchCriteria, _ *imap.SearchOptions) (*imap.SearchData, error) {
	data := &imap.SearchData{}
	var seqs imap.SeqSet
	var uids imap.UIDSet
	for i, m := range s.view.messages {
		if !s.matches(i, criteria) {
			continue
		}
		num := uint32(i + 1)
		if kind == imapserver.NumKindUID {
			num = uint32(m.uid)
			uids.AddNum(m.uid)
		} else {
			seqs.AddNum(num)
		}
		if data.Count++; data.Count == 1 {
			data.Min = num
		}
		data.Max = num
	}
	data.All = seqs
	if kind == imapserver.NumKindUID {
		data.All = uids
	}
	return data, nil
}

// matches reports whether the message at an index meets all criteria. No
// message here has a flag.
func (s *parkSession) matches(index int, c *imap.SearchCriteria) bool {
	for _, set := range c.SeqNum {
		if !s.contains(set, index) {
			return false
		}
	}
	for _, set := range c.UID {
		if !s.contains(set, index) {
			return false
		}
	}
	m := s.view.messages[index]
	size := int64(len(m.octets))
	if len(c.Flag) > 0 || !onDay(m.date, c.Since, c.Before) ||
		c.Larger != 0 && size <= c.Larger || c.Smaller != 0 && size >= c.Smaller || !m.matchesText(c) {
		return false
	}
	for i := range c.Not {
		if s.matches(index, &c.Not[i]) {
			return false
		}
	}
	for i := range c.Or {
		if !s.matches(index, &c.Or[i][0]) && !s.matches(index, &c.Or[i][1]) {
			return false
		}
	}
	return true
}

// onDay compares days and leaves the zone aside, as RFC 9051 wants it.
func onDay(t, since, before time.Time) bool {
	t = time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	return (since.IsZero() || !t.Before(since)) && (before.IsZero() || t.Before(before))
}

// matchesText looks at what is written in a message.
func (m *parkedMessage) matchesText(c *imap.SearchCriteria) bool {
	if len(c.Header) > 0 || !c.SentSince.IsZero() || !c.SentBefore.IsZero() {
		h := mail.Header{Header: m.read().Header}
		for _, want := range c.Header {
			if !headerHas(h.FieldsByKey(want.Key), want.Value) {
				return false
			}
		}
		if !c.SentSince.IsZero() || !c.SentBefore.IsZero() {
			if sent, err := h.Date(); err != nil || !onDay(sent, c.SentSince, c.SentBefore) {
				return false
			}
		}
	}
	for _, want := range c.Text {
		if !headerHas(m.read().Header.Fields(), want) && !entityHas(m.read(), want) {
			return false
		}
	}
	for _, want := range c.Body {
		if !entityHas(m.read(), want) {
			return false
		}
	}
	return true
}

// read parses the message; an unreadable one is empty.
func (m *parkedMessage) read() *gomessage.Entity {
	e, _ := gomessage.Read(bytes.NewReader(m.octets)) // an unknown charset still gives an entity
	if e == nil {
		e = &gomessage.Entity{Body: strings.NewReader("")}
	}
	return e
}

func headerHas(fields gomessage.HeaderFields, want string) bool {
	for fields.Next() {
		v, _ := fields.Text() // undecodable text is compared as it is
		if strings.Contains(strings.ToLower(v), strings.ToLower(want)) {
			return true
		}
	}
	return false
}

// entityHas looks into the text parts below an entity.
func entityHas(e *gomessage.Entity, want string) (found bool) {
	want = strings.ToLower(want)
	_ = e.Walk(func(_ []int, part *gomessage.Entity, err error) error {
		if err != nil || found {
			return io.EOF
		}
		if t, _, _ := part.Header.ContentType(); t != "" && !strings.HasPrefix(t, "text/") {
			return nil
		}
		b, _ := io.ReadAll(part.Body) // bounded by the message, which is in memory
		found = strings.Contains(strings.ToLower(string(b)), want)
		return nil
	})
	return found
}

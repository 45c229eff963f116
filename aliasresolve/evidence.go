package aliasresolve

import (
	"fmt"
	"slices"
	"strings"
)

// Headers is a set of headers that showed an address.
type Headers uint16

// The headers that are looked at. The store keeps them by name.
const (
	DeliveredTo Headers = 1 << iota
	XOriginalTo
	EnvelopeTo
	XEnvelopeTo
	Received // its for clause
	From     // of a message that the mailbox's user wrote
	To
	Cc
	// List is any header by which the address is a mailing list's own.
	List
)

// Delivery is the headers that show that a message was delivered to an address.
const Delivery = DeliveredTo | XOriginalTo | EnvelopeTo | XEnvelopeTo | Received

// headerNames in the order of their bits.
var headerNames = []string{"Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "Received", "From", "To", "Cc", "List"}

// Each gives the headers of the set one by one.
func (h Headers) Each() []Headers {
	var each []Headers
	for i := range headerNames {
		if one := Headers(1) << i; h&one != 0 {
			each = append(each, one)
		}
	}
	return each
}

func (h Headers) String() string {
	var names []string
	for i, name := range headerNames {
		if h&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// MarshalText writes the names, as String does.
func (h Headers) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (h *Headers) UnmarshalText(text []byte) error {
	*h = 0
	if len(text) == 0 {
		return nil
	}
	for name := range strings.SplitSeq(string(text), ", ") {
		i := slices.Index(headerNames, name)
		if i < 0 {
			return fmt.Errorf("%q is no header that shows addresses; use a migproxy at least as new as the one that wrote it", name)
		}
		*h |= 1 << i
	}
	return nil
}

// Sighting is one address that one message showed, and all headers that did.
type Sighting struct {
	Address string // in normal form
	Headers Headers
}

// Bounds on what is kept of one message.
const (
	maxRoute = 64
	maxNamed = 64 // for each of From, To, Cc and List
)

// station is a header of the trace. Servers put theirs on top, so the first is
// the latest.
type station struct {
	header  Headers // one of Delivery, or resent
	address string
}

// resent marks a station where somebody who had the message sent it on.
const resent Headers = 1 << 15

// message is what the header of one message says.
type message struct {
	route          []station
	from, to, cc   []string
	lists          []string
	authors        int // mailboxes in From, in whatever domain
	sightings      []Sighting
	fromList, lost bool // a mailing list sent it; it says nothing
}

func (m *message) reset() {
	*m = message{route: m.route[:0], from: m.from[:0], to: m.to[:0], cc: m.cc[:0],
		lists: m.lists[:0], sightings: m.sightings[:0]}
}

// evidence gives what the message says of the mailbox that it lies in.
func (m *message) evidence(sent bool) []Sighting {
	m.sightings = m.sightings[:0]
	if m.lost {
		return nil
	}
	if sent {
		if m.authors == 1 {
			m.see(m.from, From)
		}
		return m.sightings
	}
	for _, s := range m.route {
		// What is older than a list or a forwarder was delivered to that one.
		if s.header == resent || slices.Contains(m.lists, s.address) {
			break
		}
		m.see([]string{s.address}, s.header)
	}
	if m.authors == 1 && len(m.from) == 1 && !m.fromList && m.toItself() {
		m.see(m.from, From)
	}
	m.see(m.to, To)
	m.see(m.cc, Cc)
	// A list's address is nothing but that.
	m.sightings = slices.DeleteFunc(m.sightings, func(s Sighting) bool { return slices.Contains(m.lists, s.Address) })
	m.see(m.lists, List)
	return m.sightings
}

// toItself reports whether the author wrote to his own address, and the message
// was delivered to it here. A colleague who has himself in Cc was delivered his
// copy elsewhere.
func (m *message) toItself() bool {
	from := m.from[0]
	if !slices.Contains(m.to, from) && !slices.Contains(m.cc, from) {
		return false
	}
	return slices.ContainsFunc(m.sightings, func(s Sighting) bool { return s.Address == from && s.Headers&Delivery != 0 })
}

// see adds a header to the sightings of some addresses.
func (m *message) see(addresses []string, h Headers) {
	for _, a := range addresses {
		i := slices.IndexFunc(m.sightings, func(s Sighting) bool { return s.Address == a })
		if i < 0 {
			i = len(m.sightings)
			m.sightings = append(m.sightings, Sighting{Address: a})
		}
		m.sightings[i].Headers |= h
	}
}

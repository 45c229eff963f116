package aliasresolve

import (
	"cmp"
	"maps"
	"slices"
)

// Count is how many messages of a mailbox showed an address in exactly these
// headers: one in Delivered-To and To is not in the count for To alone.
type Count struct {
	Address  string  `json:"address"` // in normal form
	Headers  Headers `json:"headers"`
	Messages int64   `json:"messages"`
}

// Tally is what a Collector has counted, as plain data.
type Tally struct {
	Counts []Count `json:"counts"`
	// Forgotten is how many times an address had to be forgotten because there
	// were more of them than are kept. It is more than 0 in the mailbox of a
	// catch-all, mostly.
	Forgotten int64 `json:"forgotten,omitempty"`
}

// DefaultLimit is how many addresses of a mailbox are kept: more than a person
// has, and below a megabyte.
const DefaultLimit = 1024

// Collector counts what the messages of one mailbox show. It keeps at most
// twice its limit of addresses, and forgets those that were delivered to, or
// written from, in the fewest messages. It is not safe for concurrent use.
type Collector struct {
	limit     int
	counts    map[string]map[Headers]int64
	forgotten int64
}

// NewCollector makes a collector that keeps so many addresses.
func NewCollector(limit int) *Collector {
	return &Collector{limit: max(limit, 1), counts: map[string]map[Headers]int64{}}
}

// Message counts one message.
func (c *Collector) Message(seen []Sighting) {
	for _, s := range seen {
		c.add(s.Address, s.Headers, 1)
	}
}

// Add counts what another collector counted, of other messages of the mailbox.
func (c *Collector) Add(t Tally) {
	for _, n := range t.Counts {
		c.add(n.Address, n.Headers, n.Messages)
	}
	c.forgotten += t.Forgotten
}

func (c *Collector) add(address string, h Headers, messages int64) {
	if h == 0 || messages <= 0 {
		return
	}
	by := c.counts[address]
	if by == nil {
		if len(c.counts) >= 2*c.limit {
			c.forget()
		}
		by = map[Headers]int64{}
		c.counts[address] = by
	}
	by[h] += messages
}

// forget keeps the addresses that count most, as many as the limit says.
func (c *Collector) forget() {
	if len(c.counts) <= c.limit {
		return
	}
	for _, address := range c.ranked()[c.limit:] {
		delete(c.counts, address)
		c.forgotten++
	}
}

// ranked gives the addresses by the messages that could lead to a claim or
// forbid one, then by all others. To and Cc have everybody's colleagues.
func (c *Collector) ranked() []string {
	type rank struct{ weighty, all int64 }
	ranks := make(map[string]rank, len(c.counts))
	for address, by := range c.counts {
		var r rank
		for h, n := range by {
			r.all += n
			if h&(Delivery|From|List) != 0 {
				r.weighty += n
			}
		}
		ranks[address] = r
	}
	return slices.SortedFunc(maps.Keys(c.counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(ranks[b].weighty, ranks[a].weighty), cmp.Compare(ranks[b].all, ranks[a].all), cmp.Compare(a, b))
	})
}

// Tally gives what was counted, by address and headers. It forgets down to the
// limit first.
func (c *Collector) Tally() Tally {
	c.forget()
	t := Tally{Forgotten: c.forgotten}
	for _, address := range slices.Sorted(maps.Keys(c.counts)) {
		by := c.counts[address]
		for _, h := range slices.Sorted(maps.Keys(by)) {
			t.Counts = append(t.Counts, Count{Address: address, Headers: h, Messages: by[h]})
		}
	}
	return t
}

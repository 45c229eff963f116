package aliasresolve

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
)

func TestCollector(t *testing.T) {
	one, two, both := NewCollector(10), NewCollector(10), NewCollector(10)
	messages := [][]Sighting{
		{{"a@example.com", DeliveredTo | To}, {"b@example.com", Cc}},
		{{"a@example.com", DeliveredTo}},
		{{"a@example.com", DeliveredTo | To}},
		nil,
	}
	for i, m := range messages {
		both.Message(m)
		if i == 0 {
			one.Message(m)
		} else {
			two.Message(m)
		}
	}
	want := Tally{Counts: []Count{
		{"a@example.com", DeliveredTo, 1}, {"a@example.com", DeliveredTo | To, 2}, {"b@example.com", Cc, 1}}}
	if got := both.Tally(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	one.Add(two.Tally())
	if got := one.Tally(); !reflect.DeepEqual(got, want) {
		t.Errorf("added: got %v, want %v", got, want)
	}
}

// The store keeps tallies as text: the names in it must outlive the program.
func TestTallyAsText(t *testing.T) {
	tally := Tally{Forgotten: 3, Counts: []Count{{"a@example.com", DeliveredTo | XOriginalTo | EnvelopeTo | XEnvelopeTo | Received | From | To | Cc | List, 7}}}
	text, err := json.Marshal(tally)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"counts":[{"address":"a@example.com","headers":"Delivered-To, X-Original-To, Envelope-To, X-Envelope-To, Received, From, To, Cc, List","messages":7}],"forgotten":3}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	var again Tally
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(again, tally) {
		t.Errorf("read again: %v, %v", again, err)
	}
	if err := json.Unmarshal([]byte(`{"counts":[{"headers":"X-New"}]}`), &again); err == nil {
		t.Error("a header that is not known is no error")
	}
}

// However many addresses a mailbox shows, as many as the limit are kept: those
// that could be claimed before those that stand in To and Cc only.
func TestCollectorIsBounded(t *testing.T) {
	const limit = 10
	c := NewCollector(limit)
	for i := range 10_000 {
		c.Message([]Sighting{{"often@example.com", Received}, {fmt.Sprintf("to%d@example.com", i%3), To | Cc},
			{fmt.Sprintf("once%d@example.com", i), DeliveredTo}, {"list@example.com", List}})
		if len(c.counts) > 2*limit {
			t.Fatalf("%d addresses are kept", len(c.counts))
		}
	}
	tally := c.Tally()
	if len(tally.Counts) != limit || tally.Forgotten < 9_990 {
		t.Errorf("%d addresses, %d forgotten", len(tally.Counts), tally.Forgotten)
	}
	kept := map[string]int64{}
	for _, n := range tally.Counts {
		kept[n.Address] = n.Messages
		if n.Headers&(To|Cc) != 0 {
			t.Errorf("%s is kept, of To only", n.Address)
		}
	}
	if kept["often@example.com"] != 10_000 || kept["list@example.com"] != 10_000 {
		t.Errorf("the addresses shown most are not kept, or not counted: %v", kept)
	}
	again := NewCollector(limit)
	again.Add(tally)
	if got := again.Tally(); !reflect.DeepEqual(got, tally) {
		t.Errorf("read again: %v", got)
	}
}

func BenchmarkCollector(b *testing.B) {
	c := NewCollector(DefaultLimit)
	seen := []Sighting{{"anna.rossi@example.com", XOriginalTo | Received | To}, {"anna@example.com", DeliveredTo}, {"bert@example.com", Cc}}
	b.ReportAllocs()
	for b.Loop() {
		c.Message(seen)
	}
}

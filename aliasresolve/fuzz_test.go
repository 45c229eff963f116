package aliasresolve

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzScanner: whatever a message is, and however it comes in pieces, the
// scanner takes it and says the same; what it says is in normal form; line ends
// without CR make no difference; and it keeps no more than its bounds allow.
func FuzzScanner(f *testing.F) {
	for i, m := range readCorpus(f) {
		f.Add([]byte(m.header), uint16(i*37), m.sent())
	}
	for i, seed := range []string{
		"", "\r", "\r\r\n\r\n", "\n", "Delivered-To: a@example.com\r", "\rDelivered-To: a@example.com\n\r",
		"Received: from x by y for <a@example.com> (((((", "From: =?utf-8?q?=22?= \"\\\" <a@example.com>, :;<<>>",
		"List-Id: <.example.com>\nList-Post: <mailto:@?>\nMailing-List: list ", "To: " + strings.Repeat("a@example.com,", 700),
		"Delivered-To: example.com-@example.com\n:\n : \nX", "Sender: owner-@example.com, -bounces@example.com\n\n",
		"Delivered-To: a@ex\u00e4mple.com\nCc: \xfc@example.com, \u00fc@b\u00fccher.example\n",
	} {
		f.Add([]byte(seed), uint16(i), i%2 == 0)
	}
	whole, pieces := NewScanner(own), NewScanner(own)
	f.Fuzz(func(t *testing.T, octets []byte, cut uint16, sent bool) {
		if n, err := whole.Write(octets); n != len(octets) || err != nil {
			t.Fatalf("Write gives %d, %v", n, err)
		}
		seen := whole.Evidence(sent)
		want := show(seen)
		for _, s := range seen {
			if normal, ok := Normalise(s.Address); !ok || normal != s.Address {
				t.Errorf("%q is not in normal form: %q %v", s.Address, normal, ok)
			}
			if s.Headers&(Delivery|List) == 0 && !own.Own(s.Address) {
				t.Errorf("%q is in no own domain: %s", s.Address, s.Headers)
			}
			if sent && s.Headers != From {
				t.Errorf("sent mail shows %q in %s", s.Address, s.Headers)
			}
		}
		// In pieces of one to some octets.
		for left, n := octets, 1+int(cut%7); len(left) > 0; n = 1 + (n*5+int(cut))%11 {
			n = min(n, len(left))
			pieces.Write(left[:n])
			left = left[n:]
		}
		if got := show(pieces.Evidence(sent)); got != want {
			t.Errorf("in pieces:\n%s\nwant\n%s", got, want)
		}
		k := int(cut) % (len(octets) + 1)
		pieces.Write(octets[:k])
		pieces.Write(octets[k:])
		if got := show(pieces.Evidence(sent)); got != want {
			t.Errorf("cut at %d:\n%s\nwant\n%s", k, got, want)
		}
		if len(octets) < maxField {
			pieces.Write(bytes.ReplaceAll(octets, []byte("\r\n"), []byte("\n")))
			if got := show(pieces.Evidence(sent)); got != want && !bytes.Contains(octets, []byte("\r\r")) {
				t.Errorf("with LF:\n%s\nwant\n%s", got, want)
			}
		}
		checkBounds(t, pieces)
	})
}

// checkBounds fails if a scanner holds more than it may.
func checkBounds(t *testing.T, s *Scanner) {
	t.Helper()
	// append doubles what it grows.
	for what, size := range map[string][2]int{
		"field":     {cap(s.field), 2*maxField + 64},
		"addr-spec": {cap(s.parser.buf), 2*maxField + 64},
		"normal":    {cap(s.normal), 2 * (maxLocal + 3*maxDomain)},
		"interned":  {len(s.known), maxInterned},
		"route":     {cap(s.message.route), 2 * maxRoute},
		"to":        {cap(s.message.to), 2 * maxNamed},
		"lists":     {cap(s.message.lists), 2 * maxNamed},
		"sightings": {cap(s.message.sightings), 2 * (maxRoute + 4*maxNamed)},
	} {
		if size[0] > size[1] {
			t.Errorf("%s holds %d, want %d at most", what, size[0], size[1])
		}
	}
}

// A message made to fill a scanner leaves it within its bounds.
func TestScannerIsBounded(t *testing.T) {
	s := NewScanner(own)
	addresses := func(from, n int) string {
		var all []string
		for i := range n {
			all = append(all, "a"+strings.Repeat("b", i%40)+string(rune('a'+(from+i)%26))+"@example.com")
		}
		return strings.Join(all, ",")
	}
	for round := range 4 {
		for i := range 100 {
			for _, name := range []string{"To: ", "Cc: ", "From: ", "List-Post: ", "Received: for "} {
				s.Write([]byte(name + addresses(round+i, 80) + "\n"))
				s.Write([]byte(name + addresses(round*7+i, 1) + "\n"))
			}
		}
		s.Evidence(round%2 == 0)
	}
	for _, text := range []string{"To: " + strings.Repeat("x", 5000) + "@example.com, a@" + strings.Repeat("x", 3000), strings.Repeat("Delivered-To: a@example.com\n", 5000), strings.Repeat("x", 1<<19), "To: " + strings.Repeat("x", 1<<19), "To:" + strings.Repeat(" x\n", 1<<17), strings.Repeat("To: x\n", 1<<17)} {
		s.Write([]byte(text))
		s.Evidence(false)
		checkBounds(t, s)
	}
}

package migrator

import (
	"bytes"
	"crypto/sha256"
	"regexp"
	"testing"
)

var lineEnds = regexp.MustCompile(`\r+\n?|\n`)

// FuzzDigest: however a message comes in pieces, its digests are the same; the
// canonical one outlives what targets do to a message, and says beforehand
// where they might.
func FuzzDigest(f *testing.F) {
	for i, seed := range []string{"", "A: b\r\n\r\nc\r\n", "a: b\n\nc\n", "a\rb", "a: b\r\n\r\n\x00\r\n", "A: \xfc\n\nb\xfc\n", "\r\r\n\n\x00", "a\r", "a\r\r\nb\r\r\r", "A\x00: b\r\n\xfc\r\n\r\n\xfc"} {
		f.Add([]byte(seed), uint(i))
	}
	f.Fuzz(func(t *testing.T, octets []byte, cut uint) {
		k := cut % uint(len(octets)+1)
		whole := digestOf(string(octets))
		if pieces := digestOf(string(octets[:k]), string(octets[k:])); pieces != whole {
			t.Errorf("%q cut at %d: %+v, want %+v", octets, k, pieces, whole)
		}
		if whole.full != sha256.Sum256(octets) || whole.octets != int64(len(octets)) {
			t.Errorf("%q: %+v", octets, whole)
		}
		folded := bytes.ReplaceAll(lineEnds.ReplaceAll(octets, []byte("\n")), []byte{0}, []byte{0x80})
		altered := bytes.ReplaceAll(folded, []byte("\n"), []byte("\r\n"))
		for _, alike := range [][]byte{folded, altered} {
			if other := digestOf(string(alike)); other.canonical != whole.canonical {
				t.Errorf("%q and %q have different canonical digests", octets, alike)
			}
		}
		if !whole.fragile && !bytes.Equal(altered, octets) {
			t.Errorf("%q is altered by servers, and not said to be fragile", octets)
		}
	})
}

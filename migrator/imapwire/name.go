package imapwire

import (
	"encoding/base64"
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// ErrName says that a mailbox name holds CR, LF or NUL, which no command can
// carry. Nothing was sent and the connection stays usable.
var ErrName = errors.New("a mailbox name with CR, LF or NUL in it cannot be sent")

// utf7 is the alphabet of modified UTF-7 (RFC 3501 section 5.1.3). Bits left
// over at the end are let pass when decoding.
var utf7 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

func isPlain(r rune) bool { return 0x20 <= r && r <= 0x7e }

// EncodeName writes a mailbox name in modified UTF-7 (RFC 3501 section 5.1.3).
// Octets that are not UTF-8 become U+FFFD.
func EncodeName(name string) string {
	var b strings.Builder
	for len(name) > 0 {
		end := strings.IndexFunc(name, func(r rune) bool { return !isPlain(r) })
		if end < 0 {
			end = len(name)
		}
		b.WriteString(strings.ReplaceAll(name[:end], "&", "&-"))
		name = name[end:]
		if name == "" {
			break
		}
		if end = strings.IndexFunc(name, isPlain); end < 0 {
			end = len(name)
		}
		var units []byte
		for _, u := range utf16.Encode([]rune(name[:end])) {
			units = append(units, byte(u>>8), byte(u))
		}
		b.WriteByte('&')
		b.WriteString(utf7.EncodeToString(units))
		b.WriteByte('-')
		name = name[end:]
	}
	return b.String()
}

// DecodeName reads a mailbox name in modified UTF-7. Names that are UTF-8
// already are taken as they are. ok is false for a name that is neither; the
// name itself is returned then.
func DecodeName(wire string) (name string, ok bool) {
	if !utf8.ValidString(wire) {
		return wire, false
	}
	var b strings.Builder
	for rest := wire; ; {
		plain, after, shifted := strings.Cut(rest, "&")
		b.WriteString(plain)
		if !shifted {
			return b.String(), true
		}
		encoded, tail, ended := strings.Cut(after, "-")
		if !ended {
			return wire, false
		}
		rest = tail
		if encoded == "" {
			b.WriteByte('&')
			continue
		}
		if !decodeUnits(&b, encoded) {
			return wire, false
		}
	}
}

// decodeUnits writes one shifted run, UTF-16 in base64.
func decodeUnits(b *strings.Builder, encoded string) bool {
	if strings.ContainsAny(encoded, "\r\n") { // which the base64 decoder would skip
		return false
	}
	units, err := utf7.DecodeString(encoded)
	if err != nil || len(units)%2 != 0 {
		return false
	}
	for i := 0; i < len(units); i += 2 {
		r := rune(units[i])<<8 | rune(units[i+1])
		if utf16.IsSurrogate(r) {
			if i+3 >= len(units) {
				return false
			}
			i += 2
			if r = utf16.DecodeRune(r, rune(units[i])<<8|rune(units[i+1])); r == utf8.RuneError {
				return false
			}
		}
		b.WriteRune(r)
	}
	return true
}

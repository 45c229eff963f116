package migrator

import (
	"encoding/base64"
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

var (
	errUTF7      = errors.New("not modified UTF-7")
	utf7Encoding = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").
			WithPadding(base64.NoPadding).Strict()
)

// decodeUTF7 reads a mailbox name in modified UTF-7 (RFC 3501 5.1.3).
func decodeUTF7(s string) (string, error) {
	var b strings.Builder
	for s != "" {
		if c := s[0]; c != '&' {
			if c < 0x20 || c > 0x7e {
				return "", errUTF7
			}
			b.WriteByte(c)
			s = s[1:]
			continue
		}
		code, rest, found := strings.Cut(s[1:], "-")
		if !found {
			return "", errUTF7
		}
		s = rest
		if code == "" {
			b.WriteByte('&')
			continue
		}
		raw, err := utf7Encoding.DecodeString(code)
		if err != nil || len(raw)%2 != 0 {
			return "", errUTF7
		}
		for i := 0; i < len(raw); i += 2 {
			r := rune(raw[i])<<8 | rune(raw[i+1])
			if utf16.IsSurrogate(r) {
				if i += 2; i >= len(raw) {
					return "", errUTF7
				}
				r = utf16.DecodeRune(r, rune(raw[i])<<8|rune(raw[i+1]))
				if r == utf8.RuneError {
					return "", errUTF7
				}
			}
			b.WriteRune(r)
		}
	}
	return b.String(), nil
}

// encodeUTF7 writes a mailbox name in modified UTF-7.
func encodeUTF7(s string) string {
	var b strings.Builder
	var pending []byte
	flush := func() {
		if len(pending) > 0 {
			b.WriteString("&" + utf7Encoding.EncodeToString(pending) + "-")
			pending = pending[:0]
		}
	}
	for _, r := range s {
		switch {
		case r == '&':
			flush()
			b.WriteString("&-")
		case r >= 0x20 && r <= 0x7e:
			flush()
			b.WriteByte(byte(r))
		default:
			for _, u := range utf16.AppendRune(nil, r) {
				pending = append(pending, byte(u>>8), byte(u))
			}
		}
	}
	flush()
	return b.String()
}

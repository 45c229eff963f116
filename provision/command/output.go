package command

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"migproxy/config"
)

// stderrKept is how much of the end of standard error is held in memory,
// reasonMax how much of that reaches an error's text, in octets.
const (
	stderrKept = 16 << 10
	reasonMax  = 1 << 10
)

// tail is a writer that keeps the end of what is written.
type tail struct {
	limit int
	kept  []byte
	cut   bool // what came before kept was thrown away
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > t.limit {
		p, t.cut = p[len(p)-t.limit:], true
	}
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - t.limit; over > 0 {
		t.kept, t.cut = append(t.kept[:0], t.kept[over:]...), true
	}
	return n, nil
}

// reason gives the last lines as one line that may be logged, with the
// password masked, in front of it ": ". Where nothing was written it says so.
func (t *tail) reason(password config.Secret) string {
	// First mask, then cut: a cut password would no longer be recognised. What
	// was cut already may begin within one.
	spellings := spellingsOf(password)
	text := mask(string(t.kept), spellings)
	if t.cut {
		for _, s := range spellings {
			text = withoutEndOf(text, s)
		}
	}
	text = strings.TrimSpace(text)
	if over := len(text) - reasonMax; over > 0 {
		text = text[over:]
	}
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "?"), "\n", "; ")
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	if text == "" {
		return ": it gave no reason on standard error"
	}
	return ": " + text
}

// spellingsOf lists the spellings in which a script is likely to repeat a
// password: as it is, in base64, in JSON, as a shell's trace or Python's repr
// quotes it, and as it stands in a URL.
func spellingsOf(password config.Secret) []string {
	secret := password.Reveal()
	if secret == "" {
		return nil
	}
	ascii := strconv.QuoteToASCII(secret)
	repr := strings.ReplaceAll(secret, `\`, `\\`)
	spellings := []string{
		secret,
		base64.StdEncoding.EncodeToString([]byte(secret)),
		strings.ReplaceAll(secret, "'", `'\''`),
		repr,
		strings.ReplaceAll(repr, "'", `\'`),
		ascii[1 : len(ascii)-1],
		url.QueryEscape(secret),
		url.PathEscape(secret),
	}
	for _, escapeHTML := range []bool{true, false} {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(escapeHTML)
		if enc.Encode(secret) == nil {
			quoted := strings.TrimSpace(b.String())
			spellings = append(spellings, quoted[1:len(quoted)-1])
		}
	}
	return spellings
}

func mask(text string, spellings []string) string {
	for _, s := range spellings {
		text = strings.ReplaceAll(text, s, config.Secret{}.String())
	}
	return text
}

// withoutEndOf cuts the longest end of s off the beginning of text.
func withoutEndOf(text, s string) string {
	for i := 1; i < len(s); i++ {
		if rest, found := strings.CutPrefix(text, s[i:]); found {
			return rest
		}
	}
	return text
}

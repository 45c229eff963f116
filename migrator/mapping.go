package migrator

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// hierarchy is a personal namespace (RFC 2342): how its names begin, and what
// separates their parts. A delim of 0 is a server without hierarchy.
type hierarchy struct {
	prefix string
	delim  byte
}

// side is what one server says of its folders.
type side struct {
	hierarchy
	mailboxes []imapwire.Mailbox
	labels    bool // a message shows in several of them, see labels
}

// The uses that a folder can have more than in name (RFC 6154). \All and
// \Flagged are views of other folders, not places for mail.
var uses = []string{`\Archive`, `\Drafts`, `\Junk`, `\Sent`, `\Trash`}

// wellKnown names folders by use, for servers that do not tell it: what common
// servers and clients create, in English, German, French, Spanish and Italian.
var wellKnown = map[string][]string{
	`\Drafts`: {"drafts", "draft", "entwürfe", "entwurf", "brouillons", "borradores", "bozze"},
	`\Junk`:   {"junk", "spam", "junk e-mail", "junk email", "junk-e-mail", "bulk mail", "spamverdacht", "courrier indésirable"},
	`\Sent`: {"sent", "sent items", "sent messages", "sent mail", "sent-mail", "gesendet", "gesendete elemente",
		"gesendete objekte", "envoyés", "éléments envoyés", "enviados", "elementos enviados", "inviati", "posta inviata"},
	`\Trash`: {"trash", "deleted items", "deleted messages", "papierkorb", "gelöscht", "gelöschte elemente",
		"corbeille", "éléments supprimés", "papelera", "elementos eliminados", "cestino"},
}

// mapFolders gives each new personal folder of the source a folder of the
// target. Known ones keep theirs, and no two source folders share one. Names
// that differ in case only stay as they are: whether the target tells them
// apart is found out when they are created. The result has the new ones only,
// parents first.
func mapFolders(known []store.Folder, source, target side) []store.Folder {
	m := mapper{source: source, target: target,
		targets: map[string]string{}, taken: map[string]bool{}}
	for _, f := range known {
		m.targets[f.Source] = f.Target
		m.taken[decodeName(f.Target)] = true
	}
	boxes := slices.Clone(source.mailboxes)
	slices.SortStableFunc(boxes, func(a, b imapwire.Mailbox) int {
		if d := len(source.components(a.Name)) - len(source.components(b.Name)); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	boxes = slices.CompactFunc(boxes, func(a, b imapwire.Mailbox) bool { return a.Name == b.Name })
	m.mapInbox(boxes)
	m.mapSpecial(boxes)
	var fresh []store.Folder
	for _, box := range boxes {
		if slices.ContainsFunc(known, func(f store.Folder) bool { return f.Source == box.Name }) || !source.personal(box.Name) {
			continue
		}
		f := store.Folder{Source: box.Name, Selectable: selectable(box), Target: m.name(box.Name)}
		for _, use := range uses {
			if hasAttr(box, use) {
				f.SpecialUse = use
			}
		}
		fresh = append(fresh, f)
	}
	return fresh
}

// mapper collects a mapping.
type mapper struct {
	source, target side
	targets        map[string]string // by source name
	taken          map[string]bool   // decoded target names
}

func (m *mapper) take(source, target string) bool {
	if m.taken[decodeName(target)] {
		return false
	}
	m.targets[source], m.taken[decodeName(target)] = target, true
	return true
}

// mapInbox lets INBOX, however it is written, meet INBOX (RFC 9051 5.1).
func (m *mapper) mapInbox(boxes []imapwire.Mailbox) {
	for _, box := range boxes {
		if _, known := m.targets[box.Name]; !known && isInbox(box.Name) && m.take(box.Name, "INBOX") {
			return
		}
	}
}

// mapSpecial lets a folder with a use meet the target's folder with that use.
// A source that does not tell uses has them told by well-known names.
func (m *mapper) mapSpecial(boxes []imapwire.Mailbox) {
	for _, use := range uses {
		at := slices.IndexFunc(m.target.mailboxes, func(b imapwire.Mailbox) bool { return hasAttr(b, use) && selectable(b) })
		if at < 0 {
			continue
		}
		there := m.target.mailboxes[at].Name
		here, found := m.withUse(boxes, use, there)
		if _, known := m.targets[here]; found && !known {
			m.take(here, there)
		}
	}
}

// withUse finds the source's folder for a use: by attribute, else the one with
// the target's own name, else the first with a well-known name.
func (m *mapper) withUse(boxes []imapwire.Mailbox, use, there string) (string, bool) {
	var names []string
	for _, box := range boxes {
		if !m.source.personal(box.Name) || !selectable(box) || isInbox(box.Name) {
			continue
		}
		if hasAttr(box, use) {
			return box.Name, true
		}
		if len(m.source.components(box.Name)) == 1 && !slices.ContainsFunc(uses, func(u string) bool { return hasAttr(box, u) }) {
			names = append(names, box.Name)
		}
	}
	if use == `\Archive` && m.source.labels { // what has no other label was archived
		at := slices.IndexFunc(boxes, func(b imapwire.Mailbox) bool { return hasAttr(b, `\All`) && selectable(b) })
		if at >= 0 {
			return boxes[at].Name, true
		}
	}
	plain := func(s side, name string) string { return strings.ToLower(strings.Join(s.components(name), "/")) }
	for _, candidates := range [][]string{{plain(m.target, there)}, wellKnown[use]} {
		for _, c := range candidates {
			at := slices.IndexFunc(names, func(n string) bool { return plain(m.source, n) == c })
			if at >= 0 {
				return names[at], true
			}
		}
	}
	return "", false
}

// name gives a source folder its name on the target: below the name that its
// parent got, and with a suffix where that is taken.
func (m *mapper) name(source string) string {
	if t, done := m.targets[source]; done {
		return t
	}
	parts := m.source.components(source)
	var above string
	if parent, ok := m.source.parent(source); ok {
		above = m.name(parent) + m.target.separator()
	} else {
		above = m.target.prefix
	}
	own := imapwire.EncodeName(m.target.clean(parts[len(parts)-1]))
	for n := 1; ; n++ {
		name := above + own
		if n > 1 {
			name += "_" + strconv.Itoa(n)
		}
		if !isInbox(name) && m.take(source, name) {
			return name
		}
	}
}

// personal reports whether a name is of the personal namespace: below its
// prefix, or INBOX itself.
func (h hierarchy) personal(name string) bool {
	return isInbox(name) || len(name) > len(h.prefix) && strings.HasPrefix(name, h.prefix)
}

// local is a name without the prefix and without separators at its end.
func (h hierarchy) local(name string) string {
	if !isInbox(name) {
		name = strings.TrimPrefix(name, h.prefix)
	}
	if h.delim != 0 {
		if cut := strings.TrimRight(name, string(rune(h.delim))); cut != "" {
			name = cut
		}
	}
	return name
}

// components are the decoded parts of a name, the prefix taken away.
func (h hierarchy) components(name string) []string {
	parts := []string{h.local(name)}
	if h.delim != 0 {
		parts = strings.Split(parts[0], string(rune(h.delim)))
	}
	for i, p := range parts {
		parts[i] = decodeName(p)
	}
	return parts
}

// parent is the name of the folder above, which need not be listed.
func (h hierarchy) parent(name string) (string, bool) {
	local := h.local(name)
	at := strings.LastIndexByte(local, h.delim)
	if h.delim == 0 || at <= 0 {
		return "", false
	}
	if isInbox(local[:at]) && h.prefix == "" {
		return "INBOX", true
	}
	return h.prefix + local[:at], true
}

func (h hierarchy) separator() string {
	if h.delim == 0 {
		return "_"
	}
	return string(rune(h.delim))
}

// clean replaces what cannot stand within one part of a name on this server.
func (h hierarchy) clean(part string) string {
	part = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r < 0x80 && byte(r) == h.delim {
			return '_'
		}
		return r
	}, part)
	if part == "" {
		return "_"
	}
	return part
}

// cautious is another spelling of a target name, for targets that refuse to
// create the first: what storage often reserves is replaced.
func (h hierarchy) cautious(name string) string {
	rest, had := strings.CutPrefix(name, h.prefix)
	parts := []string{rest}
	if h.delim != 0 {
		parts = strings.Split(rest, string(rune(h.delim)))
	}
	for i, p := range parts {
		p = strings.Map(func(r rune) rune {
			if r > 0x7e || strings.ContainsRune(`./\%*~#"^:|`, r) {
				return '_'
			}
			return r
		}, decodeName(p))
		parts[i] = imapwire.EncodeName(strings.TrimSpace(p))
	}
	name = strings.Join(parts, h.separator())
	if had {
		name = h.prefix + name
	}
	return name
}

// decodeName reads one part of a name. What is no modified UTF-7 is taken as
// UTF-8, else as Latin-1: servers send all three.
func decodeName(part string) string {
	s, ok := imapwire.DecodeName(part)
	if ok || utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := range len(part) {
		b.WriteRune(rune(part[i]))
	}
	return b.String()
}

// sameButCase reports whether two names differ in nothing but case.
func sameButCase(a, b string) bool {
	return a != b && strings.EqualFold(decodeName(a), decodeName(b))
}

func isInbox(name string) bool { return strings.EqualFold(name, "INBOX") }

func hasAttr(b imapwire.Mailbox, attr string) bool {
	return slices.ContainsFunc(b.Attrs, func(a string) bool { return strings.EqualFold(a, attr) })
}

// selectable reports whether a mailbox can hold messages (RFC 9051 7.3.1).
func selectable(b imapwire.Mailbox) bool {
	return !hasAttr(b, `\Noselect`) && !hasAttr(b, `\NonExistent`)
}

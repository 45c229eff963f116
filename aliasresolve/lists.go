package aliasresolve

import (
	"bytes"
	"slices"
	"strings"
)

// list notes the address of the mailing list that a field tells of.
func (s *Scanner) list(kind field, value []byte) {
	if kind != fieldSender {
		s.message.fromList = true
	}
	switch kind {
	case fieldListID:
		s.listID(value)
	case fieldMailingList:
		// list team@example.com; contact team-help@example.com
		rest, found := bytes.CutPrefix(bytes.TrimLeft(value, " \t\r\n"), []byte("list "))
		if !found {
			return
		}
		word, _ := cutWord(rest)
		s.listed(word, nil)
	case fieldSender:
		s.listed(value, func(local []byte) []byte {
			for _, role := range []string{"-bounces", "-owner", "-admin"} { // Mailman
				if list, found := bytes.CutSuffix(local, []byte(role)); found {
					return list
				}
			}
			if list, found := bytes.CutPrefix(local, []byte("owner-")); found { // Majordomo
				return list
			}
			return nil
		})
	default:
		s.listed(value, nil)
	}
}

// listed notes the addresses in a value as lists, with the local part that name
// makes of theirs, if it makes any.
func (s *Scanner) listed(value []byte, name func(local []byte) []byte) {
	s.parse(value)
	for {
		local, domain, ok := s.parser.next()
		if !ok {
			return
		}
		domain, _, _ = bytes.Cut(domain, []byte("?")) // of mailto:team@example.com?subject=x
		if name != nil {
			if local = name(bytes.ToLower(local)); local == nil {
				continue
			}
		}
		s.noteList(s.normalise(local, domain))
	}
}

// listID reads List-Id: Team <team.example.com> is team@example.com.
func (s *Scanner) listID(value []byte) {
	open, end := bytes.LastIndexByte(value, '<'), bytes.LastIndexByte(value, '>')
	if open < 0 || end < open {
		return
	}
	id := strings.ToLower(string(bytes.TrimSpace(value[open+1 : end])))
	for i := range len(id) {
		if id[i] == '.' && s.domains[id[i+1:]] {
			s.noteList(s.normalise([]byte(id[:i]), []byte(id[i+1:])))
			return
		}
	}
}

func (s *Scanner) noteList(address string) {
	m := &s.message
	if address != "" && len(m.lists) < maxNamed && !slices.Contains(m.lists, address) {
		m.lists = append(m.lists, address)
	}
}

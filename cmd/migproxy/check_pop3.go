package main

import (
	"slices"
	"strings"

	"migproxy/config"
)

// readOver says whether the copy reads the source over a protocol first, or at
// all.
func readOver(domain *config.Domain, p config.Protocol) (first, atAll bool) {
	named := domain.Source.Protocols
	return len(named) > 0 && named[0] == p, slices.Contains(named, p)
}

// popNotes says what follows from reading the source over POP3.
func popNotes(domain *config.Domain, findings []*finding) (all []string) {
	first, atAll := readOver(domain, config.POP3)
	i := slices.IndexFunc(findings, func(f *finding) bool {
		return f.side == "source" && f.protocol == config.POP3 && f.err == nil
	})
	if !atAll || i < 0 {
		return nil
	}
	source := findings[i]
	capability := func(words ...string) bool {
		return slices.ContainsFunc(source.probe.Capabilities, func(line string) bool {
			has := strings.Fields(line)
			return len(has) >= len(words) && slices.Equal(has[:len(words)], words)
		})
	}
	switch {
	case !capability("EXPIRE", "0"):
	case domain.Source.POP3ExpireOK:
		all = append(all, "source pop3: announces EXPIRE 0, that it may delete messages once they are read; the settings take that")
	default:
		all = append(all, "source pop3: ANNOUNCES EXPIRE 0, THAT IT MAY DELETE MESSAGES ONCE THEY ARE READ, and so is not read: have it keep them, or, if it is known to do so, write pop3_expire_ok: true under source")
	}
	if !capability("UIDL") {
		all = append(all, "if the source's pop3 has no UIDL: every look at an account reads all of its messages; make migration.catch_up long")
	}
	if !capability("TOP") {
		all = append(all, "if the source's pop3 has no TOP: messages are read by RETR, after which some servers show them as read")
	}
	if first {
		all = append(all, "the source is read over POP3: INBOX alone, as unread mail, with the dates of its Received fields; "+
			"folders and flags cannot be had, and on a Dovecot messages are no longer recent unless it has pop3_no_flag_updates = yes")
	}
	return all
}

package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"migproxy/config"
)

// writeFindings prints, for each domain, what its servers are, what they
// offer, and what follows from that.
func writeFindings(w io.Writer, findings []*finding) error {
	for len(findings) > 0 {
		domain := findings[0].domain
		n := len(findings)
		if i := slices.IndexFunc(findings, func(f *finding) bool { return f.domain != domain }); i > 0 {
			n = i
		}
		if err := writeDomain(w, domain, findings[:n]); err != nil {
			return err
		}
		findings = findings[n:]
	}
	return nil
}

func writeDomain(w io.Writer, domain *config.Domain, findings []*finding) error {
	if _, err := fmt.Fprintf(w, "%s\n\n", domain.Name); err != nil {
		return err
	}
	reach := [][]string{{"SERVER", "ADDRESS", "REACHABLE", "TLS", "CERTIFICATE UNTIL", "GREETING"}}
	offers := [][]string{append([]string{"SERVER"}, capabilityNames...)}
	for _, f := range findings {
		reach = append(reach, reachRow(f))
		if f.err == nil {
			offers = append(offers, offerRow(f))
		}
	}
	if err := writeTable(w, reach); err != nil {
		return err
	}
	if len(offers) > 1 {
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
		if err := writeTable(w, offers); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w, "(?: not shown before login; many servers show the rest only after it. "+
			"migproxy looks again at each login.)"); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	for _, note := range notes(domain, findings) {
		if _, err := fmt.Fprintf(w, "- %s\n", printable(note)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w)
	return err
}

func reachRow(f *finding) []string {
	if f.err != nil {
		return []string{f.name(), f.server.Address(), "NO", "-", "-", "-"}
	}
	encrypted, expires := "NONE", "-"
	if f.probe.TLSVersion != "" {
		encrypted, expires = f.probe.TLSVersion, f.probe.CertificateExpires.UTC().Format("2006-01-02")
	}
	return []string{f.name(), f.probe.Server, "yes", encrypted, expires, f.probe.Greeting}
}

// applies says whether a capability means anything in a protocol.
func applies(capability string, p config.Protocol) bool {
	return (capability == "XCLIENT") == (p == config.POP3)
}

func offerRow(f *finding) []string {
	row := []string{f.name()}
	for _, c := range capabilityNames {
		switch {
		case !applies(c, f.protocol):
			row = append(row, "")
		case c == "XCLIENT" && f.probe.TakesClientAddress, f.has(c):
			row = append(row, "yes")
		case f.loggedIn != nil || c == "XCLIENT":
			row = append(row, "no")
		default:
			row = append(row, "?")
		}
	}
	return row
}

// notes says what will and will not be kept, and what else is to be done.
func notes(domain *config.Domain, findings []*finding) (all []string) {
	for _, f := range findings {
		if f.err != nil {
			all = append(all, fmt.Sprintf("%s: cannot be used: %v", f.name(), f.err))
			continue
		}
		if f.loginErr != nil {
			all = append(all, fmt.Sprintf("%s: parking cannot work: %v", f.name(), f.loginErr))
		}
		if f.probe.TLSVersion == "" && !loopback(f.probe.Remote) {
			all = append(all, fmt.Sprintf("%s: PASSWORDS AND MAIL GO OVER THE NETWORK IN THE CLEAR: set tls to starttls or implicit", f.name()))
		}
		all = append(all, trustNote(f, findings))
	}
	all = append(all, copyNotes(domain, findings)...)
	all = append(all, popNotes(domain, findings)...)
	if domain.Source.POP3 != nil && domain.Target.POP3 == nil {
		all = append(all, "the target has no pop3: POP3 users who have moved get a temporary failure; name target.pop3 if there is one")
	}
	if domain.Adopt {
		all = append(all, "adopt: accounts that the target has already get their mail copied if both servers take the same password")
	}
	if domain.Parking.Mode == config.ParkSource {
		all = append(all, "parking source: CLOSE DIRECT ACCESS TO THE SOURCE, so that IMAP and POP3 reach it from this server alone: "+
			"a session that migproxy does not see is not closed at the flip, and what is written there afterwards, other than new mail, is not carried over")
		if domain.Source.IMAP == nil {
			all = append(all, "parking source: the source has no imap, so that IMAP users get a temporary failure until they have moved; with the mode notice they can read why")
		}
	}
	all = append(all, "mail flow, please see that all three roads are open: the world's mail reaches an account where it lives "+
		"(MX at the target, which passes on to the source what has not moved yet); the target passes on mail for addresses "+
		"that have not moved yet; what the source still takes for an account that has moved is fetched by the catch-up until "+
		"the migration is completed, and must be passed on to the target from then on")
	return all
}

// trustNote says what is known about whether the server believes the client
// addresses that it is told. Over IMAP that cannot be seen without a login,
// but the same server's POP3 gives it away.
func trustNote(f *finding, findings []*finding) string {
	const advice = "a Dovecot needs this server's address in login_trusted_networks, or its penalty for wrong passwords hits every user at once"
	switch {
	case f.protocol == config.POP3 && f.probe.TakesClientAddress:
		return f.name() + ": believes our client addresses (it offers XCLIENT)"
	case f.protocol == config.POP3:
		return f.name() + ": DOES NOT BELIEVE OUR CLIENT ADDRESSES (no XCLIENT): " + advice
	case !f.probe.TakesClientAddress:
		return f.name() + ": TAKES NO CLIENT ADDRESSES (no ID): all users seem to come from this server; exempt its address from the other server's limits"
	case slices.ContainsFunc(findings, func(other *finding) bool {
		return other.side == f.side && other.protocol == config.POP3 && other.err == nil && other.probe.TakesClientAddress && sameHost(f, other)
	}):
		return f.name() + ": takes client addresses (ID), and believes them if it is the same Dovecot as the POP3 server on this host, which does"
	default:
		return f.name() + ": takes client addresses (ID), but only after a login could it be seen whether it believes them: " + advice
	}
}

func sameHost(a, b *finding) bool {
	hostA, _, errA := net.SplitHostPort(a.probe.Remote)
	hostB, _, errB := net.SplitHostPort(b.probe.Remote)
	return errA == nil && errB == nil && hostA == hostB
}

// copyNotes says how the copy will be.
func copyNotes(domain *config.Domain, findings []*finding) (all []string) {
	i := slices.IndexFunc(findings, func(f *finding) bool {
		return f.side == "target" && f.protocol == config.IMAP && f.err == nil
	})
	if i < 0 {
		return nil
	}
	target := findings[i]
	unless := func(capability, consequence string) {
		switch {
		case target.has(capability):
		case target.loggedIn != nil:
			all = append(all, fmt.Sprintf("the target has no %s: %s", capability, consequence))
		default:
			all = append(all, fmt.Sprintf("if the target has no %s after login: %s", capability, consequence))
		}
	}
	if domain.Parking.Mode == config.ParkSource {
		unless("UIDPLUS", "what users delete on the source cannot be removed there, and accounts wait before the flip: choose another parking mode")
	} else {
		unless("UIDPLUS", "what arrived is settled by looking; slower, nothing is lost")
	}
	unless("MULTIAPPEND", "messages are sent one by one; slower, nothing is lost")
	unless("LITERAL+", "each message waits for the target's go-ahead; slower, nothing is lost")
	unless("SPECIAL-USE", "Sent, Drafts, Junk and Trash are matched by their names alone")
	all = append(all, trialNotes(target)...)
	if overPOP3, _ := readOver(domain, config.POP3); overPOP3 {
		return append(all, "kept: octets; "+refusedNote)
	}
	return append(all,
		"kept: folders, subscriptions, octets, internal dates, flags; keywords as far as the target's folders permit new ones (PERMANENTFLAGS \\*)",
		"not kept: UIDs, so clients download once again; shared and public folders; access lists; filters (Sieve)",
		refusedNote)
}

const refusedNote = "what the target refuses is set aside and what it alters is noted: `migproxy account show ADDRESS`"

// loopback says whether an address with a port is this machine's own.
func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(host, "."))
	return err == nil && addr.IsLoopback()
}

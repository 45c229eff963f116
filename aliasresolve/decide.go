package aliasresolve

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Mode says which addresses of a mailbox become aliases.
type Mode int

// The modes.
const (
	Username Mode = iota // none
	Standard             // the one that its user writes as
	Extended             // those that its mail was delivered to
)

// Reason says why an address is not claimed.
type Reason int

// The reasons, strongest first: an address has the first one that holds.
const (
	// NotOwnDomain: it is in none of the domain's own domains.
	NotOwnDomain Reason = iota + 1
	// MailingList: some message says that it is a mailing list's.
	MailingList
	// SomebodysLogin: another account bears this name.
	SomebodysLogin
	// InAccountsFile: the administrator's list has it for another account.
	InAccountsFile
	// ShownByAnother: another mailbox shows it as well.
	ShownByAnother
	// AnothersAlias: it is another account's alias already, or the administrator
	// gave it to one.
	AnothersAlias
	// Subaddress: without its +detail it is this mailbox's own.
	Subaddress
	// NoEvidence: no header that counts in this mode shows it.
	NoEvidence
	// BelowMinimum: too few messages show it.
	BelowMinimum
	// Outranked: Standard takes one address, and the user writes from another
	// one more often.
	Outranked
)

var reasonNames = []string{"not in own domains", "mailing list", "somebody's login", "another's in the accounts file",
	"shown by another mailbox as well", "another account's alias", "subaddress", "no evidence", "below minimum", "outranked"}

func (r Reason) String() string {
	if r < 1 || int(r) > len(reasonNames) {
		return fmt.Sprintf("reason %d", int(r))
	}
	return reasonNames[r-1]
}

// MarshalText writes the name, as String does.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (r *Reason) UnmarshalText(text []byte) error {
	i := slices.Index(reasonNames, string(text))
	if i < 0 {
		return fmt.Errorf("%q is no reason to withdraw an alias; use a migproxy at least as new as the one that wrote it", text)
	}
	*r = Reason(i + 1)
	return nil
}

// Rules are the settings of a domain.
type Rules struct {
	Mode              Mode
	IgnoreXEnvelopeTo bool // extended.ignore_x_envelope_to
	IgnoreReceived    bool // extended.ignore_received
	Domains           Domains
	Minimum           int64 // messages that must show an address
	Approval          bool  // aliases.approval: the administrator decides
}

// delivery is the headers that count as evidence of delivery.
func (r Rules) delivery() Headers {
	h := Delivery
	if r.IgnoreXEnvelopeTo {
		h &^= XEnvelopeTo
	}
	if r.IgnoreReceived {
		h &^= Received
	}
	return h
}

// Shows reports whether headers show an address so that it counts in Shown.
func (r Rules) Shows(h Headers) bool { return h&(r.delivery()|From) != 0 }

// Mailbox is what a decision is about.
type Mailbox struct {
	Login string // the account's canonical address, as the store has it
	Tally Tally
}

// Known is what is known of the others. Addresses are in normal form.
type Known struct {
	// Shown says which mailboxes, by their account's canonical address, show an
	// address. The mailbox itself may be among them.
	Shown Shown
	// Logins says to which account a login name belongs: every account's
	// canonical address, and its further login names.
	Logins map[string]string
	// Aliases says which other account has an address as an alias that is on the
	// target, or that the administrator gave it.
	Aliases map[string]string
	// Accounts is the administrator's list of the source's accounts, or nil.
	Accounts *Accounts
}

// Shown maps addresses to the mailboxes that show them.
type Shown map[string][]string

// Add notes what a mailbox shows: the addresses that its mail was delivered to,
// in headers that are not ignored, and those that its user wrote from. They
// count however few messages show them, and whatever the mode.
func (s Shown) Add(m Mailbox, r Rules) {
	for _, n := range m.Tally.Counts {
		if r.Shows(n.Headers) && r.Domains.Own(n.Address) && !slices.Contains(s[n.Address], m.Login) {
			s[n.Address] = append(s[n.Address], m.Login)
		}
	}
}

// Claim is an address that a mailbox may have.
type Claim struct {
	Address  string `json:"address"`
	Messages int64  `json:"messages"` // that count in this mode
	// Evidence is how many messages showed it in each header, most first.
	Evidence []HeaderCount `json:"evidence"`
	// Proposed claims need the administrator's approval.
	Proposed bool `json:"proposed"`
}

// HeaderCount is how many messages showed an address in one header.
type HeaderCount struct {
	Header   Headers `json:"header"`
	Messages int64   `json:"messages"`
}

// Withdrawal is an address that the mailbox shows and may not have.
type Withdrawal struct {
	Claim
	Reason Reason `json:"reason"`
	// By is who has it, where the reason is about others: accounts by their
	// canonical address, some of them where they are many. For Subaddress it is
	// the address without detail, for Outranked the one written from more often.
	By []string `json:"by,omitempty"`
}

// Decision is the outcome for one mailbox. In both lists the address that most
// messages show comes first. The login itself is in none.
type Decision struct {
	Claims    []Claim
	Withdrawn []Withdrawal
}

// Decide says which addresses a mailbox claims. It depends on nothing but what
// it is given; asked again when more mailboxes are known, it may withdraw what
// it let pass before.
//
// Claims are only proposed, whatever the rules say, without a list of accounts,
// where the list lacks this very login and hence is not complete, and where
// addresses of the mailbox had to be forgotten.
func Decide(m Mailbox, r Rules, k Known) Decision {
	if r.Mode == Username {
		return Decision{}
	}
	j := judge{mailbox: m, rules: r, known: k, address: m.Login, counted: r.delivery()}
	if normal, ok := Normalise(m.Login); ok {
		j.address = normal
	}
	j.mine = k.Accounts.of(j.address)
	if r.Mode == Standard {
		j.counted = From
	}
	proposed := r.Approval || len(j.mine) == 0 || m.Tally.Forgotten > 0
	var d Decision
	all := j.sum()
	for _, c := range all {
		c.Proposed = proposed
		if c.Address == j.address {
			continue
		}
		reason, by := j.reason(c)
		if reason == 0 && r.Mode == Standard {
			reason, by = j.outranked(all, d.Claims, c)
		}
		if reason == 0 {
			d.Claims = append(d.Claims, c)
			continue
		}
		d.Withdrawn = append(d.Withdrawn, Withdrawal{Claim: c, Reason: reason, By: by})
	}
	return d
}

// judge decides about one mailbox.
type judge struct {
	mailbox Mailbox
	rules   Rules
	known   Known
	address string   // the login in normal form
	counted Headers  // those that lead to a claim in this mode
	mine    []string // the login's account in the administrator's list, if it is there
}

// sum adds up what each address was shown in, most messages that count first.
func (j judge) sum() []Claim {
	index := map[string]int{}
	var all []Claim
	for _, n := range j.mailbox.Tally.Counts {
		i, found := index[n.Address]
		if !found {
			i = len(all)
			index[n.Address] = i
			all = append(all, Claim{Address: n.Address})
		}
		c := &all[i]
		if n.Headers&j.counted != 0 {
			c.Messages += n.Messages
		}
		for _, h := range n.Headers.Each() {
			at := slices.IndexFunc(c.Evidence, func(e HeaderCount) bool { return e.Header == h })
			if at < 0 {
				at = len(c.Evidence)
				c.Evidence = append(c.Evidence, HeaderCount{Header: h})
			}
			c.Evidence[at].Messages += n.Messages
		}
	}
	for _, c := range all {
		slices.SortFunc(c.Evidence, func(a, b HeaderCount) int {
			return cmp.Or(cmp.Compare(b.Messages, a.Messages), cmp.Compare(a.Header, b.Header))
		})
	}
	slices.SortFunc(all, func(a, b Claim) int {
		return cmp.Or(cmp.Compare(b.Messages, a.Messages), strings.Compare(a.Address, b.Address))
	})
	return all
}

// reason says why an address is not claimed, or 0.
func (j judge) reason(c Claim) (Reason, []string) {
	if !j.rules.Domains.Own(c.Address) {
		return NotOwnDomain, nil
	}
	if slices.ContainsFunc(c.Evidence, func(e HeaderCount) bool { return e.Header == List }) {
		return MailingList, nil
	}
	if reason, by := j.others(c.Address); reason != 0 {
		return reason, by
	}
	if user := Base(c.Address); user != c.Address {
		// The server hands both to the same user, unless it knows no subaddresses.
		if reason, by := j.others(user); reason != 0 {
			return reason, by
		}
		if user == j.address || j.known.Logins[user] != "" || len(j.known.Accounts.Owners(user)) > 0 || j.shows(user) {
			return Subaddress, []string{user}
		}
	}
	switch {
	case c.Messages == 0:
		return NoEvidence, nil
	case c.Messages < j.rules.Minimum:
		return BelowMinimum, nil
	}
	return 0, nil
}

// others says who else has an address.
func (j judge) others(address string) (Reason, []string) {
	if owner := j.known.Logins[address]; owner != "" && owner != j.mailbox.Login {
		return SomebodysLogin, []string{owner}
	}
	if by := without(j.known.Accounts.Owners(address), j.mine...); len(by) > 0 {
		return InAccountsFile, by
	}
	if by := without(j.known.Shown[address], j.mailbox.Login); len(by) > 0 {
		return ShownByAnother, by
	}
	if owner := j.known.Aliases[address]; owner != "" && owner != j.mailbox.Login {
		return AnothersAlias, []string{owner}
	}
	return 0, nil
}

// shows reports whether the mailbox itself shows an address.
func (j judge) shows(address string) bool {
	return slices.ContainsFunc(j.mailbox.Tally.Counts, func(n Count) bool {
		return n.Address == address && j.rules.Shows(n.Headers)
	})
}

// outranked holds Standard to one address: the first of those that may be
// claimed at all, if its user does not write from his login as often.
func (j judge) outranked(all, claims []Claim, c Claim) (Reason, []string) {
	if len(claims) > 0 {
		return Outranked, []string{claims[0].Address}
	}
	if slices.ContainsFunc(all, func(l Claim) bool { return l.Address == j.address && l.Messages >= c.Messages }) {
		return Outranked, []string{j.mailbox.Login}
	}
	return 0, nil
}

// maxNames is how many others are named: info@ may be on everybody's line.
const maxNames = 3

// without gives the names that are not among some, sorted and each once, and of
// many the first ones.
func without(names []string, some ...string) []string {
	var left []string
	for _, name := range names {
		if !slices.Contains(some, name) {
			left = append(left, name)
		}
	}
	slices.Sort(left)
	left = slices.Compact(left)
	return left[:min(len(left), maxNames)]
}

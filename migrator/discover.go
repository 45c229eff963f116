package migrator

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.uber.org/zap"

	"migproxy/aliasresolve"
	"migproxy/store"
)

// Aliases says how further addresses of a domain's accounts are found.
type Aliases struct {
	Rules    aliasresolve.Rules
	Accounts *aliasresolve.Accounts // the administrator's list of the source's accounts, or nil
	// Version is another one whenever the above is: accounts are decided anew then.
	Version string
}

// observer reads the headers of messages of the source as they pass. A nil one
// reads nothing.
type observer struct{ scanner *aliasresolve.Scanner }

// observer is for one lane, or nil where the domain's aliases are not looked for.
func (j *job) newObserver() *observer {
	if j.aliases == nil {
		return nil
	}
	return &observer{aliasresolve.NewScanner(j.m.own)}
}

// over has the octets of a message observed that are written to w.
func (o *observer) over(w io.Writer) io.Writer {
	if o == nil {
		return w
	}
	return io.MultiWriter(w, o.scanner)
}

// shown ends a message, and gives what it showed in our domains.
func (o *observer) shown(own aliasresolve.Domains, f *folder) (shows []store.Sighting) {
	if o == nil {
		return nil
	}
	for _, s := range o.scanner.Evidence(isSent(f.Folder)) {
		if own.Own(s.Address) {
			shows = append(shows, store.Sighting{Address: s.Address, Headers: s.Headers.String(),
				Weighs: s.Headers&(aliasresolve.Delivery|aliasresolve.From|aliasresolve.List) != 0})
		}
	}
	return shows
}

// isSent reports whether a folder is for what its owner has sent, by its use or by
// a part of its name. What lies below such a folder was sent as well.
func isSent(f store.Folder) bool {
	if f.SpecialUse != "" {
		return f.SpecialUse == `\Sent`
	}
	// The separator need not be known yet, and is one of these nearly everywhere.
	for part := range strings.FieldsFuncSeq(decodeName(f.Source), func(r rune) bool { return strings.ContainsRune(`/.\`, r) }) {
		if slices.Contains(wellKnown[`\Sent`], strings.ToLower(part)) {
			return true
		}
	}
	return false
}

// decideAliases decides which of the addresses that the account's mail shows are
// its own. It does so when all mail was copied, and again when more has come, here or
// in another mailbox that shows one of them.
func (j *job) decideAliases(ctx context.Context) error {
	if j.aliases == nil {
		return nil
	}
	if decided, err := j.claim.AliasesDecided(ctx, j.aliases.Version); decided || err != nil {
		return err
	}
	var found aliasresolve.Decision
	changed, err := j.claim.DecideAliases(ctx, j.aliases.Version, func(e *store.AliasEvidence) (r store.AliasRulings, err error) {
		found, r, err = j.rule(e)
		return r, err
	})
	if err != nil {
		return err
	}
	j.m.step(stepAliasesDecided)
	moved := j.claim.Account.Moved()
	claims := slices.ContainsFunc(changed, func(a store.Alias) bool { return a.State != store.AliasWithdrawn })
	if !moved || claims {
		text := aliasresolve.Summary(j.address, found.Claims)
		j.event(ctx, fmt.Sprintf("'%s': %s", j.address, text))
		j.log.Info(text)
	}
	for _, a := range changed {
		if a.State == store.AliasWithdrawn {
			j.log.Info("an address is not claimed", zap.String("alias", a.Address), zap.String("reason", a.Reason))
			if moved {
				j.event(ctx, fmt.Sprintf("'%s': alias %s withdrawn: %s", j.address, a.Address, a.Reason))
			}
		}
	}
	return nil
}

// rule decides from what the account and others show.
func (j *job) rule(e *store.AliasEvidence) (d aliasresolve.Decision, r store.AliasRulings, err error) {
	m := aliasresolve.Mailbox{Login: j.address, Tally: aliasresolve.Tally{Forgotten: e.Forgotten}}
	weighty := map[string]bool{} // of what is known of others, this alone is asked
	for _, a := range e.Aliases {
		weighty[a.Address] = true
	}
	if own, ok := aliasresolve.Normalise(j.address); ok {
		r.Shown = append(r.Shown, own)
	}
	for _, n := range e.Counts {
		count := aliasresolve.Count{Address: n.Address, Messages: n.Messages}
		if err := count.Headers.UnmarshalText([]byte(n.Headers)); err != nil {
			return d, r, err
		}
		m.Tally.Counts = append(m.Tally.Counts, count)
		if j.aliases.Rules.Shows(count.Headers) {
			weighty[n.Address] = true
			r.Shown = append(r.Shown, n.Address)
		}
	}
	slices.Sort(r.Shown)
	r.Shown = slices.Compact(r.Shown)
	known, err := j.known(e, weighty)
	if err != nil {
		return d, r, err
	}
	d = aliasresolve.Decide(m, j.aliases.Rules, known)
	r.Aliases, err = j.rulings(d, e.Aliases)
	return d, r, err
}

// known asks what is known of addresses by others.
func (j *job) known(e *store.AliasEvidence, addresses map[string]bool) (aliasresolve.Known, error) {
	k := aliasresolve.Known{Shown: aliasresolve.Shown{}, Logins: map[string]string{}, Aliases: map[string]string{}, Accounts: j.aliases.Accounts}
	counts := func(headers string) bool {
		var h aliasresolve.Headers
		return h.UnmarshalText([]byte(headers)) != nil || j.aliases.Rules.Shows(h)
	}
	for address := range addresses {
		if !j.aliases.Rules.Domains.Own(address) {
			continue
		}
		for _, name := range slices.Compact([]string{address, aliasresolve.Base(address)}) {
			account, err := e.AccountOf(name, j.m.canonical(name))
			if err != nil {
				return k, err
			}
			if account != "" {
				k.Logins[name] = account
			}
			if k.Shown[name], err = e.ShownBy(name, counts); err != nil {
				return k, err
			}
			if k.Aliases[name], err = e.AliasOf(name); err != nil {
				return k, err
			}
		}
	}
	return k, nil
}

// canonical is how an account with this address would be called: its domain is
// written as in the settings.
func (m *Migrator) canonical(address string) string {
	local, domain, _ := strings.Cut(address, "@")
	return local + "@" + m.names[domain]
}

// rulings are what is written of a decision. What only shows, such as a
// colleague in Cc, is not: it was never to be claimed.
func (j *job) rulings(d aliasresolve.Decision, aliases []store.Alias) (all []store.AliasRuling, err error) {
	add := func(c aliasresolve.Claim, r store.AliasRuling) error {
		evidence, err := json.Marshal(c)
		r.Address, r.Evidence = c.Address, string(evidence)
		all = append(all, r)
		return err
	}
	written := func(is func(store.Alias) bool) int {
		return slices.IndexFunc(aliases, func(a store.Alias) bool { return a.Origin == store.AliasFound && is(a) })
	}
	kept := func(a store.Alias) bool { // of those that were approved before
		return (a.State == store.AliasApproved || a.State == store.AliasCreated) &&
			!slices.ContainsFunc(d.Withdrawn, func(w aliasresolve.Withdrawal) bool { return w.Address == a.Address && aboutOthers(w.Reason) })
	}
	for _, c := range d.Claims {
		r := store.AliasRuling{State: store.AliasApproved}
		other := written(func(a store.Alias) bool { return a.Address != c.Address && kept(a) })
		switch {
		case j.aliases.Rules.Mode == aliasresolve.Standard && other >= 0: // one is what it takes
			r.State, r.Reason = store.AliasWithdrawn, reasonText(aliasresolve.Outranked, []string{aliases[other].Address})
		case c.Proposed, !j.mayChangeAliases():
			r.State = store.AliasProposed
		}
		if err := add(c, r); err != nil {
			return nil, err
		}
	}
	for _, w := range d.Withdrawn {
		if known := written(func(a store.Alias) bool { return a.Address == w.Address }) >= 0; !known &&
			(w.Messages == 0 || w.Reason == aliasresolve.NotOwnDomain) {
			continue
		}
		r := store.AliasRuling{State: store.AliasWithdrawn, Reason: reasonText(w.Reason, w.By), Others: aboutOthers(w.Reason)}
		if err := add(w.Claim, r); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func reasonText(r aliasresolve.Reason, by []string) string {
	if len(by) == 0 {
		return r.String()
	}
	return r.String() + ": " + strings.Join(by, ", ")
}

// aboutOthers reports whether an address is withdrawn because it may be
// somebody else's.
func aboutOthers(r aliasresolve.Reason) bool {
	switch r {
	case aliasresolve.MailingList, aliasresolve.SomebodysLogin, aliasresolve.InAccountsFile, aliasresolve.ShownByAnother,
		aliasresolve.AnothersAlias:
		return true
	}
	return false
}

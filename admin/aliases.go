package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"migproxy/aliasresolve"
	"migproxy/config"
	"migproxy/store"
)

// aliasesPage is how many aliases are read from the store at a time.
const aliasesPage = 500

// Alias is a further address of an account.
type Alias struct {
	Address string            `json:"address"`
	Account string            `json:"account"`
	Origin  store.AliasOrigin `json:"origin"`
	State   store.AliasState  `json:"state"`
	// Reason is why it was withdrawn, or is not there.
	Reason string `json:"reason"`
	// Messages is how many messages speak for it; Evidence is in which headers
	// how many showed it. One that the administrator gave has none.
	Messages  int64                      `json:"messages"`
	Evidence  []aliasresolve.HeaderCount `json:"evidence"`
	UpdatedAt time.Time                  `json:"updated_at"`
}

func viewAlias(a store.Alias) Alias {
	v := Alias{Address: a.Address, Account: a.Account, Origin: a.Origin, State: a.State, Reason: a.Reason,
		Evidence: []aliasresolve.HeaderCount{}, UpdatedAt: a.UpdatedAt}
	var c aliasresolve.Claim
	if json.Unmarshal([]byte(a.Evidence), &c) == nil && c.Evidence != nil { // without evidence there is nothing to show
		v.Messages, v.Evidence = c.Messages, c.Evidence
	}
	return v
}

// AliasStateNames lists the states of an alias as they are shown.
func AliasStateNames() string {
	var names []string
	for _, s := range store.AliasStates() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// aliases streams a JSON list, page by page.
func (s *Server) aliases(w http.ResponseWriter, r *http.Request) {
	state, domain := store.AliasState(r.FormValue("state")), strings.ToLower(r.FormValue("domain"))
	if state != "" && !slices.Contains(store.AliasStates(), state) {
		s.fail(w, r, badRequest(fmt.Sprintf("there is no state %q of an alias; the states are %s", state, AliasStateNames())))
		return
	}
	if domain != "" && !s.hasDomain(domain) {
		s.fail(w, r, notFound(fmt.Sprintf("the domain %q is not in the settings", domain)))
		return
	}
	page, err := s.readAliases(r.Context(), domain, state, store.Alias{})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	err = writePages(deadlineWriter{w}, page, aliasesPage, viewAlias, func(last store.Alias) ([]store.Alias, error) {
		return s.readAliases(r.Context(), domain, state, last)
	})
	if err != nil {
		s.Log.Error("list of aliases", zap.Error(err))
		panic(http.ErrAbortHandler) // the client sees a cut, not an end
	}
}

func (s *Server) readAliases(ctx context.Context, domain string, state store.AliasState, after store.Alias) ([]store.Alias, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return s.Store.Aliases(ctx, domain, state, after, aliasesPage)
}

// judgeAlias makes a handler of the administrator's word on an alias. The value
// account of the form names the account, where several show the address.
func (s *Server) judgeAlias(judge func(ctx context.Context, address, account string) (store.Alias, error), verb string) func(context.Context, *http.Request) (Alias, error) {
	return func(ctx context.Context, r *http.Request) (Alias, error) {
		address, ok := aliasresolve.Normalise(r.PathValue("address"))
		if !ok {
			return Alias{}, badRequest(fmt.Sprintf("%q is not an address; write local@domain", r.PathValue("address")))
		}
		account := r.FormValue("account")
		if account != "" {
			id, err := s.identity(account)
			if err != nil {
				return Alias{}, err
			}
			account = id.Address()
		}
		a, err := judge(ctx, address, account)
		switch {
		case errors.Is(err, store.ErrNoAlias):
			return Alias{}, notFound(fmt.Sprintf("%s was found for no account, or not for the one named; see `migproxy aliases list`", address))
		case errors.Is(err, store.ErrSeveral):
			return Alias{}, conflict(fmt.Sprintf("several accounts have shown %s; name one with --account", address))
		case errors.Is(err, store.ErrHeld):
			return Alias{}, conflict(fmt.Sprintf("%s is a login of another account, or an alias of another one; see `migproxy account show` and `migproxy aliases list`, and take it away there first", address))
		case err != nil:
			return Alias{}, err
		}
		text := fmt.Sprintf("'%s': alias %s %s by the administrator", a.Account, a.Address, verb)
		s.Log.Info(text)
		return viewAlias(a), s.Store.Event(ctx, a.Account, text)
	}
}

// approve has an alias created. What was on the target before migproxy is never
// changed.
func (s *Server) approve(ctx context.Context, address, account string) (store.Alias, error) {
	a, err := s.Store.FindAlias(ctx, address, account)
	if err != nil {
		return store.Alias{}, err
	}
	owner, err := s.lookup(ctx, a.Account)
	if err != nil {
		return store.Alias{}, err
	}
	at := slices.IndexFunc(s.Config.Domains, func(d config.Domain) bool { return d.Name == owner.Identity.Domain })
	if owner.Origin == store.OriginAdopted || s.Config.Domains[at].Target.Provision.Driver == config.DriverNone {
		return store.Alias{}, conflict(fmt.Sprintf("%s was on the target before, and migproxy does not change it; add %s there by hand", a.Account, address))
	}
	if err := s.freeOfLogins(ctx, address, owner); err != nil {
		return store.Alias{}, err
	}
	return s.Store.ApproveAlias(ctx, address, a.Account)
}

// freeOfLogins makes sure that an alias is no login of another account, where its
// domain is written otherwise in the settings, and so in the names of accounts, than
// in mail. The store compares what is written alike.
func (s *Server) freeOfLogins(ctx context.Context, address string, owner store.Account) error {
	local, _, _ := strings.Cut(address, "@")
	for _, d := range s.Config.Domains {
		if !aliasresolve.NewDomains(d.Name).Own(address) {
			continue
		}
		login := local + "@" + d.Name
		a, err := s.Store.Account(ctx, login)
		if errors.Is(err, store.ErrNotFound) {
			a, err = s.Store.LoginAlias(ctx, login)
		}
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return err
		case a.ID != owner.ID:
			return store.ErrHeld
		}
	}
	return nil
}

// Aliases calls f for each alias of a domain, or of all, in a state, or in any,
// ordered by address.
func (c *Client) Aliases(ctx context.Context, domain string, state store.AliasState, f func(Alias) error) error {
	query := url.Values{"domain": {domain}, "state": {string(state)}}
	return listed(ctx, c, "/v1/aliases?"+query.Encode(), "aliases", f)
}

// ApproveAlias has an alias created. account may be empty where only one account
// has shown it.
func (c *Client) ApproveAlias(ctx context.Context, address, account string) (a Alias, err error) {
	err = c.call(ctx, http.MethodPost, aliasPath(address, account, "approve"), &a)
	return a, err
}

// RejectAlias decides against an alias for good.
func (c *Client) RejectAlias(ctx context.Context, address, account string) (a Alias, err error) {
	err = c.call(ctx, http.MethodPost, aliasPath(address, account, "reject"), &a)
	return a, err
}

func aliasPath(address, account, verb string) string {
	return "/v1/aliases/" + url.PathEscape(address) + "/" + verb + "?account=" + url.QueryEscape(account)
}

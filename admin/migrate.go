package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"

	"go.uber.org/zap"

	"migproxy/aliasresolve"
	"migproxy/config"
	"migproxy/store"
)

// The modes of MigrateRequest.
const (
	MigrateAccounts  = "accounts"  // create the accounts, copy, add the aliases
	MigrateMessages  = "messages"  // copy into accounts that are there already
	MigratePasswords = "passwords" // set each password on the target, copy nothing
)

// MigrateModes lists them.
func MigrateModes() []string { return []string{MigrateAccounts, MigrateMessages, MigratePasswords} }

// migrateMax bounds the body of POST /v1/migrate, in octets.
const migrateMax = 64 << 20

// MigrateRequest asks for accounts to be moved, whatever the wave.
type MigrateRequest struct {
	Mode  string        `json:"mode"`
	Users []MigrateUser `json:"users"`
}

// MigrateUser is one of them.
type MigrateUser struct {
	// Login is an address, or a name whose domain the first alias or
	// default_domain gives.
	Login string `json:"login"`
	// Password in base64; empty where a master user is to read the mailbox.
	Password []byte   `json:"password"`
	Aliases  []string `json:"aliases"`
}

// Begun is what became of one user of a MigrateRequest.
type Begun struct {
	Address string      `json:"address"`
	State   store.State `json:"state"`
	// Begun is false for an account that was being moved already.
	Begun bool `json:"begun"`
	// Error is why this account is not moved; empty if it is.
	Error string `json:"error,omitempty"`
}

// Identify says which account a login name stands for: user@domain, or user with
// the domain of the first alias, or the default domain. The error says what to
// write instead. It repeats neither an alias nor what is no plain address: in a
// list with a wrong separator, that may be a password.
func Identify(cfg *config.Config, login string, aliases []string) (config.Identity, error) {
	at := strings.LastIndexByte(login, '@')
	local, domain := login, cfg.DefaultDomain
	switch {
	case at >= 0:
		local, domain = login[:at], login[at+1:]
	case len(aliases) > 0:
		_, domain, _ = strings.Cut(aliases[0], "@")
	}
	id := config.Identity{Login: login, Local: strings.ToLower(local), Domain: strings.ToLower(domain)}
	switch {
	case !config.PlainLocal(local) || at >= 0 && !plainDomain(domain):
		return id, errors.New("the user is no plain address; see docs/limits.md")
	case at < 0 && len(aliases) == 0 && domain == "":
		return config.Identity{}, fmt.Errorf("%q has no domain, and default_domain is not set; write user@domain", login)
	case cfg.Domain(id.Domain) != nil:
	case at < 0 && len(aliases) > 0:
		return id, fmt.Errorf("the domain of the first alias of %q is not in the settings; add it under domains, or correct it", login)
	default:
		return id, fmt.Errorf("the domain %q of %q is not in the settings; add it under domains, or correct it", domain, login)
	}
	for i, alias := range aliases {
		local, domain, _ := strings.Cut(alias, "@")
		if cfg.Domain(domain) == nil || !config.PlainLocal(local) {
			return id, fmt.Errorf("alias %d of %q is not in a domain of the settings, or no plain address", i+1, login)
		}
	}
	return id, nil
}

// plainDomain reports whether a domain looks like one.
func plainDomain(domain string) bool {
	return domain != "" && !strings.ContainsFunc(domain, func(r rune) bool {
		return r != '.' && r != '-' && !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r)
	})
}

// migrate answers POST /v1/migrate. Nothing begins unless every user is one of
// ours, in a domain whose migration is active.
func (s *Server) migrate(w http.ResponseWriter, r *http.Request) {
	all, err := s.beginAll(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(deadlineWriter{w}).Encode(all)
}

func (s *Server) beginAll(r *http.Request) ([]Begun, error) {
	var q MigrateRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, migrateMax)).Decode(&q); err != nil {
		return nil, badRequest(fmt.Sprintf("the request is no list of users, or larger than %d MiB: split the list", migrateMax>>20))
	}
	list, err := s.checkAll(r.Context(), q)
	if err != nil {
		return nil, err
	}
	all := make([]Begun, 0, len(list))
	for _, n := range list {
		b, err := s.beginOne(r.Context(), n)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	s.Log.Info("accounts to be moved by command", zap.Int("accounts", len(all)), zap.String("mode", q.Mode))
	return all, nil
}

// checkAll finds out who is meant, and refuses the whole list where one is wrong.
func (s *Server) checkAll(ctx context.Context, q MigrateRequest) ([]store.NewAccount, error) {
	var list []store.NewAccount
	var wrong []string
	states := map[string]store.DomainState{}
	for i, u := range q.Users {
		id, err := Identify(s.Config, u.Login, u.Aliases)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("user %d: %s", i+1, err))
			continue
		}
		if _, known := states[id.Domain]; !known {
			ctx, cancel := context.WithTimeout(ctx, storeTimeout)
			states[id.Domain], err = s.Store.DomainState(ctx, id.Domain)
			cancel()
			if err != nil {
				return nil, err
			}
		}
		aliases, text := givenAliases(id, u.Aliases)
		if text != "" {
			wrong = append(wrong, fmt.Sprintf("user %d: %s", i+1, text))
		}
		n := store.NewAccount{Identity: id, Password: config.NewSecret(u.Password), Mode: config.ModeAccounts, Aliases: aliases}
		switch q.Mode {
		case MigrateAccounts:
		case MigrateMessages:
			n.Adopt = true
		case MigratePasswords:
			n.Mode = config.ModePasswords
		default:
			return nil, badRequest(fmt.Sprintf("there is no mode %q; the modes are %s", q.Mode, strings.Join(MigrateModes(), ", ")))
		}
		if text := s.lacking(n); text != "" {
			wrong = append(wrong, text)
		}
		list = append(list, n)
	}
	if len(wrong) > 0 {
		return nil, badRequest(strings.Join(wrong, "\n"))
	}
	for domain, state := range states {
		switch {
		case state.Finished:
			return nil, conflict(fmt.Sprintf("the migration of %s is finished: its source is never asked again", domain))
		case !state.Active:
			return nil, conflict(fmt.Sprintf("the migration of %s is stopped: `migproxy start --domain %s` first", domain, domain))
		}
	}
	return list, nil
}

// givenAliases puts the aliases of a user into the form in which they are compared
// with those that are found. The account's own address is none. The text says which
// one is no address.
func givenAliases(id config.Identity, aliases []string) (normal []string, wrong string) {
	own, _ := aliasresolve.Normalise(id.Address())
	for i, alias := range aliases {
		a, ok := aliasresolve.Normalise(alias)
		switch {
		case !ok: // it is not repeated, as it may be a password
			return nil, fmt.Sprintf("alias %d of %q is no address, or too long", i+1, id.Login)
		case a != own:
			normal = append(normal, a)
		}
	}
	return normal, ""
}

// lacking says what is missing to move an account without a password.
func (s *Server) lacking(n store.NewAccount) string {
	if !n.Password.IsZero() {
		return ""
	}
	d := s.Config.Domain(n.Identity.Domain)
	address := n.Identity.Address()
	switch {
	case n.Mode == config.ModePasswords:
		return fmt.Sprintf("%s has no password; mode passwords is for lists with passwords", address)
	case d.Source.Master.User == "":
		return fmt.Sprintf("%s has no password, and %s has no source.master, who could read the mailbox: write the password, or name a master user", address, d.Name)
	case n.Adopt && d.Target.Master.User == "":
		return fmt.Sprintf("%s has no password, and %s has no target.master, who could write into the mailbox: write the password, or name a master user", address, d.Name)
	}
	return ""
}

func (s *Server) beginOne(ctx context.Context, n store.NewAccount) (Begun, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	a, begun, err := s.Store.Migrate(ctx, n)
	b := Begun{Address: n.Identity.Address(), State: a.State, Begun: begun}
	if taken, is := errors.AsType[*store.NameTakenError](err); is {
		b.Error = fmt.Sprintf("it is another name of %s: name that account", taken.Owner)
		return b, nil
	}
	if errors.Is(err, store.ErrChanged) {
		b.Error = "it is " + string(a.State) + " already"
		return b, nil
	}
	return b, err
}

// StatesRequest names accounts.
type StatesRequest struct {
	Addresses []string `json:"addresses"`
}

// states answers POST /v1/accounts/states with those accounts that are known, in
// the order of their addresses. A login alias stands where its account does.
func (s *Server) states(ctx context.Context, r *http.Request) ([]Account, error) {
	var q StatesRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, migrateMax)).Decode(&q); err != nil {
		return nil, badRequest("the request is no list of addresses, or too long")
	}
	all := make([]Account, 0, len(q.Addresses))
	for _, address := range q.Addresses {
		address = strings.ToLower(address)
		a, err := s.Store.Account(ctx, address)
		if err == nil {
			all = append(all, s.viewAccount(a))
			continue
		}
		if errors.Is(err, store.ErrNotFound) {
			a, err = s.Store.LoginAlias(ctx, address)
		}
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return nil, err
		default: // its messages count once
			all = append(all, Account{Address: address, State: a.State, Error: "another name of " + a.Identity.Address()})
		}
	}
	return all, nil
}

// adopt answers POST /v1/accounts/{address}/adopt.
func (s *Server) adopt(ctx context.Context, r *http.Request) (Account, error) {
	a, err := s.find(ctx, r)
	if err != nil {
		return Account{}, err
	}
	if err := s.notFinished(ctx, a); err != nil {
		return Account{}, err
	}
	adopted, err := s.Store.Adopt(ctx, a.Identity.Address())
	if errors.Is(err, store.ErrChanged) {
		return Account{}, conflict(fmt.Sprintf("%s is %s: only an account in conflict can be adopted", a.Identity.Address(), a.State))
	}
	return s.viewAccount(adopted), err
}

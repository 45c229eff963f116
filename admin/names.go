package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"migproxy/config"
	"migproxy/store"
)

// loginAliasMax bounds a login alias, in octets.
const loginAliasMax = 255

// loginAliasName is the form in which a name is looked up at a login of the
// account's owner: an address, for a bare name that of the account's domain, or,
// where it is no plain address of ours, what he types, in lower case.
func (s *Server) loginAliasName(name string, owner config.Identity) (string, error) {
	if name == "" || len(name) > loginAliasMax || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return "", badRequest(fmt.Sprintf("%q is no login name: write what the user types, up to %d octets", name, loginAliasMax))
	}
	local, domain := name, owner.Domain
	if at := strings.LastIndexByte(name, '@'); at >= 0 {
		local, domain = name[:at], strings.ToLower(name[at+1:])
	}
	if !config.PlainLocal(local) || !s.hasDomain(domain) {
		return strings.ToLower(name), nil
	}
	if domain != owner.Domain {
		return "", badRequest(fmt.Sprintf("%s is not in the domain of %s: the password of one domain is not shown to the servers of another", name, owner.Address()))
	}
	return strings.ToLower(local) + "@" + domain, nil
}

// giveLoginAlias answers PUT /v1/accounts/{address}/login-aliases?name=.
func (s *Server) giveLoginAlias(ctx context.Context, r *http.Request) (LoginAlias, error) {
	return s.changeLoginAlias(ctx, r, "is another name of '%s', given by the administrator", s.Store.GiveLoginAlias)
}

// removeLoginAlias answers DELETE /v1/accounts/{address}/login-aliases?name=.
func (s *Server) removeLoginAlias(ctx context.Context, r *http.Request) (LoginAlias, error) {
	return s.changeLoginAlias(ctx, r, "is no name of '%s' any more, removed by the administrator", s.Store.RemoveLoginAlias)
}

func (s *Server) changeLoginAlias(ctx context.Context, r *http.Request, text string, change func(ctx context.Context, name, address string) error) (LoginAlias, error) {
	a, err := s.find(ctx, r)
	if err != nil {
		return LoginAlias{}, err
	}
	address := a.Identity.Address()
	name, err := s.loginAliasName(r.FormValue("name"), a.Identity)
	if err != nil {
		return LoginAlias{}, err
	}
	err = change(ctx, name, address)
	if taken, is := errors.AsType[*store.NameTakenError](err); is {
		return LoginAlias{}, conflict(taken.Error())
	}
	switch {
	case errors.Is(err, store.ErrOwnName):
		return LoginAlias{}, badRequest(fmt.Sprintf("%s is the account's own address: name another login", name))
	case errors.Is(err, store.ErrNotFound):
		return LoginAlias{}, notFound(fmt.Sprintf("%s is no login alias of %s; see `migproxy account show %[2]s`", name, address))
	case err != nil:
		return LoginAlias{}, err
	}
	return LoginAlias{Name: name, Origin: store.AliasGiven}, s.Store.Event(ctx, address, fmt.Sprintf("'%s' "+text, name, address))
}

package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"migproxy/store"
)

// leftShown is how many of the accounts that keep a domain from being finished
// are listed.
const leftShown = 1000

// Completion is how far a domain is from being finished.
type Completion struct {
	Name   string `json:"name"`
	Active bool   `json:"active"` // accounts may still begin; it is to be stopped first
	// Completing: last passes are going on, over so many accounts.
	Completing bool  `json:"completing"`
	Finishing  int64 `json:"finishing"`
	// Finished: the source is never asked again.
	Finished bool `json:"finished"`
	// Left are the accounts that keep the domain from being finished, the first
	// of LeftTotal.
	LeftTotal int64     `json:"left_total"`
	Left      []Account `json:"left"`
}

// completion answers GET /v1/migration/completion.
func (s *Server) completion(ctx context.Context, r *http.Request) ([]Completion, error) {
	names, err := s.domainsNamed(r.FormValue("domain"))
	if err != nil {
		return nil, err
	}
	all := make([]Completion, 0, len(names))
	for _, name := range names {
		c, err := s.completionOf(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func (s *Server) completionOf(ctx context.Context, domain string) (c Completion, err error) {
	state, err := s.Store.DomainState(ctx, domain)
	if err != nil {
		return c, err
	}
	c = Completion{Name: domain, Active: state.Active, Completing: state.Completing != store.NotCompleting, Finished: state.Finished}
	if c.Finishing, err = s.Store.Finishing(ctx, domain); err != nil || c.Finished {
		return c, err
	}
	if c.LeftTotal, err = s.Store.CountUnfinished(ctx, domain); err != nil {
		return c, err
	}
	left, err := s.Store.Unfinished(ctx, domain, "", leftShown)
	c.Left = views(left, s.viewAccount)
	return c, err
}

// domainsNamed is one domain of the settings, or all of them for "".
func (s *Server) domainsNamed(domain string) ([]string, error) {
	domain = strings.ToLower(domain)
	if domain != "" && !s.hasDomain(domain) {
		return nil, notFound(fmt.Sprintf("the domain %q is not in the settings", domain))
	}
	var names []string
	for _, d := range s.Config.Domains {
		if domain == "" || d.Name == domain {
			names = append(names, d.Name)
		}
	}
	return names, nil
}

// complete answers POST /v1/migration/complete: it begins the last pass over
// the active accounts of one domain or of all. Domains that are finished are
// left alone. Nothing begins while one of them is active.
func (s *Server) complete(ctx context.Context, r *http.Request) ([]Completion, error) {
	names, err := s.domainsNamed(r.FormValue("domain"))
	if err != nil {
		return nil, err
	}
	how := store.CompleteWhole
	if force, _ := strconv.ParseBool(r.FormValue("force")); force {
		how = store.CompleteForced
	}
	without, _ := strconv.ParseBool(r.FormValue("accept_set_aside"))
	var open []string
	for _, name := range names {
		state, err := s.Store.DomainState(ctx, name)
		switch {
		case err != nil:
			return nil, err
		case state.Active:
			return nil, conflict(fmt.Sprintf("the migration of %s is active: `migproxy stop --domain %s` first, so that no account begins behind the last pass", name, name))
		case !state.Finished:
			open = append(open, name)
		}
	}
	for _, name := range open {
		err := s.Store.Complete(ctx, name, how, without)
		if errors.Is(err, store.ErrChanged) {
			return nil, conflict(fmt.Sprintf("the migration of %s was started meanwhile: `migproxy stop --domain %s` first", name, name))
		}
		if err != nil {
			return nil, err
		}
		s.Log.Info("the last passes begin", zap.String("domain", name))
	}
	return s.completion(ctx, r)
}

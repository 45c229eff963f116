package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/store"
)

const (
	// wavePage is how many patterns are read from the store at a time.
	wavePage = 500
	// waveMax bounds the body of a change of the wave, in octets: more than
	// WavePatternsMax patterns can have.
	waveMax = 64 << 20
)

// WavePatternsMax is how many patterns a WaveRequest may have: they are written at
// once, in about a second, in which nothing else is.
const WavePatternsMax = 50_000

// WavePattern is an address, or a pattern with *, of a domain's wave.
type WavePattern struct {
	Domain  string `json:"domain"`
	Pattern string `json:"pattern"`
	// Excluded: who matches does not move, whatever else matches.
	Excluded bool `json:"excluded"`
	// State is that of the account with this address; left out where there is
	// none, and for a pattern.
	State store.State `json:"state,omitempty"`
}

func viewWavePattern(p store.WavePattern) WavePattern { return WavePattern(p) }

// WaveRequest asks for patterns to be added to the wave or removed from it.
type WaveRequest struct {
	// Exclude has those that are added keep their accounts at the source.
	Exclude  bool          `json:"exclude"`
	Patterns []WavePattern `json:"patterns"` // domain and pattern; the rest does not count
}

// WaveChange is what became of a WaveRequest in one domain.
type WaveChange struct {
	Domain string `json:"domain"`
	// Changed counts the patterns that were added or removed, Unchanged those that
	// were there already, or were not there.
	Changed   int `json:"changed"`
	Unchanged int `json:"unchanged"`
	// Moving and Moved count the accounts that match what was excluded or removed
	// and have begun to move: nothing changes for them.
	Moving int64 `json:"moving"`
	Moved  int64 `json:"moved"`
	// Active: accounts of the domain may begin.
	Active bool `json:"active"`
}

// WaveStatus says how many patterns a domain's wave has.
type WaveStatus struct {
	Included int64 `json:"included"`
	Excluded int64 `json:"excluded"`
	// Differs: they are not those of the settings, which counted at the first start
	// alone.
	Differs bool `json:"differs_from_settings"`
}

// ReadWavePattern reads an address or a pattern. Its domain is the one named, or
// the one that stands behind its @, or the only one, or the default domain. The
// error says what to write instead.
func ReadWavePattern(cfg *config.Config, text, domain string) (p WavePattern, err error) {
	p.Domain = strings.ToLower(domain)
	if at := strings.LastIndexByte(text, '@'); p.Domain == "" && at >= 0 && plainDomain(text[at+1:]) {
		p.Domain = strings.ToLower(text[at+1:])
	}
	switch {
	case p.Domain != "":
	case len(cfg.Domains) == 1:
		p.Domain = cfg.Domains[0].Name
	case cfg.DefaultDomain != "":
		p.Domain = strings.ToLower(cfg.DefaultDomain)
	default:
		return p, errors.New("this says no domain, and default_domain is not set; name one with --domain")
	}
	if p.Pattern, err = config.WavePattern(text, p.Domain); err != nil {
		return p, err
	}
	if cfg.Domain(p.Domain) == nil {
		return p, fmt.Errorf("the domain %q is not in the settings; add it under domains, or correct it", p.Domain)
	}
	return p, nil
}

// wave streams a JSON list, page by page.
func (s *Server) wave(w http.ResponseWriter, r *http.Request) {
	domain := strings.ToLower(r.FormValue("domain"))
	if domain != "" && !s.hasDomain(domain) {
		s.fail(w, r, notFound(fmt.Sprintf("the domain %q is not in the settings", domain)))
		return
	}
	read := func(after store.WavePattern) ([]store.WavePattern, error) {
		ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
		defer cancel()
		return s.Store.WavePatterns(ctx, domain, after, wavePage)
	}
	page, err := read(store.WavePattern{})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := writePages(deadlineWriter{w}, page, wavePage, viewWavePattern, read); err != nil {
		s.Log.Error("list of the wave", zap.Error(err))
		panic(http.ErrAbortHandler) // the client sees a cut, not an end
	}
}

func (s *Server) addToWave(ctx context.Context, r *http.Request) ([]WaveChange, error) {
	q, err := s.waveRequest(r)
	if err != nil {
		return nil, err
	}
	verb := "added to"
	if q.Exclude {
		verb = "excluded from"
	}
	return s.changeWave(ctx, q, verb, q.Exclude, func(domain string, patterns []string) (int, error) {
		return s.Store.AddToWave(ctx, domain, patterns, q.Exclude)
	})
}

func (s *Server) removeFromWave(ctx context.Context, r *http.Request) ([]WaveChange, error) {
	q, err := s.waveRequest(r)
	if err != nil {
		return nil, err
	}
	return s.changeWave(ctx, q, "removed from", true, func(domain string, patterns []string) (int, error) {
		return s.Store.RemoveFromWave(ctx, domain, patterns)
	})
}

// waveRequest reads a WaveRequest, and refuses all of it where one pattern is
// wrong.
func (s *Server) waveRequest(r *http.Request) (q WaveRequest, err error) {
	if err := json.NewDecoder(io.LimitReader(r.Body, waveMax)).Decode(&q); err != nil {
		return q, badRequest("the request is no list of patterns, or too long")
	}
	if len(q.Patterns) > WavePatternsMax {
		return q, badRequest(fmt.Sprintf("these are more than %d patterns: split the list", WavePatternsMax))
	}
	for i, p := range q.Patterns {
		if q.Patterns[i], err = ReadWavePattern(s.Config, p.Pattern, p.Domain); err != nil {
			return q, badRequest(fmt.Sprintf("pattern %d: %s", i+1, err))
		}
	}
	return q, nil
}

// changeWave changes the wave of each domain that the patterns name, in the order
// of the settings. begun says whether it matters who has begun to move.
func (s *Server) changeWave(ctx context.Context, q WaveRequest, verb string, begun bool, change func(domain string, patterns []string) (int, error)) ([]WaveChange, error) {
	all := make([]WaveChange, 0, 1)
	for _, d := range s.Config.Domains {
		var patterns []string
		for _, p := range q.Patterns {
			if p.Domain == d.Name {
				patterns = append(patterns, p.Pattern)
			}
		}
		patterns = slices.Compact(slices.Sorted(slices.Values(patterns)))
		if len(patterns) == 0 {
			continue
		}
		c := WaveChange{Domain: d.Name}
		var err error
		if c.Changed, err = change(d.Name, patterns); err != nil {
			return nil, err
		}
		c.Unchanged = len(patterns) - c.Changed
		s.Log.Info("patterns "+verb+" the wave", zap.String("domain", d.Name), zap.Int("changed", c.Changed), zap.Int("unchanged", c.Unchanged))
		if begun {
			if c.Moving, c.Moved, err = s.Store.Begun(ctx, d.Name, patterns); err != nil {
				return nil, err
			}
		}
		state, err := s.Store.DomainState(ctx, d.Name)
		if err != nil {
			return nil, err
		}
		c.Active = state.Active
		all = append(all, c)
	}
	return all, nil
}

// Wave calls f for each pattern of a domain's wave, or of all, by domain and
// pattern.
func (c *Client) Wave(ctx context.Context, domain string, f func(WavePattern) error) error {
	return listed(ctx, c, "/v1/wave?domain="+url.QueryEscape(domain), "patterns", f)
}

// AddToWave adds patterns to the wave.
func (c *Client) AddToWave(ctx context.Context, q WaveRequest) (all []WaveChange, err error) {
	err = c.send(ctx, http.MethodPost, "/v1/wave/add", q, &all)
	return all, err
}

// RemoveFromWave removes patterns from the wave, whether they are excluded or not.
func (c *Client) RemoveFromWave(ctx context.Context, q WaveRequest) (all []WaveChange, err error) {
	err = c.send(ctx, http.MethodPost, "/v1/wave/remove", q, &all)
	return all, err
}

package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"migproxy/config"
)

const (
	// failedTries is how many tries without progress, one after the other, make an
	// account that is still provisioning or copying count as failed. With the
	// pauses between them they take about a minute: longer than a server's restart.
	failedTries = 6
	// namedInEvent is how many patterns an event names.
	namedInEvent = 5
	// reasonInEvent is how much of an account's reason the reason of a stop has, in
	// octets.
	reasonInEvent = 300
)

// WavePattern is one line of a domain's wave.
type WavePattern struct {
	Domain  string
	Pattern string // an address, or a pattern with *; lower case
	// Excluded: who matches may not move, whatever else matches.
	Excluded bool
	// State is that of the account with this address; empty for none, and for a
	// pattern.
	State State
}

// SeedWave records the settings' wave at the first start, after SeedActive; later
// it changes nothing. The wave is that of config.Wave.Of.
func (s *Store) SeedWave(ctx context.Context, domain string, wave config.Wave) error {
	return s.write(ctx, func(x *tx) error {
		n, err := x.exec("UPDATE domains SET wave_seeded = TRUE WHERE name = $1 AND NOT wave_seeded", domain)
		if err != nil || n == 0 {
			return err
		}
		if _, err := x.putWave(domain, wave.Include, false); err != nil {
			return err
		}
		_, err = x.putWave(domain, wave.Exclude, true)
		return err
	})
}

// putWave returns the patterns that were not in the wave, or on its other side.
func (x *tx) putWave(domain string, patterns []string, excluded bool) (changed []string, err error) {
	for _, p := range patterns {
		n, err := x.exec(`INSERT INTO wave_patterns (domain, pattern, excluded, wildcard) VALUES ($1, $2, $3, $4)
			ON CONFLICT (domain, pattern) DO UPDATE SET excluded = excluded.excluded WHERE wave_patterns.excluded <> excluded.excluded`,
			domain, p, excluded, isWildcard(p))
		if err != nil {
			return nil, err
		}
		if n > 0 {
			changed = append(changed, p)
		}
	}
	return changed, nil
}

func isWildcard(pattern string) bool { return strings.Contains(pattern, "*") }

// AddToWave lets who matches one of the patterns move, or keeps him back, and
// returns how many of them were not there yet or on the other side. The patterns
// are those of config.WavePattern.
func (s *Store) AddToWave(ctx context.Context, domain string, patterns []string, excluded bool) (changed int, err error) {
	verb := "added"
	if excluded {
		verb = "excluded"
	}
	return s.changeWave(ctx, domain, verb, func(x *tx) ([]string, error) { return x.putWave(domain, patterns, excluded) })
}

// RemoveFromWave takes patterns away, on whichever side they are, and returns how
// many of them were there. What has begun goes on.
func (s *Store) RemoveFromWave(ctx context.Context, domain string, patterns []string) (changed int, err error) {
	return s.changeWave(ctx, domain, "removed", func(x *tx) (changed []string, err error) {
		for _, p := range patterns {
			n, err := x.exec("DELETE FROM wave_patterns WHERE domain = $1 AND pattern = $2", domain, p)
			if err != nil {
				return nil, err
			}
			if n > 0 {
				changed = append(changed, p)
			}
		}
		return changed, nil
	})
}

// changeWave writes what change has changed to the migration's log.
func (s *Store) changeWave(ctx context.Context, domain, verb string, change func(*tx) ([]string, error)) (changed int, err error) {
	err = s.write(ctx, func(x *tx) error {
		all, err := change(x)
		if changed = len(all); err != nil || changed == 0 {
			return err
		}
		text := fmt.Sprintf("Wave of %s: %s %s", domain, verb, strings.Join(all[:min(changed, namedInEvent)], ", "))
		if more := changed - namedInEvent; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		return x.event("", text)
	})
	if err != nil {
		return 0, err
	}
	return changed, nil
}

// selectInWave finds what may match an address: itself, and each pattern.
const selectInWave = `SELECT domain, pattern, excluded, '' FROM wave_patterns WHERE domain = $1 AND pattern = $2
	UNION ALL SELECT domain, pattern, excluded, '' FROM wave_patterns WHERE domain = $1 AND wildcard`

// InWave reports whether the account with this canonical address may migrate, as
// far as its domain's wave says. Addresses are looked up, and only patterns are
// tried one by one, so that a wave of thousands of addresses costs a login nothing.
func (s *Store) InWave(ctx context.Context, domain, address string) (bool, error) {
	patterns, err := list(ctx, s.r, scanWavePattern, selectInWave, domain, address)
	return waveOf(patterns).Includes(address), err
}

func scanWavePattern(rows *sql.Rows) (p WavePattern, err error) {
	err = rows.Scan(&p.Domain, &p.Pattern, &p.Excluded, &p.State)
	return p, err
}

func waveOf(patterns []WavePattern) (w config.Wave) {
	for _, p := range patterns {
		if p.Excluded {
			w.Exclude = append(w.Exclude, p.Pattern)
		} else {
			w.Include = append(w.Include, p.Pattern)
		}
	}
	return w
}

// WavePatterns lists the wave of a domain, or of all where it is empty, by domain
// and pattern, after one of them, at most limit.
func (s *Store) WavePatterns(ctx context.Context, domain string, after WavePattern, limit int) ([]WavePattern, error) {
	return list(ctx, s.r, scanWavePattern, `SELECT w.domain, w.pattern, w.excluded, COALESCE(a.state, '')
		FROM wave_patterns w LEFT JOIN accounts a ON a.address = w.pattern
		WHERE ($1 = '' OR w.domain = $1) AND (w.domain > $2 OR w.domain = $2 AND w.pattern > $3)
		ORDER BY w.domain, w.pattern LIMIT $4`, domain, after.Domain, after.Pattern, limit)
}

// WaveSize says how many patterns a domain's wave has.
type WaveSize struct {
	Included, Excluded int64
	// Differs: they are not those of the settings.
	Differs bool
}

// WaveSize counts the patterns of a domain's wave, and holds them against the
// settings' wave, which is that of config.Wave.Of.
func (s *Store) WaveSize(ctx context.Context, domain string, settings config.Wave) (w WaveSize, err error) {
	err = s.r.QueryRowContext(ctx, `SELECT COALESCE(SUM(CASE WHEN excluded THEN 0 ELSE 1 END), 0),
		COALESCE(SUM(CASE WHEN excluded THEN 1 ELSE 0 END), 0) FROM wave_patterns WHERE domain = $1`, domain).
		Scan(&w.Included, &w.Excluded)
	if err != nil {
		return w, dbError(err)
	}
	if w.Included != int64(len(settings.Include)) || w.Excluded != int64(len(settings.Exclude)) {
		w.Differs = true
		return w, nil
	}
	all, err := s.WavePatterns(ctx, domain, WavePattern{}, len(settings.Include)+len(settings.Exclude))
	in := waveOf(all)
	w.Differs = !slices.Equal(in.Include, slices.Sorted(slices.Values(settings.Include))) ||
		!slices.Equal(in.Exclude, slices.Sorted(slices.Values(settings.Exclude)))
	return w, err
}

// Begun counts the accounts of a domain that match one of the patterns: those
// that have begun to move and have not flipped, and those that have.
func (s *Store) Begun(ctx context.Context, domain string, patterns []string) (moving, moved int64, err error) {
	exact, wildcards := map[string]bool{}, config.Wave{}
	for _, p := range patterns {
		if isWildcard(p) {
			wildcards.Include = append(wildcards.Include, p)
		} else {
			exact[p] = true
		}
	}
	_, err = list(ctx, s.r, func(rows *sql.Rows) (none struct{}, err error) {
		var address string
		var flipped bool
		if err := rows.Scan(&address, &flipped); err != nil || !exact[address] && !wildcards.Includes(address) {
			return none, err
		}
		if flipped {
			moved++
		} else {
			moving++
		}
		return none, nil
	}, `SELECT address, flipped_at > 0 FROM accounts WHERE domain = $1
		AND (state IN (`+quoted(beingMoved)+`) OR state IN ('active', 'finished'))`, domain)
	return moving, moved, err
}

// countFailed notes whether the account has failed, and stops the migration of
// its domain when MaxFailed accounts have failed since it was started; then it
// returns why. Accounts that have begun go on, as after the command stop.
//
// Failed is what is put down as Failed, and what is put down as Provisioning or
// Copying, to be tried again, after failedTries tries without progress: a
// provision command that never succeeds leaves its accounts in such a state. One
// that had failed like that before its domain was started, and goes on failing,
// does not count again. What is Waiting or in Conflict has not failed: it waits for its user, for room or for
// the administrator. Nor has what goes on since: with progress, flipped, excluded,
// or begun anew by the administrator or with a new password.
func (c *Claim) countFailed(x *tx, to State, reason string, failed bool) (stopped string, err error) {
	var domain, address string
	var failing bool
	if err := x.get(`UPDATE accounts SET failing = $1 AND NOT woken AND ($2 = 'failed'
			OR $2 IN ('provisioning', 'copying') AND (attempts + 1 = $3 OR attempts + 1 > $3 AND failing))
		WHERE id = $4 RETURNING domain, address, failing`,
		[]any{failed, to, failedTries, c.id}, &domain, &address, &failing); err != nil || !failing || c.MaxFailed == 0 {
		return "", err
	}
	var n int
	if err := x.get("SELECT COUNT(*) FROM accounts WHERE domain = $1 AND failing", []any{domain}, &n); err != nil || n < c.MaxFailed {
		return "", err
	}
	if len(reason) > reasonInEvent {
		reason = reason[:reasonInEvent] + "..."
	}
	why := plain(fmt.Sprintf("%d accounts have failed since it was started (domains[].wave.max_failed: %d), the last is %s: %s",
		n, c.MaxFailed, address, reason))
	// Of several that fail at once, one finds the domain active.
	changed, err := x.exec("UPDATE domains SET active = FALSE, active_since = 0, stopped_because = $1 WHERE name = $2 AND active", why, domain)
	if err != nil || changed == 0 {
		return "", err
	}
	return why, x.event("", fmt.Sprintf("THE MIGRATION OF %s HAS STOPPED BY ITSELF: %s. When the cause is gone: `migproxy start --domain %s`",
		domain, why, domain))
}

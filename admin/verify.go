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
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/migrator/verify"
	"migproxy/store"
)

// Verification is one line of the answer to GET /v1/verify; one of its fields is
// set. Each account has its progress first and then its result, and the last
// line is the end: without it the answer was cut.
type Verification struct {
	Progress *verify.Progress `json:"progress,omitempty"`
	Account  *verify.Account  `json:"account,omitempty"`
	End      *VerificationEnd `json:"end,omitempty"`
}

// VerificationEnd counts the accounts that were verified.
type VerificationEnd struct {
	Accounts int64 `json:"accounts"`
}

// verifiable are the states in which there is something to compare; those of
// the first list are looked at when all accounts are.
var (
	verifiedOfAll = []store.State{store.Copying, store.Active, store.Finished}
	verifiable    = append([]store.State{store.Waiting, store.Failed}, verifiedOfAll...)
)

// verification is one answer.
type verification struct {
	*Server
	deep   bool
	domain string             // only this; empty for all
	cancel context.CancelFunc // of the verification, when its reader has gone

	mu  sync.Mutex
	out *json.Encoder
	w   http.ResponseWriter
	err error // of writing
	end VerificationEnd
}

// verify streams one JSON object a line (?address=, or all accounts, of one
// ?domain=; ?deep=true).
func (s *Server) verify(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	v := &verification{Server: s, deep: r.FormValue("deep") == "true", domain: strings.ToLower(r.FormValue("domain")),
		cancel: cancel, out: json.NewEncoder(deadlineWriter{w}), w: w}
	one, err := v.one(ctx, r.FormValue("address"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	_ = http.NewResponseController(w).Flush() // the first line may take its time
	if one != nil {
		v.account(ctx, *one)
	} else {
		err = v.all(ctx)
	}
	if err = errors.Join(err, ctx.Err(), v.err); err == nil {
		v.send(Verification{End: &v.end})
		err = v.err
	}
	if err != nil {
		if r.Context().Err() == nil {
			s.Log.Error("verification", zap.Error(err))
		}
		panic(http.ErrAbortHandler) // the client sees a cut, not an end
	}
	// The end of the answer is a write as well.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
}

// one is the account that an address names; nil without one.
func (v *verification) one(ctx context.Context, address string) (*store.Account, error) {
	if address == "" {
		if v.domain != "" && !v.hasDomain(v.domain) {
			return nil, notFound(fmt.Sprintf("the domain %q is not in the settings", v.domain))
		}
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	a, err := v.lookup(ctx, address)
	if err != nil {
		return nil, err
	}
	if a.Mode == config.ModePasswords || !slices.Contains(verifiable, a.State) {
		return nil, conflict(fmt.Sprintf("%s is %s and nothing of it was copied: there is nothing to compare", a.Identity.Address(), a.State))
	}
	return &a, nil
}

// all verifies the accounts that were or are being copied, in the order of their
// addresses.
func (v *verification) all(ctx context.Context) error {
	after := ""
	for {
		page, err := v.readAccounts(ctx, "", after)
		if err != nil {
			return err
		}
		for _, a := range page {
			if a.Mode == config.ModePasswords || !slices.Contains(verifiedOfAll, a.State) || v.domain != "" && a.Identity.Domain != v.domain {
				continue
			}
			v.account(ctx, a)
			if ctx.Err() != nil {
				return nil // told by whoever ended it
			}
		}
		if len(page) < accountsPage {
			return nil
		}
		after = page[len(page)-1].Identity.Address()
	}
}

func (v *verification) account(ctx context.Context, a store.Account) {
	result := v.Verify(ctx, a, v.deep, func(p verify.Progress) { v.send(Verification{Progress: &p}) })
	if ctx.Err() != nil {
		return // half of an account is no result
	}
	v.end.Accounts++
	v.Log.Info("verified", zap.String("account", result.Address), zap.Bool("deep", v.deep), zap.Bool("ok", result.OK()),
		zap.Int64("messages", result.Total.SourceSide.Messages), zap.Int64("wrong", result.Total.Wrong()), zap.String("problem", result.Problem))
	v.send(Verification{Account: &result})
}

// send writes a line. Where nobody reads any more, the verification ends.
func (v *verification) send(line Verification) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return
	}
	if v.err = v.out.Encode(line); v.err == nil {
		v.err = http.NewResponseController(v.w).Flush()
	}
	if v.err != nil {
		v.cancel()
	}
}

// Verify compares an account, or, where address is empty, all that were or are
// being copied, of one domain or of all, on both servers; deep compares the
// octets of all messages. f is called for each line but the end.
func (c *Client) Verify(ctx context.Context, address, domain string, deep bool, f func(Verification) error) error {
	query := url.Values{"address": {address}, "domain": {domain}, "deep": {strconv.FormatBool(deep)}}
	body, err := c.open(ctx, http.MethodGet, "/v1/verify?"+query.Encode())
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	for dec := json.NewDecoder(body); ; {
		var line Verification
		switch err := dec.Decode(&line); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("the server broke off the verification; see its log, then begin again")
		case err != nil:
			return fmt.Errorf("verification: %w", err)
		case line.End != nil:
			return nil
		}
		if err := f(line); err != nil {
			return err
		}
	}
}

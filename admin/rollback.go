package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
)

// RollbackPlan is the answer to GET /v1/accounts/{address}/rollback: what taking
// the account back would copy to its source. Both mailboxes are read for it, which
// may take a while, so that an error comes with status 200 as well.
type RollbackPlan struct {
	migrator.RollbackPlan
	Error string `json:"error,omitempty"`
}

// rollbackNot says why an account is none that can be taken back; empty if it is.
func (s *Server) rollbackNot(ctx context.Context, a store.Account) (string, error) {
	address := a.Identity.Address()
	state, err := s.Store.DomainState(ctx, a.Identity.Domain)
	if err != nil {
		return "", err
	}
	protocols := s.Config.Domain(a.Identity.Domain).Source.Protocols
	switch {
	case state.Finished:
		return fmt.Sprintf("the migration of %s is finished: its source is never asked again", a.Identity.Domain), nil
	case a.State == store.Excluded:
		return fmt.Sprintf("%s is excluded: it lives at its source already", address), nil
	case !a.Moved():
		return fmt.Sprintf("%s is %s: it has not moved; `migproxy account exclude` keeps it at its source", address, a.State), nil
	case a.State == store.Native, a.Origin == store.OriginAdopted:
		return fmt.Sprintf("%s lived on the target before its old mail was copied there: only what migproxy created there is taken back", address), nil
	case !a.CanRollBack():
		return fmt.Sprintf("nothing of the mail of %s was copied: there is nothing to take back", address), nil
	case a.Finishing != store.NotFinishing:
		return fmt.Sprintf("%s is in its last pass: wait for its end", address), nil
	case len(protocols) > 0 && protocols[0] == config.POP3:
		return fmt.Sprintf("the source of %s is read over POP3, which cannot store mail", a.Identity.Domain), nil
	}
	return "", nil
}

// mayRollBack finds an account that can be taken back.
func (s *Server) mayRollBack(ctx context.Context, r *http.Request) (store.Account, error) {
	a, err := s.find(ctx, r)
	if err != nil {
		return a, err
	}
	not, err := s.rollbackNot(ctx, a)
	if err == nil && not != "" {
		err = conflict(not)
	}
	return a, err
}

// rollback answers POST /v1/accounts/{address}/rollback.
func (s *Server) rollback(ctx context.Context, r *http.Request) (Account, error) {
	a, err := s.mayRollBack(ctx, r)
	if err != nil {
		return Account{}, err
	}
	asked, err := s.Store.AskRollback(ctx, a.Identity.Address())
	if errors.Is(err, store.ErrChanged) {
		return Account{}, conflict(fmt.Sprintf("%s has changed meanwhile: try again", a.Identity.Address()))
	}
	if err == nil {
		s.Log.Info("an account is to be taken back", zap.String("account", a.Identity.Address()))
	}
	return s.viewAccount(asked), err
}

// planRollback answers GET /v1/accounts/{address}/rollback.
func (s *Server) planRollback(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	a, err := s.mayRollBack(ctx, r)
	cancel()
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = http.NewResponseController(w).Flush() // the answer may take its time
	plan, err := s.PlanRollback(r.Context(), a)
	answer := RollbackPlan{RollbackPlan: plan}
	if err != nil {
		answer.Error = fmt.Sprintf("%s cannot be taken back now: %v", a.Identity.Address(), err)
	}
	_ = json.NewEncoder(deadlineWriter{w}).Encode(answer)
	// The end of the answer is a write as well.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
}

// Rollback has an account that lives on the target taken back to its source. It
// goes on when the answer has come; RollingBack of the account says whether it does.
func (c *Client) Rollback(ctx context.Context, address string) (a Account, err error) {
	err = c.call(ctx, http.MethodPost, accountPath(address)+"/rollback", &a)
	return a, err
}

// PlanRollback says what Rollback would copy to the source.
func (c *Client) PlanRollback(ctx context.Context, address string) (migrator.RollbackPlan, error) {
	ctx, cancel := context.WithTimeout(ctx, streamTimeout)
	defer cancel()
	var plan RollbackPlan
	body, err := c.open(ctx, http.MethodGet, accountPath(address)+"/rollback")
	if err != nil {
		return plan.RollbackPlan, err
	}
	defer func() { _ = body.Close() }()
	if err := json.NewDecoder(body).Decode(&plan); err != nil {
		return plan.RollbackPlan, fmt.Errorf("answer of the server: %w", err)
	}
	if plan.Error != "" {
		return plan.RollbackPlan, errors.New(plan.Error)
	}
	return plan.RollbackPlan, nil
}

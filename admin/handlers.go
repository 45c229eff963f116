package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/store"
)

// expiryNotice is how long before a password is erased status warns, at most.
const expiryNotice = 7 * 24 * time.Hour

// accountsPage is how many accounts are read from the store at a time.
const accountsPage = 500

// What GET /v1/accounts/{address} lists at most, beside the account itself.
const (
	eventsShown  = 20
	alteredShown = 1000
)

// apiHandler serves the API of the socket.
func (s *Server) apiHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", answer(s, s.status))
	mux.HandleFunc("POST /v1/migration/start", answer(s, func(ctx context.Context, r *http.Request) ([]DomainStatus, error) {
		return s.setActive(ctx, r.FormValue("domain"), true)
	}))
	mux.HandleFunc("POST /v1/migration/stop", answer(s, func(ctx context.Context, r *http.Request) ([]DomainStatus, error) {
		return s.setActive(ctx, r.FormValue("domain"), false)
	}))
	mux.HandleFunc("GET /v1/migration/completion", answer(s, s.completion))
	mux.HandleFunc("POST /v1/migration/complete", answer(s, s.complete))
	mux.HandleFunc("GET /v1/accounts", s.accounts)
	mux.HandleFunc("GET /v1/accounts/{address}", answer(s, s.account))
	mux.HandleFunc("POST /v1/accounts/{address}/retry", answer(s, s.retry))
	mux.HandleFunc("POST /v1/accounts/{address}/exclude", answer(s, s.exclude))
	mux.HandleFunc("POST /v1/accounts/{address}/adopt", answer(s, s.adopt))
	mux.HandleFunc("GET /v1/accounts/{address}/rollback", s.planRollback)
	mux.HandleFunc("POST /v1/accounts/{address}/rollback", answer(s, s.rollback))
	mux.HandleFunc("PUT /v1/accounts/{address}/login-aliases", answer(s, s.giveLoginAlias))
	mux.HandleFunc("DELETE /v1/accounts/{address}/login-aliases", answer(s, s.removeLoginAlias))
	mux.HandleFunc("POST /v1/accounts/states", answer(s, s.states))
	mux.HandleFunc("POST /v1/migrate", s.migrate)
	mux.HandleFunc("GET /v1/wave", s.wave)
	mux.HandleFunc("POST /v1/wave/add", answer(s, s.addToWave))
	mux.HandleFunc("POST /v1/wave/remove", answer(s, s.removeFromWave))
	mux.HandleFunc("GET /v1/aliases", s.aliases)
	mux.HandleFunc("POST /v1/aliases/{address}/approve", answer(s, s.judgeAlias(s.approve, "approved")))
	mux.HandleFunc("POST /v1/aliases/{address}/reject", answer(s, s.judgeAlias(s.Store.RejectAlias, "rejected")))
	mux.HandleFunc("GET /v1/accounts/{address}/set-aside/{id}", s.setAsideOctets)
	mux.HandleFunc("GET /v1/events", s.events)
	mux.HandleFunc("GET /v1/verify", s.verify)
	return mux
}

// answer makes a handler of a function: its value, or its error, as JSON.
func answer[T any](s *Server, f func(context.Context, *http.Request) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
		defer cancel()
		value, err := f(ctx, r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(deadlineWriter{w}).Encode(value)
	}
}

// fail answers an error. What the store said is the administrator's business:
// the socket is his alone.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var e *Error
	if !errors.As(err, &e) {
		s.Log.Error("administration", zap.String("path", r.URL.Path), zap.Error(err))
		e = &Error{http.StatusInternalServerError, "the server failed: " + err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(deadlineWriter{w}).Encode(e)
}

// deadlineWriter gives each write a deadline of its own.
type deadlineWriter struct{ http.ResponseWriter }

func (w deadlineWriter) Write(p []byte) (int, error) {
	if err := http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(p)
}

func (s *Server) status(ctx context.Context, _ *http.Request) (Status, error) {
	stats, err := s.Store.Statistics(ctx)
	if err != nil {
		return Status{}, err
	}
	passwords, err := s.passwords(ctx)
	if err != nil {
		return Status{}, err
	}
	domains, err := s.domains(ctx)
	active := slices.ContainsFunc(domains, func(d DomainStatus) bool { return d.Active })
	return Status{Version: s.Version, MigrationActive: active, Statistics: stats, Passwords: passwords, Domains: domains}, err
}

// passwords looks ahead at what will be erased, for a week or, where passwords
// are not kept for long, for the last tenth of that time.
func (s *Server) passwords(ctx context.Context) (PasswordStatus, error) {
	maxAge := s.Config.State.CredentialsMaxAge.Std()
	until := time.Now().Add(min(maxAge/10, expiryNotice))
	n, first, err := s.Store.Unused(ctx, until.Add(-maxAge))
	p := PasswordStatus{Expiring: n, ExpiringUntil: until}
	if n > 0 {
		p.FirstExpires = first.Add(maxAge)
	}
	return p, err
}

func (s *Server) domains(ctx context.Context) ([]DomainStatus, error) {
	all := make([]DomainStatus, 0, len(s.Config.Domains))
	for _, d := range s.Config.Domains {
		state, err := s.Store.DomainState(ctx, d.Name)
		if err != nil {
			return nil, err
		}
		watch, err := s.Store.Watch(ctx, d.Name)
		if err != nil {
			return nil, err
		}
		settings, _ := d.Wave.Of(d.Name) // what matches nobody was said at the start
		wave, err := s.Store.WaveSize(ctx, d.Name, settings)
		if err != nil {
			return nil, err
		}
		all = append(all, DomainStatus{Name: d.Name, Active: state.Active, Setting: s.Config.Migration.Active,
			StoppedBecause: state.StoppedBecause, Wave: WaveStatus(wave), Completing: state.Completing != store.NotCompleting, Finished: state.Finished, WatchStatus: viewWatch(watch, time.Now())})
	}
	return all, nil
}

// setActive starts or stops one domain, or all where domain is empty, and
// answers with what it wrote.
func (s *Server) setActive(ctx context.Context, domain string, active bool) ([]DomainStatus, error) {
	names, err := s.domainsNamed(domain)
	if err != nil {
		return nil, err
	}
	verb := "stopped"
	if active {
		verb = "started"
	}
	for _, name := range names {
		err := s.Store.SetActive(ctx, name, active)
		if errors.Is(err, store.ErrChanged) {
			return nil, conflict(fmt.Sprintf("the migration of %s is finished, or is being completed, and does not start again", name))
		}
		if err != nil {
			return nil, err
		}
		text := fmt.Sprintf("Migration of '%s' %s by the administrator", name, verb)
		s.Log.Info(text)
		if err := s.Store.Event(ctx, "", text); err != nil {
			return nil, err
		}
	}
	all, err := s.domains(ctx)
	return slices.DeleteFunc(all, func(d DomainStatus) bool { return !slices.Contains(names, d.Name) }), err
}

func (s *Server) hasDomain(name string) bool {
	return slices.ContainsFunc(s.Config.Domains, func(d config.Domain) bool { return d.Name == name })
}

// accounts streams a JSON list, page by page: there may be very many.
func (s *Server) accounts(w http.ResponseWriter, r *http.Request) {
	state := store.State(r.FormValue("state"))
	if state != "" && !slices.Contains(store.States(), state) {
		s.fail(w, r, badRequest(fmt.Sprintf("there is no state %q; the states are %s", state, StateNames())))
		return
	}
	page, err := s.readAccounts(r.Context(), state, "")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := s.writeAccounts(r.Context(), deadlineWriter{w}, state, page); err != nil {
		s.Log.Error("list of accounts", zap.Error(err))
		panic(http.ErrAbortHandler) // the client sees a cut, not an end
	}
}

// writeAccounts writes the list of which page is the beginning.
func (s *Server) writeAccounts(ctx context.Context, w io.Writer, state store.State, page []store.Account) error {
	return writePages(w, page, accountsPage, s.viewAccount, func(last store.Account) ([]store.Account, error) {
		return s.readAccounts(ctx, state, last.Identity.Address())
	})
}

// writePages writes a JSON list page by page; one that is not full is the last.
func writePages[S, V any](w io.Writer, page []S, full int, view func(S) V, next func(last S) ([]S, error)) error {
	if _, err := io.WriteString(w, "["); err != nil {
		return err
	}
	out, separator := json.NewEncoder(w), ""
	for {
		for _, v := range page {
			if _, err := io.WriteString(w, separator); err != nil {
				return err
			}
			if err := out.Encode(view(v)); err != nil {
				return err
			}
			separator = ","
		}
		if len(page) < full {
			_, err := io.WriteString(w, "]")
			return err
		}
		var err error
		if page, err = next(page[len(page)-1]); err != nil {
			return err
		}
	}
}

func (s *Server) readAccounts(ctx context.Context, state store.State, after string) ([]store.Account, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return s.Store.Accounts(ctx, state, after, accountsPage)
}

// StateNames lists the states as they are shown.
func StateNames() string {
	var names []string
	for _, s := range store.States() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// find reads the account that the request's path names.
func (s *Server) find(ctx context.Context, r *http.Request) (store.Account, error) {
	return s.lookup(ctx, r.PathValue("address"))
}

// lookup reads the account of an address.
func (s *Server) lookup(ctx context.Context, address string) (store.Account, error) {
	id, err := s.identity(address)
	if err != nil {
		return store.Account{}, err
	}
	a, err := s.Store.Account(ctx, id.Address())
	if errors.Is(err, store.ErrNotFound) {
		owner, aliasErr := s.Store.LoginAlias(ctx, id.Address())
		switch {
		case aliasErr == nil:
			return a, notFound(fmt.Sprintf("%s is another name of %s; see `migproxy account show %[2]s`", id.Address(), owner.Identity.Address()))
		case !errors.Is(aliasErr, store.ErrNotFound):
			return a, aliasErr
		}
		err = notFound(fmt.Sprintf("%s is not known: nobody has logged in with this address; see `migproxy accounts`", id.Address()))
	}
	return a, err
}

// identity takes an address of one of our domains apart.
func (s *Server) identity(address string) (config.Identity, error) {
	at := strings.LastIndexByte(address, '@')
	if at <= 0 || at == len(address)-1 {
		return config.Identity{}, badRequest(fmt.Sprintf("%q is not an address; write local@domain", address))
	}
	id := config.Identity{Login: address, Local: strings.ToLower(address[:at]), Domain: strings.ToLower(address[at+1:])}
	if !s.hasDomain(id.Domain) {
		return id, notFound(fmt.Sprintf("the domain %q is not in the settings", id.Domain))
	}
	return id, nil
}

func (s *Server) account(ctx context.Context, r *http.Request) (AccountDetail, error) {
	a, err := s.find(ctx, r)
	if err != nil {
		return AccountDetail{}, err
	}
	folders, err := s.Store.Folders(ctx, a.ID)
	if err != nil {
		return AccountDetail{}, err
	}
	aside, err := s.Store.SetAside(ctx, a.ID)
	if err != nil {
		return AccountDetail{}, err
	}
	altered, err := s.Store.AlteredMessages(ctx, a.ID, alteredShown)
	if err != nil {
		return AccountDetail{}, err
	}
	names, err := s.Store.LoginAliases(ctx, a.ID)
	if err != nil {
		return AccountDetail{}, err
	}
	aliases, err := s.Store.AccountAliases(ctx, a.ID)
	if err != nil {
		return AccountDetail{}, err
	}
	events, err := s.Store.LastEvents(ctx, a.Identity.Address(), eventsShown)
	if err != nil {
		return AccountDetail{}, err
	}
	d := AccountDetail{Account: s.viewAccount(a), LoginAliases: views(names, viewLoginAlias), Aliases: views(aliases, viewAlias), Folders: views(folders, viewFolder),
		SetAsideMessages: views(aside, viewSetAside), Altered: views(altered, viewAltered), Events: views(events, viewEvent)}
	for _, f := range folders {
		d.AlteredTotal += f.Altered
	}
	return d, nil
}

// views makes what is shown of what is stored; the list is never null in JSON.
func views[S, V any](all []S, view func(S) V) []V {
	shown := make([]V, 0, len(all))
	for _, s := range all {
		shown = append(shown, view(s))
	}
	return shown
}

func (s *Server) retry(ctx context.Context, r *http.Request) (Account, error) {
	a, err := s.find(ctx, r)
	if err != nil {
		return Account{}, err
	}
	if err := s.notFinished(ctx, a); err != nil {
		return Account{}, err
	}
	password, err := readPassword(r)
	if err != nil {
		return Account{}, err
	}
	again, err := s.retryWith(ctx, a, password)
	switch {
	case !errors.Is(err, store.ErrChanged):
	case a.State == store.Provisioning, a.State == store.Copying:
		return Account{}, conflict(fmt.Sprintf("%s is %s: it is under way already", a.Identity.Address(), a.State))
	default:
		return Account{}, conflict(fmt.Sprintf("%s is %s: only an account that is waiting, failed, in conflict, put off, active or taken back can be tried again",
			a.Identity.Address(), a.State))
	}
	if err == nil && a.State == store.Excluded {
		err = s.Store.Event(ctx, a.Identity.Address(), fmt.Sprintf("'%s' is to move anew", a.Identity.Address()))
	}
	return s.viewAccount(again), err
}

// notFinished refuses to work on an account of a finished domain.
func (s *Server) notFinished(ctx context.Context, a store.Account) error {
	state, err := s.Store.DomainState(ctx, a.Identity.Domain)
	if err == nil && state.Finished {
		err = conflict(fmt.Sprintf("the migration of %s is finished: its source is never asked again", a.Identity.Domain))
	}
	return err
}

// retryWith makes an account go on, with a new password if one is given.
func (s *Server) retryWith(ctx context.Context, a store.Account, password config.Secret) (again store.Account, err error) {
	switch {
	case password.IsZero():
	case a.State == store.Active:
		if !a.NeedsPassword {
			return again, conflict(fmt.Sprintf("%s needs no password: both servers take those that are kept", a.Identity.Address()))
		}
		if err := s.Store.KeepPassword(ctx, a.ID, password, false); err != nil {
			return again, err
		}
	default:
		return s.Store.RetryWith(ctx, a.Identity.Address(), password)
	}
	return s.Store.Retry(ctx, a.Identity.Address())
}

// passwordMax bounds a request's body, in octets.
const passwordMax = 8 << 10

// RetryRequest is the body of POST /v1/accounts/{address}/retry, which may be
// left out.
type RetryRequest struct {
	// Password of the account, any octets. In JSON it is base64.
	Password []byte `json:"password"`
}

// readPassword reads a RetryRequest.
func readPassword(r *http.Request) (config.Secret, error) {
	var q RetryRequest
	err := json.NewDecoder(io.LimitReader(r.Body, passwordMax)).Decode(&q)
	switch {
	case errors.Is(err, io.EOF), err == nil && len(q.Password) == 0:
		return config.Secret{}, nil
	case err != nil:
		return config.Secret{}, badRequest("the request's body is no JSON object with a password, or too long")
	}
	return config.NewSecret(q.Password), nil
}

func (s *Server) exclude(ctx context.Context, r *http.Request) (Account, error) {
	id, err := s.identity(r.PathValue("address"))
	if err != nil {
		return Account{}, err
	}
	a, err := s.Store.Exclude(ctx, id)
	if errors.Is(err, store.ErrChanged) {
		text := fmt.Sprintf("%s lives on the target already and cannot be kept at the source", id.Address())
		if a.CanRollBack() {
			text += fmt.Sprintf("; `migproxy account rollback %s` takes it back there, with the mail that is new on the target", id.Address())
		}
		return Account{}, conflict(text)
	}
	if taken, is := errors.AsType[*store.NameTakenError](err); is {
		return Account{}, conflict(taken.Error())
	}
	return s.viewAccount(a), err
}

// setAsideOctets streams a message as it was on the source.
func (s *Server) setAsideOctets(w http.ResponseWriter, r *http.Request) {
	message, err := s.findSetAside(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "message/rfc822")
	w.Header().Set("Content-Length", strconv.FormatInt(message.Octets, 10))
	if err := s.Store.SetAsideOctets(r.Context(), message.ID, deadlineWriter{w}); err != nil {
		s.Log.Error("octets of a message that was set aside", zap.Int64("id", message.ID), zap.Error(err))
		// Some of them may be out already: cut the answer, so that nobody takes
		// it for the whole message.
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) findSetAside(r *http.Request) (store.SetAside, error) {
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	a, err := s.find(ctx, r)
	if err != nil {
		return store.SetAside{}, err
	}
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return store.SetAside{}, badRequest("the id of a message is a number; see `migproxy account show`")
	}
	all, err := s.Store.SetAside(ctx, a.ID)
	if err != nil {
		return store.SetAside{}, err
	}
	// Only this account's: an id of another's is not found.
	i := slices.IndexFunc(all, func(m store.SetAside) bool { return m.ID == id })
	if i < 0 {
		return store.SetAside{}, notFound(fmt.Sprintf("%s has no message %d set aside; see `migproxy account show`", a.Identity.Address(), id))
	}
	return all[i], nil
}

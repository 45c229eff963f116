package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"migproxy/config"
	"migproxy/store"
)

const (
	callTimeout   = 30 * time.Second // one question and its answer
	streamTimeout = 10 * time.Minute // one message or list, however large
	errorMax      = 64 << 10         // octets of an error's answer
)

// Client asks a running server over its socket. Where the server answers that
// it cannot do what was asked, the error is an *Error.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient prepares to ask the server that listens on a socket.
func NewClient(socket string) *Client {
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: callTimeout}).DialContext(ctx, "unix", socket)
		},
		ResponseHeaderTimeout: callTimeout,
		DisableKeepAlives:     true,
	}}}
}

// Status returns the statistics and where each domain stands.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/status", &s)
	return s, err
}

// SetActive starts or stops the migration of a domain, or of all where it is
// empty, and returns what was written.
func (c *Client) SetActive(ctx context.Context, domain string, active bool) (d []DomainStatus, err error) {
	verb := "stop"
	if active {
		verb = "start"
	}
	err = c.call(ctx, http.MethodPost, "/v1/migration/"+verb+"?domain="+url.QueryEscape(domain), &d)
	return d, err
}

// Accounts calls f for each account in a state, or for all, ordered by address.
func (c *Client) Accounts(ctx context.Context, state store.State, f func(Account) error) error {
	return listed(ctx, c, "/v1/accounts?state="+url.QueryEscape(string(state)), "accounts", f)
}

// listed calls f for each entry of a list, as they come.
func listed[T any](ctx context.Context, c *Client, path, what string, f func(T) error) error {
	ctx, cancel := context.WithTimeout(ctx, streamTimeout)
	defer cancel()
	body, err := c.open(ctx, http.MethodGet, path)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	dec := json.NewDecoder(body)
	if _, err := dec.Token(); err != nil { // [
		return fmt.Errorf("list of %s: %w", what, err)
	}
	for dec.More() {
		var v T
		if err := dec.Decode(&v); err != nil {
			return fmt.Errorf("list of %s: %w", what, err)
		}
		if err := f(v); err != nil {
			return err
		}
	}
	// Without the end of the list there were more.
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("the server broke off the list of %s; see its log: %w", what, err)
	}
	return nil
}

// Account returns one account with everything that was kept about its copy.
func (c *Client) Account(ctx context.Context, address string) (a AccountDetail, err error) {
	err = c.call(ctx, http.MethodGet, accountPath(address), &a)
	return a, err
}

// Retry makes a waiting, failed or conflicting account go on at once, passes over
// an active one, and has one move anew that was taken back. password may be zero.
func (c *Client) Retry(ctx context.Context, address string, password config.Secret) (a Account, err error) {
	err = c.send(ctx, http.MethodPost, accountPath(address)+"/retry", RetryRequest{Password: []byte(password.Reveal())}, &a)
	return a, err
}

// Complete begins the last pass over the active accounts of a domain, or of all
// where it is empty. force finishes domains with accounts that have not moved,
// acceptSetAside accounts with messages that the target refused.
func (c *Client) Complete(ctx context.Context, domain string, force, acceptSetAside bool) (all []Completion, err error) {
	query := url.Values{"domain": {domain}, "force": {strconv.FormatBool(force)}, "accept_set_aside": {strconv.FormatBool(acceptSetAside)}}
	err = c.call(ctx, http.MethodPost, "/v1/migration/complete?"+query.Encode(), &all)
	return all, err
}

// Completion returns how far a domain, or all, are from being finished.
func (c *Client) Completion(ctx context.Context, domain string) (all []Completion, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/migration/completion?domain="+url.QueryEscape(domain), &all)
	return all, err
}

// Migrate begins to move accounts, whatever the wave.
func (c *Client) Migrate(ctx context.Context, q MigrateRequest) (all []Begun, err error) {
	err = c.send(ctx, http.MethodPost, "/v1/migrate", q, &all)
	return all, err
}

// States returns those of some accounts that are known.
func (c *Client) States(ctx context.Context, addresses []string) (all []Account, err error) {
	err = c.send(ctx, http.MethodPost, "/v1/accounts/states", StatesRequest{addresses}, &all)
	return all, err
}

// Adopt has the mail of an account in conflict copied into what the target has.
func (c *Client) Adopt(ctx context.Context, address string) (a Account, err error) {
	err = c.call(ctx, http.MethodPost, accountPath(address)+"/adopt", &a)
	return a, err
}

// GiveLoginAlias makes name a further name under which the account's owner logs in.
func (c *Client) GiveLoginAlias(ctx context.Context, address, name string) (l LoginAlias, err error) {
	err = c.call(ctx, http.MethodPut, accountPath(address)+"/login-aliases?name="+url.QueryEscape(name), &l)
	return l, err
}

// RemoveLoginAlias takes a login alias from an account.
func (c *Client) RemoveLoginAlias(ctx context.Context, address, name string) (l LoginAlias, err error) {
	err = c.call(ctx, http.MethodDelete, accountPath(address)+"/login-aliases?name="+url.QueryEscape(name), &l)
	return l, err
}

// Exclude keeps an account at the source.
func (c *Client) Exclude(ctx context.Context, address string) (a Account, err error) {
	err = c.call(ctx, http.MethodPost, accountPath(address)+"/exclude", &a)
	return a, err
}

// SetAside writes the octets of a message that was set aside.
func (c *Client) SetAside(ctx context.Context, address string, id int64, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, streamTimeout)
	defer cancel()
	body, err := c.open(ctx, http.MethodGet, accountPath(address)+"/set-aside/"+strconv.FormatInt(id, 10))
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if _, err := io.Copy(w, body); err != nil {
		return fmt.Errorf("message %d of %s: %w", id, address, err)
	}
	return nil
}

// Events calls f for each event of the log, of one account or of all; with
// follow it goes on until the context ends, which is no error, or until the
// server does, which is.
func (c *Client) Events(ctx context.Context, address string, follow bool, f func(Event) error) error {
	query := url.Values{"address": {address}, "follow": {strconv.FormatBool(follow)}}
	body, err := c.open(ctx, http.MethodGet, "/v1/events?"+query.Encode())
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	for dec := json.NewDecoder(body); ; {
		var e Event
		err := dec.Decode(&e)
		switch {
		case follow && ctx.Err() != nil:
			return nil
		case follow && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
			return errors.New("the server has ended; begin again when it is back")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("log: %w", err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
}

func accountPath(address string) string { return "/v1/accounts/" + url.PathEscape(address) }

func (c *Client) call(ctx context.Context, method, path string, into any) error {
	return c.send(ctx, method, path, nil, into)
}

// send is call with a request's body; nil is none.
func (c *Client) send(ctx context.Context, method, path string, request, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var sent io.Reader
	if request != nil {
		b, err := json.Marshal(request)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(b)
	}
	body, err := c.openWith(ctx, method, path, sent)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("answer of the server: %w", err)
	}
	return nil
}

// open asks and returns the body of a good answer.
func (c *Client) open(ctx context.Context, method, path string) (io.ReadCloser, error) {
	return c.openWith(ctx, method, path, nil)
}

func (c *Client) openWith(ctx context.Context, method, path string, sent io.Reader) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://migproxy"+path, sent)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }()
	e := &Error{Status: resp.StatusCode}
	if err := json.NewDecoder(io.LimitReader(resp.Body, errorMax)).Decode(e); err != nil || e.Text == "" {
		e.Text = "the server answered " + resp.Status + "; does it have another version than this command?"
	}
	return nil, e
}

// unreachable says what to do when the socket cannot be used.
func (c *Client) unreachable(err error) error {
	// The address that http.Client puts before it is not a real one.
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	advice := "is `migproxy serve` running with this configuration?"
	if errors.Is(err, fs.ErrPermission) {
		advice = "run this command as the user that runs migproxy, or as root"
	}
	return fmt.Errorf("cannot ask the server on %s: %w; %s", c.socket, err, advice)
}

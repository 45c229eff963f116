package provision

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"migproxy/config"
	"migproxy/provision/command"
)

// exitTaken is the exit status of a command that found the account or address
// taken. 0 is done; every other status is a failure.
const exitTaken = 2

const defaultTimeout = 30 * time.Second

// request is the one JSON object that the command reads on standard input.
type request struct {
	Op      string `json:"op"`
	Account string `json:"account"`
	Domain  string `json:"domain"`
	// Password is left out where the password is not valid UTF-8, which JSON
	// cannot carry; PasswordBase64 always has its octets.
	Password       string `json:"password,omitempty"`
	PasswordBase64 []byte `json:"password_base64,omitempty"`
	Alias          string `json:"alias,omitempty"`
}

// execDriver runs the administrator's command, once for each operation.
type execDriver struct{ command *command.Command }

var _ Driver = (*execDriver)(nil)

func newExec(cfg config.Provision) (*execDriver, error) {
	timeout := cfg.Timeout.Std()
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	c, err := command.New(cfg.Command, timeout)
	if err != nil {
		return nil, fmt.Errorf("provision.command: %w", err)
	}
	return &execDriver{c}, nil
}

func (d *execDriver) Lookup(ctx context.Context, account config.Identity) error {
	return d.run(ctx, "lookup", account, config.Secret{}, "")
}

func (d *execDriver) Ensure(ctx context.Context, account config.Identity, password config.Secret) error {
	return d.run(ctx, "ensure", account, password, "")
}

func (d *execDriver) SetPassword(ctx context.Context, account config.Identity, password config.Secret) error {
	return d.run(ctx, "set_password", account, password, "")
}

func (d *execDriver) AddAlias(ctx context.Context, account config.Identity, alias string) error {
	return d.run(ctx, "add_alias", account, config.Secret{}, alias)
}

func (d *execDriver) RemoveAlias(ctx context.Context, account config.Identity, alias string) error {
	return d.run(ctx, "remove_alias", account, config.Secret{}, alias)
}

func (d *execDriver) run(ctx context.Context, op string, account config.Identity, password config.Secret, alias string) error {
	input, err := encodeRequest(op, account, password, alias)
	if err != nil {
		return err
	}
	err = d.command.Run(ctx, input, password)
	if s, ok := errors.AsType[*command.StatusError](err); ok && s.Status == exitTaken {
		return ErrTaken
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("provision %s %s (provision.timeout): %w", op, account.Address(), err)
	case err != nil:
		return fmt.Errorf("provision %s %s: %w", op, account.Address(), err)
	}
	return nil
}

func encodeRequest(op string, account config.Identity, password config.Secret, alias string) ([]byte, error) {
	r := request{Op: op, Account: account.Address(), Domain: account.Domain, Alias: alias}
	if secret := password.Reveal(); secret != "" {
		r.PasswordBase64 = []byte(secret)
		if utf8.ValidString(secret) {
			r.Password = secret
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("provision %s: %w", op, err)
	}
	return b.Bytes(), nil
}

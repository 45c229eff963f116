package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"migproxy/admin"
	"migproxy/cmd/migproxy/internal/userlist"
	"migproxy/config"
	"migproxy/store"
)

const (
	// migrateChunk is how many users are handed over at a time.
	migrateChunk = 500
	// migratePause is how often the server is asked how far it has come.
	migratePause = 500 * time.Millisecond
)

// migrateOptions are those of one call.
type migrateOptions struct {
	file, format, passwordFile, mode string
	aliases                          []string
	asJSON                           bool
	out, told                        io.Writer // standard output, and standard error
}

func newMigrate(load loader, connect connector) *cobra.Command {
	var o migrateOptions
	cmd := &cobra.Command{
		Use:   "migrate USER|--file LIST",
		Short: "Move one user, or a list of them, now and whatever the wave",
		Long: `Moves accounts without waiting for their owners' logins. A list has a user a line:
user:password or user:password:alias@domain, with \: for a colon in the password;
or it is CSV with these columns, or has a JSON object a line (user, password or
password_base64, aliases). A name without a domain gets that of its alias, or
default_domain. Nothing begins unless the whole list is right. Without a password
the source's master user reads the mailbox, and the account flips when its owner
logs in.

Modes: accounts creates the accounts, copies their mail and adds the aliases;
messages copies into accounts that the target has already; passwords tries each
password on the source and sets it on the target, and copies nothing.

Ctrl-C leaves the work running on the server.`,
		Args: func(_ *cobra.Command, args []string) error {
			if (len(args) == 1) == (o.file != "") || len(args) > 1 {
				return usageError{"name one user, or a list with --file"}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			cfg, err := load()
			if err != nil {
				return err
			}
			users, err := o.users(cfg, args)
			if err != nil {
				return err
			}
			c, err := connect()
			if err != nil {
				return err
			}
			o.out, o.told = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return runMigrate(cmd.Context(), c, o, users)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.file, "file", "", "a `list` of users; - is standard input")
	f.StringVar(&o.format, "format", "", "how the list is written: "+strings.Join(userlist.Formats(), ", ")+" (default by the file's name: .csv, .json, .jsonl, else lines)")
	f.StringVar(&o.passwordFile, "password-file", "", "a `file` with the user's password")
	f.StringArrayVar(&o.aliases, "alias", nil, "a further `address` of the user; may be repeated")
	f.StringVar(&o.mode, "mode", admin.MigrateAccounts, "what to do: "+strings.Join(admin.MigrateModes(), ", "))
	f.BoolVar(&o.asJSON, "json", false, "print JSON: what became of each account")
	offer(cmd, "format", userlist.Formats()...)
	offer(cmd, "mode", admin.MigrateModes()...)
	return cmd
}

// check refuses what does not go together.
func (o *migrateOptions) check() error {
	switch {
	case !slices.Contains(admin.MigrateModes(), o.mode):
		return usageError{fmt.Sprintf("there is no mode %q; the modes are %s", o.mode, strings.Join(admin.MigrateModes(), ", "))}
	case o.format != "" && !slices.Contains(userlist.Formats(), o.format):
		return usageError{fmt.Sprintf("there is no format %q; the formats are %s", o.format, strings.Join(userlist.Formats(), ", "))}
	case o.file != "" && (o.passwordFile != "" || len(o.aliases) > 0):
		return usageError{"--password-file and --alias are for one user; a list has its own"}
	case o.file == "" && o.format != "":
		return usageError{"--format is for a list"}
	}
	return nil
}

// users reads whom to move, and holds every one against the settings.
func (o *migrateOptions) users(cfg *config.Config, args []string) ([]admin.MigrateUser, error) {
	list, err := o.list(args)
	if err != nil {
		return nil, err
	}
	var users []admin.MigrateUser
	var errs []error
	seen := map[string]int{}
	for _, u := range list {
		id, err := admin.Identify(cfg, u.Login, u.Aliases)
		if first, twice := seen[id.Address()]; err == nil && twice {
			err = fmt.Errorf("%s is on line %d already; take one away", id.Address(), first)
		}
		if err != nil {
			if u.Line > 0 {
				err = fmt.Errorf("%s: line %d: %w", o.file, u.Line, err)
			}
			errs = append(errs, err)
			continue
		}
		seen[id.Address()] = u.Line
		users = append(users, admin.MigrateUser{Login: id.Address(), Password: []byte(u.Password.Reveal()), Aliases: u.Aliases})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if len(users) == 0 {
		return nil, fmt.Errorf("%s names no user; write user:password, one a line", o.file)
	}
	return users, nil
}

func (o *migrateOptions) list(args []string) ([]userlist.User, error) {
	if o.file == "" {
		u := userlist.User{Login: args[0], Aliases: o.aliases}
		for i := range u.Aliases {
			u.Aliases[i] = strings.ToLower(u.Aliases[i])
		}
		if o.passwordFile != "" {
			password, err := config.ReadPassword(o.passwordFile)
			if err != nil {
				return nil, fmt.Errorf("--password-file: %w", err)
			}
			u.Password = password
		}
		return []userlist.User{u}, nil
	}
	format := userlist.Format(o.format)
	if format == "" {
		format = userlist.FormatOf(o.file)
	}
	in := os.Stdin
	if o.file != "-" {
		f, err := os.Open(o.file)
		if err != nil {
			return nil, fmt.Errorf("--file: %w", err)
		}
		defer f.Close()
		in = f
	}
	list, err := userlist.Read(in, format)
	if err != nil {
		return nil, inFile(o.file, err)
	}
	return list, nil
}

// inFile names the file before each error of a list.
func inFile(file string, err error) error {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for i := range all {
		all[i] = fmt.Errorf("%s: %w", file, all[i])
	}
	return errors.Join(all...)
}

// runMigrate hands the users over and follows them.
func runMigrate(ctx context.Context, c *admin.Client, o migrateOptions, users []admin.MigrateUser) error {
	var begun []admin.Begun
	for some := range slices.Chunk(users, migrateChunk) {
		b, err := c.Migrate(ctx, admin.MigrateRequest{Mode: o.mode, Users: some})
		if err != nil {
			if len(begun) > 0 {
				err = fmt.Errorf("%d of %d accounts were begun: %w", len(begun), len(users), err)
			}
			return err
		}
		begun = append(begun, b...)
	}
	view := newMoveView(o.told, len(begun))
	defer view.end()
	var follow []string
	for _, b := range begun {
		if b.Error == "" {
			follow = append(follow, b.Address)
		}
	}
	var last []admin.Account
	for len(follow) > 0 {
		accounts, err := states(ctx, c, follow)
		if ctx.Err() != nil {
			view.end()
			return errors.New("the moves go on on the server: `migproxy accounts` shows how far they are, `migproxy log -f` follows them")
		}
		if err != nil {
			return err
		}
		if err := view.show(accounts); err != nil {
			return err
		}
		last = accounts
		if !slices.ContainsFunc(accounts, underWay) {
			break
		}
		pause := time.NewTimer(migratePause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
	view.end()
	return writeMoved(o, begun, last)
}

// states asks for accounts in pieces.
func states(ctx context.Context, c *admin.Client, addresses []string) (all []admin.Account, err error) {
	for some := range slices.Chunk(addresses, migrateChunk) {
		accounts, err := c.States(ctx, some)
		if err != nil {
			return nil, err
		}
		all = append(all, accounts...)
	}
	return all, nil
}

// underWay reports whether an account is still being moved. One that waits or
// has failed may be tried again by itself, but nobody should sit and wait.
func underWay(a admin.Account) bool {
	return a.State == store.Provisioning || a.State == store.Copying
}

// writeMoved says what became of each account. One that has not moved is an
// error.
func writeMoved(o migrateOptions, begun []admin.Begun, last []admin.Account) error {
	byAddress := make(map[string]admin.Account, len(last))
	for _, a := range last {
		byAddress[a.Address] = a
	}
	moved, list := 0, jsonList{w: o.out}
	rows := [][]string{{"ADDRESS", "STATE", "MESSAGES", "ERROR"}}
	for _, b := range begun {
		a, followed := byAddress[b.Address]
		if !followed {
			a = admin.Account{Address: b.Address, State: b.State, Error: b.Error}
		}
		if a.State == store.Active || a.State == store.Finished {
			moved++
		}
		if o.asJSON {
			if err := list.add(a); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{a.Address, string(a.State), progress(a), orDash(a.Error)})
	}
	var err error
	if o.asJSON {
		err = list.end()
	} else {
		err = writeTable(o.out, rows)
	}
	if err != nil {
		return err
	}
	if left := len(begun) - moved; left > 0 {
		return fmt.Errorf("%d of %d accounts have not moved; see what is said of each, and `migproxy account show`", left, len(begun))
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"migproxy/admin"
	"migproxy/cmd/migproxy/internal/report"
	"migproxy/config"
	"migproxy/migrator/imapwire"
	"migproxy/store"
)

func newAccounts(connect connector) *cobra.Command {
	var state string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "accounts",
		Short: "List the accounts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if state != "" && !slices.Contains(store.States(), store.State(state)) {
				return usageError{fmt.Sprintf("there is no state %q; the states are %s", state, admin.StateNames())}
			}
			c, err := connect()
			if err != nil {
				return err
			}
			if asJSON {
				return listJSON(cmd.Context(), c, store.State(state), cmd.OutOrStdout())
			}
			return listTable(cmd.Context(), c, store.State(state), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "only accounts in this `state`: "+admin.StateNames())
	offer(cmd, "state", strings.Split(admin.StateNames(), ", ")...)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// listJSON writes the accounts one after the other: there may be very many.
func listJSON(ctx context.Context, c *admin.Client, state store.State, w io.Writer) error {
	list := jsonList{w: w}
	if err := c.Accounts(ctx, state, func(a admin.Account) error { return list.add(a) }); err != nil {
		return err
	}
	return list.end()
}

// listTable writes the accounts as a table, in blocks that are aligned each on
// its own, so that a long list is not held.
func listTable(ctx context.Context, c *admin.Client, state store.State, w io.Writer) error {
	rows := [][]string{{"ADDRESS", "STATE", "MESSAGES", "SET ASIDE", "CHANGED", "ERROR"}}
	err := c.Accounts(ctx, state, func(a admin.Account) error {
		if len(rows) == tableBlock {
			if err := writeTable(w, rows); err != nil {
				return err
			}
			rows = rows[:0]
		}
		rows = append(rows, []string{a.Address, string(a.State), progress(a), count(a.SetAside), showTime(a.UpdatedAt), a.Error})
		return nil
	})
	if err != nil {
		return err
	}
	return writeTable(w, rows)
}

// progress is how many messages are on the target, of how many. What came after the
// copy was not expected.
func progress(a admin.Account) string {
	if a.Expected == 0 || a.Messages > a.Expected {
		return count(a.Messages)
	}
	return fmt.Sprintf("%d of %d", a.Messages, a.Expected)
}

func newAccount(connect connector) *cobra.Command {
	cmd := &cobra.Command{Use: "account", Short: "Look at one account, or act on it", RunE: commandMissing}
	cmd.AddCommand(newShow(connect),
		newRetry(connect),
		newAct(connect, "adopt", "Copy the mail of an account in conflict into what the target has under its name", "is copied into what is there", (*admin.Client).Adopt),
		newExclude(connect),
		newRollback(connect),
		newLoginAlias(connect),
	)
	return cmd
}

// oneAddress takes one argument, which must look like an address.
func oneAddress(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{"name one account, as local@domain"}
	}
	if at := strings.LastIndexByte(args[0], '@'); at <= 0 || at == len(args[0])-1 {
		return usageError{fmt.Sprintf("%q is not an address; write local@domain", args[0])}
	}
	return nil
}

// newAct is a command that does one thing to an account.
func newAct(connect connector, verb, short, done string,
	act func(*admin.Client, context.Context, string) (admin.Account, error)) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " ADDRESS",
		Short: short,
		Args:  oneAddress,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			a, err := act(c, cmd.Context(), args[0])
			if err != nil {
				return err
			}
			text := fmt.Sprintf("%s %s (%s)", printable(a.Address), done, a.State)
			if a.Error != "" {
				text += ": " + printable(a.Error)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			return err
		},
	}
}

func newExclude(connect connector) *cobra.Command {
	cmd := newAct(connect, "exclude", "Keep an account that has not moved at the source", "stays at the source", (*admin.Client).Exclude)
	cmd.Long = `Keeps an account that has not moved at the source, for good, and with it its domain
from being finished. To keep somebody back for a while, before he begins: migproxy
wave add --exclude. To take back one that has moved: migproxy account rollback.`
	return cmd
}

func newRetry(connect connector) *cobra.Command {
	var file string
	cmd := newAct(connect, "retry", "Try an account that is waiting, failed, in conflict or put off again now; look at an active one's source; move one anew that was taken back", "goes on",
		func(c *admin.Client, ctx context.Context, address string) (a admin.Account, err error) {
			var password config.Secret
			if file != "" {
				if password, err = config.ReadPassword(file); err != nil {
					return a, fmt.Errorf("--password-file: %w", err)
				}
			}
			return c.Retry(ctx, address, password)
		})
	cmd.Long = `Makes the work on an account go on at once, in place of its next pause. For an
account that lives on the target it is a catch-up, and messages that the target
refused are offered to it again. One that was taken back (account rollback) moves
anew at its owner's next login.`
	cmd.Flags().StringVar(&file, "password-file", "", "a `file` with the account's password, where the one kept is no longer taken")
	return cmd
}

func newShow(connect connector) *cobra.Command {
	var exportDir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ADDRESS",
		Short: "Show an account, what the target altered or refused, and its last events",
		Args:  oneAddress,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			a, err := c.Account(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				err = writeJSON(cmd.OutOrStdout(), a)
			} else {
				err = writeAccount(cmd.OutOrStdout(), a)
			}
			if err != nil || exportDir == "" {
				return err
			}
			// Where standard output is read by a program, it is told elsewhere.
			told := cmd.OutOrStdout()
			if asJSON {
				told = cmd.ErrOrStderr()
			}
			return export(cmd.Context(), c, a, exportDir, told)
		},
	}
	cmd.Flags().StringVar(&exportDir, "export", "", "write the messages that were set aside into this `directory`, as .eml files")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func writeAccount(w io.Writer, a admin.AccountDetail) error {
	rows := [][]string{
		{"Address", a.Address},
		{"State", string(a.State)},
		{"Error", orDash(a.Error)},
		{"Other login names", orDash(loginNames(a.LoginAliases))},
		{"Mode", string(a.Mode)},
		{"On the target", origin(a.Origin)},
		{"Flip", flip(a.Flipping)},
		{"Messages", progress(a.Account)},
		{"Octets", fmt.Sprintf("%d (%s)", a.Bytes, report.Octets(a.Bytes))},
		{"Set aside", count(a.SetAside)},
		{"Altered by the target", count(a.AlteredTotal)},
		{"Attempts without progress", count(int64(a.Attempts))},
		{"Password kept until", showTime(a.PasswordExpires)},
		{"First seen", showTime(a.CreatedAt)},
		{"Last progress", showTime(a.ProgressAt)},
		{"Moved", showTime(a.FlippedAt)},
		{"Taken back", showTime(a.RolledBackAt)},
		{"Next attempt", showTime(a.Due)},
	}
	if err := writeTable(w, rows); err != nil {
		return err
	}
	sections := []struct {
		title string
		rows  [][]string
	}{
		{"Aliases:", aliasRows(a.Aliases)},
		{"Folders:", folderRows(a.Folders)},
		{"Set aside (the target refused them; --export writes them out):", setAsideRows(a)},
		{"Altered (the target took them, but what it shows is not what it was given):", alteredRows(a)},
		{"Last events:", eventRows(a.Events)},
	}
	for _, s := range sections {
		if len(s.rows) == 0 {
			continue
		}
		if _, err := fmt.Fprintf(w, "\n%s\n", s.title); err != nil {
			return err
		}
		if err := writeTable(w, s.rows); err != nil {
			return err
		}
	}
	return nil
}

func folderRows(folders []admin.Folder) (rows [][]string) {
	for _, f := range folders {
		if len(rows) == 0 {
			rows = append(rows, []string{"  SOURCE", "TARGET", "MESSAGES", "SET ASIDE", "ALTERED"})
		}
		rows = append(rows, []string{"  " + folderName(f.Source), folderName(f.Target),
			count(f.Messages), count(f.SetAside), count(f.Altered)})
	}
	return rows
}

// folderName shows a folder's name as its owner knows it. JSON has the name as
// it goes over the wire.
func folderName(wire string) string {
	name, _ := imapwire.DecodeName(wire)
	return name
}

func setAsideRows(a admin.AccountDetail) (rows [][]string) {
	for _, m := range a.SetAsideMessages {
		rows = append(rows, []string{fmt.Sprintf("  %d", m.ID), folderName(m.Folder), fmt.Sprintf("UID %d", m.UID), report.Octets(m.Octets), m.Reason})
	}
	return rows
}

func alteredRows(a admin.AccountDetail) (rows [][]string) {
	for _, m := range a.Altered {
		rows = append(rows, []string{"  " + folderName(m.Folder),
			fmt.Sprintf("UID %d became %d", m.SourceUID, m.TargetUID),
			fmt.Sprintf("%d octets became %d", m.SourceOctets, m.TargetOctets)})
	}
	if more := a.AlteredTotal - int64(len(a.Altered)); more > 0 {
		rows = append(rows, []string{fmt.Sprintf("  and %d more", more)})
	}
	return rows
}

func eventRows(events []admin.Event) (rows [][]string) {
	for _, e := range events {
		rows = append(rows, []string{"  " + showTime(e.At), e.Text})
	}
	return rows
}

// origin says how the account came to be on the target.
func origin(o store.Origin) string {
	switch o {
	case store.OriginFree:
		return "the name was free; being created"
	case store.OriginCreated:
		return "created by migproxy"
	case store.OriginAdopted:
		return "was there before; its password is never set"
	default:
		return "-"
	}
}

// flip says how far a flip is that has begun.
func flip(f store.Flipping) string {
	switch f {
	case store.FlipClosing:
		return "begun: as soon as all sessions on the source are silent, they are closed"
	case store.FlipHeld:
		return "under way: logins wait for the last pass"
	default:
		return "-"
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

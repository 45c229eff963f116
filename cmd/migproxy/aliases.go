package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"migproxy/admin"
	"migproxy/store"
)

func newAliases(connect connector) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "aliases",
		Short: "Look at further addresses of accounts, and decide about them",
		Long: `Further addresses are found in the mail of an account while it is copied, where
domains[].access_mode is standard or extended. What speaks for one is shown as
headers, each with how many messages showed the address in it.`,
		RunE: commandMissing,
	}
	cmd.AddCommand(newAliasList(connect),
		newJudge(connect, "approve", "Have addresses created as aliases of the accounts that show them",
			`The address is created on the target at once, or with the account that is still
being moved. One that was withdrawn or rejected becomes the administrator's own
word, and is not withdrawn again.`, "is approved and will be created", (*admin.Client).ApproveAlias),
		newJudge(connect, "reject", "Decide against addresses, and take them away from the target",
			`The address is not proposed for this account again.`, "is rejected", (*admin.Client).RejectAlias),
	)
	return cmd
}

func newAliasList(connect connector) *cobra.Command {
	var domain, state string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List further addresses, with what speaks for them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if state != "" && !slices.Contains(store.AliasStates(), store.AliasState(state)) {
				return usageError{fmt.Sprintf("there is no state %q of an alias; the states are %s", state, admin.AliasStateNames())}
			}
			c, err := connect()
			if err != nil {
				return err
			}
			if asJSON {
				list := jsonList{w: cmd.OutOrStdout()}
				if err := c.Aliases(cmd.Context(), domain, store.AliasState(state), func(a admin.Alias) error { return list.add(a) }); err != nil {
					return err
				}
				return list.end()
			}
			return aliasTable(cmd.Context(), c, domain, store.AliasState(state), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&domain, "domain", "", "only accounts of this `domain`")
	cmd.Flags().StringVar(&state, "state", "", "only aliases in this `state`: "+admin.AliasStateNames())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// aliasTable writes the aliases in blocks that are aligned each on its own.
func aliasTable(ctx context.Context, c *admin.Client, domain string, state store.AliasState, w io.Writer) error {
	rows := [][]string{{"ADDRESS", "ACCOUNT", "STATE", "MESSAGES", "EVIDENCE", "REASON"}}
	err := c.Aliases(ctx, domain, state, func(a admin.Alias) error {
		if len(rows) == tableBlock {
			if err := writeTable(w, rows); err != nil {
				return err
			}
			rows = rows[:0]
		}
		rows = append(rows, []string{a.Address, a.Account, string(a.State), count(a.Messages), evidence(a), orDash(a.Reason)})
		return nil
	})
	if err != nil {
		return err
	}
	return writeTable(w, rows)
}

// evidence says how many messages showed an alias in which headers.
func evidence(a admin.Alias) string {
	if a.Origin == store.AliasGiven && len(a.Evidence) == 0 {
		return "given by the administrator"
	}
	var shown []string
	for _, e := range a.Evidence {
		shown = append(shown, fmt.Sprintf("%s %d", e.Header, e.Messages))
	}
	return strings.Join(shown, ", ")
}

func aliasRows(aliases []admin.Alias) (rows [][]string) {
	for _, a := range aliases {
		rows = append(rows, []string{"  " + a.Address, string(a.State), evidence(a), orDash(a.Reason)})
	}
	return rows
}

// newJudge is a command that decides about aliases, one after the other.
func newJudge(connect connector, verb, short, long, done string,
	judge func(*admin.Client, context.Context, string, string) (admin.Alias, error)) *cobra.Command {
	var account string
	cmd := &cobra.Command{
		Use:   verb + " ADDRESS...",
		Short: short,
		Long:  long,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{"name one address or more; see `migproxy aliases list`"}
			}
			for _, address := range args {
				if err := oneAddress(cmd, []string{address}); err != nil {
					return err
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			for _, address := range args {
				a, err := judge(c, cmd.Context(), address, account)
				if err != nil {
					return err
				}
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s of %s %s\n", printable(a.Address), printable(a.Account), done); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&account, "account", "", "the `address` of the account, where several show this one")
	return cmd
}

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"migproxy/admin"
)

func newLoginAlias(connect connector) *cobra.Command {
	var remove bool
	cmd := &cobra.Command{
		Use:   "alias ADDRESS NAME",
		Short: "Let the owner of an account log in under another name as well",
		Long: `Makes NAME, as the user types it at a login, lead to the account ADDRESS. A name
that is an account of its own becomes one if nothing has been done for that
account yet. It is no address for mail on the target; see migrate --alias.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{"name an account, as local@domain, and the other login name"}
			}
			return oneAddress(cmd, args[:1])
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			act, done := c.GiveLoginAlias, "is another name of"
			if remove {
				act, done = c.RemoveLoginAlias, "is no name any more of"
			}
			l, err := act(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s\n", printable(l.Name), done, printable(args[0]))
			return err
		},
	}
	cmd.Flags().BoolVar(&remove, "remove", false, "take the name from the account instead")
	return cmd
}

// loginNames lists further names of an account, with who named them.
func loginNames(all []admin.LoginAlias) string {
	var names []string
	for _, l := range all {
		names = append(names, fmt.Sprintf("%s (%s)", printable(l.Name), l.Origin))
	}
	return strings.Join(names, ", ")
}

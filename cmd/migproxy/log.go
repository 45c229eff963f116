package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"migproxy/admin"
)

func newLog(connect connector) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "log [ADDRESS]",
		Short: "Print the migration's log, of one account or of all, from its beginning",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return oneAddress(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			address := ""
			if len(args) == 1 {
				address = args[0]
			}
			return c.Events(cmd.Context(), address, follow, func(e admin.Event) error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s\n", showTime(e.At), orDash(printable(e.Address)), printable(e.Text))
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is written, until Ctrl-C")
	return cmd
}

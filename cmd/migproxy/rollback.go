package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"migproxy/admin"
	"migproxy/cmd/migproxy/internal/report"
	"migproxy/migrator"
	"migproxy/store"
)

// rollbackPause is how often the server is asked how far it has come.
const rollbackPause = 500 * time.Millisecond

func newRollback(connect connector) *cobra.Command {
	var dryRun, asJSON bool
	cmd := &cobra.Command{
		Use:   "rollback ADDRESS",
		Short: "Take one account back to its source, with the mail that is new on the target",
		Long: `Copies to the source what has arrived or was written on the target since the
account moved there, and has it live at its source again. Nothing is deleted, and
nothing that is there already is changed, on either side. While that goes on, nobody
is let in to the account. Afterwards it is excluded: the target is not asked for it
any more, until "migproxy account retry" has it move anew at its owner's next login.
Ctrl-C leaves the work running on the server.`,
		Args: oneAddress,
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON && !dryRun {
				return usageError{"--json goes with --dry-run"}
			}
			c, err := connect()
			if err != nil {
				return err
			}
			if !dryRun {
				return runRollback(cmd.Context(), c, args[0], cmd.OutOrStdout())
			}
			plan, err := c.PlanRollback(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), plan)
			}
			return writeRollbackPlan(cmd.OutOrStdout(), plan)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be copied to the source")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, with --dry-run")
	return cmd
}

// writeRollbackPlan says what would be copied.
func writeRollbackPlan(w io.Writer, plan migrator.RollbackPlan) error {
	if _, err := fmt.Fprintf(w, "%d messages (%s) would be copied to the source.\n", plan.Messages, report.Octets(plan.Octets)); err != nil || len(plan.Folders) == 0 {
		return err
	}
	rows := [][]string{{"TARGET", "SOURCE", "MESSAGES", "OCTETS", "ON THE SOURCE"}}
	for _, f := range plan.Folders {
		note := "is there"
		if f.Create {
			note = "is created"
		}
		rows = append(rows, []string{folderName(f.Target), folderName(f.Source), count(f.Messages), count(f.Octets), note})
	}
	return writeTable(w, rows)
}

// runRollback begins to take an account back, and shows its events until it has
// ended.
func runRollback(ctx context.Context, c *admin.Client, address string, w io.Writer) error {
	before, err := c.Account(ctx, address)
	if err != nil {
		return err
	}
	var shown int64
	for _, e := range before.Events {
		shown = max(shown, e.ID)
	}
	if _, err := c.Rollback(ctx, address); err != nil {
		return err
	}
	for {
		a, err := c.Account(ctx, address)
		if ctx.Err() != nil {
			return errRollbackGoesOn
		}
		if err != nil {
			return err
		}
		for _, e := range a.Events {
			if e.ID <= shown {
				continue
			}
			shown = e.ID
			if _, err := fmt.Fprintln(w, printable(e.Text)); err != nil {
				return err
			}
		}
		switch {
		case a.RollingBack:
		case a.State == store.Excluded:
			_, err := fmt.Fprintf(w, "%s lives at its source again (%s)\n", printable(a.Address), a.State)
			return err
		default:
			return fmt.Errorf("%s stays on the target (%s): %s", a.Address, a.State, a.Error)
		}
		pause := time.NewTimer(rollbackPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return errRollbackGoesOn
		}
	}
}

var errRollbackGoesOn = errors.New("the account is being taken back on the server: `migproxy account show` shows how far that is, `migproxy log -f` follows it")

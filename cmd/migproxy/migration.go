package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"migproxy/admin"
	"migproxy/cmd/migproxy/internal/report"
	"migproxy/store"
)

// newSwitch is start and stop.
func newSwitch(connect connector, active bool) *cobra.Command {
	use, short := "stop", "Begin no more accounts; those begun are finished"
	if active {
		use, short = "start", "Let accounts migrate at their next login"
	}
	var domain string
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			domains, err := c.SetActive(cmd.Context(), domain, active)
			if err != nil {
				return err
			}
			return writeDomains(cmd.OutOrStdout(), domains)
		},
	}
	cmd.Flags().StringVar(&domain, "domain", "", "this domain only (default all)")
	return cmd
}

func newStatus(connect connector) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show where the migration stands",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), s)
			}
			return writeStatus(cmd.OutOrStdout(), s)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// writeDomains says for each domain whether its migration is active, and
// where that, or its wave, is not what the settings say.
func writeDomains(w io.Writer, domains []admin.DomainStatus) error {
	for _, d := range domains {
		text := fmt.Sprintf("The migration of %s is stopped: no account begins to move.\n", d.Name)
		switch {
		case d.Finished:
			text = fmt.Sprintf("The migration of %s is finished: its old server is never asked again.\n", d.Name)
		case d.Completing:
			text = fmt.Sprintf("The migration of %s is being completed: the last passes over its accounts are going on.\n", d.Name)
		case d.Active:
			// A migration that was left running by mistake has taken services down.
			text = fmt.Sprintf("*** THE MIGRATION OF %s IS ACTIVE: accounts move at their next login. ***\n"+
				"    When the move is over: migproxy stop --domain %s\n", d.Name, d.Name)
		}
		text += watchWarning(d)
		if d.Active != d.Setting && !d.Finished && d.StoppedBecause == "" {
			text += fmt.Sprintf("    The settings say migration.active: %t. They count at the first start only; "+
				"change them so that they agree.\n", d.Setting)
		}
		if d.Wave.Differs && !d.Finished {
			text += fmt.Sprintf("    The settings' domains[].wave differs from the wave in force (migproxy wave list: %d patterns, and %d excluded). "+
				"It counts at the first start only; change it so that they agree.\n", d.Wave.Included, d.Wave.Excluded)
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return nil
}

// watchWarning says loudly that a migration was left active, has stopped by itself,
// or stands still; empty where it goes on as it should.
func watchWarning(d admin.DomainStatus) string {
	text := ""
	if d.LeftActive {
		since, what := d.ActiveSince, "it was started"
		if d.LastBegun.After(since) {
			since, what = d.LastBegun, "the last account began"
		}
		text += fmt.Sprintf("*** THE MIGRATION OF %s IS STILL ACTIVE, %d DAYS AFTER %s (%s). Was it forgotten? ***\n"+
			"    If not: migproxy start --domain %s\n", d.Name, int(time.Since(since).Hours()/24), strings.ToUpper(what), showTime(since), d.Name)
	}
	if d.StoppedBecause != "" {
		text += fmt.Sprintf("*** THE MIGRATION OF %s HAS STOPPED BY ITSELF: %s ***\n"+
			"    Why each failed: migproxy accounts. When the cause is gone: migproxy start --domain %s\n", d.Name, printable(d.StoppedBecause), d.Name)
	}
	if d.StandsStill {
		text += fmt.Sprintf("*** THE MIGRATION OF %s STANDS STILL: %d ACCOUNTS ARE TO BE MOVED, AND NONE HAS MADE PROGRESS SINCE %s. ***\n"+
			"    Why: migproxy accounts, migproxy log\n", d.Name, d.ToMove, showTime(d.LastProgress))
	}
	return text
}

func writeStatus(w io.Writer, s admin.Status) error {
	if err := writeDomains(w, s.Domains); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w, expiryWarning(s.Passwords)); err != nil {
		return err
	}
	last := "-"
	if s.LastMailbox != "" {
		last = s.LastMailbox + ", " + showTime(s.LastMailboxMigratedAt)
	}
	rows := [][]string{
		{"Version", s.Version},
		{"Begun", showTime(s.StartedAt)},
		{"Mailboxes seen", count(s.MailboxesSeen)},
		{"Mailboxes migrated", count(s.MailboxesMigrated)},
		{"Mailboxes failed", count(s.MailboxesFailed)},
		{"Aliases created", count(s.AliasesCreated)},
		{"Messages migrated", count(s.MessagesMigrated)},
		{"Octets migrated", fmt.Sprintf("%d (%s)", s.BytesMigrated, report.Octets(s.BytesMigrated))},
		{"Last mailbox", last},
		{"Rate", showRate(s.Rate)},
		{"Remaining", showRemaining(s.Remaining)},
		{"Errors", count(s.Errors)},
		{"Accounts that need a password", count(s.NeedPassword)},
	}
	states := make([]store.State, 0, len(s.Accounts))
	for state, n := range s.Accounts {
		if n > 0 {
			states = append(states, state)
		}
	}
	slices.Sort(states)
	for _, state := range states {
		rows = append(rows, []string{"Accounts " + string(state), count(s.Accounts[state])})
	}
	return writeTable(w, rows)
}

// expiryWarning says which passwords are about to be erased; empty for none.
func expiryWarning(p admin.PasswordStatus) string {
	if p.Expiring == 0 {
		return ""
	}
	return fmt.Sprintf("*** BEFORE %s THE PASSWORDS OF %d ACCOUNTS ARE ERASED, the first %s: nobody has used them for long. ***\n"+
		"    These accounts would then wait for their users' next login. `migproxy accounts --json` has password_expires and why\n"+
		"    each has stopped; `migproxy account retry ADDRESS` uses the password, state.credentials_max_age keeps it longer.\n",
		showTime(p.ExpiringUntil), p.Expiring, showTime(p.FirstExpires))
}

func count(n int64) string { return strconv.FormatInt(n, 10) }

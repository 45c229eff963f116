package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"migproxy/admin"
	"migproxy/store"
)

// completionPause is how often the server is asked how far it has come.
const completionPause = 500 * time.Millisecond

// completeOptions are those of one call.
type completeOptions struct {
	domain                        string
	force, acceptSetAside, asJSON bool
	out, told                     io.Writer // standard output, and standard error
}

func newComplete(connect connector) *cobra.Command {
	var o completeOptions
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "complete",
		Short: "End a stopped migration: a last pass over every account, then never ask the source again",
		Long: `Looks once more at the source of every account that lives on the target, copies
what has arrived there, and finishes the account; its sealed passwords are erased
then. A domain of which every account is finished is finished itself: its source
is never asked again. Excluded accounts, which live on the source only, keep it
from that, unless --force is given. Ctrl-C leaves the work running on the server.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			o.out, o.told = cmd.OutOrStdout(), cmd.ErrOrStderr()
			if dryRun {
				return planCompletion(cmd.Context(), c, o)
			}
			return runComplete(cmd.Context(), c, o)
		},
	}
	cmd.Flags().StringVar(&o.domain, "domain", "", "this domain only (default all)")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	cmd.Flags().BoolVar(&o.force, "force", false, "finish the domain whatever is left: accounts that have not moved lose their source")
	cmd.Flags().BoolVar(&o.acceptSetAside, "accept-set-aside", false, "finish accounts without the messages that the target refused")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print JSON")
	return cmd
}

// planCompletion says what complete would do.
func planCompletion(ctx context.Context, c *admin.Client, o completeOptions) error {
	all, err := c.Completion(ctx, o.domain)
	if err != nil {
		return err
	}
	if o.asJSON {
		return writeJSON(o.out, all)
	}
	for _, d := range all {
		text := fmt.Sprintf("%s: %d accounts are left.\n", d.Name, d.LeftTotal)
		switch {
		case d.Finished:
			text = fmt.Sprintf("%s: finished, nothing to do.\n", d.Name)
		case d.Active:
			text += fmt.Sprintf("    The migration is active: `migproxy stop --domain %s` first.\n", d.Name)
		}
		if _, err := io.WriteString(o.out, text); err != nil {
			return err
		}
		if err := writeLeft(o.out, d, o); err != nil {
			return err
		}
	}
	return nil
}

// fate is what complete does with an account.
func fate(a admin.Account, o completeOptions) string {
	switch {
	case a.State == store.Excluded && o.force:
		return "is excluded, lives on the source only, and would lose it"
	case a.State == store.Excluded:
		return "is excluded and lives on the source only: move it to the target by hand, then --force"
	case a.State != store.Active && o.force:
		return "has not moved and would lose its source"
	case a.State != store.Active:
		return "has not moved and keeps the domain from being finished"
	case a.SetAside > 0 && !o.acceptSetAside:
		return fmt.Sprintf("has %d messages set aside: `migproxy account retry`, or --accept-set-aside", a.SetAside)
	}
	return "gets a last pass and is finished"
}

// writeLeft lists what keeps a domain from being finished.
func writeLeft(w io.Writer, d admin.Completion, o completeOptions) error {
	if len(d.Left) == 0 {
		return nil
	}
	rows := [][]string{{"ADDRESS", "STATE", "SET ASIDE", "WHAT", "ERROR"}}
	for _, a := range d.Left {
		rows = append(rows, []string{a.Address, string(a.State), count(a.SetAside), fate(a, o), orDash(a.Error)})
	}
	if err := writeTable(w, rows); err != nil {
		return err
	}
	if more := d.LeftTotal - int64(len(d.Left)); more > 0 {
		_, err := fmt.Fprintf(w, "... and %d more\n", more)
		return err
	}
	return nil
}

// runComplete begins the last passes and follows them to their end.
func runComplete(ctx context.Context, c *admin.Client, o completeOptions) error {
	all, err := c.Complete(ctx, o.domain, o.force, o.acceptSetAside)
	if err != nil {
		return err
	}
	bar := newCompletionBar(o.told)
	for going(all) > 0 {
		if err := bar.show(going(all)); err != nil {
			return err
		}
		pause := time.NewTimer(completionPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			bar.end()
			return fmt.Errorf("the last passes go on on the server: `migproxy complete --dry-run` shows what is left, `migproxy log -f` follows them")
		}
		if all, err = c.Completion(ctx, o.domain); err != nil {
			bar.end()
			return err
		}
	}
	bar.end()
	return writeCompleted(all, o)
}

// going counts the accounts whose last pass has not ended; a domain that is
// about to be finished counts as one.
func going(all []admin.Completion) (n int64) {
	for _, d := range all {
		n += d.Finishing
		if d.Completing && d.Finishing == 0 {
			n++
		}
	}
	return n
}

// writeCompleted says what has become of each domain. One that is not finished
// is an error.
func writeCompleted(all []admin.Completion, o completeOptions) error {
	unfinished, left := 0, int64(0)
	if o.asJSON {
		if err := writeJSON(o.out, all); err != nil {
			return err
		}
	}
	for _, d := range all {
		if !d.Finished {
			unfinished, left = unfinished+1, left+d.LeftTotal
		}
		if o.asJSON {
			continue
		}
		text := fmt.Sprintf("%s is finished: its old server is never asked again.\n", d.Name)
		if !d.Finished {
			text = fmt.Sprintf("%s is not finished. These accounts are left:\n", d.Name)
		}
		if _, err := io.WriteString(o.out, text); err != nil {
			return err
		}
		if err := writeLeft(o.out, d, o); err != nil {
			return err
		}
	}
	if unfinished > 0 {
		return fmt.Errorf("%d domains are not finished, %d accounts are left: see to them and run `migproxy complete` again, or finish without them with --force", unfinished, left)
	}
	return nil
}

// completionBar shows how many accounts are left: a bar on a terminal, and a
// line for each change elsewhere.
type completionBar struct {
	out   io.Writer
	bars  *mpb.Progress // nil where there is no terminal
	bar   *mpb.Bar
	total int64
	told  int64
}

func newCompletionBar(out io.Writer) *completionBar {
	b := &completionBar{out: out, bars: newBars(out)}
	if b.bars != nil {
		b.bar = b.bars.New(0, mpb.BarStyle(), mpb.PrependDecorators(decor.Name("last passes ")),
			mpb.AppendDecorators(decor.CountersNoUnit(" %d of %d accounts")))
	}
	return b
}

func (b *completionBar) show(left int64) error {
	b.total = max(b.total, left)
	if b.bar != nil {
		b.bar.SetTotal(b.total, false)
		b.bar.SetCurrent(b.total - left)
		return nil
	}
	if left == b.told {
		return nil
	}
	b.told = left
	_, err := fmt.Fprintf(b.out, "%d of %d accounts have their last pass behind them\n", b.total-left, b.total)
	return err
}

func (b *completionBar) end() {
	if b.bar != nil {
		b.bar.SetTotal(b.total, true)
		b.bars.Wait()
		b.bar = nil
	}
}

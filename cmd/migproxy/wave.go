package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"migproxy/admin"
	"migproxy/config"
)

func newWave(load loader, connect connector) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wave",
		Short: "Say who may move now; the others stay on the old server",
		Long: `The wave has addresses, and patterns in which * stands for any run of characters;
* alone is everybody. Who is excluded does not move, whatever else matches. An account
begins at its next login once it is in the wave of a domain whose migration is
active. What domains[].wave says in the settings counts at the first start only.`,
		RunE: commandMissing,
	}
	cmd.AddCommand(newWaveList(connect), newWaveAdd(load, connect), newWaveRemove(load, connect))
	return cmd
}

func newWaveList(connect connector) *cobra.Command {
	var domain string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the wave, and where its accounts stand",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			if asJSON {
				list := jsonList{w: cmd.OutOrStdout()}
				if err := c.Wave(cmd.Context(), domain, func(p admin.WavePattern) error { return list.add(p) }); err != nil {
					return err
				}
				return list.end()
			}
			return waveTable(cmd.Context(), c, domain, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&domain, "domain", "", "this `domain` only (default all)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// waveTable writes the wave in blocks that are aligned each on its own.
func waveTable(ctx context.Context, c *admin.Client, domain string, w io.Writer) error {
	rows := [][]string{{"DOMAIN", "PATTERN", "MAY MOVE", "STATE"}}
	err := c.Wave(ctx, domain, func(p admin.WavePattern) error {
		if len(rows) == tableBlock {
			if err := writeTable(w, rows); err != nil {
				return err
			}
			rows = rows[:0]
		}
		may := "yes"
		if p.Excluded {
			may = "no"
		}
		rows = append(rows, []string{p.Domain, p.Pattern, may, orDash(string(p.State))})
		return nil
	})
	if err != nil {
		return err
	}
	return writeTable(w, rows)
}

// wavePatterns are those of one call.
type wavePatterns struct{ domain, file string }

func (o *wavePatterns) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.domain, "domain", "", "the `domain` of patterns that have none (default the only one, or default_domain)")
	cmd.Flags().StringVar(&o.file, "file", "", "a `list` of patterns, one a line; - is standard input")
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 && o.file == "" {
			return usageError{"name addresses or patterns, or a list with --file"}
		}
		return nil
	}
}

const waveFileHelp = `
A list has an address or a pattern a line; blank lines, and lines that begin with
#, are passed over. Nothing is changed unless the whole list is right.`

func newWaveAdd(load loader, connect connector) *cobra.Command {
	var o wavePatterns
	var exclude bool
	cmd := &cobra.Command{
		Use:   "add PATTERN...|--file LIST",
		Short: "Let accounts move at their next login",
		Long: `Adds addresses or patterns, such as anna@example.com, 'a*@example.com' or '*', to the
wave. With --exclude who matches is kept on the old server, whatever else matches,
unless he has begun to move. One that is on the other side changes sides.
` + waveFileHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			q, c, err := o.request(load, connect, args)
			if err != nil {
				return err
			}
			q.Exclude = exclude
			changes, err := c.AddToWave(cmd.Context(), q)
			if err != nil {
				return err
			}
			for _, change := range changes {
				text := fmt.Sprintf("added %d, already there %d", change.Changed, change.Unchanged)
				if exclude {
					text = fmt.Sprintf("excluded %d, already excluded %d", change.Changed, change.Unchanged)
				} else if !change.Active {
					text += fmt.Sprintf("\n    Its migration is not active, so nobody begins: migproxy start --domain %s", change.Domain)
				}
				if err := writeWaveChange(cmd.OutOrStdout(), change, text); err != nil {
					return err
				}
			}
			return nil
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&exclude, "exclude", false, "keep who matches on the old server")
	return cmd
}

func newWaveRemove(load loader, connect connector) *cobra.Command {
	var o wavePatterns
	cmd := &cobra.Command{
		Use:   "remove PATTERN...|--file LIST",
		Short: "Take addresses and patterns out of the wave",
		Long: `Takes addresses and patterns away as they stand in migproxy wave list, whether they
are excluded or not. Accounts that have begun to move go on. To keep back one account
of a pattern that stays: migproxy wave add --exclude.
` + waveFileHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			q, c, err := o.request(load, connect, args)
			if err != nil {
				return err
			}
			changes, err := c.RemoveFromWave(cmd.Context(), q)
			if err != nil {
				return err
			}
			for _, change := range changes {
				text := fmt.Sprintf("removed %d, not there %d", change.Changed, change.Unchanged)
				if change.Unchanged > 0 {
					text += "\n    Whoever a pattern of the wave matches is still in it: migproxy wave list, or wave add --exclude"
				}
				if err := writeWaveChange(cmd.OutOrStdout(), change, text); err != nil {
					return err
				}
			}
			return nil
		},
	}
	o.flags(cmd)
	return cmd
}

// writeWaveChange says what was done, and for whom it comes too late.
func writeWaveChange(w io.Writer, c admin.WaveChange, text string) error {
	text = fmt.Sprintf("Wave of %s: %s\n", c.Domain, text)
	if c.Moving > 0 || c.Moved > 0 {
		text += fmt.Sprintf("    Of the accounts that match, %d are being moved and %d have moved: nothing changes for them.\n", c.Moving, c.Moved)
	}
	_, err := io.WriteString(w, text)
	return err
}

// request holds every pattern against the settings, and prepares to ask.
func (o *wavePatterns) request(load loader, connect connector, args []string) (q admin.WaveRequest, c *admin.Client, err error) {
	cfg, err := load()
	if err != nil {
		return q, nil, err
	}
	if o.domain != "" && cfg.Domain(o.domain) == nil {
		return q, nil, fmt.Errorf("the domain %q is not in the settings", o.domain)
	}
	for _, text := range args {
		p, err := admin.ReadWavePattern(cfg, text, o.domain)
		if err != nil {
			return q, nil, fmt.Errorf("%q: %w", text, err)
		}
		q.Patterns = append(q.Patterns, p)
	}
	if o.file != "" {
		in := os.Stdin
		if o.file != "-" {
			if in, err = os.Open(o.file); err != nil {
				return q, nil, fmt.Errorf("--file: %w", err)
			}
			defer in.Close()
		}
		listed, err := readWave(cfg, in, o.domain)
		if err != nil {
			return q, nil, inFile(o.file, err)
		}
		q.Patterns = append(q.Patterns, listed...)
	}
	if len(q.Patterns) == 0 {
		return q, nil, fmt.Errorf("%s names nobody; write an address or a pattern a line", o.file)
	}
	c, err = connect()
	return q, c, err
}

// readWave reads a list of patterns. The error joins one for each wrong line.
func readWave(cfg *config.Config, r io.Reader, domain string) (all []admin.WavePattern, err error) {
	var errs []error
	lines := bufio.NewScanner(r)
	n := 1
	for ; lines.Scan(); n++ {
		text := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\uFEFF"))
		if text == "" || text[0] == '#' {
			continue
		}
		p, err := admin.ReadWavePattern(cfg, text, domain)
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", n, err))
		}
		all = append(all, p)
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("line %d: %w", n, err))
	}
	return all, errors.Join(errs...)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"migproxy/admin"
	"migproxy/cmd/migproxy/internal/report"
	"migproxy/migrator/verify"
)

// verifyOptions are those of one call.
type verifyOptions struct {
	address      string // empty for all
	domain, file string
	deep, asJSON bool
	out, told    io.Writer // standard output, and standard error
}

func newVerify(connect connector) *cobra.Command {
	var o verifyOptions
	var all bool
	cmd := &cobra.Command{
		Use:   "verify ADDRESS|--all",
		Short: "Compare both servers, message by message, and say what is missing or differs",
		Long: `Reads the mailbox of an account on both servers, writes nothing on either, and
compares counts, sizes, flags and dates of the messages by the ledger of the
copy. Exit status 1 means that something is missing or differs, or could not be
compared.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if !all {
				if o.domain != "" {
					return usageError{"--domain is for --all"}
				}
				return oneAddress(cmd, args)
			}
			if len(args) > 0 {
				return usageError{"name one account, or --all of them"}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			if !all {
				o.address = args[0]
			}
			o.out, o.told = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return runVerify(cmd.Context(), c, o)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every account that was or is being copied")
	cmd.Flags().StringVar(&o.domain, "domain", "", "with --all: this domain only")
	cmd.Flags().BoolVar(&o.deep, "deep", false, "read every message on both servers and compare its SHA-256")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&o.file, "report", "", "write a printable HTML page into this `file`")
	return cmd
}

// runVerify shows, and reports, each account when it has been verified. Only
// figures are kept of it.
func runVerify(ctx context.Context, c *admin.Client, o verifyOptions) (err error) {
	var page *report.Report
	if o.file != "" {
		if page, err = report.Create(o.file, report.About{Version: version(), Scope: o.scope(), Deep: o.deep}); err != nil {
			return err
		}
		defer page.Close()
	}
	list := jsonList{w: o.out}
	bar := &verifyBar{out: o.told, told: time.Now()}
	defer bar.end()
	var accounts, wrong int
	err = c.Verify(ctx, o.address, o.domain, o.deep, func(v admin.Verification) error {
		if v.Progress != nil {
			return bar.show(*v.Progress)
		}
		if v.Account == nil {
			return nil
		}
		bar.end()
		accounts++
		if !v.Account.OK() {
			wrong++
		}
		var errs error
		if page != nil {
			errs = page.Add(v.Account)
		}
		switch {
		case !o.asJSON:
			errs = errors.Join(errs, writeVerified(o.out, v.Account, o.address == ""))
		case o.address != "":
			errs = errors.Join(errs, writeJSON(o.out, v.Account))
		default:
			errs = errors.Join(errs, list.add(v.Account))
		}
		return errs
	})
	if err == nil && o.address == "" && o.asJSON {
		err = list.end()
	}
	if err == nil && page != nil {
		err = page.Commit()
	}
	if err != nil {
		return err
	}
	if o.address == "" && !o.asJSON {
		if _, err := fmt.Fprintf(o.out, "%d accounts verified, %d complete\n", accounts, accounts-wrong); err != nil {
			return err
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d accounts are not complete; see what is said of each", wrong, accounts)
	}
	return nil
}

// scope says in words what is verified.
func (o *verifyOptions) scope() string {
	switch {
	case o.address != "":
		return o.address
	case o.domain != "":
		return "All accounts of " + o.domain
	default:
		return "All accounts"
	}
}

// writeVerified says how an account is. Of many, only those that are not
// complete are shown folder by folder.
func writeVerified(w io.Writer, a *verify.Account, ofMany bool) error {
	verdict := "complete"
	if a.Problem != "" {
		verdict = "NOT VERIFIED: " + a.Problem
	} else if !a.OK() {
		verdict = "NOT COMPLETE"
	}
	_, err := fmt.Fprintf(w, "%s: %s\n", printable(a.Address), printable(verdict))
	if err != nil || len(a.Folders) == 0 {
		return err
	}
	what := "in size, flags and date"
	if a.Deep {
		what = "in octets, flags and date"
	}
	line := fmt.Sprintf("%d of %d messages (%s) are the same on both servers %s", a.Total.Same, a.Total.SourceSide.Messages, report.Octets(a.Total.SourceSide.Octets), what)
	if remarks := a.Total.Remarks(); remarks != "" {
		line += "; " + remarks
	}
	if _, err := fmt.Fprintf(w, "  %s\n", line); err != nil || ofMany && a.OK() {
		return err
	}
	for _, rows := range [][][]string{verifiedFolders(a), readingNotes(a), differences(a)} {
		if err := writeTable(w, rows); err != nil {
			return err
		}
	}
	if n := a.Total.Unlisted; n > 0 {
		if _, err := fmt.Fprintf(w, "  %d more are counted and not listed\n", n); err != nil {
			return err
		}
	}
	if a.OK() || a.FlippedAt.IsZero() {
		return nil
	}
	_, err = fmt.Fprintf(w, "  %s\n", verify.Owner)
	return err
}

func verifiedFolders(a *verify.Account) [][]string {
	rows := [][]string{{"  FOLDER", "ON THE TARGET", "SOURCE", "TARGET", "THE SAME", "SHA-256", "BESIDE THESE"}}
	for i := range a.Folders {
		f := &a.Folders[i]
		beside := f.Problem
		if beside == "" {
			beside = f.Remarks()
		}
		rows = append(rows, []string{"  " + orDash(folderName(f.Source)), folderName(f.Target), count(f.SourceSide.Messages),
			count(f.TargetSide.Messages), count(f.Same), count(f.Digest), orDash(beside)})
	}
	return rows
}

// readingNotes say how the account and its folders were read.
func readingNotes(a *verify.Account) (rows [][]string) {
	for _, note := range a.Notes {
		rows = append(rows, []string{"  " + note})
	}
	for i := range a.Folders {
		for _, note := range a.Folders[i].Notes {
			rows = append(rows, []string{"  " + folderName(a.Folders[i].Name()) + ": " + note})
		}
	}
	return rows
}

// differences lists the messages of which there is something to say.
func differences(a *verify.Account) (rows [][]string) {
	for i := range a.Folders {
		for _, d := range a.Folders[i].Differences {
			uid := fmt.Sprintf("UID %d", d.SourceUID)
			if d.SourceUID == 0 {
				uid = fmt.Sprintf("target UID %d", d.TargetUID)
			}
			rows = append(rows, []string{"  " + string(d.Kind), folderName(a.Folders[i].Name()), uid, d.Text})
		}
	}
	return rows
}

// progressEvery is how often a line is written where there is no terminal.
const progressEvery = 10 * time.Second

// verifyBar shows how far the account under way has been read: a bar on a
// terminal, and a line now and then elsewhere.
type verifyBar struct {
	out  io.Writer
	bars *mpb.Progress // nil while none is shown
	bar  *mpb.Bar
	told time.Time
}

func (b *verifyBar) show(p verify.Progress) error {
	if b.bars == nil {
		b.bars = newBars(b.out)
	}
	if b.bars == nil {
		if time.Since(b.told) < progressEvery {
			return nil
		}
		b.told = time.Now()
		_, err := fmt.Fprintf(b.out, "%s: %d of about %d messages read on both servers, in %s\n",
			printable(p.Address), p.Read, p.Total, printable(folderName(p.Folder)))
		return err
	}
	if b.bar == nil {
		b.bar = b.bars.New(0, mpb.BarStyle(), mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(printable(p.Address)+" ")),
			mpb.AppendDecorators(decor.CountersNoUnit(" %d of %d"), decor.Percentage(decor.WC{W: 6})))
	}
	b.bar.SetTotal(p.Total, false)
	b.bar.SetCurrent(p.Read)
	return nil
}

// end takes the bar away.
func (b *verifyBar) end() {
	if b.bar != nil {
		b.bar.Abort(true)
		b.bars.Wait()
		b.bars, b.bar = nil, nil
	}
}

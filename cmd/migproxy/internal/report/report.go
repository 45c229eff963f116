// Package report writes what verify found as one HTML page that needs nothing
// beside itself and can be printed.
package report

import (
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"migproxy/migrator/imapwire"
	"migproxy/migrator/verify"
)

//go:embed report.html
var files embed.FS

var page = template.Must(template.New("").Funcs(template.FuncMap{
	"number": number, "octets": Octets, "folder": folder, "text": printable, "moment": moment,
	"remarks": func(c verify.Counts) string { return c.Remarks() }, "short": func(sum string) string { return sum[:min(len(sum), 16)] },
}).ParseFS(files, "report.html"))

// About says what was verified.
type About struct {
	Version string
	Scope   string // such as an address, or a domain
	Deep    bool
}

// Report is a page that is being written. Accounts are written out as they come.
type Report struct {
	About
	Began, Ended       time.Time
	Accounts, Complete int64
	Folders            int64
	Total              verify.Counts
	Sources, Targets   []string // host:port
	Owner              string

	path          string
	rows, details *os.File // without a name: they end with the process
}

// Create prepares to write a page; the file itself appears with Commit.
func Create(path string, about About) (*Report, error) {
	r := &Report{About: about, Began: time.Now(), Owner: verify.Owner, path: path}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("--report: %s is there and is no file; name another", path)
	}
	var err error
	if r.rows, err = r.nameless(); err == nil {
		r.details, err = r.nameless()
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("--report: %w", err)
	}
	return r, nil
}

func (r *Report) temporary() (*os.File, error) {
	return os.CreateTemp(filepath.Dir(r.path), ".report-*") // mode 0600
}

func (r *Report) nameless() (*os.File, error) {
	f, err := r.temporary()
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// Add adds an account.
func (r *Report) Add(a *verify.Account) error {
	r.Accounts++
	if a.OK() {
		r.Complete++
	}
	for _, f := range a.Folders {
		if f.Source != "" {
			r.Folders++
		}
	}
	r.Total.Add(&a.Total)
	r.Sources, r.Targets = with(r.Sources, a.Source), with(r.Targets, a.Target)
	data := struct {
		*verify.Account
		Number int64
		Listed bool // there are differences to list
	}{a, r.Accounts, slices.ContainsFunc(a.Folders, func(f verify.Folder) bool { return len(f.Differences) > 0 })}
	err := page.ExecuteTemplate(r.rows, "row", data)
	if err == nil {
		err = page.ExecuteTemplate(r.details, "account", data)
	}
	if err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	return nil
}

// maxServers bounds the servers that are named; a domain has few.
const maxServers = 20

func with(list []string, name string) []string {
	if name == "" || slices.Contains(list, name) || len(list) == maxServers {
		return list
	}
	return append(list, name)
}

// Commit writes the page, whole or not at all, with mode 0600.
func (r *Report) Commit() (err error) {
	r.Ended = time.Now()
	f, err := r.temporary()
	if err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("--report: %w", err)
		}
	}()
	for _, part := range []func() error{
		func() error { return page.ExecuteTemplate(f, "head", r) },
		func() error { return appendTo(f, r.rows) },
		func() error { return page.ExecuteTemplate(f, "middle", r) },
		func() error { return appendTo(f, r.details) },
		func() error { return page.ExecuteTemplate(f, "foot", r) },
	} {
		if err := part(); err != nil {
			return err
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), r.path)
}

func appendTo(w io.Writer, f *os.File) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err := io.Copy(w, f)
	return err
}

// Close gives up what Create opened.
func (r *Report) Close() {
	for _, f := range []*os.File{r.rows, r.details} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// Meaning explains a number.
type Meaning struct {
	Words, Text string
	Number      int64
	Wrong       bool
}

// Meanings explain what may be beside the messages that are the same.
func (r *Report) Meanings() []Meaning {
	c := &r.Total
	texts := map[verify.Kind]string{
		verify.Missing:   "Copied, and not on the target now.",
		verify.Octets:    "On both servers, and not the same message any more.",
		verify.Flags:     "Read, answered, flagged and the like, or keywords, are not the same on both servers.",
		verify.Date:      "The internal date, by which clients sort, is not the same on both servers.",
		verify.Doubled:   "On the target once more than on the source.",
		verify.NotCopied: "On the source only: the copy goes on, or they came since.",
		verify.Unread:    "A server lists them and did not give them, so that they could not be compared.",
		verify.Altered:   "The target took them and changed them, line ends for instance. Both digests were noted when they were copied, and are still right.",
		verify.SetAside:  "The target refused them. migproxy keeps their octets, and exports them.",
	}
	var all []Meaning
	for _, k := range verify.Kinds() {
		all = append(all, Meaning{k.Words(), texts[k], c.Of(k), k.Wrong()})
	}
	return append(all,
		Meaning{"moved on the source", "Copied out of another folder, before they were moved or their folder was renamed on the source.", c.Moved, false},
		Meaning{"with flags not permitted", "The same but for flags that the target's folder does not permit.", c.NotPermitted, false},
		Meaning{"gone from the source", "Copied, and removed from the source since. The target keeps them.", c.Gone, false},
		Meaning{"on the target only", "Not from the copy: deliveries, drafts, sent mail.", c.Surplus, false})
}

// Incomplete is how many accounts are not complete.
func (r *Report) Incomplete() int64 { return r.Accounts - r.Complete }

// Took is how long the verification took.
func (r *Report) Took() time.Duration { return r.Ended.Sub(r.Began).Round(time.Second) }

// number has its thousands apart.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	var b strings.Builder
	for i, r := range s {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteRune('\u202f')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Octets shows a number of octets with the usual units.
func Octets(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	default:
		return fmt.Sprintf("%d B", n)
	}
}

// folder shows a folder's name as its owner knows it.
func folder(wire string) string {
	name, _ := imapwire.DecodeName(wire)
	return printable(name)
}

// printable keeps what servers and users wrote from changing the order of what
// is read.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.Local().Format("2 January 2006, 15:04 MST")
}

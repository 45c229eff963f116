package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with the settings, with what to write
// instead. It never repeats a value that may hold a password.
type Problem struct {
	File     string // where it is, unless Variable is set
	Line     int    // in File, from 1; 0 for what is missing altogether
	Variable string // the environment variable that is wrong
	Key      string // such as domains[0].source.imap.tls; empty for the file as a whole
	Text     string
}

func (p Problem) String() string {
	var where string
	switch {
	case p.Variable != "":
		where = p.Variable
	case p.Line > 0:
		where = fmt.Sprintf("%s:%d", p.File, p.Line)
	default:
		where = p.File
	}
	if p.Key == "" {
		return where + ": " + p.Text
	}
	return where + ": " + p.Key + ": " + p.Text
}

// Errors is everything that is wrong with the settings, in the order of the
// file's lines.
type Errors struct{ Problems []Problem }

// Error gives one line for each problem.
func (e *Errors) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// errorOrNil sorts the problems; nil when there are none.
func errorOrNil(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Variable, b.Variable), cmp.Compare(a.Line, b.Line))
	})
	return &Errors{problems}
}

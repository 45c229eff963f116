package main

import (
	"io"
	"os"
	"time"

	"github.com/vbauerster/mpb/v8"
	"golang.org/x/term"
)

// barWidth is that of a progress bar, in columns.
const barWidth = 40

// newBars prepares to draw progress bars; nil where out is no terminal, and
// lines are written instead.
func newBars(out io.Writer) *mpb.Progress {
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return mpb.New(mpb.WithOutput(f), mpb.WithWidth(barWidth), mpb.WithRefreshRate(100*time.Millisecond))
}

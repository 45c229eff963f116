package main

import (
	"fmt"
	"io"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"migproxy/admin"
	"migproxy/store"
)

// moveView shows accounts that are being moved: on a terminal a bar for each
// that is being copied and one for all, elsewhere a line for each change.
type moveView struct {
	out      io.Writer
	total    int
	progress *mpb.Progress // nil where there is no terminal
	all      *mpb.Bar
	bars     map[string]*mpb.Bar
	said     map[string]string // of each account, without its progress
}

func newMoveView(out io.Writer, total int) *moveView {
	v := &moveView{out: out, total: total, bars: map[string]*mpb.Bar{}, said: map[string]string{}, progress: newBars(out)}
	if v.progress != nil {
		v.all = v.progress.New(int64(total), mpb.BarStyle(), mpb.BarPriority(1<<30),
			mpb.PrependDecorators(decor.Name("all", decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.CountersNoUnit("%d of %d accounts", decor.WCSyncSpace)))
	}
	return v
}

// show takes the accounts as they are now.
func (v *moveView) show(accounts []admin.Account) error {
	over := int64(v.total - len(accounts)) // those that were not begun
	for _, a := range accounts {
		if !underWay(a) {
			over++
		}
		if v.progress != nil {
			v.bar(a)
			continue
		}
		what := string(a.State) + " " + a.Error
		if v.said[a.Address] == what {
			continue
		}
		v.said[a.Address] = what
		line := fmt.Sprintf("%s: %s, %s messages", printable(a.Address), a.State, progress(a))
		if a.Error != "" {
			line += ": " + printable(a.Error)
		}
		if _, err := fmt.Fprintln(v.out, line); err != nil {
			return err
		}
	}
	if v.all != nil {
		v.all.SetCurrent(over)
	}
	return nil
}

// bar shows an account while it is copied.
func (v *moveView) bar(a admin.Account) {
	b := v.bars[a.Address]
	if b == nil && a.State == store.Copying && a.Expected > 0 {
		b = v.progress.New(a.Expected, mpb.BarStyle(), mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(printable(a.Address), decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.CountersNoUnit("%d of %d messages", decor.WCSyncSpace)))
		v.bars[a.Address] = b
	}
	if b == nil {
		return
	}
	if !underWay(a) {
		b.Abort(true)
		delete(v.bars, a.Address)
		return
	}
	b.SetTotal(max(a.Expected, a.Messages), false)
	b.SetCurrent(a.Messages)
}

// end leaves the last picture of the whole standing.
func (v *moveView) end() {
	if v.progress == nil {
		return
	}
	for _, b := range v.bars {
		b.Abort(true)
	}
	v.all.Abort(false)
	v.progress.Wait()
	v.progress = nil
}

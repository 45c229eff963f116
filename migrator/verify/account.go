package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"migproxy/store"
)

// Options are what an account is verified with.
type Options struct {
	Store   *store.Store
	Account store.Account
	// Source and Target log the account in. Each may be called twice, and again
	// when a connection was lost.
	Source, Target Login
	// SourceDrop, if set, begins to read a source over POP3, instead of Source. It
	// may be called again when a connection was lost.
	SourceDrop func(ctx context.Context) (Drop, error)
	// Deep compares the octets of all messages.
	Deep bool
	// OwnKeywords: keywords that the source's folder does not know are the target's
	// own, which some servers set, and no difference.
	OwnKeywords bool
	// Timeout is how long a server may stay silent.
	Timeout time.Duration
	// Progress, if set, is told a few times a second, by one goroutine at a time.
	Progress func(Progress)
}

// Run verifies one account. It writes nothing on either server.
func Run(ctx context.Context, o Options) Account {
	r := &run{Options: o, result: Account{Address: o.Account.Identity.Address(), State: string(o.Account.State),
		FlippedAt: o.Account.FlippedAt, Deep: o.Deep, Began: time.Now(), Folders: []Folder{}},
		source: &side{which: "source", login: o.Source, drop: o.SourceDrop, timeout: o.Timeout},
		target: &side{which: "target", login: o.Target, timeout: o.Timeout}}
	r.progress = &progress{report: o.Progress, now: Progress{Address: r.result.Address}}
	defer r.source.close()
	defer r.target.close()
	if err := r.folders(ctx); err != nil {
		r.result.Problem = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	r.end()
	return r.result
}

// run is the verification of one account.
type run struct {
	Options
	source, target *side
	progress       *progress
	result         Account
	listed         int // differences
}

// both does something on the two sides at once.
func both(f, g func()) {
	var other sync.WaitGroup
	other.Go(g)
	f()
	other.Wait()
}

// folders verifies folder after folder.
func (r *run) folders(ctx context.Context) error {
	var here, there []mailbox
	var hereNotes, thereNotes []string
	var hereErr, thereErr error
	both(func() { here, hereNotes, hereErr = r.source.folders(ctx) },
		func() { there, thereNotes, thereErr = r.target.folders(ctx) })
	r.result.Notes = slices.Concat(hereNotes, thereNotes)
	if err := errors.Join(hereErr, thereErr); err != nil {
		return err
	}
	known, err := r.Store.Folders(ctx, r.Account.ID)
	if err != nil {
		return err
	}
	here = slices.DeleteFunc(here, func(b mailbox) bool { return !b.selectable })
	there = slices.DeleteFunc(there, func(b mailbox) bool { return !b.selectable })
	listed := func(boxes []mailbox, name string) bool {
		return slices.ContainsFunc(boxes, func(b mailbox) bool { return sameName(b.name, name) })
	}
	var work []*folderRun
	for i, f := range known {
		w := &folderRun{run: r, known: &known[i], listed: listed(here, f.Source), targetListed: listed(there, f.Target),
			result: Folder{Source: f.Source, Target: f.Target}}
		if w.listed || f.Selectable {
			work = append(work, w)
		}
	}
	for _, b := range here {
		if !slices.ContainsFunc(known, func(f store.FolderCounts) bool { return sameName(f.Source, b.name) }) {
			work = append(work, &folderRun{run: r, listed: true, result: Folder{Source: b.name}})
		}
	}
	for _, w := range work {
		r.progress.expect(w.guess())
	}
	for _, w := range work {
		if err := w.verify(ctx); err != nil {
			return err
		}
		r.add(w.result)
	}
	return r.targetOnly(ctx, known, there)
}

// targetOnly counts what is in folders of which the copy knows nothing: deliveries,
// sent mail, and what its owner has made there. Logins may wait, so they are not listed.
func (r *run) targetOnly(ctx context.Context, known []store.FolderCounts, there []mailbox) error {
	for _, b := range there {
		if slices.ContainsFunc(known, func(f store.FolderCounts) bool { return sameName(f.Target, b.name) }) {
			continue
		}
		r.progress.folder(b.name)
		n, err := r.target.count(ctx, b.name)
		if isLogin(err) || ctx.Err() != nil {
			return err
		}
		if err != nil || n == 0 {
			continue // nothing of the source is in it: whether it can be read does not matter
		}
		f := Folder{Target: b.name}
		f.TargetSide.Messages, f.Surplus = n, n
		r.add(f)
	}
	return nil
}

// add adds a folder's result, with no more differences than may be listed.
func (r *run) add(f Folder) {
	if left := maxListed - r.listed; len(f.Differences) > left {
		f.Unlisted += int64(len(f.Differences) - left)
		f.Differences = f.Differences[:left]
	}
	r.listed += len(f.Differences)
	r.result.Total.Add(&f.Counts)
	r.result.Folders = append(r.result.Folders, f)
}

// end completes the result.
func (r *run) end() {
	a := &r.result
	a.Source, a.Target, a.Ended = r.source.server, r.target.server, time.Now()
	failed := 0
	for i := range a.Folders {
		if a.Folders[i].Problem != "" {
			failed++
		}
	}
	if failed > 0 && a.Problem == "" {
		a.Problem = fmt.Sprintf("%d folders could not be compared", failed)
	}
}

// folderRun is the verification of one folder.
type folderRun struct {
	*run
	known        *store.FolderCounts // nil where the copy does not know it yet
	listed       bool                // on the source, and can hold messages
	targetListed bool                // on the target
	guessed      int64
	result       Folder
}

// passes is how often a message counts as read, see Progress.
func (r *run) passes() int64 {
	if r.Deep {
		return 2
	}
	return 1
}

// guess is about how many messages will be read, from the ledger.
func (w *folderRun) guess() int64 {
	if w.known != nil {
		w.guessed = 2 * w.passes() * w.known.Messages
	}
	return w.guessed
}

// verify compares the folder. An error ends the account: the context's, the
// store's, or that a server does not let us in any more.
func (w *folderRun) verify(ctx context.Context) error {
	w.progress.folder(w.result.Source)
	source, target, evidence, err := w.views(ctx)
	if err != nil {
		return err
	}
	w.progress.expect(w.passes()*int64(len(source.messages)+len(target.messages)) - w.guessed)
	w.progress.read(int64(len(source.messages) + len(target.messages)))
	if w.result.Problem != "" {
		return nil
	}
	c := compare(&w.result, evidence, source, target, w.Deep)
	if w.OwnKeywords {
		c.known = source.known()
	}
	ofSource, ofTarget := c.toRead()
	if !w.Deep {
		w.progress.expect(int64(len(ofSource) + len(ofTarget)))
	}
	var sourceNotes, targetNotes []string
	var sourceErr, targetErr error
	done := func() { w.progress.read(1) }
	both(func() { sourceNotes, sourceErr = w.source.digest(ctx, w.result.Source, source, ofSource, done) },
		func() { targetNotes, targetErr = w.target.digest(ctx, w.result.Target, target, ofTarget, done) })
	w.result.Notes = slices.Concat(w.result.Notes, sourceNotes, targetNotes)
	if err := errors.Join(sourceErr, targetErr); err != nil {
		return err
	}
	c.conclude()
	return nil
}

// views reads both sides. The ledger is read before, so that all it says must be
// there.
func (w *folderRun) views(ctx context.Context) (source, target *view, evidence store.Evidence, err error) {
	if w.known != nil {
		if evidence, err = w.Store.Evidence(ctx, w.known.ID); err != nil {
			return nil, nil, evidence, err
		}
	}
	var sourceNotes, targetNotes []string
	var sourceErr, targetErr error
	both(func() { source, sourceNotes, sourceErr = w.source.read(ctx, w.result.Source) },
		func() {
			if w.result.Target == "" {
				target = &view{}
				return
			}
			target, targetNotes, targetErr = w.target.read(ctx, w.result.Target)
		})
	w.result.Notes = slices.Concat(w.result.Notes, sourceNotes, targetNotes)
	if isNotOpened(sourceErr) && !w.listed {
		// What was copied of it is compared with nothing.
		source, sourceErr = &view{uidValidity: evidence.SourceUIDValidity}, nil
		w.result.Notes = append(w.result.Notes, "The source does not have this folder any more.")
	}
	if isNotOpened(targetErr) && !w.targetListed {
		target, targetErr = &view{}, nil
		w.result.Notes = append(w.result.Notes, "The target does not have this folder.")
	}
	if err = errors.Join(sourceErr, targetErr); isLogin(err) || ctx.Err() != nil {
		return nil, nil, evidence, err
	}
	var problems []string
	for which, err := range map[string]error{"source": sourceErr, "target": targetErr} {
		if err != nil {
			problems = append(problems, fmt.Sprintf("the folder of the %s cannot be read: %v", which, err))
		}
	}
	if len(problems) > 0 {
		slices.Sort(problems)
		w.result.Problem = strings.Join(problems, "; ")
		return &view{}, &view{}, evidence, nil
	}
	return source, target, evidence, nil
}

// progressEvery is how often progress is told.
const progressEvery = 250 * time.Millisecond

// progress counts what has been read. Both sides' goroutines use it.
type progress struct {
	report func(Progress)
	mu     sync.Mutex
	now    Progress
	told   time.Time
}

func (p *progress) folder(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.Folder = name
	p.tell()
}

// expect adds to what is to be read.
func (p *progress) expect(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.Total += n
}

// read adds to what was read.
func (p *progress) read(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.Read += n
	p.tell()
}

func (p *progress) tell() {
	if p.report == nil || time.Since(p.told) < progressEvery {
		return
	}
	p.told = time.Now()
	p.report(p.now)
}

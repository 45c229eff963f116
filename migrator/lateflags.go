package migrator

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// sourceFlags are the flags of a folder's messages on the source. Each distinct
// set of flags is kept once, so that a message takes eight octets.
type sourceFlags struct {
	sets   [][]string
	index  map[string]uint32 // of sets
	shown  []flagged
	sorted bool
}

type flagged struct{ uid, set uint32 }

func newSourceFlags() *sourceFlags { return &sourceFlags{index: map[string]uint32{}} }

func (s *sourceFlags) add(m imapwire.Meta) {
	name := strings.Join(m.Flags, " ")
	set, known := s.index[name]
	if !known {
		set = uint32(len(s.sets))
		s.index[name], s.sets = set, append(s.sets, m.Flags)
	}
	s.shown = append(s.shown, flagged{m.UID, set})
}

func compareUID(f flagged, uid uint32) int { return int(int64(f.uid) - int64(uid)) }

func (s *sourceFlags) of(uid uint32) (flags []string, ok bool) {
	if !s.sorted {
		slices.SortFunc(s.shown, func(a, b flagged) int { return compareUID(a, b.uid) })
		s.sorted = true
	}
	at, ok := slices.BinarySearchFunc(s.shown, uid, compareUID)
	if !ok {
		return nil, false
	}
	return s.sets[s.shown[at].set], true
}

// systemFlags are taken away on the target where the source has them no more.
// Keywords are only where the source knows them: servers set some of their own.
var systemFlags = []string{`\Answered`, `\Deleted`, `\Draft`, `\Flagged`, `\Seen`}

// lateFlags collects what became of flags on the source after messages were
// copied, for one folder.
type lateFlags struct {
	source  *sourceFlags
	permits flagFilter
	changes map[string][]uint32 // target UIDs, by "+FLAGS.SILENT a b" or "-FLAGS.SILENT a"
	// keywords are those that the source knows, folded; nil where none is taken away.
	keywords map[string]bool
	// others counts messages with other flags that were not appended, and keep theirs.
	others int
}

// note compares a message of the target with its original.
func (l *lateFlags) note(run store.Run, m imapwire.Meta) {
	is, shown := l.source.of(run.SourceFirst + m.UID - run.TargetFirst)
	if !shown {
		return
	}
	want, _ := l.permits.split(is)
	want = slices.DeleteFunc(want, func(f string) bool { return holds(m.Flags, []string{f}) })
	var stale []string
	for _, f := range systemFlags {
		if holds(m.Flags, []string{f}) && !holds(is, []string{f}) {
			stale = append(stale, f)
		}
	}
	for _, f := range m.Flags {
		if l.keywords[strings.ToLower(f)] && !holds(is, []string{f}) {
			stale = append(stale, f)
		}
	}
	if !run.Appended {
		if len(want)+len(stale) > 0 {
			l.others++
		}
		return
	}
	l.change("+FLAGS.SILENT", m.UID, want)
	l.change("-FLAGS.SILENT", m.UID, stale)
}

func (l *lateFlags) change(op string, uid uint32, flags []string) {
	if len(flags) > 0 {
		slices.Sort(flags)
		k := op + " " + strings.Join(flags, " ")
		l.changes[k] = append(l.changes[k], uid)
	}
}

// storeFlags brings the flags of messages that migproxy appended up to date, in
// the target's folder that the eye has open. A refusal is reported like any
// other flag that the target does not keep.
func (j *job) storeFlags(ctx context.Context, f *folder, l *lateFlags) error {
	for change, uids := range l.changes {
		words := strings.Fields(change)
		slices.Sort(uids)
		err := j.eye.Store(ctx, slices.Compact(uids), words[0], words[1:])
		if err != nil && !isStatus(err) {
			return again(errorTarget, fmt.Errorf("set flags in the target's folder %s: %w", f.Target, err))
		}
		if err != nil && !j.mirrors() { // what is compared before the flip says so there
			j.notKept.flags += len(uids)
		}
	}
	return nil
}

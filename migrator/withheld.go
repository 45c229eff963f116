package migrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"migproxy/store"
)

// readSource passes on the bodies of messages of the source's folder that is
// open. Those that do not come are reported by nothing but their absence: some
// are gone, and a NO may speak of some messages only. Where the source cuts the
// connection, that is counted against the message under way; one at which it
// did so three times is not asked for.
func (j *job) readSource(ctx context.Context, f *folder, uids []uint32, fn func(uid uint32, size int64, r io.Reader) error) error {
	uids = slices.DeleteFunc(slices.Clone(uids), func(uid uint32) bool { return j.withholds(f, uid) })
	if len(uids) == 0 {
		return nil
	}
	var reading uint32
	came := make(map[uint32]bool, len(uids))
	var own error // of fn, and not because the source broke off
	err := j.source.FetchBodies(ctx, uids, func(uid uint32, size int64, r io.Reader) error {
		reading, came[uid] = uid, true
		watched := &watchedReader{r: r}
		err := fn(uid, size, watched)
		if err == nil {
			reading = 0
		} else if !watched.broke {
			own = err
		}
		return err
	})
	if own != nil || err == nil || isStatus(err) {
		return own
	}
	at := reading
	if next := slices.IndexFunc(uids, func(uid uint32) bool { return !came[uid] }); at == 0 && next >= 0 {
		at = uids[next]
	}
	if _, asked := errors.AsType[*rest](err); at != 0 && !asked && ctx.Err() == nil {
		j.m.memory.source.note(j.claim.Account.ID, key(f, at))
	}
	return again(errorSource, fmt.Errorf("fetch from %s, at UID %d: %w", f.Source, at, err))
}

// watchedReader knows whether it failed.
type watchedReader struct {
	r     io.Reader
	broke bool
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.broke = w.broke || err != nil && !errors.Is(err, io.EOF)
	return n, err
}

// withholds reports whether the source cut the connection at a message so often
// that it is not asked for in this run.
func (j *job) withholds(f *folder, uid uint32) bool {
	k := key(f, uid)
	if j.withheld[k] == "" && j.m.memory.source.at(j.claim.Account.ID, k) >= maxCuts {
		j.withheld[k] = f.Source
	}
	return j.withheld[k] != ""
}

// undelivered ends the work while the source lists messages that it does not
// give. They are asked for again in the next run.
func (j *job) undelivered() error {
	if len(j.withheld) == 0 {
		return nil
	}
	var first messageKey
	for k := range j.withheld {
		j.m.memory.source.clear(j.claim.Account.ID, k)
		if first == (messageKey{}) || cmp.Or(cmp.Compare(k.folderID, first.folderID), cmp.Compare(k.uid, first.uid)) < 0 {
			first = k
		}
	}
	return &halt{state: store.Waiting, retry: true, reason: errorUndelivered,
		err: fmt.Errorf("the source lists the message with UID %d in %s and does not give it (%d such messages; the others are copied): repair or remove it there",
			first.uid, j.withheld[first], len(j.withheld))}
}

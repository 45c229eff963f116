package migrator

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"go.uber.org/zap"

	"migproxy/upstream"
)

const (
	// maxLanes is how many folders of an account are worked on at a time. Each
	// takes a connection to the source and one to the target, and servers allow a
	// user ten or so.
	maxLanes = 4
	// laneMessages is how much there must be to copy for lanes to be worth their
	// logins.
	laneMessages = 100
)

// errLeftOver says that a lane has left the rest of a folder to the job itself.
var errLeftOver = errors.New("the target does not simply take all of this folder")

// lane makes a job for some of the folders, to work beside others. It copies
// only what goes smoothly: a folder of which the target refuses something is
// left to the job itself, which takes one folder after the other, because what
// a refusal means is told by what else the target takes on the same connection.
// What a lane learns is absorbed in the end.
func (j *job) lane(c *conns) *job {
	l := *j
	l.conns, l.others, l.isLane = *c, nil, true
	l.suspects, l.withheld, l.unchanged = suspects{}, map[messageKey]string{}, maps.Clone(j.unchanged)
	l.notKept, l.added, l.octets, l.observer = notKept{}, 0, 0, j.newObserver()
	return &l
}

func (j *job) absorb(l *job) {
	maps.Copy(j.withheld, l.withheld)
	maps.Copy(j.unchanged, l.unchanged)
	j.notKept.add(&l.notKept)
	j.added += l.added
	j.octets += l.octets
}

// openConns logs in for one more lane. That has no eye of its own: while it
// looks or waits, others append.
func (j *job) openConns(ctx context.Context) (*conns, error) {
	h := j.m.hosts.of(j.domain.Source.IMAP)
	if err := h.enter(ctx, 0); err != nil { // a lane is not worth waiting for
		return nil, err
	}
	c := &conns{}
	var errs [2]error
	var logins sync.WaitGroup
	logins.Go(func() {
		c.source, errs[0] = j.entered(ctx, h, func(ctx context.Context) (*upstream.Session, error) {
			return j.session(ctx, j.domain.Source.IMAP, j.sourceCreds)
		})
	})
	logins.Go(func() { c.dest, errs[1] = j.loginAs(ctx, j.domain.Target.IMAP, j.targetCreds) })
	logins.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		c.close()
		return nil, err
	}
	c.eye = c.dest
	return c, nil
}

// inLanes has work done on each folder, in this order and by as many lanes at a
// time as there are connections for. With open set more of these are made: as
// many as the servers allow the user. The first error ends all of it, between
// two batches.
func (j *job) inLanes(ctx context.Context, folders []*folder, open bool, work func(*job, *folder) error) error {
	queue := make(chan *folder, len(folders))
	for _, f := range folders {
		queue <- f
	}
	close(queue)
	all := append([]*conns{&j.conns}, j.others...)
	if open {
		all = append(all, make([]*conns, max(0, j.m.lanes-len(all)))...)
	}
	lanes, errs := make([]*job, len(all)), make([]error, len(all))
	stop, end := context.WithCancel(j.stop)
	defer end()
	run := func(i int) {
		if all[i] == nil && len(queue) > 0 {
			var err error
			if all[i], err = j.openConns(ctx); err != nil {
				j.log.Info("the servers take no more connections of this user: copying over fewer", zap.Error(err))
			}
		}
		if all[i] == nil {
			return
		}
		l := j.lane(all[i])
		lanes[i], l.stop = l, stop
		for f := range queue {
			if stop.Err() != nil {
				return
			}
			if errs[i] = work(l, f); errs[i] != nil {
				end()
				return
			}
		}
	}
	var others sync.WaitGroup
	defer others.Wait()
	for i := 1; i < len(all); i++ {
		others.Go(func() { run(i) })
	}
	run(0)
	others.Wait()
	for i, l := range lanes {
		if l != nil {
			*all[i] = l.conns
			j.absorb(l)
		}
	}
	j.others = slices.DeleteFunc(all[1:], func(c *conns) bool { return c == nil })
	return j.firstError(errs)
}

// firstError is what ended the lanes.
func (j *job) firstError(errs []error) error {
	for _, err := range errs {
		if err != nil && !errors.Is(err, errStopped) {
			if len(j.others) > 0 { // perhaps they were too many for a server
				j.m.memory.narrow(j.claim.Account.ID)
			}
			return err
		}
	}
	if j.stop.Err() != nil {
		return errStopped
	}
	return nil
}

// copyInLanes copies folders in lanes, where that pays. It returns those that
// are left to be copied one after the other, and how many messages were missing
// in the others.
func (j *job) copyInLanes(ctx context.Context, folders []*folder) (left []*folder, found int, err error) {
	if !j.lanesPay(folders) {
		return folders, 0, nil
	}
	// The largest first, so that all lanes end at about the same time.
	queue := slices.SortedStableFunc(slices.Values(folders), func(a, b *folder) int { return cmp.Compare(b.status.Messages, a.status.Messages) })
	var mu sync.Mutex
	err = j.inLanes(ctx, queue, true, func(l *job, f *folder) error {
		n, err := l.copyFolder(ctx, f)
		mu.Lock()
		defer mu.Unlock()
		found += n
		if errors.Is(err, errLeftOver) {
			left = append(left, f)
			return nil
		}
		return err
	})
	if len(left) > 0 { // their witnesses are among what is left
		j.witness.begin()
	}
	return left, found, err
}

// lanesPay reports whether several folders have something to be copied, and
// nothing speaks against more connections.
func (j *job) lanesPay(folders []*folder) bool {
	if !wired(j.source) || j.labels != nil || j.eye == j.dest || j.m.lanes < 2 || len(j.suspects) > 0 || j.m.memory.isNarrow(j.claim.Account.ID) {
		return false
	}
	a := j.claim.Account
	filled := 0
	for _, f := range folders {
		if f.status.Messages > 0 {
			filled++
		}
	}
	return filled > 1 && a.Expected-a.Messages-a.SetAside >= laneMessages
}

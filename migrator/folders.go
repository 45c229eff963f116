package migrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// folder is one folder of this run.
type folder struct {
	store.Folder
	listed bool            // the source has it now, and it can hold messages
	asked  bool            // status is known
	status imapwire.Status // of the source, at the start of this pass
	// gathered is a folder that shows mail of other ones. It is made on the
	// target only if something is copied from it.
	gathered bool
	// anew: the target's folder is or may be another one by now, not subscribed yet.
	anew bool
}

// folders brings the mapping up to date, creates what is missing on the
// target, subscribes, and returns every folder of the mapping.
func (j *job) folders(ctx context.Context) ([]*folder, error) {
	status, subscribed, err := j.surveyBoth(ctx)
	if err != nil {
		return nil, err
	}
	if j.labels == nil {
		j.labels = newLabels(j.source)
	}
	j.here.labels = j.labels != nil
	known, err := j.claim.Folders(ctx)
	if err != nil {
		return nil, err
	}
	if j.mirrorsDeletions() {
		if known, err = j.followRenames(ctx, known, status); err != nil {
			return nil, err
		}
	}
	var all []*folder
	mapping := append(known, mapFolders(known, j.here, j.there)...)
	if err := j.prepareAtOnce(ctx, mapping, subscribed); err != nil {
		return nil, err
	}
	for i := range mapping {
		if err := j.tellApart(ctx, mapping, &mapping[i]); err != nil {
			return nil, err
		}
		if j.mirrorsDeletions() {
			if err := j.unsubscribe(ctx, &mapping[i], subscribed); err != nil {
				return nil, err
			}
		}
		f := mapping[i]
		at := slices.IndexFunc(j.here.mailboxes, func(b imapwire.Mailbox) bool { return b.Name == f.Source })
		entry := &folder{Folder: f, listed: at >= 0 && selectable(j.here.mailboxes[at])}
		entry.status, entry.asked = status[f.Source]
		// Its removal may have been begun.
		entry.anew = j.mirrorsDeletions() && i < len(known) && f.SourceUIDValidity == 0
		entry.gathered = j.labels != nil && entry.listed && isGathered(j.here.mailboxes[at])
		if err := j.prepare(ctx, entry, slices.Contains(subscribed, f.Source)); err != nil {
			return nil, err
		}
		all = append(all, entry)
	}
	j.byRank(all)
	return all, nil
}

// surveyBoth lists the folders of both servers at the same time.
func (j *job) surveyBoth(ctx context.Context) (status map[string]imapwire.Status, subscribed []string, err error) {
	var target sync.WaitGroup
	var failed error
	target.Go(func() {
		if j.there, failed = survey(ctx, j.dest); failed != nil {
			failed = again(errorTarget, fmt.Errorf("list the target's folders: %w", failed))
		}
	})
	defer target.Wait()
	if j.here, status, err = surveyStatus(ctx, j.source); err != nil {
		return nil, nil, again(errorSource, fmt.Errorf("list the source's folders: %w", err))
	}
	subscribed, err = j.source.Subscriptions(ctx, "*")
	if err != nil && !isStatus(err) {
		return nil, nil, again(errorSource, fmt.Errorf("list the source's subscriptions: %w", err))
	}
	j.tellsSubscribed = err == nil
	target.Wait()
	return status, subscribed, failed
}

// lister is what survey needs of a server.
type lister interface {
	Namespace(ctx context.Context) (prefix string, delim byte, err error)
	OtherNamespaces(ctx context.Context) ([]string, error)
	List(ctx context.Context, pattern string) ([]imapwire.Mailbox, error)
}

// survey lists the personal folders of one server.
func survey(ctx context.Context, c lister) (side, error) {
	var s side
	var err error
	if s.prefix, s.delim, err = c.Namespace(ctx); err != nil {
		return s, err
	}
	boxes, err := c.List(ctx, s.prefix+"*")
	if err != nil {
		return s, err
	}
	if s.prefix != "" { // INBOX is personal, and may lie outside of the prefix
		inbox, err := c.List(ctx, "INBOX")
		if err != nil {
			return s, err
		}
		boxes = append(boxes, inbox...)
	}
	others, err := c.OtherNamespaces(ctx)
	if err != nil {
		return s, err
	}
	foreign := func(name string) bool {
		return slices.ContainsFunc(others, func(prefix string) bool {
			return strings.HasPrefix(name+string(rune(s.delim)), prefix)
		})
	}
	for _, b := range boxes {
		if s.personal(b.Name) && (isInbox(b.Name) || !foreign(b.Name)) {
			s.mailboxes = append(s.mailboxes, b)
		}
	}
	return s, nil
}

// surveyStatus is survey with the STATUS of those folders of which the server
// tells it beside their names.
func surveyStatus(ctx context.Context, c sourceConn) (side, map[string]imapwire.Status, error) {
	status := map[string]imapwire.Status{}
	s, err := survey(ctx, &statusLister{c, status})
	return s, status, err
}

// statusLister lists with STATUS where the connection can do that.
type statusLister struct {
	sourceConn
	status map[string]imapwire.Status
}

func (l *statusLister) List(ctx context.Context, pattern string) ([]imapwire.Mailbox, error) {
	if c, can := l.sourceConn.(interface {
		ListStatus(context.Context, string, map[string]imapwire.Status) ([]imapwire.Mailbox, error)
	}); can {
		return c.ListStatus(ctx, pattern, l.status)
	}
	return l.sourceConn.List(ctx, pattern)
}

// prepare creates a folder on the target, commits it and subscribes it. To
// create one is safe to repeat, and only a created one shows that the target
// takes the name, so here the act comes before the commit.
func (j *job) prepare(ctx context.Context, f *folder, subscribed bool) error {
	here := f.listed && !f.gathered
	if here && !j.exists(f.Target) {
		j.m.step(stepFolderBefore)
		if err := j.createFolder(ctx, f); err != nil {
			return err
		}
		f.anew = true
		j.m.step(stepFolderCreated)
	}
	fresh := f.ID == 0
	if here && subscribed && (!f.Subscribed || f.anew) {
		err := j.dest.Subscribe(ctx, f.Target)
		if err != nil && !isStatus(err) {
			return again(errorTarget, fmt.Errorf("subscribe %s: %w", f.Target, err))
		}
		if err != nil {
			j.notKept.subscriptions++
		}
		f.Subscribed = true
		fresh = true
	}
	if !fresh {
		return nil
	}
	if err := j.claim.PutFolder(ctx, &f.Folder); err != nil {
		return err
	}
	j.m.step(stepFolderCommitted)
	return nil
}

// tellApart gives a new folder another name where the target takes its own for
// that of another folder, from which it differs in case only.
func (j *job) tellApart(ctx context.Context, mapping []store.Folder, f *store.Folder) error {
	at := slices.IndexFunc(j.there.mailboxes, func(b imapwire.Mailbox) bool { return sameButCase(b.Name, f.Target) })
	if f.ID != 0 || at < 0 || j.exists(f.Target) {
		return nil
	}
	_, err := j.dest.Status(ctx, f.Target)
	if isStatus(err) {
		return nil // there is none of this name yet: it is another one
	}
	if err != nil {
		return again(errorTarget, fmt.Errorf("status of %s: %w", f.Target, err))
	}
	own := f.Target
	f.Target = j.there.mailboxes[at].Name
	for n := 2; slices.ContainsFunc(mapping, func(o store.Folder) bool {
		return o.Source != f.Source && (o.Target == f.Target || sameButCase(o.Target, f.Target))
	}); n++ {
		f.Target = own + "_" + strconv.Itoa(n)
	}
	return nil
}

func (j *job) exists(target string) bool {
	return slices.ContainsFunc(j.there.mailboxes, func(b imapwire.Mailbox) bool {
		return selectable(b) && (b.Name == target || isInbox(b.Name) && isInbox(target))
	})
}

// createFolder creates a folder on the target. A new one may take another spelling
// when the target refuses its name.
func (j *job) createFolder(ctx context.Context, f *folder) error {
	names := []string{f.Target}
	if other := j.there.cautious(f.Target); f.ID == 0 && other != f.Target && !j.exists(other) {
		names = append(names, other)
	}
	var refusal error
	for _, name := range names {
		err := j.dest.Create(ctx, name, f.SpecialUse)
		if isStatus(err) && f.SpecialUse != "" { // the use may be what it refuses
			err = j.dest.Create(ctx, name, "")
		}
		if err == nil || isStatusCode(err, "ALREADYEXISTS") || isStatus(err) && j.opens(ctx, name) {
			f.Target = name
			j.there.mailboxes = append(j.there.mailboxes, imapwire.Mailbox{Name: name, Delim: j.there.delim})
			return nil
		}
		if refusal = err; !isStatus(err) {
			break
		}
	}
	if isWaitCode(refusal) {
		return quotaHalt(refusal)
	}
	if isStatus(refusal) {
		return &halt{state: store.Waiting, retry: true, reason: errorTarget,
			err: fmt.Errorf("the target refuses to create the folder %s for the source's %s: create it by hand or rename it on the source: %w", f.Target, f.Source, refusal)}
	}
	return again(errorTarget, fmt.Errorf("create %s: %w", f.Target, refusal))
}

// opens reports whether a folder is there: some servers refuse to create what
// exists without saying so.
func (j *job) opens(ctx context.Context, name string) bool {
	_, err := j.dest.Status(ctx, name)
	return err == nil
}

// isStatus reports whether a server answered NO or BAD, so that the
// connection goes on.
func isStatus(err error) bool {
	e, ok := errors.AsType[*imapwire.StatusError](err)
	return ok && e.Type != "BYE"
}

func isStatusCode(err error, codes ...string) bool {
	e, ok := errors.AsType[*imapwire.StatusError](err)
	return ok && slices.Contains(codes, e.Code)
}

package migrator

import (
	"context"
	"fmt"
	"slices"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// prepareAtOnce subscribes and creates new folders of the target in few round
// trips. It only goes ahead: what the target refuses here, and what it could
// take for another folder, is left to prepare. What is there already is
// subscribed first: a Dovecot that shows a folder before it makes it (auto =
// subscribe) refuses that once the folder has another one below it.
func (j *job) prepareAtOnce(ctx context.Context, mapping []store.Folder, subscribed []string) error {
	var fresh []*store.Folder
	for i := range mapping {
		f := &mapping[i]
		alike := func(name string) bool { return sameButCase(name, f.Target) }
		listed := slices.ContainsFunc(j.here.mailboxes, func(b imapwire.Mailbox) bool {
			return b.Name == f.Source && selectable(b) && !(j.labels != nil && isGathered(b))
		})
		if f.ID == 0 && listed && !slices.ContainsFunc(mapping, func(o store.Folder) bool { return alike(o.Target) }) &&
			!slices.ContainsFunc(j.there.mailboxes, func(b imapwire.Mailbox) bool { return alike(b.Name) }) {
			fresh = append(fresh, f)
		}
	}
	var there, made []*store.Folder
	for _, f := range fresh {
		if j.exists(f.Target) {
			there = append(there, f)
		} else {
			made = append(made, f)
		}
	}
	if err := j.subscribeAtOnce(ctx, there, subscribed); err != nil {
		return err
	}
	if err := j.createAtOnce(ctx, made); err != nil {
		return err
	}
	return j.subscribeAtOnce(ctx, made, subscribed)
}

func (j *job) createAtOnce(ctx context.Context, folders []*store.Folder) error {
	if len(folders) == 0 {
		return nil
	}
	wanted := make([]imapwire.NewMailbox, len(folders))
	for i, f := range folders {
		wanted[i] = imapwire.NewMailbox{Name: f.Target, SpecialUse: f.SpecialUse}
	}
	j.m.step(stepFolderBefore)
	refused, err := j.dest.CreateAll(ctx, wanted)
	if err != nil {
		return again(errorTarget, fmt.Errorf("create %d folders: %w", len(folders), err))
	}
	for i, f := range folders {
		if refused[i] == nil {
			j.there.mailboxes = append(j.there.mailboxes, imapwire.Mailbox{Name: f.Target, Delim: j.there.delim})
		}
	}
	j.m.step(stepFolderCreated)
	return nil
}

func (j *job) subscribeAtOnce(ctx context.Context, folders []*store.Folder, subscribed []string) error {
	folders = slices.DeleteFunc(slices.Clone(folders), func(f *store.Folder) bool {
		return !j.exists(f.Target) || !slices.Contains(subscribed, f.Source)
	})
	if len(folders) == 0 {
		return nil
	}
	names := make([]string, len(folders))
	for i, f := range folders {
		names[i] = f.Target
	}
	refused, err := j.dest.SubscribeAll(ctx, names)
	if err != nil {
		return again(errorTarget, fmt.Errorf("subscribe %d folders: %w", len(folders), err))
	}
	for i, f := range folders {
		f.Subscribed = refused[i] == nil
	}
	return nil
}

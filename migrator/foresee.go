package migrator

import (
	"context"
	"fmt"
	"math"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// maxNamed bounds how many messages that are too large are named one by one.
const maxNamed = 20

// sizeLister tells the sizes of all folders in one answer.
type sizeLister interface {
	ListSizes(ctx context.Context, pattern string) (map[string]imapwire.Status, bool, error)
}

// room is what the target's quotas leave for an account.
type room struct{ octets, messages int64 }

// limited reports whether there is a quota at all.
func (r room) limited() bool { return r != (room{math.MaxInt64, math.MaxInt64}) }

// need is what the source has for the target, and what of it is too large.
type need struct {
	octets, messages int64
	tooLarge         int
}

// foresee looks, before anything is copied, whether the target has room for the
// account, and names the messages that it will not take for their size. It asks
// the target once; the source, where the target has a limit, once too, or once for
// each folder if it does not tell sizes together. What an adopted account has on
// the target already is not known yet, so for that nothing is foreseen.
func (j *job) foresee(ctx context.Context, folders []*folder) (err error) {
	if j.foreseen {
		return nil
	}
	j.foreseen = true
	// In the other case dest.AppendLimit holds for all.
	if j.limits, _, err = j.dest.ListAppendLimits(ctx, "*"); err != nil {
		return again(errorTarget, fmt.Errorf("list the target's limits: %w", err))
	}
	a := j.claim.Account
	if a.Messages > 0 || a.Origin == store.OriginAdopted {
		return nil
	}
	left, err := j.room(ctx)
	if err != nil {
		return err
	}
	n, err := j.need(ctx, folders, left.limited())
	if err != nil {
		return err
	}
	if n.tooLarge > maxNamed && a.Reason == "" {
		j.event(ctx, fmt.Sprintf("'%s': %d more messages are larger than the target allows and will be set aside", j.address, n.tooLarge-maxNamed))
	}
	if n.octets <= left.octets && n.messages <= left.messages || j.heedless {
		return nil
	}
	j.m.memory.tell(a.ID)
	why := fmt.Sprintf("%d octets, and the account's quota on the target leaves room for %d", n.octets, left.octets)
	if n.octets <= left.octets {
		why = fmt.Sprintf("%d messages, and the account's quota on the target leaves room for %d", n.messages, left.messages)
	}
	return &halt{state: store.Waiting, retry: true, reason: errorQuota,
		err: fmt.Errorf("nothing was copied yet: the source has %s: raise it there, and the copy begins; `migproxy account retry %s` copies as much as there is room for", why, j.address)}
}

// room asks the target for what its quotas leave.
func (j *job) room(ctx context.Context) (room, error) {
	left := room{math.MaxInt64, math.MaxInt64}
	if !j.dest.HasQuota() {
		return left, nil
	}
	resources, err := j.dest.Quota(ctx, "INBOX")
	if err != nil && !isStatus(err) {
		return left, again(errorTarget, fmt.Errorf("ask the target for the account's quota: %w", err))
	}
	for _, r := range resources {
		free := max(0, r.Limit-r.Usage)
		switch {
		case r.Name == "STORAGE" && free < math.MaxInt64/1024: // in units of 1024 octets
			left.octets = min(left.octets, free*1024)
		case r.Name == "MESSAGE":
			left.messages = min(left.messages, free)
		}
	}
	return left, nil
}

// need sums up what the source has. Only folders in which a message can be too
// large are listed, or, where whole is set, those whose size is not told.
func (j *job) need(ctx context.Context, folders []*folder, whole bool) (n need, err error) {
	var sizes map[string]imapwire.Status
	for _, f := range folders {
		limit := j.appendLimit(f)
		if !f.listed || !j.countsOnce(f) || !whole && limit == 0 {
			continue
		}
		if c, can := j.source.(sizeLister); can && sizes == nil {
			if sizes, _, err = c.ListSizes(ctx, "*"); err != nil {
				return n, again(errorSource, fmt.Errorf("list the sizes of the source's folders: %w", err))
			}
			if sizes == nil {
				sizes = map[string]imapwire.Status{}
			}
		}
		if st, told := sizes[f.Source]; told && (limit == 0 || st.Size <= limit) {
			n.octets, n.messages = n.octets+st.Size, n.messages+int64(st.Messages)
			continue
		}
		if err := j.needOf(ctx, f, limit, &n); err != nil {
			return n, err
		}
	}
	return n, nil
}

// needOf lists one folder.
func (j *job) needOf(ctx context.Context, f *folder, limit int64, n *need) error {
	opened, err := j.source.Examine(ctx, f.Source)
	if err != nil {
		_, err := j.sourceRefuses(ctx, f, err)
		return err
	}
	if opened.Exists == 0 {
		return nil
	}
	var named []imapwire.Meta
	err = j.source.FetchMeta(ctx, 1, 0, func(m imapwire.Meta) error {
		if limit == 0 || m.Size <= limit {
			n.octets, n.messages = n.octets+m.Size, n.messages+1
			return nil
		}
		if n.tooLarge++; n.tooLarge <= maxNamed {
			named = append(named, m)
		}
		return nil
	})
	if err != nil {
		return again(errorSource, fmt.Errorf("list the messages of %s: %w", f.Source, err))
	}
	if j.claim.Account.Reason != "" { // they were named before
		return nil
	}
	for _, m := range named {
		j.event(ctx, fmt.Sprintf("'%s': message UID %d of %s has %d octets, and the target takes messages of up to %d (APPENDLIMIT): it will be set aside",
			j.address, m.UID, f.Source, m.Size, limit))
	}
	return nil
}

// appendLimit is how many octets a message may have in a folder of the target; 0
// where that has no limit, or one of the 4 GiB that IMAP4rev1 can say at most.
func (j *job) appendLimit(f *folder) int64 {
	limit := j.dest.AppendLimit()
	if limit == 0 {
		limit = j.limits[f.Target].AppendLimit
	}
	if limit >= math.MaxUint32 {
		return 0
	}
	return limit
}

package migrator

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"bufio"
	"bytes"

	"migproxy/migrator/imapwire"
	"migproxy/store"
)

// flagFilter knows which flags a folder of the target keeps (PERMANENTFLAGS,
// RFC 9051 7.1).
type flagFilter struct {
	// all is true where the list is empty, and where it has \*: servers that
	// make every keyword list only the flags in use beside it, the system flags
	// among them.
	all  bool
	kept map[string]bool
}

func newFlagFilter(permanent []string) flagFilter {
	f := flagFilter{all: len(permanent) == 0, kept: map[string]bool{}}
	for _, name := range permanent {
		f.all = f.all || name == `\*`
		f.kept[strings.ToLower(name)] = true
	}
	return f
}

// split parts flags into those to send and those that would be lost. \Recent
// is no flag of the message (RFC 3501 2.3.2).
func (f flagFilter) split(flags []string) (send, lost []string) {
	for _, flag := range flags {
		switch {
		case strings.EqualFold(flag, `\Recent`):
		case !imapwire.IsFlag(flag):
			lost = append(lost, flag)
		case f.all, f.kept[strings.ToLower(flag)]:
			send = append(send, flag)
		default:
			lost = append(lost, flag)
		}
	}
	return send, lost
}

// holds reports whether every flag of want is in have.
func holds(have, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool {
		return !slices.ContainsFunc(have, func(h string) bool { return strings.EqualFold(h, w) })
	})
}

// headerDate is the date of a message whose INTERNALDATE the source does not
// tell: when it was last received, by its topmost Received field (RFC 5321
// section 4.4), else that of its Date field; zero where both are missing or invalid.
func (j *job) headerDate(ctx context.Context, f *folder, uid uint32) (time.Time, error) {
	header, err := j.source.FetchHeader(ctx, uid, "Received", "Date")
	if err != nil && !isStatus(err) {
		if ctx.Err() == nil {
			j.m.memory.source.note(j.claim.Account.ID, key(f, uid))
		}
		return time.Time{}, again(errorSource, fmt.Errorf("fetch the date of UID %d: %w", uid, err))
	}
	fields, _ := textproto.NewReader(bufio.NewReader(bytes.NewReader(append(header, "\r\n\r\n"...)))).ReadMIMEHeader()
	received := fields.Get("Received")
	for _, text := range []string{received[strings.LastIndexByte(received, ';')+1:], fields.Get("Date")} {
		if date, err := mail.ParseDate(strings.TrimSpace(text)); err == nil {
			return date, nil
		}
	}
	return time.Time{}, nil // a bad date is no reason not to copy the message
}

// notKept counts what the target did not keep of messages that it took.
type notKept struct {
	dates, flags, altered, subscriptions int
	keywords                             map[string]bool
}

func (n *notKept) lose(flags []string) {
	if n.keywords == nil {
		n.keywords = map[string]bool{}
	}
	for _, f := range flags {
		if len(n.keywords) < 100 {
			n.keywords[f] = true
		}
	}
}

func (n *notKept) add(o *notKept) {
	n.dates += o.dates
	n.flags += o.flags
	n.altered += o.altered
	n.subscriptions += o.subscriptions
	n.lose(slices.Collect(maps.Keys(o.keywords)))
}

// report says, once a run, what the target did not keep.
func (j *job) report(ctx context.Context) {
	n := &j.notKept
	var losses []string
	count := func(k int, what string) {
		if k > 0 {
			losses = append(losses, fmt.Sprintf("%d %s", k, what))
			j.m.metrics.errors.WithLabelValues(errorKeep).Add(float64(k))
		}
	}
	count(n.dates, "internal dates")
	count(n.flags, "messages' flags")
	count(n.altered, "messages' exact octets (both digests are kept)")
	count(n.subscriptions, "subscriptions")
	if len(n.keywords) > 0 {
		names := make([]string, 0, len(n.keywords))
		for k := range n.keywords {
			names = append(names, k)
		}
		slices.SortFunc(names, cmp.Compare)
		losses = append(losses, "the flags "+strings.Join(names, " ")+", which it does not permit or which cannot be sent")
	}
	if len(losses) > 0 {
		j.event(ctx, fmt.Sprintf("'%s': the target did not keep %s", j.address, strings.Join(losses, ", ")))
	}
	*n = notKept{}
}

// sentMessage is one message on its way to the target.
type sentMessage struct {
	meta  imapwire.Meta
	flags []string // as sent
	date  time.Time
	sum   digests
	shows []store.Sighting
}

package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// mailbox is one entry of a server's list of folders, named as on the wire.
type mailbox struct {
	name       string
	selectable bool
}

// opened is what EXAMINE says.
type opened struct {
	exists, uidValidity uint32
	flags, permanent    []string
}

// reader reads the mailbox of one user on one server, without changing anything
// there. Names are as on the wire. An error that is a *refusal or an incomplete
// leaves the connection usable; after every other it is closed.
type reader interface {
	// namespaces are those of RFC 2342: the personal prefix, its separator, and
	// the prefixes of what is not the user's own.
	namespaces(ctx context.Context) (prefix string, delim rune, others []string, err error)
	list(ctx context.Context, pattern string) ([]mailbox, error)
	examine(ctx context.Context, name string) (opened, error)
	// messages adds what the open folder shows of its messages 1 to exists.
	messages(ctx context.Context, exists uint32, v *view) error
	// digests passes on the SHA-256 of these messages' octets, for those of which
	// all octets came. A nil error does not mean that it was all of them.
	digests(ctx context.Context, uids []uint32, fn func(uid uint32, sum [32]byte)) error
	close()
}

// refusal is a server's NO or BAD.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

func isRefusal(err error) bool {
	_, ok := errors.AsType[*refusal](err)
	return ok
}

// notOpened is a refusal to open a folder, which every reader would get.
type notOpened struct{ error }

func (n notOpened) Unwrap() error { return n.error }

func isNotOpened(err error) bool {
	_, ok := errors.AsType[notOpened](err)
	return ok
}

// incomplete says that a server's answer, or what a reader made of it, lacks
// something that was asked for.
type incomplete struct{ text string }

func (e incomplete) Error() string { return e.text }

// readFolder opens a folder and lists its messages, and holds what came against
// what there is.
func readFolder(ctx context.Context, r reader, name string) (*view, error) {
	box, err := r.examine(ctx, name)
	if isRefusal(err) {
		err = notOpened{err}
	}
	if err != nil {
		return nil, err
	}
	v := &view{uidValidity: max(1, box.uidValidity), knows: box.flags, permits: permitted(box.permanent)}
	if box.exists == 0 {
		return v, nil
	}
	v.messages = make([]message, 0, min(box.exists, 1<<20))
	if err := r.messages(ctx, box.exists, v); err != nil {
		return nil, err
	}
	came := len(v.messages)
	if unique := v.order(); !unique || came != int(box.exists) {
		return nil, incomplete{fmt.Sprintf("of %d messages %d came with a UID of their own", box.exists, len(v.messages))}
	}
	return v, nil
}

// personal lists the user's own folders, as the copy does: those of the personal
// namespace and INBOX, without what belongs to others.
func personal(ctx context.Context, r reader) ([]mailbox, error) {
	prefix, delim, others, err := r.namespaces(ctx)
	if err != nil {
		return nil, err
	}
	boxes, err := r.list(ctx, prefix+"*")
	if err != nil {
		return nil, err
	}
	if prefix != "" {
		inbox, err := r.list(ctx, "INBOX")
		if err != nil {
			return nil, err
		}
		boxes = append(boxes, inbox...)
	}
	boxes = slices.DeleteFunc(boxes, func(b mailbox) bool {
		foreign := slices.ContainsFunc(others, func(other string) bool {
			return other != "" && strings.HasPrefix(b.name+string(delim), other)
		})
		return !isInbox(b.name) && (foreign || len(b.name) <= len(prefix) || !strings.HasPrefix(b.name, prefix))
	})
	slices.SortStableFunc(boxes, func(a, b mailbox) int { return strings.Compare(a.name, b.name) })
	return slices.CompactFunc(boxes, func(a, b mailbox) bool { return a.name == b.name }), nil
}

func isInbox(name string) bool { return strings.EqualFold(name, "INBOX") }

// sameName reports whether two names on the wire are of one folder.
func sameName(a, b string) bool { return a == b || isInbox(a) && isInbox(b) }

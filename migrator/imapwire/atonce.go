package imapwire

import (
	"context"
	"slices"
	"strings"
)

// maxAtOnce bounds the commands under way, so that neither side blocks on the
// other with full buffers.
const maxAtOnce = 50

// NewMailbox is a mailbox to create; see Create.
type NewMailbox struct{ Name, SpecialUse string }

// CreateAll is Create for many mailboxes, in one round trip where the names
// allow it. refused has an error for each that the server refused, and nil for
// the others.
func (c *Conn) CreateAll(ctx context.Context, mailboxes []NewMailbox) (refused []error, err error) {
	args := make([][]any, len(mailboxes))
	for i, m := range mailboxes {
		args[i] = c.createArgs(m.Name, m.SpecialUse)
	}
	return c.atOnce(ctx, "CREATE", args)
}

// SubscribeAll is Subscribe for many mailboxes; see CreateAll.
func (c *Conn) SubscribeAll(ctx context.Context, names []string) (refused []error, err error) {
	args := make([][]any, len(names))
	for i, name := range names {
		args[i] = []any{str(name)}
	}
	return c.atOnce(ctx, "SUBSCRIBE", args)
}

// atOnce sends commands of one name, each without waiting for the one before.
// Those that may need a synchronising literal go alone.
func (c *Conn) atOnce(ctx context.Context, command string, args [][]any) (refused []error, err error) {
	refused = make([]error, len(args))
	var together []int
	for i, list := range args {
		name := string(list[0].(str))
		switch {
		case !nameable(name):
			refused[i] = ErrName
		case strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 }):
			if _, refused[i] = c.do(ctx, command, list, nil); c.failed() != nil {
				return refused, c.failed()
			}
		default:
			together = append(together, i)
		}
	}
	for some := range slices.Chunk(together, maxAtOnce) {
		if err := c.sendTogether(ctx, command, args, some, refused); err != nil {
			return refused, err
		}
	}
	return refused, nil
}

func (c *Conn) sendTogether(ctx context.Context, command string, args [][]any, some []int, refused []error) error {
	if err := c.enter(ctx, command); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, c.wire.Cut)
	defer stop()
	tags := make(map[string]int, len(some))
	for _, i := range some {
		tag := c.nextTag()
		tags[tag] = i
		if _, err := c.send(tag, command, args[i]); err != nil {
			return c.fail(c.explain(ctx, command, err))
		}
	}
	for len(tags) > 0 {
		r, err := c.p.response()
		if err == nil && r.kind == untagged && r.typ == "BYE" {
			err = r.err(command)
		}
		if err == nil {
			err = c.p.finish()
		}
		if err != nil {
			return c.fail(c.explain(ctx, command, err))
		}
		if i, known := tags[r.tag]; known && r.kind == tagged {
			delete(tags, r.tag)
			if r.typ != "OK" {
				refused[i] = r.err(command)
			}
		}
	}
	return nil
}

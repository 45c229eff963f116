package imapwire

import (
	"context"
	"errors"
	"strconv"
	"strings"
)

// Resource is one limit of a quota root (RFC 9208 section 5.1). STORAGE counts
// units of 1024 octets, MESSAGE messages.
type Resource struct {
	Name         string // upper case
	Usage, Limit int64
}

// HasQuota reports whether the server tells quotas (RFC 9208, and RFC 2087
// before it).
func (c *Conn) HasQuota() bool { return c.caps["QUOTA"] }

// Quota lists the limits that hold for a mailbox, of all of its quota roots.
func (c *Conn) Quota(ctx context.Context, mailbox string) ([]Resource, error) {
	var all []Resource
	_, err := c.do(ctx, "GETQUOTAROOT", []any{str(mailbox)}, func(r *response) error {
		if r.name != "QUOTA" {
			return nil
		}
		if _, _, err := c.p.value(); err != nil { // the root's name
			return err
		}
		var words []string
		err := c.p.list(func(word []byte) { words = append(words, string(word)) })
		for ; len(words) >= 3; words = words[3:] {
			usage, err1 := strconv.ParseInt(words[1], 10, 64)
			limit, err2 := strconv.ParseInt(words[2], 10, 64)
			if err1 == nil && err2 == nil {
				all = append(all, Resource{strings.ToUpper(words[0]), usage, limit})
			}
		}
		return err
	})
	return all, err
}

// ListSizes lists how many messages each mailbox has and how many octets they
// have together (STATUS=SIZE, RFC 8438, with LIST-STATUS, RFC 5819). ok is false
// where the server cannot tell that in one answer.
func (c *Conn) ListSizes(ctx context.Context, pattern string) (status map[string]Status, ok bool, err error) {
	if !c.caps["IMAP4REV2"] && !(c.caps["LIST-STATUS"] && c.caps["STATUS=SIZE"]) {
		return nil, false, nil
	}
	return c.listStatus(ctx, pattern, "MESSAGES SIZE")
}

// ListAppendLimits lists the largest message that each mailbox takes, for
// servers on which that differs (RFC 7889 section 3): 0 where it has no limit.
// ok is false where the server has no such limits, or cannot tell them in one
// answer.
func (c *Conn) ListAppendLimits(ctx context.Context, pattern string) (status map[string]Status, ok bool, err error) {
	if !c.caps["APPENDLIMIT"] || !c.caps["LIST-STATUS"] && !c.caps["IMAP4REV2"] {
		return nil, false, nil
	}
	return c.listStatus(ctx, pattern, "APPENDLIMIT")
}

func (c *Conn) listStatus(ctx context.Context, pattern, items string) (map[string]Status, bool, error) {
	status := map[string]Status{}
	_, err := c.list(ctx, "LIST", []any{str(""), str(pattern), "RETURN (STATUS (" + items + "))"}, status)
	var refused *StatusError
	if errors.As(err, &refused) && c.failed() == nil {
		return nil, false, nil
	}
	return status, err == nil, err
}

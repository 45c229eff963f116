package imapwire

import (
	"context"
	"errors"
)

// OtherNamespaces returns the prefixes of other users' and of shared mailboxes
// (RFC 2342): what lies below them is nobody's own mail. Without the
// capability, or where the server refuses to tell, there are none. It asks once.
func (c *Conn) OtherNamespaces(ctx context.Context) ([]string, error) {
	if c.others == nil {
		prefixes, err := c.askOtherNamespaces(ctx)
		if err != nil {
			return nil, err
		}
		c.others = &prefixes
	}
	return *c.others, nil
}

func (c *Conn) askOtherNamespaces(ctx context.Context) ([]string, error) {
	if !c.caps["NAMESPACE"] && !c.caps["IMAP4REV2"] {
		return nil, nil
	}
	var prefixes []string
	_, err := c.do(ctx, "NAMESPACE", nil, func(r *response) error {
		if r.name != "NAMESPACE" {
			return nil
		}
		groups, err := c.p.namespaces()
		if len(groups) > 1 {
			prefixes = append(prefixes, groups[1]...)
		}
		if len(groups) > 2 {
			prefixes = append(prefixes, groups[2]...)
		}
		return err
	})
	var refused *StatusError
	if errors.As(err, &refused) && c.failed() == nil {
		return nil, nil
	}
	return prefixes, err
}

// namespaces reads the prefixes of a NAMESPACE response: personal, other
// users', shared.
func (p *parser) namespaces() (groups [][]string, err error) {
	depth, first := 0, false
	for {
		b, err := p.next()
		if err != nil || isEnd(b) {
			return groups, err
		}
		switch b {
		case '(', ')':
			if err := p.take(); err != nil {
				return groups, err
			}
			if b == ')' {
				depth = max(0, depth-1)
				continue
			}
			if depth++; depth == 1 {
				groups = append(groups, nil)
			}
			first = depth == 2
			continue
		}
		v, kind, err := p.value()
		if err != nil {
			return groups, err
		}
		switch {
		case depth == 0: // NIL
			groups = append(groups, nil)
		case first && kind == text && len(v) > 0:
			groups[len(groups)-1] = append(groups[len(groups)-1], string(v))
		}
		first = false
	}
}

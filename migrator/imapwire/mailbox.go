package imapwire

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
)

// Mailbox is one LIST response. Names here and below are as on the wire
// (modified UTF-7, not decoded), without their quoting.
type Mailbox struct {
	Name  string
	Delim byte // 0 is NIL
	Attrs []string
}

// Status is what STATUS said; what it left out is zero.
type Status struct {
	Messages, UIDNext, UIDValidity uint32
	HighestModSeq                  uint64
	Size                           int64 // octets of all messages (RFC 8438)
	AppendLimit                    int64 // the largest message that it takes (RFC 7889)
}

// Selected is what EXAMINE or SELECT said; UIDNext is zero where it did not.
type Selected struct {
	Exists, UIDValidity, UIDNext uint32
	Flags, PermanentFlags        []string
	ReadOnly                     bool
}

// nameable reports whether a mailbox name can be sent.
func nameable(name string) bool { return !strings.ContainsAny(name, "\r\n\x00") }

// maxNames bounds what one LIST or LSUB may hold, in octets.
const maxNames = 32 << 20

var errTooManyNames = errors.New("the server lists more than 32 MiB of mailbox names")

// personal is the personal namespace.
type personal struct {
	prefix string
	delim  byte
}

// Namespace returns the prefix and separator of the personal namespace (RFC
// 2342); without the capability, what LIST "" "" tells. It asks once.
func (c *Conn) Namespace(ctx context.Context) (prefix string, delim byte, err error) {
	if c.personal == nil {
		prefix, delim, err := c.askNamespace(ctx)
		if err != nil {
			return prefix, delim, err
		}
		c.personal = &personal{prefix, delim}
	}
	return c.personal.prefix, c.personal.delim, nil
}

func (c *Conn) askNamespace(ctx context.Context) (prefix string, delim byte, err error) {
	found := false
	if c.caps["NAMESPACE"] || c.caps["IMAP4REV2"] {
		_, err := c.do(ctx, "NAMESPACE", nil, func(r *response) (err error) {
			if r.name == "NAMESPACE" && !found {
				prefix, delim, found, err = c.p.namespace()
			}
			return err
		})
		var refused *StatusError
		if found || err != nil && (!errors.As(err, &refused) || c.failed() != nil) {
			return prefix, delim, err
		}
	}
	_, err = c.do(ctx, "LIST", []any{str(""), str("")}, func(r *response) error {
		if r.name != "LIST" {
			return nil
		}
		m, err := c.p.mailbox()
		delim = m.Delim
		return err
	})
	return "", delim, err
}

// namespace reads the first personal namespace of a NAMESPACE response.
func (p *parser) namespace() (prefix string, delim byte, ok bool, err error) {
	for range 2 { // the list of namespaces and the first of them
		b, err := p.next()
		if err != nil || b != '(' {
			return "", 0, false, err
		}
		if err := p.take(); err != nil {
			return "", 0, false, err
		}
	}
	v, kind, err := p.value()
	if err != nil || kind != text {
		return "", 0, false, err
	}
	prefix = string(v)
	delim, err = p.delim()
	return prefix, delim, true, err
}

// delim reads a hierarchy separator or NIL.
func (p *parser) delim() (byte, error) {
	v, kind, err := p.value()
	if err != nil || kind == absent || len(v) == 0 || kind == word && isNil(v) {
		return 0, err
	}
	return v[0], nil
}

func isNil(b []byte) bool { return bytes.EqualFold(b, []byte("NIL")) }

// mailbox reads what follows the name of a LIST or LSUB response.
func (p *parser) mailbox() (m Mailbox, err error) {
	err = p.list(func(attr []byte) { m.Attrs = append(m.Attrs, string(attr)) })
	if err != nil {
		return m, err
	}
	if m.Delim, err = p.delim(); err != nil {
		return m, err
	}
	m.Name, err = p.mailboxName()
	return m, err
}

// mailboxName reads a mailbox name. One that is not quoted goes on to the end
// of the line or to a list, since some servers leave names with spaces bare.
func (p *parser) mailboxName() (string, error) {
	v, kind, err := p.value()
	if err != nil || kind != word {
		return string(v), err
	}
	name := string(v)
	for {
		b, err := p.next()
		if err != nil || isEnd(b) || b == '(' || b == ')' {
			return name, err
		}
		v, err := p.atom()
		if err != nil {
			return name, err
		}
		name += " " + string(v)
	}
}

// List sends LIST "" pattern, with RETURN (SPECIAL-USE) where that is offered.
func (c *Conn) List(ctx context.Context, pattern string) ([]Mailbox, error) {
	return c.ListStatus(ctx, pattern, nil)
}

// ListStatus is List, which puts into status, if that is not nil, what the
// server tells of each mailbox beside its name (LIST-STATUS, RFC 5819). Without
// that capability it tells nothing.
func (c *Conn) ListStatus(ctx context.Context, pattern string, status map[string]Status) ([]Mailbox, error) {
	args := []any{str(""), str(pattern)}
	var options []string
	if c.caps["SPECIAL-USE"] && c.caps["LIST-EXTENDED"] || c.caps["IMAP4REV2"] {
		options = append(options, "SPECIAL-USE")
	}
	if status != nil && (c.caps["LIST-STATUS"] || c.caps["IMAP4REV2"]) {
		options = append(options, "STATUS (MESSAGES UIDNEXT UIDVALIDITY)")
	}
	if len(options) > 0 {
		found, err := c.list(ctx, "LIST", append(args, "RETURN ("+strings.Join(options, " ")+")"), status)
		var refused *StatusError
		if !errors.As(err, &refused) || c.failed() != nil {
			return found, err
		}
	}
	return c.list(ctx, "LIST", args, nil)
}

// list sends LIST or LSUB. Responses for the same name become one mailbox.
func (c *Conn) list(ctx context.Context, command string, args []any, status map[string]Status) ([]Mailbox, error) {
	var found []Mailbox
	index := map[string]int{}
	octets := 0
	_, err := c.do(ctx, command, args, func(r *response) error {
		if r.name == "STATUS" && status != nil {
			name, err := c.p.mailboxName()
			if err != nil {
				return err
			}
			status[name], err = c.p.statusItems()
			return err
		}
		if r.name != command {
			return nil
		}
		m, err := c.p.mailbox()
		if err != nil {
			return err
		}
		if octets += maxLine - c.p.left; octets > maxNames {
			return errTooManyNames
		}
		if i, again := index[m.Name]; again {
			for _, attr := range m.Attrs {
				if !slices.Contains(found[i].Attrs, attr) {
					found[i].Attrs = append(found[i].Attrs, attr)
				}
			}
			return nil
		}
		index[m.Name] = len(found)
		found = append(found, m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Subscriptions lists subscribed names, by LSUB. Names that only stand for
// subscribed ones below them (\Noselect, RFC 3501 section 6.3.9) are left out.
func (c *Conn) Subscriptions(ctx context.Context, pattern string) ([]string, error) {
	found, err := c.list(ctx, "LSUB", []any{str(""), str(pattern)}, nil)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range found {
		if !slices.ContainsFunc(m.Attrs, func(a string) bool { return strings.EqualFold(a, `\Noselect`) }) {
			names = append(names, m.Name)
		}
	}
	return names, nil
}

// Status asks MESSAGES, UIDNEXT, UIDVALIDITY, and HIGHESTMODSEQ with CONDSTORE.
func (c *Conn) Status(ctx context.Context, mailbox string) (Status, error) {
	items := "(MESSAGES UIDNEXT UIDVALIDITY)"
	if c.caps["CONDSTORE"] || c.caps["QRESYNC"] {
		items = "(MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ)"
	}
	var s Status
	exact := false // some servers write the name otherwise than they were asked
	_, err := c.do(ctx, "STATUS", []any{str(mailbox), items}, func(r *response) error {
		if r.name != "STATUS" {
			return nil
		}
		name, err := c.p.mailboxName()
		if err != nil || exact && name != mailbox {
			return err
		}
		exact = name == mailbox
		s, err = c.p.statusItems()
		return err
	})
	return s, err
}

func (p *parser) statusItems() (s Status, err error) {
	b, err := p.next()
	if err != nil || b != '(' {
		return s, err
	}
	if err := p.take(); err != nil {
		return s, err
	}
	for {
		b, err := p.next()
		if err != nil || isEnd(b) || b == ')' {
			return s, err
		}
		name, kind, err := p.value()
		if err != nil {
			return s, err
		}
		if kind == absent {
			continue
		}
		upper(name)
		item := string(name)
		n, _, err := p.number(64)
		if err != nil {
			return s, err
		}
		switch item {
		case "HIGHESTMODSEQ":
			s.HighestModSeq = n
		case "MESSAGES":
			s.Messages = uint32(n)
		case "UIDNEXT":
			s.UIDNext = uint32(n)
		case "UIDVALIDITY":
			s.UIDValidity = uint32(n)
		case "SIZE":
			s.Size = int64(min(n, math.MaxInt64))
		case "APPENDLIMIT":
			s.AppendLimit = int64(min(n, math.MaxInt64))
		}
	}
}

// Examine opens a mailbox for reading only.
func (c *Conn) Examine(ctx context.Context, mailbox string) (Selected, error) {
	return c.open(ctx, "EXAMINE", mailbox)
}

// Select opens a mailbox of the target, to learn its PERMANENTFLAGS.
func (c *Conn) Select(ctx context.Context, mailbox string) (Selected, error) {
	return c.open(ctx, "SELECT", mailbox)
}

func (c *Conn) open(ctx context.Context, command, mailbox string) (Selected, error) {
	var s Selected
	st, err := c.do(ctx, command, []any{str(mailbox)}, func(r *response) error {
		switch r.name {
		case "EXISTS":
			s.Exists = r.num
		case "FLAGS":
			s.Flags = nil
			return c.p.list(func(flag []byte) { s.Flags = append(s.Flags, string(flag)) })
		case "OK":
			switch r.code {
			case "UIDVALIDITY":
				s.UIDValidity = r.number()
			case "UIDNEXT":
				s.UIDNext = r.number()
			case "PERMANENTFLAGS":
				s.PermanentFlags = r.words()
			}
		}
		return nil
	})
	if err != nil {
		return Selected{}, err
	}
	s.ReadOnly = st.code == "READ-ONLY" || command == "EXAMINE" && st.code != "READ-WRITE"
	return s, nil
}

// Create creates a mailbox, with USE (RFC 6154) where specialUse is not empty
// and CREATE-SPECIAL-USE is offered.
func (c *Conn) Create(ctx context.Context, mailbox, specialUse string) error {
	_, err := c.do(ctx, "CREATE", c.createArgs(mailbox, specialUse), nil)
	return err
}

func (c *Conn) createArgs(mailbox, specialUse string) []any {
	args := []any{str(mailbox)}
	if IsFlag(specialUse) && c.caps["CREATE-SPECIAL-USE"] {
		args = append(args, "(USE ("+specialUse+"))")
	}
	return args
}

// Subscribe subscribes a mailbox.
func (c *Conn) Subscribe(ctx context.Context, mailbox string) error {
	_, err := c.do(ctx, "SUBSCRIBE", []any{str(mailbox)}, nil)
	return err
}

// Unsubscribe takes a subscription away.
func (c *Conn) Unsubscribe(ctx context.Context, mailbox string) error {
	_, err := c.do(ctx, "UNSUBSCRIBE", []any{str(mailbox)}, nil)
	return err
}

// Rename renames a mailbox, and those below it with it (RFC 9051 section 6.3.6).
func (c *Conn) Rename(ctx context.Context, from, to string) error {
	_, err := c.do(ctx, "RENAME", []any{str(from), str(to)}, nil)
	return err
}

// Delete removes a mailbox with all that is in it.
func (c *Conn) Delete(ctx context.Context, mailbox string) error {
	_, err := c.do(ctx, "DELETE", []any{str(mailbox)}, nil)
	return err
}

// Expunge removes those of these messages that have the flag \Deleted, and no
// others (UID EXPUNGE, RFC 4315 section 2.1), from the mailbox that is open. uids
// are ascending and without repetition.
func (c *Conn) Expunge(ctx context.Context, uids []uint32) error {
	for len(uids) > 0 {
		set, n := appendSet(nil, uids)
		uids = uids[n:]
		if _, err := c.do(ctx, "UID EXPUNGE", []any{string(set)}, nil); err != nil {
			return err
		}
	}
	return nil
}

// Store adds (op "+FLAGS.SILENT") or takes away ("-FLAGS.SILENT") flags of
// messages in the mailbox that is open (RFC 9051 section 6.4.6). uids are
// ascending and without repetition. Flags that cannot be sent are left out.
func (c *Conn) Store(ctx context.Context, uids []uint32, op string, flags []string) error {
	list := flagList(flags)
	for list != "" && len(uids) > 0 {
		set, n := appendSet(nil, uids)
		uids = uids[n:]
		if _, err := c.do(ctx, "UID STORE", []any{string(set), op + " (" + list + ")"}, nil); err != nil {
			return err
		}
	}
	return nil
}

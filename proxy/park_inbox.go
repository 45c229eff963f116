package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"migproxy/config"
	"migproxy/upstream"
)

// The migration account is meant to hold a few messages of the administrator's.
const (
	inboxAge         = 5 * time.Minute
	inboxLoadTimeout = 8 * time.Second
	maxInboxMessages = 50      // the newest
	maxInboxOctets   = 8 << 20 // of all messages together
)

// sharedInbox is the INBOX of the administrator's migration account, read by
// the proxy with credentials of its own and kept for a while. Clients never
// reach the account itself.
type sharedInbox struct {
	server *upstream.Server
	creds  upstream.Credentials
	now    func() time.Time

	// loading holds one token, which whoever loads has taken; the fields below
	// belong to the holder.
	loading chan struct{}
	loaded  time.Time
	ok      bool // there are contents
	current contents
}

// newSharedInbox reads the password of the settings. The error says what to
// write instead.
func newSharedInbox(d *upstream.Domain) (*sharedInbox, error) {
	p := d.Config.Parking
	if d.Target.IMAP == nil {
		return nil, errors.New("parking.mode: account needs target.imap; name that server, or use notice")
	}
	local, domain := p.Account, d.Config.Name
	if at := strings.LastIndexByte(p.Account, '@'); at >= 0 {
		local, domain = p.Account[:at], p.Account[at+1:]
	}
	if local == "" || domain == "" {
		return nil, fmt.Errorf("parking.account: %q is no address; write one such as migration@%s", p.Account, d.Config.Name)
	}
	password, err := config.ReadPassword(p.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("parking.password_file: %w", err)
	}
	s := &sharedInbox{server: d.Target.IMAP, now: time.Now, loading: make(chan struct{}, 1),
		creds: upstream.Credentials{Password: password,
			Identity: config.Identity{Login: p.Account, Local: local, Domain: domain}}}
	s.loading <- struct{}{}
	return s, nil
}

// contents gives the messages, read anew when they are old. The error says why
// that failed this time; ok is false when there never were any.
func (s *sharedInbox) contents(ctx context.Context) (c contents, ok bool, err error) {
	select {
	case <-s.loading:
	case <-ctx.Done():
		return contents{}, false, ctx.Err()
	}
	defer func() { s.loading <- struct{}{} }()
	now := s.now()
	if s.loaded.IsZero() || now.Sub(s.loaded) >= inboxAge {
		s.loaded = now // a failure is not repeated at once either
		ctx, cancel := context.WithTimeout(ctx, inboxLoadTimeout)
		defer cancel()
		var fresh contents
		if fresh, err = s.load(ctx); err == nil {
			s.current, s.ok = fresh, true
		}
	}
	return s.current, s.ok, err
}

// load reads the newest messages.
func (s *sharedInbox) load(ctx context.Context) (contents, error) {
	session, err := s.server.Login(ctx, s.creds, upstream.Client{})
	if err != nil {
		return contents{}, fmt.Errorf("the migration account %s cannot be opened on the target (see parking.account): %w", s.creds.Identity.Login, err)
	}
	defer func() { _ = session.Conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = session.Conn.Close() })()
	client := imapclient.New(&greetedConn{Conn: session.Conn,
		r: io.MultiReader(strings.NewReader("* PREAUTH [CAPABILITY IMAP4rev1] logged in\r\n"), session.Reader)}, nil)
	defer func() { _ = client.Close() }()
	c, err := readInbox(client)
	if err != nil {
		return contents{}, fmt.Errorf("the INBOX of the migration account %s cannot be read: %w", s.creds.Identity.Login, err)
	}
	_ = client.Logout().Wait() // the messages are there
	return c, nil
}

func readInbox(client *imapclient.Client) (contents, error) {
	selected, err := client.Select("INBOX", &imap.SelectOptions{ReadOnly: true}).Wait()
	if err != nil {
		return contents{}, err
	}
	c := contents{uidValidity: selected.UIDValidity, uidNext: max(selected.UIDNext, 1)}
	if selected.NumMessages == 0 {
		return c, nil
	}
	var set imap.SeqSet
	set.AddRange(selected.NumMessages-min(selected.NumMessages, maxInboxMessages)+1, selected.NumMessages)
	list, err := client.Fetch(set, &imap.FetchOptions{UID: true, RFC822Size: true, InternalDate: true}).Collect()
	if err != nil {
		return contents{}, err
	}
	var octets int64
	for i := len(list) - 1; i >= 0; i-- {
		m := list[i]
		if octets += m.RFC822Size; octets > maxInboxOctets {
			break
		}
		b, err := readBody(client, m.UID)
		if err != nil {
			return contents{}, err
		}
		if b != nil {
			c.messages = append([]*parkedMessage{{uid: m.UID, date: m.InternalDate, octets: b}}, c.messages...)
			c.uidNext = max(c.uidNext, m.UID+1)
		}
	}
	return c, nil
}

// readBody reads one message; nil if it is gone or larger than it said.
func readBody(client *imapclient.Client, uid imap.UID) ([]byte, error) {
	cmd := client.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{UID: true,
		BodySection: []*imap.FetchItemBodySection{{Peek: true}}})
	var body []byte
	for m := cmd.Next(); m != nil; m = cmd.Next() {
		for item := m.Next(); item != nil; item = m.Next() {
			section, ok := item.(imapclient.FetchItemDataBodySection)
			if !ok || section.Literal == nil {
				continue
			}
			b, err := io.ReadAll(io.LimitReader(section.Literal, maxInboxOctets+1))
			if err != nil {
				return nil, errors.Join(err, cmd.Close())
			}
			if len(b) <= maxInboxOctets {
				body = b
			}
		}
	}
	return body, cmd.Close()
}

// greetedConn is a connection on which the login is done, with a greeting in
// front of it that says so (PREAUTH, RFC 9051 section 7.1.4).
type greetedConn struct {
	net.Conn
	r io.Reader
}

func (c *greetedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

package migrator

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"migproxy/migrator/imapwire"
	"migproxy/upstream"
)

// pacedSource is a connection to a source from which no more is taken than its
// host allows. A server that says it was asked too much ends it, with a *rest
// as the error.
type pacedSource struct {
	sourceConn
	host  *host
	pause func() time.Duration // where the server does not say for how long
	leave sync.Once
}

var _ sourceConn = (*pacedSource)(nil)

// openSource logs in on a source by login, once its host has room and unless it
// is to be left alone.
func (j *job) openSource(ctx context.Context, server *upstream.Server, login func(context.Context) (*upstream.Session, error)) (sourceConn, error) {
	h := j.m.hosts.of(server)
	if err := h.enter(ctx, crowdedWait); err != nil {
		return nil, err
	}
	return j.entered(ctx, h, login)
}

// entered logs in on a source whose host has been entered.
func (j *job) entered(ctx context.Context, h *host, login func(context.Context) (*upstream.Session, error)) (sourceConn, error) {
	session, err := login(ctx)
	var c sourceConn
	if err == nil {
		c, err = j.reader(ctx, session, login)
	}
	if err == nil {
		return &pacedSource{sourceConn: c, host: h, pause: func() time.Duration { return j.m.pause(j.claim.Account.Attempts + restAfter) }}, nil
	}
	h.leave()
	if t, ok := errors.AsType[*upstream.Throttled](err); ok {
		// Most likely a limit of connections, of which one ends soon.
		return nil, h.throttled(t, j.m.pause(j.claim.Account.Attempts))
	}
	return nil, err
}

// Close ends the connection and gives its place to another.
func (p *pacedSource) Close() error {
	err := p.sourceConn.Close()
	p.leave.Do(p.host.leave)
	return err
}

// checked ends the connection where the server's answer asks for a pause. Such
// an answer speaks of no folder and no message.
func (p *pacedSource) checked(err error) error {
	e, ok := errors.AsType[*imapwire.StatusError](err)
	if !ok {
		return err
	}
	pause, ok := upstream.Throttling(e.Code, e.Text)
	if !ok {
		return err
	}
	_ = p.Close()
	return p.host.throttled(&upstream.Throttled{Pause: pause, Said: e.Error()}, p.pause())
}

// wired reports whether a source is read over IMAP, by connections of which an
// account may have several.
func wired(c sourceConn) bool {
	if p, paced := c.(*pacedSource); paced {
		c = p.sourceConn
	}
	_, is := c.(*imapwire.Conn)
	return is
}

// Has reports whether the server has a capability.
func (p *pacedSource) Has(capability string) bool {
	c, can := p.sourceConn.(interface{ Has(string) bool })
	return can && c.Has(capability)
}

func (p *pacedSource) Namespace(ctx context.Context) (prefix string, delim byte, err error) {
	prefix, delim, err = p.sourceConn.Namespace(ctx)
	return prefix, delim, p.checked(err)
}

func (p *pacedSource) OtherNamespaces(ctx context.Context) ([]string, error) {
	prefixes, err := p.sourceConn.OtherNamespaces(ctx)
	return prefixes, p.checked(err)
}

func (p *pacedSource) List(ctx context.Context, pattern string) ([]imapwire.Mailbox, error) {
	boxes, err := p.sourceConn.List(ctx, pattern)
	return boxes, p.checked(err)
}

// ListStatus lists with STATUS where the connection can do that, see
// statusLister.
func (p *pacedSource) ListStatus(ctx context.Context, pattern string, status map[string]imapwire.Status) ([]imapwire.Mailbox, error) {
	l := &statusLister{p.sourceConn, status}
	boxes, err := l.List(ctx, pattern)
	return boxes, p.checked(err)
}

// ListSizes lists sizes where the connection can do that.
func (p *pacedSource) ListSizes(ctx context.Context, pattern string) (map[string]imapwire.Status, bool, error) {
	c, can := p.sourceConn.(sizeLister)
	if !can {
		return nil, false, nil
	}
	sizes, ok, err := c.ListSizes(ctx, pattern)
	return sizes, ok, p.checked(err)
}

func (p *pacedSource) Subscriptions(ctx context.Context, pattern string) ([]string, error) {
	names, err := p.sourceConn.Subscriptions(ctx, pattern)
	return names, p.checked(err)
}

func (p *pacedSource) Status(ctx context.Context, mailbox string) (imapwire.Status, error) {
	st, err := p.sourceConn.Status(ctx, mailbox)
	return st, p.checked(err)
}

func (p *pacedSource) Examine(ctx context.Context, mailbox string) (imapwire.Selected, error) {
	opened, err := p.sourceConn.Examine(ctx, mailbox)
	return opened, p.checked(err)
}

func (p *pacedSource) FetchMeta(ctx context.Context, first, last uint32, fn func(imapwire.Meta) error) error {
	return p.checked(p.sourceConn.FetchMeta(ctx, first, last, fn))
}

func (p *pacedSource) FetchHeader(ctx context.Context, uid uint32, fields ...string) ([]byte, error) {
	header, err := p.sourceConn.FetchHeader(ctx, uid, fields...)
	return header, p.checked(err)
}

// FetchBodies passes bodies on no faster than the host allows. While it waits
// the server does too, since nothing is read from it.
func (p *pacedSource) FetchBodies(ctx context.Context, uids []uint32, fn func(uid uint32, size int64, r io.Reader) error) error {
	var own error // of fn, which may be another server's
	err := p.sourceConn.FetchBodies(ctx, uids, func(uid uint32, size int64, r io.Reader) error {
		if err := take(ctx, p.host.messages, 1); err != nil {
			return err
		}
		if p.host.octets != nil {
			r = &pacedReader{ctx: ctx, r: r, host: p.host}
		}
		own = fn(uid, size, r)
		return own
	})
	if own != nil {
		return err
	}
	return p.checked(err)
}

// pacedReader reads a body no faster than its host allows.
type pacedReader struct {
	ctx  context.Context
	r    io.Reader
	host *host
}

func (p *pacedReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b[:min(len(b), p.host.octets.Burst())])
	if waited := take(p.ctx, p.host.octets, n); waited != nil {
		return n, waited
	}
	return n, err
}

package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2/imapserver"
	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

// parkedServer is the Server of sessions that lead to a parked mailbox.
const parkedServer = "parked"

// parkingMax is how long an account without progress stays parked where the
// settings say nothing.
const parkingMax = time.Hour

// lot is how a domain parks its users.
type lot struct {
	mode   config.ParkingMode
	max    time.Duration
	notice *notice
	inbox  *sharedInbox // mode account only
}

// newLot reads the template and the password that the settings name.
func newLot(cfg *config.Config, d *upstream.Domain) (*lot, error) {
	p := d.Config.Parking
	l := &lot{mode: p.Mode, max: p.Max.Std()}
	if l.max <= 0 {
		l.max = parkingMax
	}
	var err error
	if l.notice, err = newNotice(p.Template, cfg.Hostname); err != nil {
		return nil, err
	}
	if p.Mode == config.ParkAccount {
		l.inbox, err = newSharedInbox(d)
	}
	return l, err
}

// parking serves the parked mailboxes, each over a connection inside the
// process, so that the relay need not tell them from a server.
type parking struct {
	ctx      context.Context
	store    *store.Store
	log      *zap.Logger
	server   *imapserver.Server
	listener *pipeListener
	serving  sync.WaitGroup

	mu    sync.Mutex
	boxes map[int64]*noticeBox // by account, as long as a session shows it
}

// newParking begins to serve; its commands end with ctx.
func newParking(ctx context.Context, s *store.Store, log *zap.Logger) (*parking, error) {
	log = log.Named("parking")
	logger, err := zap.NewStdLogAt(log, zap.WarnLevel)
	if err != nil {
		return nil, err
	}
	p := &parking{ctx: ctx, store: s, log: log, listener: newPipeListener(), boxes: make(map[int64]*noticeBox)}
	p.server = imapserver.New(&imapserver.Options{
		NewSession: p.newSession,
		Caps:       parkCaps,
		Logger:     logger,
	})
	p.serving.Go(func() {
		if err := p.server.Serve(p.listener); err != nil {
			log.Error("parked mailboxes are no longer served: restart migproxy", zap.Error(err))
		}
	})
	<-p.listener.accepting // the server must not be closed before it serves
	return p, nil
}

// close ends all parked sessions and waits for them.
func (p *parking) close() {
	_ = p.server.Close() // its error is that it was closed before
	p.serving.Wait()
}

// parkedConn is the server's end of a parked session.
type parkedConn struct {
	*duplex
	mailbox mailbox
	release func()
	started chan *imapserver.Conn // holds the server's side once it runs
}

// Read and Write report the end in the words that the IMAP server takes for
// one: it logs everything else as a fault.
func (c *parkedConn) Read(p []byte) (int, error) {
	n, err := c.duplex.Read(p)
	if errors.Is(err, io.ErrClosedPipe) {
		err = io.EOF
	}
	return n, err
}

func (c *parkedConn) Write(p []byte) (int, error) {
	n, err := c.duplex.Write(p)
	if errors.Is(err, io.ErrClosedPipe) {
		err = net.ErrClosed
	}
	return n, err
}

// open begins a session in the account's parked mailbox. end ends it with a
// BYE.
func (p *parking) open(ctx context.Context, l *lot, a store.Account) (session *upstream.Session, end func(), err error) {
	client, server := newDuplex()
	conn := &parkedConn{duplex: server, started: make(chan *imapserver.Conn, 1)}
	conn.mailbox, conn.release = p.box(l, a)
	p.serving.Add(1)
	if err := p.listener.hand(ctx, conn); err != nil {
		p.serving.Done()
		conn.release()
		return nil, nil, errors.Join(err, client.Close(), server.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	r := bufio.NewReader(client)
	greeting, err := r.ReadString('\n')
	if !stop() || err != nil {
		return nil, nil, errors.Join(errors.New("the parked mailbox did not open in time"), err, client.Close())
	}
	imapConn := <-conn.started
	end = func() {
		_ = imapConn.Bye("Your mailbox has moved, please connect again")
	}
	return &upstream.Session{Conn: client, Reader: r, Protocol: config.IMAP,
		Capabilities: greetingCapabilities(greeting), Server: parkedServer}, end, nil
}

// greetingCapabilities reads [CAPABILITY ...] of a greeting (RFC 9051 7.1).
func greetingCapabilities(greeting string) []string {
	_, after, _ := strings.Cut(greeting, "[CAPABILITY ")
	list, _, _ := strings.Cut(after, "]")
	return strings.Fields(strings.ToUpper(list))
}

// newSession is called by the IMAP server for each connection.
func (p *parking) newSession(c *imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
	conn := c.NetConn().(*parkedConn)
	conn.started <- c
	s := &parkSession{ctx: p.ctx, mailbox: conn.mailbox, closed: func() {
		conn.release()
		p.serving.Done()
	}}
	return s, &imapserver.GreetingData{PreAuth: true}, nil
}

// box gives the account's mailbox, which its sessions share, and how to let go
// of it.
func (p *parking) box(l *lot, a store.Account) (mailbox, func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	box := p.boxes[a.ID]
	if box == nil {
		box = &noticeBox{notice: l.notice, store: p.store, log: p.log, now: time.Now, account: a}
		p.boxes[a.ID] = box
	}
	box.refs++
	release := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if box.refs--; box.refs == 0 {
			delete(p.boxes, a.ID)
		}
	}
	if l.mode == config.ParkAccount {
		return &accountBox{inbox: l.inbox, account: a, notice: box, log: p.log}, release
	}
	return box, release
}

// pipeListener hands connections inside the process to a server.
type pipeListener struct {
	conns     chan net.Conn
	accepting chan struct{} // closed when the server first asks for one
	first     sync.Once
	closed    chan struct{}
	once      sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), accepting: make(chan struct{}), closed: make(chan struct{})}
}

// hand waits until the server takes the connection.
func (l *pipeListener) hand(ctx context.Context, c net.Conn) error {
	select {
	case l.conns <- c:
		return nil
	case <-l.closed:
		return net.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Accept implements net.Listener.
func (l *pipeListener) Accept() (net.Conn, error) {
	l.first.Do(func() { close(l.accepting) })
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return parkedServer }

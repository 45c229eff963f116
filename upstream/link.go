package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
)

const (
	// maxLine bounds one line of a server before login, in octets.
	maxLine = 64 << 10
	// maxDialogue bounds all that a server sends before and during login.
	maxDialogue = 1 << 20
	// maxQuote bounds how much of a server's text gets into an error.
	maxQuote = 200
)

var (
	errTooLong = errors.New("the server sent more than a login needs; see whether this is a mail server")
	errClosed  = errors.New("the server closed the connection")
)

// dialogue is what is said over one link before and during login.
type dialogue interface {
	// greet reads the real greeting.
	greet() error
	// capabilities returns what the server offers now, asking where it did not
	// say so by itself.
	capabilities() ([]string, error)
	// startTLS asks for TLS; afterwards the server awaits the handshake.
	startTLS() error
	// forget drops what the server said before TLS.
	forget()
	// tellable reports whether the server takes the client's address.
	tellable() bool
	// tell says who the client is, where the server takes it.
	tell(Client) error
	// unaltered asks for mail as it lies there: it is migproxy itself that reads.
	unaltered() error
	// authenticate logs the user in and returns the capabilities after login.
	authenticate(user, authzid string, password config.Secret) ([]string, error)
	// goodbye ends the dialogue without a login.
	goodbye()
	// greeting is the greeting's text.
	greeting() string
}

// link is a connection to a server before login.
type link struct {
	dialogue dialogue
	raw      net.Conn // the TCP connection
	conn     net.Conn // the same, or TLS over it
	reader   *bufio.Reader
	server   string // host:port
	host     string
	budget   int         // octets that the server may still send
	pending  []byte      // written, not sent
	stop     func() bool // ends the watch over the context
	secrets  []string    // what must not be quoted
}

// open reaches the server, and has TLS as the settings want it.
func (s *Server) open(ctx context.Context) (*link, error) {
	l, err := s.reach(ctx)
	if err != nil {
		return nil, &Error{Outcome: Unavailable, Server: s.Address(), Err: err}
	}
	if err := s.secure(ctx, l); err != nil {
		l.cut()
		return nil, s.failure(ctx, l, err)
	}
	return l, nil
}

// reach connects to the first address that greets. Each gets its share of the
// time, so that one that stays silent leaves some to the next.
func (s *Server) reach(ctx context.Context) (*link, error) {
	var failed error
	for i, a := range s.cfg.Address {
		l, err := s.reachOne(ctx, a, len(s.cfg.Address)-i)
		if err == nil {
			return l, nil
		}
		err = explain(ctx, err)
		switch {
		case len(s.cfg.Address) == 1:
			return nil, err
		case failed == nil:
			failed = fmt.Errorf("%s: %w", hostPort(a), err)
		default:
			failed = fmt.Errorf("%w; %s: %w", failed, hostPort(a), err)
		}
		if ctx.Err() != nil {
			break
		}
		s.log.Warn("server cannot be reached", zap.String("protocol", string(s.protocol)),
			zap.String("server", hostPort(a)), zap.Error(err))
	}
	return nil, failed
}

// reachOne connects to one address and reads its greeting, within one share
// of the time that is left. Afterwards the whole time is there again.
func (s *Server) reachOne(ctx context.Context, a config.Address, shares int) (*link, error) {
	whole, _ := ctx.Deadline()
	now := time.Now()
	share := now.Add(whole.Sub(now) / time.Duration(shares))

	// TCP_NODELAY is Go's default. Keep-alive probes find a server that is gone
	// while a user's session idles.
	d := net.Dialer{Deadline: share, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 8}}
	raw, err := d.DialContext(ctx, "tcp", hostPort(a))
	if err != nil {
		return nil, err
	}
	l := &link{raw: raw, conn: raw, reader: bufio.NewReader(raw), server: hostPort(a), host: a.Host, budget: maxDialogue}
	if s.protocol == config.POP3 {
		l.dialogue = &pop3{link: l}
	} else {
		l.dialogue = &imap{link: l}
	}
	err = raw.SetDeadline(share)
	l.stop = context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	if err == nil && s.cfg.TLS == config.TLSImplicit {
		err = l.handshake(ctx, s.tls)
	}
	if err == nil {
		err = l.dialogue.greet()
	}
	if err == nil {
		err = raw.SetDeadline(whole)
	}
	if err == nil {
		// The context may have ended between the watch's SetDeadline and ours.
		err = ctx.Err()
	}
	if err != nil {
		l.cut()
		return nil, err
	}
	return l, nil
}

// secure does STARTTLS as the settings want it and learns the capabilities.
func (s *Server) secure(ctx context.Context, l *link) error {
	caps, err := l.dialogue.capabilities()
	if err != nil {
		return err
	}
	if s.cfg.TLS != config.TLSStartTLS && s.cfg.TLS != config.TLSDetect {
		return nil
	}
	if !slices.Contains(caps, "STARTTLS") && !slices.Contains(caps, "STLS") {
		if s.cfg.TLS == config.TLSDetect {
			return nil
		}
		return errors.New("the server does not offer STARTTLS, so no password was sent: switch it on there, " +
			"or set tls to implicit with that port, or to detect to go on in the clear")
	}
	if err := l.dialogue.startTLS(); err != nil {
		return err
	}
	if l.reader.Buffered() > 0 {
		return errors.New("the server sent more in the clear after its answer to STARTTLS: " +
			"somebody on the way may be injecting commands")
	}
	if err := l.handshake(ctx, s.tls); err != nil {
		return err
	}
	l.dialogue.forget()
	_, err = l.dialogue.capabilities()
	return err
}

// handshake puts TLS over the connection.
func (l *link) handshake(ctx context.Context, cfg *tls.Config) error {
	cfg = cfg.Clone()
	cfg.ServerName = l.host
	c := tls.Client(l.raw, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		return explainTLS(err)
	}
	l.conn = c
	l.reader.Reset(c)
	return nil
}

// release ends the watch over the context and takes the deadline away.
func (l *link) release(ctx context.Context) error {
	if !l.stop() {
		return ctx.Err()
	}
	return l.raw.SetDeadline(time.Time{})
}

// cut closes the connection at once, without TLS's farewell.
func (l *link) cut() {
	l.stop()
	_ = l.raw.Close()
}

// send adds to what goes out before the next line is read, so that a command
// made of several pieces travels in one packet.
func (l *link) send(text string) { l.pending = append(l.pending, text...) }

// flush sends what was written.
func (l *link) flush() error {
	_, err := l.conn.Write(l.pending)
	clear(l.pending) // a password may have been in it
	l.pending = l.pending[:0]
	return err
}

// line sends what was written and reads one line without its end.
func (l *link) line() (string, error) {
	if len(l.pending) > 0 {
		if err := l.flush(); err != nil {
			return "", err
		}
	}
	var line []byte
	for {
		part, err := l.reader.ReadSlice('\n')
		l.budget -= len(part)
		if l.budget < 0 || len(line)+len(part) > maxLine {
			return "", errTooLong
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return "", errClosed
		default:
			return "", err
		}
	}
}

// skip reads n octets and drops them.
func (l *link) skip(n int) error {
	if n > maxLine || n > l.budget {
		return errTooLong
	}
	l.budget -= n
	_, err := l.reader.Discard(n)
	if errors.Is(err, io.EOF) {
		return errClosed
	}
	return err
}

// quote makes a server's text fit for an error: on one line, bounded, and not
// at all where the server repeats the password, in whatever case.
func (l *link) quote(text string) string {
	for _, secret := range l.secrets {
		if strings.Contains(text, secret) || strings.Contains(strings.ToUpper(text), strings.ToUpper(secret)) {
			return "(text withheld, it repeats the password)"
		}
	}
	if len(text) > maxQuote {
		text = text[:maxQuote] + "..."
	}
	return strconv.Quote(text)
}

// explain says what to do about a fault of the network.
func explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("given up, since nobody waits for the answer any more: %w", context.Canceled)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer in time; see whether the server is busy, a firewall is in the way, "+
			"or the port wants another tls setting: %w", err)
	default:
		return err
	}
}

// hostPort writes an address as it is dialled.
func hostPort(a config.Address) string {
	return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
}

// headerSafe keeps of a value what may stand in a quoted string of IMAP and in
// a word of POP3 alike.
func headerSafe(value string) string {
	value = strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, value)
	return value[:min(len(value), 255)]
}

// ttl is the number of proxies that may still follow.
func (c Client) ttl() string {
	if c.TTL == 0 {
		return strconv.Itoa(defaultTTL)
	}
	return strconv.Itoa(c.TTL)
}

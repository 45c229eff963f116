// Package proxy is where clients connect: the listeners, the client side of
// IMAP and POP3 up to the login, the broker that decides each login, parked
// mailboxes, and the relay that a session is from then on.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/store"
)

// Options are what a Server works with. Config is complete and valid.
type Options struct {
	Config  *config.Config
	Auth    Authenticator
	Log     *zap.Logger
	Metrics prometheus.Registerer
	// Changes tell what becomes of accounts, until the channel is closed.
	Changes <-chan store.Change
}

// Server serves the listeners of the settings.
type Server struct {
	cfg       *config.Config
	auth      Authenticator
	changes   <-chan store.Change
	log       *zap.Logger
	metrics   *metrics
	tls       *tls.Config // nil without certificates
	failures  *failures
	occupancy *occupancy
	listeners []listener
	sessions  sync.WaitGroup
}

type listener struct {
	settings config.Listener
	net.Listener
}

// lifetime is what ends sessions: drain begins with the shutdown, end comes
// when its grace is over.
type lifetime struct{ drain, end context.Context }

// New prepares a server. The error says which setting is wrong.
func New(o Options) (*Server, error) {
	s := &Server{cfg: o.Config, auth: o.Auth, changes: o.Changes, log: o.Log.Named("proxy"),
		failures: newFailures(o.Config.Limits), occupancy: newOccupancy(o.Config.Limits)}
	var err error
	if s.tls, err = serverTLS(o.Config.TLS, s.log); err != nil {
		return nil, err
	}
	for _, l := range o.Config.Listeners {
		if l.TLS != config.TLSNone && s.tls == nil {
			return nil, fmt.Errorf("listener %s: tls: %s needs a certificate; add one to tls.certificates, or set tls: none",
				listenAddress(l), l.TLS)
		}
	}
	if s.metrics, err = newMetrics(o.Metrics); err != nil {
		return nil, err
	}
	return s, nil
}

func listenAddress(l config.Listener) string {
	return net.JoinHostPort(l.Address.Host, strconv.Itoa(int(l.Address.Port)))
}

// Listen opens every listener, or none. Clients wait from then on until Serve.
func (s *Server) Listen(ctx context.Context) error {
	for _, l := range s.cfg.Listeners {
		nl, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listenAddress(l))
		if err != nil {
			s.closeListeners()
			return fmt.Errorf("cannot listen for %s: %w", l.Protocol, err)
		}
		s.listeners = append(s.listeners, listener{settings: l, Listener: nl})
	}
	return nil
}

func (s *Server) closeListeners() {
	for _, l := range s.listeners {
		if err := l.Listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.log.Warn("cannot close a listener", zap.Error(err))
		}
	}
}

// Addrs are the addresses listened on, in the order of the settings.
func (s *Server) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// Serve serves clients until ctx ends. Then it drains: nobody is let in any
// more, sessions before login end at once, others where their stream stands
// between two responses, and all of them after shutdown.grace. When Serve
// returns, no session is left. The error is a listener's that failed by itself.
func (s *Server) Serve(ctx context.Context) error {
	ctx, drain := context.WithCancel(ctx)
	defer drain()
	end, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()

	failed := make(chan error, len(s.listeners))
	var accepting sync.WaitGroup
	for _, l := range s.listeners {
		accepting.Go(func() {
			if err := s.accept(lifetime{ctx, end}, l); err != nil {
				failed <- err
				drain()
			}
		})
	}
	s.followChanges(ctx)
	s.closeListeners()
	accepting.Wait()

	grace := time.AfterFunc(s.cfg.Shutdown.Grace.Std(), kill)
	defer grace.Stop()
	s.sessions.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// followChanges tells the limits what becomes of accounts, until ctx ends.
func (s *Server) followChanges(ctx context.Context) {
	changes := s.changes
	for {
		select {
		case c, open := <-changes:
			if !open {
				changes = nil
				continue
			}
			s.failures.changed(c)
		case <-ctx.Done():
			return
		}
	}
}

// accept starts a session for each client of one listener.
func (s *Server) accept(life lifetime, l listener) error {
	pause := time.Duration(0)
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.sessions.Go(func() { s.session(life, l.settings, conn) })
			continue
		case life.drain.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("listener %s: %w", l.Addr(), err)
		}
		// Out of file descriptors, most often: sessions that end give some back.
		pause = min(max(2*pause, 10*time.Millisecond), time.Second)
		s.log.Error("cannot accept a connection; raise the limit of open files if it is reached", zap.Error(err))
		if wait(life.drain, pause) != nil {
			return nil
		}
	}
}

package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/migrator/verify"
	"migproxy/store"
)

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	// writeTimeout bounds each write to a client; how long an answer may take
	// as a whole is not bounded, because a log can be followed for days.
	writeTimeout = 30 * time.Second
	// storeTimeout bounds each question to the store.
	storeTimeout = 10 * time.Second
	// drainTimeout is what is left to requests when the server ends.
	drainTimeout = 3 * time.Second
	// headerMax bounds a request's header, in octets; scrapesMax the scrapes at
	// a time.
	headerMax  = 16 << 10
	scrapesMax = 4
)

// Options are what a Server works with.
type Options struct {
	Config   *config.Config
	Store    *store.Store
	Registry *prometheus.Registry
	// Listening reports whether clients can reach the proxy.
	Listening func() bool
	// Verify compares an account on both servers, and tells its progress to one
	// goroutine at a time.
	Verify func(ctx context.Context, a store.Account, deep bool, progress func(verify.Progress)) verify.Account
	// PlanRollback says what taking an account back would copy to its source.
	PlanRollback func(ctx context.Context, a store.Account) (migrator.RollbackPlan, error)
	Version      string
	Log          *zap.Logger
}

// Server answers the administrator.
type Server struct {
	Options
	socket  net.Listener
	metrics net.Listener // nil where admin.address is not set
}

// Listen opens the socket and the address of the settings, and registers the
// metrics of the accounts. The error says which setting to change.
func Listen(o Options) (*Server, error) {
	s := &Server{Options: o}
	if err := o.Registry.Register(&accountCollector{s}); err != nil {
		return nil, fmt.Errorf("metrics of the accounts: %w", err)
	}
	var err error
	if s.socket, err = listenUnix(o.Config.Admin.Socket); err != nil {
		return nil, err
	}
	if o.Config.Admin.Address == (config.Address{}) {
		return s, nil
	}
	if s.metrics, err = net.Listen("tcp", o.Config.Admin.Address.String()); err != nil {
		_ = s.socket.Close()
		return nil, fmt.Errorf("admin.address: %w; write an address of this machine with a free port", err)
	}
	return s, nil
}

// MetricsAddress is where metrics and health are served; empty for nowhere.
func (s *Server) MetricsAddress() string {
	if s.metrics == nil {
		return ""
	}
	return s.metrics.Addr().String()
}

// Close gives up what Listen opened. Serve does that itself at its end.
func (s *Server) Close() {
	_ = s.socket.Close()
	if s.metrics != nil {
		_ = s.metrics.Close()
	}
}

// Serve answers until the context ends; who follows the log is cut off then.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	servers := map[net.Listener]*http.Server{s.socket: {Handler: s.apiHandler()}}
	if s.metrics != nil {
		servers[s.metrics] = &http.Server{Handler: s.healthHandler(), ReadTimeout: headerTimeout, WriteTimeout: 2 * writeTimeout}
	}
	ends := make(chan error, len(servers))
	for l, srv := range servers {
		go func() { ends <- s.serve(ctx, l, srv) }()
	}
	var errs []error
	for range servers {
		errs = append(errs, <-ends)
		cancel() // where one has failed, the other ends too
	}
	return errors.Join(errs...)
}

func (s *Server) serve(ctx context.Context, l net.Listener, srv *http.Server) error {
	srv.ReadHeaderTimeout = headerTimeout
	srv.IdleTimeout = idleTimeout
	srv.MaxHeaderBytes = headerMax
	srv.ErrorLog = zap.NewStdLog(s.Log)
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(drained); drain(srv) })
	err := srv.Serve(l)
	if !stop() {
		<-drained // Serve returns when a drain begins
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("administration: %w", err)
}

func drain(srv *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if srv.Shutdown(ctx) != nil {
		_ = srv.Close()
	}
}

// healthHandler serves what anybody may see.
func (s *Server) healthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{
		// A store that cannot be asked takes away its own metrics, not all.
		ErrorHandling: promhttp.ContinueOnError,
		ErrorLog:      zap.NewStdLog(s.Log),
		Timeout:       writeTimeout,

		MaxRequestsInFlight: scrapesMax,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", s.ready)
	return mux
}

// ready answers 200 when clients can be served: the listeners are open and the
// store answers.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if !s.Listening() {
		http.Error(w, "the listeners are not open", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	if _, err := s.Store.DomainState(ctx, s.Config.Domains[0].Name); err != nil {
		s.Log.Error("the store cannot be asked", zap.Error(err))
		http.Error(w, "the store does not answer; see the log", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ready\n"))
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"migproxy/admin"
	"migproxy/config"
	"migproxy/migrator"
	"migproxy/provision"
	"migproxy/proxy"
	"migproxy/store"
	"migproxy/upstream"
)

// stepHook is called at the migrator's named steps; a build for the kill tests
// sets it.
var stepHook func(step string)

// runOptions are what run works with.
type runOptions struct {
	Config *config.Config
	Log    *zap.Logger
	// Drivers by domain; those of the settings where it is nil.
	Drivers map[string]provision.Driver
	// Ready, if set, is called once with the listeners' addresses, in the order
	// of the settings, when clients are served.
	Ready func([]net.Addr)
}

// house is everything that runs.
type house struct {
	runOptions
	store     *store.Store
	broker    *proxy.Broker
	proxy     *proxy.Server
	migrator  *migrator.Migrator
	admin     *admin.Server
	listening atomic.Bool
}

// run serves until the context ends and everything has been put down in order:
// clients and workers first, then the administrator's door, last the store.
func run(ctx context.Context, o runOptions) (err error) {
	s, err := store.Open(ctx, o.Config.State, o.Log.Named("store"))
	if err != nil {
		return stateAdvice(err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	h := &house{runOptions: o, store: s}
	if err := h.seed(ctx); err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := h.build(registry); err != nil {
		return err
	}
	defer h.broker.Close()
	// The administrator's door first: whoever reaches the proxy can ask about it.
	h.admin, err = admin.Listen(admin.Options{Config: o.Config, Store: s, Registry: registry,
		Listening: h.listening.Load, Verify: h.migrator.Verify, PlanRollback: h.migrator.PlanRollback, Version: version(), Log: o.Log.Named("admin")})
	if err != nil {
		return err
	}
	if err := h.proxy.Listen(ctx); err != nil {
		h.admin.Close()
		return listenAdvice(err)
	}
	return h.serve(ctx)
}

// seed gives the settings' word on whether the migration is active, and on the
// wave, to domains of which the store knows nothing, and says where the store
// knows otherwise.
func (h *house) seed(ctx context.Context) error {
	for _, d := range h.Config.Domains {
		active, err := h.store.SeedActive(ctx, d.Name, h.Config.Migration.Active)
		if err != nil {
			return err
		}
		if active != h.Config.Migration.Active {
			h.Log.Warn("the settings differ from what start or stop said last, which counts",
				zap.String("domain", d.Name), zap.Bool("active", active), zap.Bool("migration.active", h.Config.Migration.Active))
		}
		if err := h.seedWave(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (h *house) seedWave(ctx context.Context, d config.Domain) error {
	log := h.Log.With(zap.String("domain", d.Name))
	wave, err := d.Wave.Of(d.Name)
	if err != nil {
		log.Warn("domains[].wave has what matches nobody; it is left out", zap.Error(err))
	}
	if err := h.store.SeedWave(ctx, d.Name, wave); err != nil {
		return err
	}
	size, err := h.store.WaveSize(ctx, d.Name, wave)
	if size.Differs {
		log.Warn("the settings' wave differs from the one in force, which counts; see `migproxy wave list`",
			zap.Int64("included", size.Included), zap.Int64("excluded", size.Excluded))
	}
	return err
}

// build makes the rooms, without opening anything to the outside.
func (h *house) build(registry *prometheus.Registry) error {
	domains, err := upstream.Domains(h.Config, h.Log.Named("upstream"))
	if err != nil {
		return err
	}
	if h.Drivers == nil {
		if h.Drivers, err = drivers(h.Config); err != nil {
			return err
		}
	}
	aliases, err := aliasRules(h.Config)
	if err != nil {
		return err
	}
	h.migrator, err = migrator.New(migrator.Options{
		Store: h.store, Domains: domains, Drivers: h.Drivers, Aliases: aliases, Owner: h.Config.Hostname,
		Concurrency:       h.Config.Migration.Concurrency,
		Grace:             h.Config.Shutdown.Grace.Std(),
		CatchUp:           h.Config.Migration.CatchUp.Std(),
		SettleQuiet:       h.Config.Migration.SettleQuiet.Std(),
		CredentialsMaxAge: h.Config.State.CredentialsMaxAge.Std(),
		Rate:              h.Config.Migration.Rate,
		AfterAccount:      h.Config.Migration.AfterAccount,
		Log:               h.Log.Named("migrator"), Metrics: registry, Step: stepHook,
	})
	if err != nil {
		return err
	}
	h.broker, err = proxy.NewBroker(proxy.BrokerOptions{Config: h.Config, Store: h.store, Domains: domains,
		Log: h.Log, Metrics: registry})
	if err != nil {
		return err
	}
	changes, cancel := h.store.Subscribe(false)
	h.proxy, err = proxy.New(proxy.Options{Config: h.Config, Auth: h.broker, Log: h.Log, Metrics: registry, Changes: changes})
	if err != nil {
		cancel()
		h.broker.Close()
	}
	return err
}

// drivers makes the drivers that the settings name, by domain.
func drivers(cfg *config.Config) (map[string]provision.Driver, error) {
	all := make(map[string]provision.Driver, len(cfg.Domains))
	for _, d := range cfg.Domains {
		driver, err := provision.New(d.Target.Provision)
		if err != nil {
			return nil, fmt.Errorf("domain %s: %w", d.Name, err)
		}
		if driver != nil {
			all[d.Name] = driver
		}
	}
	return all, nil
}

// serve runs the rooms until the context ends, or until one of them fails,
// which ends the others too.
func (h *house) serve(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	adminCtx, stopAdmin := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAdmin()

	failed := make(chan error, 3)
	part := func(wg *sync.WaitGroup, ctx context.Context, name string, serve func(context.Context) error) {
		wg.Go(func() {
			defer stop()
			if err := serve(ctx); err != nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	var front, back sync.WaitGroup
	part(&back, adminCtx, "admin", h.admin.Serve)
	part(&front, ctx, "migrator", h.migrator.Run)
	part(&front, ctx, "proxy", h.proxy.Serve)

	h.listening.Store(true)
	h.Log.Info("migproxy serves", zap.String("version", version()), zap.Stringers("listeners", h.proxy.Addrs()),
		zap.String("metrics", h.admin.MetricsAddress()), zap.String("socket", h.Config.Admin.Socket))
	if h.Ready != nil {
		h.Ready(h.proxy.Addrs())
	}
	<-ctx.Done()
	h.listening.Store(false)
	h.Log.Info("migproxy ends; sessions and workers finish", zap.Stringer("grace", h.Config.Shutdown.Grace))
	front.Wait()
	stopAdmin()
	back.Wait()
	h.Log.Info("migproxy has ended")
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

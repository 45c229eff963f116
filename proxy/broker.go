package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

// maxRounds bounds how often one login is decided anew. A login takes at most
// two answers and one write; the rest is room for others who write meanwhile.
const maxRounds = 12

// sweepEvery is how often parked sessions are looked over.
const sweepEvery = time.Minute

// BrokerOptions are what a Broker works with.
type BrokerOptions struct {
	Config  *config.Config
	Store   *store.Store
	Domains map[string]*upstream.Domain // by lower-case name
	Log     *zap.Logger
	Metrics prometheus.Registerer
}

// Broker decides every login: whom to ask, what to write, and where the client
// goes. It is safe for concurrent use.
type Broker struct {
	cfg     *config.Config
	store   *store.Store
	domains map[string]*upstream.Domain
	lots    map[string]*lot // by domain
	log     *zap.Logger
	metrics brokerMetrics
	watches *watches
	parking *parking
	sources *sourceSessions // of domains with parking mode source
	now     func() time.Time
	// awaitFor is how long a login waits for the end of a flip.
	awaitFor time.Duration

	stop   context.CancelFunc
	cancel func() // the store's subscription
	wg     sync.WaitGroup
}

var _ Authenticator = (*Broker)(nil)

// NewBroker reads what parking needs and begins to listen for what becomes of
// accounts. Close ends it. The error says which setting is wrong.
func NewBroker(o BrokerOptions) (*Broker, error) {
	b := &Broker{cfg: o.Config, store: o.Store, domains: o.Domains, log: o.Log.Named("broker"),
		lots: make(map[string]*lot), watches: newWatches(), now: time.Now, awaitFor: flipWait}
	for name, d := range o.Domains {
		l, err := newLot(o.Config, d)
		if err != nil {
			return nil, fmt.Errorf("domain %s: %w", name, err)
		}
		b.lots[name] = l
	}
	var err error
	if b.metrics, err = newBrokerMetrics(o.Metrics); err != nil {
		return nil, err
	}
	var ctx context.Context
	ctx, b.stop = context.WithCancel(context.Background())
	if b.parking, err = newParking(ctx, b.store, b.log); err != nil {
		b.stop()
		return nil, err
	}
	b.sources = newSourceSessions(ctx, b.store.Hold, b.log)
	changes, cancel := o.Store.Subscribe(false)
	b.cancel = cancel
	b.wg.Go(func() {
		for c := range changes {
			if c.Finished != "" {
				b.watches.finished(c.Finished)
				continue
			}
			b.watches.changed(c)
			_, domain, _ := strings.Cut(c.Address, "@")
			if l := b.lots[domain]; l != nil && l.mode == config.ParkSource {
				b.sources.changed(c)
			}
		}
	})
	b.wg.Go(func() {
		tick := time.NewTicker(sweepEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				b.sweep(ctx)
			case <-ctx.Done():
				return
			}
		}
	})
	return b, nil
}

// sweep ends the parked sessions of accounts whose work has stopped for too
// long: those who come back get their old mailbox.
func (b *Broker) sweep(ctx context.Context) {
	for _, address := range b.watches.parked() {
		a, err := b.store.Account(ctx, address)
		if err != nil {
			b.log.Warn("a parked account could not be read", zap.String("account", address), zap.Error(err))
			continue
		}
		stopped := a.State == store.Failed || a.State == store.Waiting
		if l := b.lots[a.Identity.Domain]; stopped && l != nil && isStale(a, l.max, b.now()) {
			b.watches.endParked(address)
		}
	}
}

// Close ends the parked sessions and everything that the Broker started, and
// waits for it. No Login may begin any more.
func (b *Broker) Close() {
	b.cancel()
	b.stop()
	b.wg.Wait()
	b.sources.wait()
	b.parking.close()
	b.watches.wait()
}

// Owner puts in place of the account that a login name stands for the account of
// which the name is a login alias, if it is one.
func (b *Broker) Owner(ctx context.Context, a *Attempt) error {
	id, _, err := b.owner(ctx, a.Identity, a.Login)
	if err != nil {
		return &upstream.Error{Outcome: upstream.Unavailable, Err: err}
	}
	a.Identity = id
	return nil
}

// owner looks a login name up among the login aliases: as the address that it
// stands for or, where it is no plain address of ours, as it was typed. One that
// is none keeps its identity.
func (b *Broker) owner(ctx context.Context, id config.Identity, login string) (of config.Identity, alias bool, err error) {
	name := id.Address()
	if id == (config.Identity{}) {
		if !printable(login) {
			return id, false, nil
		}
		name = strings.ToLower(login)
	}
	a, err := b.store.LoginAlias(ctx, name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return id, false, nil
	case err != nil:
		return id, false, err
	}
	return a.Identity, true, nil
}

// Login decides an attempt. The session leads to a server or to a parked
// mailbox; the caller closes its Conn. Every error is an *upstream.Error.
func (b *Broker) Login(ctx context.Context, a *Attempt) (*upstream.Session, error) {
	l, err := b.newLogin(ctx, a)
	if err != nil {
		return nil, err
	}
	defer l.discard()
	if err := l.read(ctx); err != nil {
		return nil, l.unavailable(err)
	}
	for range maxRounds {
		session, err := l.act(ctx, decide(l.facts))
		switch {
		case err == nil && session != nil:
			return session, nil
		case err != nil:
			if e, ok := errors.AsType[*upstream.Error](err); ok {
				return nil, e
			}
			return nil, l.unavailable(err)
		}
	}
	return nil, l.unavailable(errors.New("the account kept changing while a login was decided; the client may try again"))
}

// login is one attempt on its way to a decision.
type login struct {
	b      *Broker
	a      *Attempt
	id     config.Identity // the account's
	domain *upstream.Domain
	creds  upstream.Credentials
	log    *zap.Logger

	facts          facts
	target, source *side
	// proved: the password of this very login is committed.
	proved bool
	// right: the source has taken the password of this login.
	right bool
}

func (b *Broker) newLogin(ctx context.Context, a *Attempt) (*login, error) {
	id := a.Identity
	authzid := a.Authzid
	if authzid != "" && id.Domain != "" {
		other, alias, err := b.owner(ctx, resolveName(b.cfg, a, authzid), authzid)
		switch {
		case err != nil:
			return nil, &upstream.Error{Outcome: upstream.Unavailable, Err: err}
		case alias:
			authzid = other.Address() // the servers need not know the name
		}
		switch {
		case other.Domain == id.Domain && other.Local == id.Local:
			authzid = ""
		case other.Domain == id.Domain:
			id = other
		default:
			// A password of one domain is not shown to the servers of another.
			id = config.Identity{}
		}
	}
	d := b.domains[id.Domain]
	if id.Domain == "" || d == nil {
		return nil, &upstream.Error{Outcome: upstream.Miss, Err: errors.New("the login name is not in a configured domain, or not a plain address; see docs/limits.md")}
	}
	return &login{b: b, a: a, id: id, domain: d,
		creds: upstream.Credentials{Identity: a.Identity, Authzid: authzid, Password: a.Password},
		log:   b.log.With(zap.String("session", a.Client.SessionID), zap.String("account", id.Address())),
		facts: facts{mode: d.Config.Mode, adopt: d.Config.Adopt, delegated: authzid != "", works: d.Config.Parking.Mode == config.ParkSource,
			creates: d.Config.Target.Provision.Driver != config.DriverNone},
		target: newSide("target", d.Target, a.Protocol),
		source: newSide("source", d.Source, a.Protocol),
	}, nil
}

// read reads the account's row and what goes with it.
func (l *login) read(ctx context.Context) error {
	a, err := l.b.store.Account(ctx, l.id.Address())
	switch {
	case errors.Is(err, store.ErrNotFound) && l.facts.account != nil:
		return errRemoved
	case errors.Is(err, store.ErrNotFound):
		return l.know(ctx, nil)
	case err != nil:
		return err
	}
	return l.know(ctx, &a)
}

// errRemoved: the login began with an account that has become a login alias since.
var errRemoved = errors.New("the login name has become a login alias of another account meanwhile; the client may try again")

// know takes over a row that was read. What the target said under another
// state is forgotten: it may have been asked before the flip.
func (l *login) know(ctx context.Context, a *store.Account) error {
	if old := l.facts.account; a != nil && (old == nil || old.State != a.State) {
		l.target.forget()
		l.facts.target = 0
	}
	l.facts.account = a
	l.facts.may, l.facts.stale, l.facts.finished = false, false, false
	if a != nil {
		// A retry under way is no progress yet. Who only waits for his turn is not
		// stale, however long that takes.
		stopped := a.State == store.Failed || a.State == store.Waiting || a.Attempts > 0
		l.facts.stale = stopped && isStale(*a, l.b.lots[l.id.Domain].max, l.b.now())
	}
	if a != nil && livesOnTarget(*a) {
		return nil
	}
	state, err := l.b.store.DomainState(ctx, l.id.Domain)
	if err != nil {
		return err
	}
	l.facts.finished = state.Finished
	if a == nil || a.State == store.AtSource {
		l.facts.may = state.Active && l.domain.Config.Wave.Includes(l.id.Address())
	}
	return nil
}

// unavailable is the outcome of a fault of our own.
func (l *login) unavailable(err error) error {
	return &upstream.Error{Outcome: upstream.Unavailable, Err: err}
}

// event writes a line to the migration's log. A line that cannot be written
// keeps nobody from his mail.
func (l *login) event(ctx context.Context, text string) {
	l.log.Info(text)
	if err := l.b.store.Event(ctx, l.id.Address(), text); err != nil {
		l.log.Warn("the event was not recorded", zap.Error(err))
	}
}

// discard closes what was opened only to ask.
func (l *login) discard() {
	l.target.forget()
	l.source.forget()
}

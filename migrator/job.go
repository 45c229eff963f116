package migrator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"migproxy/aliasresolve"
	"migproxy/config"
	"migproxy/migrator/imapwire"
	"migproxy/provision"
	"migproxy/store"
	"migproxy/upstream"
)

const (
	// stillCounted is how long a server may count a connection that was closed, and
	// countedPause when it is asked again.
	stillCounted = 2 * time.Second
	countedPause = 50 * time.Millisecond
)

// job is the work on one account, by one worker. It lives from the claim to
// its release.
type job struct {
	m       *Migrator
	stop    context.Context // its end asks for an end between two batches
	claim   *store.Claim
	id      config.Identity
	address string
	log     *zap.Logger

	domain *upstream.Domain
	driver provision.Driver // nil where the settings name none

	aliases  *Aliases // nil where further addresses are not looked for
	observer *observer

	conns
	others []*conns // that lanes use, see inLanes
	isLane bool
	// sourceCreds and targetCreds are what has opened the two servers in this run.
	sourceCreds, targetCreds upstream.Credentials

	here, there side                       // the folders, as listed at the start of this run
	limits      map[string]imapwire.Status // of the target's folders, where their APPENDLIMIT differs
	foreseen    bool
	heedless    bool    // the administrator was told of a lack of room, and said retry
	labels      *labels // nil where the source's folders are none
	suspects    suspects
	withheld    map[messageKey]string // what the source lists and does not give, with the folder's name
	notKept     notKept
	unchanged   map[int64]imapwire.Status // source folders as of their last complete pass
	witness     *witness
	added       int64 // messages appended by this run
	octets      int64 // of these
	consent     int64 // so many messages set aside the administrator was told of, and said retry

	// Of an account whose owner works on the source, see mirrors.
	keywords        *keywords
	tellsSubscribed bool // the source has listed its subscriptions
	held            bool // logins wait
	renamed         int  // folders, in this pass
	left            int  // messages that the source has no more and that are not touched
}

// conns are connections of an account. source is read, dest is written, and eye
// looks at what dest has done. Where the target has no room for two connections,
// eye is dest.
type conns struct {
	source    sourceConn
	dest, eye *imapwire.Conn
	viewed    string // the folder that eye has open
}

func (c *conns) close() {
	if c.source != nil {
		_ = c.source.Close()
	}
	for _, c := range []*imapwire.Conn{c.dest, c.eye} {
		if c != nil {
			_ = c.Close()
		}
	}
}

func (m *Migrator) newJob(ctx context.Context, claim *store.Claim) *job {
	a := claim.Account
	j := &job{m: m, stop: ctx, claim: claim, id: a.Identity, address: a.Identity.Address(),
		domain: m.o.Domains[a.Identity.Domain], driver: m.o.Drivers[a.Identity.Domain],
		unchanged: map[int64]imapwire.Status{}, withheld: map[messageKey]string{}, witness: &witness{}, keywords: &keywords{}}
	if rules := m.o.Aliases[a.Identity.Domain]; rules != nil && rules.Rules.Mode != aliasresolve.Username {
		j.aliases = rules
	}
	j.observer = j.newObserver()
	// Retry clears the reason; nothing else does while the account waits. One that was
	// only put off goes on with what was agreed to.
	if a.Reason == "" || m.memory.wasPutOff(a.ID) {
		j.consent, j.heedless = m.memory.wasAsked(a.ID), m.memory.wasTold(a.ID)
	}
	j.log = m.o.Log.With(zap.String("account", j.address))
	return j
}

// run moves the account. nil means that it has flipped, or has become a name of
// another one.
func (j *job) run(ctx context.Context) error {
	if j.domain == nil {
		return &halt{state: store.Waiting, reason: errorInternal,
			err: fmt.Errorf("the domain %s is not in the settings: add it, or exclude this account", j.id.Domain)}
	}
	if j.stop.Err() != nil {
		return errStopped
	}
	if j.claim.Account.RollingBack != store.NotRollingBack {
		return j.rollBack(ctx)
	}
	if alone, err := j.aliasesAlone(ctx); err != nil {
		return err
	} else if alone {
		return j.afterMove(ctx)
	}
	// With a reason it goes on with what it had begun.
	if a := j.claim.Account; a.Reason == "" && a.State != store.Active {
		j.event(ctx, fmt.Sprintf("Migrating '%s'...", j.address))
	}
	if j.claim.Account.Mode == config.ModePasswords {
		return j.setPassword(ctx)
	}
	if j.claim.Account.State == store.Active {
		if err := j.settleGivenUp(ctx); err != nil {
			return err
		}
		if err := j.carryOutAliases(ctx); err != nil {
			return err
		}
		return j.catchUp(ctx)
	}
	// What turned out to be another's goes first: its owner may be waiting for it,
	// while this account does not get on.
	if err := j.removeAliases(ctx); err != nil {
		return err
	}
	// Then the source: nothing is created for somebody whom it does not let in.
	if err := j.connectSource(ctx); err != nil {
		return err
	}
	if err := j.oneOfItsNames(ctx); errors.Is(err, errIsAlias) {
		return nil
	} else if err != nil {
		return err
	}
	if err := j.provision(ctx); err != nil {
		return err
	}
	if err := j.carryOutAliases(ctx); err != nil {
		return err
	}
	if err := j.connectTarget(ctx); err != nil {
		return err
	}
	if err := j.rebase(ctx); err != nil {
		return err
	}
	if err := j.copyAll(ctx); err != nil {
		return err
	}
	if err := j.decideAliases(ctx); err != nil {
		return err
	}
	if err := j.carryOutAliases(ctx); err != nil {
		return err
	}
	if j.mirrors() {
		return j.flipParked(ctx)
	}
	return j.flip(ctx)
}

// password opens the sealed password. Without one only a login helps.
func (j *job) password(ctx context.Context) (config.Secret, int64, error) {
	password, version, err := j.m.o.Store.Password(ctx, j.claim.Account.ID, store.SideSource)
	if errors.Is(err, store.ErrNoPassword) {
		return password, 0, &halt{state: store.Waiting, reason: errorPassword,
			err: errors.New("no password is kept any more: waiting for the user's next login")}
	}
	return password, version, err
}

// session logs the account in on a server. Its outcome is Accepted when err is
// nil; every other error is an *upstream.Error.
func (j *job) session(ctx context.Context, s *upstream.Server, creds upstream.Credentials) (*upstream.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	for until := time.Now().Add(stillCounted); ; {
		session, err := s.Login(ctx, creds, upstream.Client{})
		// While logins wait, a later try is dear, and a server may count connections
		// that have just been closed.
		if _, limited := errors.AsType[*upstream.Throttled](err); !limited || !j.held || time.Now().After(until) || wait(ctx, countedPause) != nil {
			return session, err
		}
	}
}

// login is session over IMAP, with a password.
func (j *job) login(ctx context.Context, s *upstream.Server, password config.Secret) (*imapwire.Conn, error) {
	return j.loginAs(ctx, s, upstream.Credentials{Identity: j.id, Password: password})
}

// loginAs is session over IMAP.
func (j *job) loginAs(ctx context.Context, s *upstream.Server, creds upstream.Credentials) (*imapwire.Conn, error) {
	session, err := j.session(ctx, s, creds)
	if err != nil {
		return nil, err
	}
	return j.wire(session), nil
}

func (j *job) wire(session *upstream.Session) *imapwire.Conn {
	return imapwire.New(session, imapwire.Options{Timeout: j.m.ioTimeout})
}

// tryTarget reports whether the target lets the account in with a password.
func (j *job) tryTarget(ctx context.Context, password config.Secret) error {
	if j.domain.Target.IMAP == nil {
		return errNoIMAP("target")
	}
	c, err := j.login(ctx, j.domain.Target.IMAP, password)
	if err != nil {
		return err
	}
	_ = c.Logout(ctx) // the answer is known already
	return nil
}

// sourceServer is where the copy reads: the source, over the first of its
// protocols.
func (j *job) sourceServer() (*upstream.Server, error) {
	protocol := copyProtocol(j.domain)
	server := j.domain.Source.Over(protocol)
	if server == nil {
		return nil, &halt{state: store.Waiting, reason: errorInternal,
			err: fmt.Errorf("the source has no %s in the settings: the copy reads over it", protocol)}
	}
	return server, nil
}

// copyProtocol is what the copy reads a domain's source over.
func copyProtocol(domain *upstream.Domain) config.Protocol {
	if named := domain.Config.Source.Protocols; len(named) > 0 {
		return named[0]
	}
	return config.IMAP
}

// reader makes a source of a session that has been logged in; login gives
// further ones.
func (j *job) reader(ctx context.Context, session *upstream.Session, login func(context.Context) (*upstream.Session, error)) (sourceConn, error) {
	if session.Protocol == config.POP3 {
		return j.openPOP3(ctx, session, login)
	}
	return j.wire(session), nil
}

func errNoIMAP(which string) error {
	return &halt{state: store.Waiting, reason: errorInternal,
		err: fmt.Errorf("the %s has no imap in the settings: the copy needs it", which)}
}

// outcome is what a server answered to a login.
func outcome(err error) upstream.Outcome {
	if err == nil {
		return upstream.Accepted
	}
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		return e.Outcome
	}
	return upstream.Unavailable
}

// connectSource logs in to the source with the sealed password. Where none is
// known, a master user reads the mailbox until its owner logs in.
func (j *job) connectSource(ctx context.Context) error {
	server, err := j.sourceServer()
	if err != nil {
		return err
	}
	creds := upstream.Credentials{Identity: j.id, Master: j.domain.Source.Master}
	password, version, err := j.password(ctx)
	switch {
	case err == nil:
		creds.Master, creds.Password = nil, password
	case creds.Master == nil || !isHalt(err):
		return err
	}
	open := func() error {
		j.source, err = j.openSource(ctx, server, func(ctx context.Context) (*upstream.Session, error) { return j.session(ctx, server, creds) })
		return err
	}
	if err = open(); outcome(err) == upstream.Miss && creds.Master == nil && j.claim.Account.Origin == store.OriginAdopted {
		// Its owner logs in on the target, perhaps with what the source takes too.
		own, _, ownErr := j.m.o.Store.Password(ctx, j.claim.Account.ID, store.SideTarget)
		if ownErr == nil && own.Reveal() != creds.Password.Reveal() {
			creds.Password = own
			if err = open(); err == nil {
				// If a newer one was sealed meanwhile, the flip has it tried.
				if err := j.claim.SealAgain(ctx, own, version); err != nil && !errors.Is(err, store.ErrChanged) {
					return err
				}
			}
		}
	}
	if isHalt(err) {
		return err
	}
	if creds.Master != nil && outcome(err) != upstream.Accepted {
		return accessTrouble(err, errorSource, "source")
	}
	switch outcome(err) {
	case upstream.Accepted:
	case upstream.Miss:
		return &halt{state: store.Waiting, reason: errorPassword,
			err: errors.New("the source no longer takes the password kept: waiting for the user's next login")}
	case upstream.Refused:
		return &halt{state: store.Waiting, retry: true, reason: errorPassword,
			err: fmt.Errorf("the source refuses this user: unlock the account there: %w", err)}
	default:
		return again(errorSource, fmt.Errorf("the source cannot be asked: %w", err))
	}
	j.sourceCreds = creds
	return nil
}

// connectTarget logs in to the target, twice where it lets us.
func (j *job) connectTarget(ctx context.Context) (err error) {
	creds := upstream.Credentials{Identity: j.id}
	if j.claim.Account.Origin == store.OriginAdopted {
		creds, err = j.openAdopted(ctx)
	} else if creds.Password, err = j.targetPassword(ctx); err == nil {
		j.dest, err = j.openTarget(ctx, creds.Password)
	}
	if err != nil {
		return err
	}
	j.targetCreds = creds
	switch j.eye, err = j.loginAs(ctx, j.domain.Target.IMAP, creds); outcome(err) {
	case upstream.Accepted:
	case upstream.Unavailable: // most likely a limit of connections
		j.log.Info("the target takes no second connection of this user: copying over one", zap.Error(err))
		j.eye = j.dest
	default:
		return targetTrouble(err)
	}
	return nil
}

// openAdopted logs in to an account that was on the target before: with the
// password with which its owner has logged in there since, the one that has opened
// the source, or as the master user.
func (j *job) openAdopted(ctx context.Context) (upstream.Credentials, error) {
	creds := upstream.Credentials{Identity: j.id}
	if j.domain.Target.IMAP == nil {
		return creds, errNoIMAP("target")
	}
	own, _, err := j.m.o.Store.Password(ctx, j.claim.Account.ID, store.SideTarget)
	if err == nil {
		creds.Password = own
		if j.dest, err = j.openTarget(ctx, own); !isPasswordHalt(err) {
			return creds, err
		}
		// The next login gives it anew.
		if err := j.claim.RefusePassword(ctx, store.SideTarget); err != nil {
			return creds, err
		}
	} else if !errors.Is(err, store.ErrNoPassword) {
		return creds, err
	}
	if p := j.sourceCreds.Password; !p.IsZero() && p.Reveal() != own.Reveal() {
		creds.Password = p
		if j.dest, err = j.openTarget(ctx, p); !isPasswordHalt(err) {
			return creds, err
		}
	}
	if j.domain.Target.Master == nil {
		return creds, errNotLetIn
	}
	creds = upstream.Credentials{Identity: j.id, Master: j.domain.Target.Master}
	if j.dest, err = j.loginAs(ctx, j.domain.Target.IMAP, creds); err != nil {
		return creds, accessTrouble(err, errorTarget, "target")
	}
	return creds, nil
}

// errNotLetIn: only a login of the owner's helps, who lives on the target.
var errNotLetIn = &halt{state: store.Waiting, reason: errorPassword,
	err: errors.New("the target does not take the password kept, and this account was there before: waiting for the user's next login, or name a master user (domains[].target.master)")}

// openTarget logs in on the target. Where migproxy created the account, an
// older password there is replaced first.
func (j *job) openTarget(ctx context.Context, password config.Secret) (*imapwire.Conn, error) {
	if j.domain.Target.IMAP == nil {
		return nil, errNoIMAP("target")
	}
	c, err := j.login(ctx, j.domain.Target.IMAP, password)
	if err == nil {
		return c, nil
	}
	if outcome(err) != upstream.Miss {
		return nil, targetTrouble(err)
	}
	if j.claim.Account.Origin != store.OriginCreated {
		return nil, errNotLetIn
	}
	if j.driver == nil {
		return nil, errNoDriver(j.id.Domain)
	}
	j.m.step(stepPasswordBefore)
	if err := j.driver.SetPassword(ctx, j.id, password); err != nil {
		return nil, again(errorProvision, fmt.Errorf("the newest password could not be set on the target: %w", err))
	}
	j.m.step(stepPasswordAfter)
	if c, err = j.login(ctx, j.domain.Target.IMAP, password); err != nil {
		return nil, targetTrouble(err)
	}
	return c, nil
}

// targetTrouble is a login on the target that did not succeed.
func targetTrouble(err error) error {
	if h, ok := errors.AsType[*halt](err); ok {
		return h
	}
	if outcome(err) == upstream.Miss {
		return again(errorPassword, fmt.Errorf("the target does not take the password that was set there: look at provision and at the target's own log: %w", err))
	}
	if outcome(err) == upstream.Refused {
		return &halt{state: store.Waiting, retry: true, reason: errorTarget,
			err: fmt.Errorf("the target refuses this user: unlock the account there: %w", err)}
	}
	return again(errorTarget, fmt.Errorf("the target cannot be asked: %w", err))
}

// disconnect ends the connections. What they were in the middle of is settled
// later by looking.
func (j *job) disconnect() {
	j.conns.close()
	for _, c := range j.others {
		c.close()
	}
	j.others = nil
}

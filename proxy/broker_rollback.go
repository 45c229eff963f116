package proxy

import (
	"context"

	"migproxy/store"
	"migproxy/upstream"
)

// relayToTarget is relay, until the account is taken back to its source: then the
// connection to the target is closed, so that nothing is written there that does
// not come back.
func (l *login) relayToTarget(ctx context.Context) (*upstream.Session, error) {
	session, err := l.relay(l.target)
	if a := l.facts.account; err != nil || a == nil || !a.CanRollBack() {
		return session, err
	}
	conn := session.Conn
	w := l.b.watches.add(l.id.Address(), func(c store.Change) bool { return c.State == store.Excluded }, func() { _ = conn.Close() })
	w.markOnTarget()
	session.Conn = &watchedConn{Conn: conn, watch: w}
	// Whatever was published before the watch began is in the store.
	err = l.read(ctx)
	if a := l.facts.account; err == nil && a != nil && a.CanRollBack() && a.RollingBack != store.RollbackUnderWay {
		return session, nil
	}
	_ = session.Conn.Close()
	return nil, err
}

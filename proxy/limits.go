package proxy

import (
	"errors"
	"net/netip"
	"strings"
	"sync"

	"migproxy/config"
	"migproxy/upstream"
)

// errMissed marks an error whose outcome is not a miss although one server said
// that the credentials are wrong (the other could not be asked): for the client
// it is a temporary fault, for the limits a guess.
var errMissed = errors.New("one of the servers does not take these credentials")

// errTooManySessions says what the log needs to know about a limited login.
var errTooManySessions = errors.New("the account has as many sessions as limits.per_account allows")

// errRightPassword marks an error with which a right password was turned away.
var errRightPassword = errors.New("the password is right")

// failureCounts reports whether a login that ended in err counts as a wrong
// password. What a server could not answer never does.
func failureCounts(err error) bool {
	if errors.Is(err, errMissed) {
		return true
	}
	return upstream.OutcomeOf(err) == upstream.Miss
}

// occupancy bounds how many connections an address has open and how many
// sessions an account has. Zero limits do not bound.
type occupancy struct {
	perAddress, perAccount int
	trusted                []config.Network // exempt from perAddress

	mu          sync.Mutex
	connections map[netip.Prefix]int
	sessions    map[string]int
}

func newOccupancy(l config.Limits) *occupancy {
	return &occupancy{
		perAddress: l.PerAddress, perAccount: l.PerAccount, trusted: l.TrustedNetworks,
		connections: make(map[netip.Prefix]int), sessions: make(map[string]int),
	}
}

// connect takes a place for a connection; leave gives it back. ok is false
// where the address has no place left.
func (o *occupancy) connect(addr netip.Addr) (leave func(), ok bool) {
	if isTrusted(o.trusted, addr) {
		return func() {}, true
	}
	return take(&o.mu, o.connections, clientNetwork(addr), o.perAddress)
}

// login takes a place for a session of this account.
func (o *occupancy) login(a *Attempt) (leave func(), ok bool) {
	return take(&o.mu, o.sessions, accountKey(a), o.perAccount)
}

func take[K comparable](mu *sync.Mutex, places map[K]int, key K, limit int) (func(), bool) {
	mu.Lock()
	defer mu.Unlock()
	if limit > 0 && places[key] >= limit {
		return nil, false
	}
	places[key]++
	return func() {
		mu.Lock()
		defer mu.Unlock()
		if places[key]--; places[key] == 0 {
			delete(places, key)
		}
	}, true
}

func isTrusted(trusted []config.Network, addr netip.Addr) bool {
	for _, n := range trusted {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}

// clientNetwork is what counts as one client: an IPv4 address, or the /64 that
// an IPv6 site chooses its addresses from freely.
func clientNetwork(addr netip.Addr) netip.Prefix {
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	p, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no IP address: all such clients are one
	}
	return p
}

// accountKey names the account of an attempt; where the domain is not ours, the
// login name as typed.
func accountKey(a *Attempt) string {
	if a.Identity == (config.Identity{}) {
		return strings.ToLower(a.Login)
	}
	return a.Identity.Address()
}

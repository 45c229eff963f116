package upstream

// Outcome is what became of one attempt to authenticate. Servers give the
// first four; the others are the proxy's own answers to a client. Each
// protocol has one function that renders an Outcome.
type Outcome int

// The outcomes.
const (
	// Accepted: the server let the user in.
	Accepted Outcome = iota + 1
	// Miss: the server said that these credentials are wrong. IMAP: a NO with
	// AUTHENTICATIONFAILED or without any code (RFC 5530). POP3: -ERR after
	// PASS or AUTH with [AUTH] (RFC 3206), or without a code unless its text
	// speaks of a lock or a temporary fault. Nothing else is a miss.
	Miss
	// Refused: the server knows the user and will not have him
	// (AUTHORIZATIONFAILED, EXPIRED, CONTACTADMIN, RFC 5530).
	Refused
	// Unavailable: the server could not be asked, or gave any other answer.
	Unavailable

	// Limited: too many or too fast.
	Limited
	// Held: the account is being moved and nothing can be shown meanwhile.
	Held
	// Blocked: the administrator does not let this account in.
	Blocked
	// TLSRequired: no password is taken before TLS.
	TLSRequired
)

// Error is an outcome other than Accepted, with two texts: Error() is for the
// log, and ClientText() is safe to show to whoever is connecting. It tells
// nothing about who exists, and never repeats what a server said.
type Error struct {
	Outcome Outcome
	Server  string // host:port that was asked; empty where none was
	Err     error  // the cause, with what to do about it
}

package upstream

import (
	"errors"
	"fmt"
)

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

// String is the outcome in one word, as logs and the labels of metrics have it.
func (o Outcome) String() string {
	switch o {
	case Accepted:
		return "accepted"
	case Miss:
		return "miss"
	case Refused:
		return "refused"
	case Limited:
		return "limited"
	case Held:
		return "held"
	case Blocked:
		return "blocked"
	case TLSRequired:
		return "tls_required"
	default:
		return "unavailable"
	}
}

// ClientText is what whoever is connecting may read about the outcome. A miss
// and a refusal read the same, because the difference tells who exists.
func (o Outcome) ClientText() string {
	switch o {
	case Accepted:
		return "Logged in."
	case Miss, Refused:
		return "Authentication failed."
	case Limited:
		return "Too many logins, please try again later."
	case Held:
		return "Your mailbox is being moved, please try again later."
	case Blocked:
		return "This account is blocked, please contact your administrator."
	case TLSRequired:
		return "TLS is required before login."
	default:
		return "Temporary failure, please try again later."
	}
}

// Error is an outcome other than Accepted, with two texts: Error() is for the
// log, and ClientText() is safe to show to whoever is connecting. It tells
// nothing about who exists, and never repeats what a server said.
type Error struct {
	Outcome Outcome
	Server  string // host:port that was asked; empty where none was
	Err     error  // the cause, with what to do about it
}

// Error is the text for the log: the server, the outcome and the cause.
func (e *Error) Error() string {
	text := e.Outcome.String()
	if e.Server != "" {
		text = e.Server + ": " + text
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClientText is the outcome's text for whoever is connecting.
func (e *Error) ClientText() string { return e.Outcome.ClientText() }

// OutcomeOf returns the outcome that an error stands for. nil is Accepted. An
// error that is not an *Error, or names no outcome, says nothing about a
// password: Unavailable.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return Accepted
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Outcome != 0 {
		return e.Outcome
	}
	return Unavailable
}

// fail makes an Error whose server is filled in by Login.
func fail(o Outcome, format string, args ...any) error {
	return &Error{Outcome: o, Err: fmt.Errorf(format, args...)}
}

package store

import (
	"time"

	"migproxy/config"
)

// State is where an account stands.
type State string

// The states. docs/design.md draws the ways between them.
const (
	Provisioning State = "provisioning" // committed with its sealed password; the account is being created
	Copying      State = "copying"      // the account is there; its mail is being copied
	Active       State = "active"       // lives on the target
	Finished     State = "finished"     // lives on the target, its source is never asked again
	Native       State = "native"       // was on the target before migproxy
	AtSource     State = "at_source"    // known to the source, not to move yet
	Conflict     State = "conflict"     // the target has this name and migproxy did not make it
	Waiting      State = "waiting"      // for room, or for the administrator; Reason says for what
	Failed       State = "failed"       // Reason says why
	Excluded     State = "excluded"     // the administrator keeps it at the source
)

// States lists all of them, in the order in which they are shown.
func States() []State {
	return []State{Provisioning, Copying, Active, Finished, Native, AtSource, Conflict, Waiting, Failed, Excluded}
}

// Origin says how the account came to be on the target, as far as it has been
// committed.
type Origin string

// The origins.
const (
	OriginUnknown Origin = ""        // nothing was asked yet
	OriginFree    Origin = "free"    // the target said that the name is free; creating it may have begun
	OriginCreated Origin = "created" // migproxy created it
	OriginAdopted Origin = "adopted" // it was there; its password is never set
)

// Account is one mailbox owner.
type Account struct {
	ID       int64
	Identity config.Identity // Login is the name first typed
	State    State
	Origin   Origin
	Mode     config.Mode
	// Reason is why the account waits, failed, is in conflict or was put off, and what to do.
	Reason string

	Messages int64 // copied or recognised on the target, each once whatever became of it since
	Bytes    int64 // octets copied
	Expected int64 // messages that the source had when last counted
	SetAside int64 // messages in quarantine
	Attempts int   // tries since the last progress

	// PasswordVersion counts the passwords sealed for this account; 0 is none.
	// It goes on counting after one is erased.
	PasswordVersion int64
	HasPassword     bool
	PasswordUsedAt  time.Time // to the hour; zero without a password
	// NeedsPassword: no kept password opens one of the servers any more, so that
	// an active account cannot be caught up until its owner logs in.
	NeedsPassword bool
	// Finishing says that the next pass of an active account is its last one.
	Finishing Finishing
	// Flipping says how far the flip of an account that is parked at its source
	// has come. It is set while a worker has the account.
	Flipping Flipping

	Due       time.Time // when a worker is to look at it; zero: never
	CreatedAt time.Time
	UpdatedAt time.Time
	// ProgressAt is when a worker last settled something; at first, when the
	// account began. An account that was at_source for long is not stale when it
	// begins.
	ProgressAt time.Time
	// FlippedAt is when the account began to live on the target; zero before, and
	// once it was taken back.
	FlippedAt time.Time
	// CaughtUpAt is when the source was last found to have nothing new for an
	// active account; zero before.
	CaughtUpAt time.Time
	// RollingBack says how far the taking back of an account that lives on the
	// target has come.
	RollingBack RollingBack
	// RolledBackAt is when the account was taken back from the target to its
	// source; zero if it never was, or has begun to move anew: then its ledger
	// says again what is on the target.
	RolledBackAt time.Time
}

// RollingBack says how far the taking back of an account that lives on the target
// has come.
type RollingBack string

// The values of RollingBack.
const (
	NotRollingBack RollingBack = ""
	// RollbackWanted: the administrator has asked for it. The account lives on the
	// target until a worker begins.
	RollbackWanted RollingBack = "wanted"
	// RollbackUnderWay: a worker copies what is new on the target to the source, and
	// logins wait.
	RollbackUnderWay RollingBack = "under_way"
)

// Flipping says how far the flip of an account that is parked at its source has
// come.
type Flipping string

// The values of Flipping.
const (
	NotFlipping Flipping = ""
	// FlipClosing: the sessions on the source are to be closed at a quiet moment.
	// Logins still go there.
	FlipClosing Flipping = "closing"
	// FlipHeld: there is no session on the source, and logins wait for the end of
	// the last pass.
	FlipHeld Flipping = "held"
)

// Finishing says whether an active account is in its last pass.
type Finishing string

// The values of Finishing.
const (
	NotFinishing Finishing = ""
	// FinishWhole: the account is finished if nothing of it is set aside.
	FinishWhole Finishing = "whole"
	// FinishWithout: what is set aside does not keep it from being finished; the
	// administrator said so.
	FinishWithout Finishing = "without"
)

// Side is one of the two servers of an account.
type Side string

// The values of Side.
const (
	SideSource Side = "source"
	SideTarget Side = "target"
)

// Moved reports whether the account lives on the target.
func (a Account) Moved() bool {
	return a.State == Active || a.State == Finished || a.State == Native
}

// CopiesIntoOwn reports whether the account was on the target before, and its old
// mail is still to be copied to it.
func (a Account) CopiesIntoOwn() bool {
	if a.Origin != OriginAdopted || !a.FlippedAt.IsZero() {
		return false
	}
	switch a.State {
	case Provisioning, Copying, Waiting, Failed:
		return true
	}
	return false
}

// Change is published when an account was written, or when a domain is finished.
type Change struct {
	AccountID int64
	Address   string
	State     State
	Origin    Origin
	Flipping  Flipping
	// RollingBack is that of the account.
	RollingBack RollingBack
	// Finished is the domain that is finished; then the other fields are zero.
	Finished string
}

// Package admin is how the administrator reaches the running server: a JSON
// API over HTTP on a Unix socket, which the command line speaks, and metrics
// and health on a TCP address. The API has no password: whoever may open the
// socket (mode 0600) may use it. The TCP address names no user and changes
// nothing.
package admin

import (
	"encoding/hex"
	"net/http"
	"time"

	"migproxy/config"
	"migproxy/store"
)

// Status is the answer to GET /v1/status: the statistics over all domains, and
// where each domain's migration stands.
type Status struct {
	Version string `json:"version"`
	// MigrationActive is true while any domain's migration is.
	MigrationActive bool `json:"migration_active"`
	store.Statistics
	Passwords PasswordStatus `json:"passwords"`
	Domains   []DomainStatus `json:"domains"`
}

// PasswordStatus says which sealed passwords will soon be erased because
// nobody used them. Their accounts then wait for their users' next login.
type PasswordStatus struct {
	// Expiring counts those that are erased before ExpiringUntil, unless they
	// are used; FirstExpires is when the first of them is.
	Expiring      int64     `json:"expiring"`
	ExpiringUntil time.Time `json:"expiring_until"`
	FirstExpires  time.Time `json:"first_expires,omitzero"`
}

// DomainStatus says whether new accounts may begin in a domain.
type DomainStatus struct {
	Name string `json:"name"`
	// Active is the state in force.
	Active bool `json:"active"`
	// Setting is migration.active of the settings, which counted at the first
	// start alone.
	Setting bool `json:"setting"`
	// StoppedBecause is why it stopped by itself; empty where it did not.
	StoppedBecause string     `json:"stopped_because"`
	Wave           WaveStatus `json:"wave"`
	// Completing: the last passes over its accounts are going on.
	Completing bool `json:"completing"`
	// Finished: its source is never asked again.
	Finished bool `json:"finished"`
	WatchStatus
}

// Account is one account as the administrator sees it. Times that have not
// come are left out.
type Account struct {
	Address  string       `json:"address"`
	State    store.State  `json:"state"`
	Origin   store.Origin `json:"origin"`
	Mode     config.Mode  `json:"mode"`
	Messages int64        `json:"messages"` // on the target
	Expected int64        `json:"expected"` // on the source when last counted
	Bytes    int64        `json:"bytes"`
	SetAside int64        `json:"set_aside"`
	Attempts int          `json:"attempts"`
	// Flipping says how far the flip is of an account that works on its source until
	// then: closing, its sessions there are to be closed; held, logins wait.
	Flipping store.Flipping `json:"flipping,omitempty"`
	// Error is why the account waits, failed, is in conflict or was put off, and what to do.
	Error       string `json:"error"`
	HasPassword bool   `json:"has_password"`
	// PasswordExpires is when the password is erased unless it is used before.
	PasswordExpires time.Time `json:"password_expires,omitzero"`
	Due             time.Time `json:"due,omitzero"`
	CreatedAt       time.Time `json:"created_at,omitzero"`
	UpdatedAt       time.Time `json:"updated_at,omitzero"`
	ProgressAt      time.Time `json:"progress_at,omitzero"`
	FlippedAt       time.Time `json:"flipped_at,omitzero"`
	// CaughtUpAt is when the source last had nothing new for an active account.
	CaughtUpAt time.Time `json:"caught_up_at,omitzero"`
	// NeedsPassword: no kept password opens one of the servers any more.
	NeedsPassword bool `json:"needs_password"`
	// Finishing: the last pass over an active account is going on.
	Finishing bool `json:"finishing"`
	// RollingBack: the account is being taken back to its source, or waits for a
	// worker that does so.
	RollingBack bool `json:"rolling_back"`
	// RolledBackAt is when it was, if it has not begun to move anew.
	RolledBackAt time.Time `json:"rolled_back_at,omitzero"`
}

func (s *Server) viewAccount(a store.Account) Account {
	v := Account{
		Address: a.Identity.Address(), State: a.State, Origin: a.Origin, Mode: a.Mode,
		Messages: a.Messages, Expected: a.Expected, Bytes: a.Bytes, SetAside: a.SetAside,
		Attempts: a.Attempts, Flipping: a.Flipping, Error: a.Reason, HasPassword: a.HasPassword, Due: a.Due,
		CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt, ProgressAt: a.ProgressAt, FlippedAt: a.FlippedAt,
		CaughtUpAt: a.CaughtUpAt, NeedsPassword: a.NeedsPassword, Finishing: a.Finishing != store.NotFinishing,
		RollingBack: a.RollingBack != store.NotRollingBack, RolledBackAt: a.RolledBackAt,
	}
	if a.HasPassword {
		v.PasswordExpires = a.PasswordUsedAt.Add(s.Config.State.CredentialsMaxAge.Std())
	}
	return v
}

// AccountDetail is an account with everything that was kept about its copy.
type AccountDetail struct {
	Account
	// LoginAliases are the further names under which its owner logs in.
	LoginAliases []LoginAlias `json:"login_aliases"`
	// Aliases are its further addresses, those that it may not have as well.
	Aliases []Alias `json:"aliases"`
	// Folders are those of the copy, in its order.
	Folders []Folder `json:"folders"`
	// SetAsideMessages are the messages that the target refused.
	SetAsideMessages []SetAside `json:"set_aside_messages"`
	// AlteredTotal counts the messages that the target took but changed;
	// Altered lists the first of them.
	AlteredTotal int64     `json:"altered_total"`
	Altered      []Altered `json:"altered"`
	// Events are the last ones, oldest first.
	Events []Event `json:"events"`
}

// LoginAlias is a further name under which an account's owner logs in.
type LoginAlias struct {
	Name   string            `json:"name"`
	Origin store.AliasOrigin `json:"origin"` // found, given
	At     time.Time         `json:"at,omitzero"`
}

func viewLoginAlias(l store.LoginAlias) LoginAlias {
	return LoginAlias{Name: l.Name, Origin: l.Origin, At: l.CreatedAt}
}

// Folder is a folder of the source and what it becomes on the target. Names
// are as on the wire, in each server's own spelling.
type Folder struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	Messages int64  `json:"messages"` // on the target
	SetAside int64  `json:"set_aside"`
	Altered  int64  `json:"altered"`
}

func viewFolder(f store.FolderCounts) Folder {
	return Folder{Source: f.Source, Target: f.Target, Messages: f.Messages, SetAside: f.SetAside, Altered: f.Altered}
}

// SetAside is a message that the target refused; migproxy has its octets.
type SetAside struct {
	ID     int64     `json:"id"`
	Folder string    `json:"folder"` // the source's, as on the wire
	UID    uint32    `json:"uid"`    // the source's
	Octets int64     `json:"octets"`
	Flags  []string  `json:"flags"`
	Date   time.Time `json:"date,omitzero"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

func viewSetAside(m store.SetAside) SetAside {
	return SetAside{ID: m.ID, Folder: m.FolderName, UID: m.SourceUID, Octets: m.Octets,
		Flags: m.Flags, Date: m.Date, Reason: m.Reason, At: m.At}
}

// Altered is a message that the target took but changed. The digests are of
// the octets as fetched from each server, in hexadecimal.
type Altered struct {
	Folder       string `json:"folder"` // the source's, as on the wire
	SourceUID    uint32 `json:"source_uid"`
	TargetUID    uint32 `json:"target_uid"`
	SourceSHA256 string `json:"source_sha256"`
	TargetSHA256 string `json:"target_sha256"`
	SourceOctets int64  `json:"source_octets"`
	TargetOctets int64  `json:"target_octets"`
}

func viewAltered(m store.Altered) Altered {
	return Altered{Folder: m.FolderName, SourceUID: m.SourceUID, TargetUID: m.TargetUID,
		SourceSHA256: hex.EncodeToString(m.SourceSHA256[:]), TargetSHA256: hex.EncodeToString(m.TargetSHA256[:]),
		SourceOctets: m.SourceOctets, TargetOctets: m.TargetOctets}
}

// Event is one line of the migration's log.
type Event struct {
	ID      int64     `json:"id"`
	At      time.Time `json:"at"`
	Address string    `json:"address,omitempty"`
	Text    string    `json:"text"`
}

func viewEvent(e store.Event) Event {
	return Event{ID: e.ID, At: e.At, Address: e.Address, Text: e.Text}
}

// Error is what the API answers where it cannot do what was asked.
type Error struct {
	// Status is the HTTP status: 400 for a request that makes no sense, 404
	// where there is no such account or domain, 409 where the account's state
	// forbids it, 500 for a failure of the server.
	Status int `json:"-"`
	// Text says what to do.
	Text string `json:"error"`
}

func (e *Error) Error() string { return e.Text }

func badRequest(text string) *Error { return &Error{http.StatusBadRequest, text} }
func notFound(text string) *Error   { return &Error{http.StatusNotFound, text} }
func conflict(text string) *Error   { return &Error{http.StatusConflict, text} }

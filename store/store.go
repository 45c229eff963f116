// Package store keeps accounts, their work, sealed passwords, the ledger of
// what was copied, events and statistics. The account's row is the one truth:
// there is no queue beside it.
//
// SQL is written so that SQLite and PostgreSQL both take it.
package store

import (
	"context"
	"errors"
	"io"
	"time"

	"go.uber.org/zap"

	"migproxy/config"
)

// Errors that callers tell apart.
var (
	// ErrNotFound: there is no such account.
	ErrNotFound = errors.New("no such account")
	// ErrFenced: the claim was lost to another worker; stop and write nothing.
	ErrFenced = errors.New("the claim on this account was lost")
	// ErrChanged: the account is no longer in a state from which this may be done.
	ErrChanged = errors.New("the account has changed meanwhile")
	// ErrNoPassword: there is no sealed password, or it was erased.
	ErrNoPassword = errors.New("no password is kept for this account")
)

// Store is safe for concurrent use.
type Store struct {
	// helper
}

// Open opens (and where needed creates and upgrades) the database of the
// settings and reads or makes the key file (32 random bytes, mode 0600;
// refused when others may read it).
func Open(ctx context.Context, cfg config.State, log *zap.Logger) (*Store, error) {
	return nil, errors.ErrUnsupported
}

// Close ends all subscriptions and closes the database.
func (s *Store) Close() error { return errors.ErrUnsupported }

// ---- accounts, as the broker uses them

// Account returns the account with this canonical address, or ErrNotFound.
func (s *Store) Account(ctx context.Context, address string) (Account, error) {
	return Account{}, errors.ErrUnsupported
}

// Accounts lists the accounts, ordered by address; state "" is all.
func (s *Store) Accounts(ctx context.Context, state State) ([]Account, error) {
	return nil, errors.ErrUnsupported
}

// NewAccount is what Begin writes.
type NewAccount struct {
	Identity config.Identity
	Password config.Secret
	Mode     config.Mode
	Adopt    bool // the target lets this user in already: copy into what is there
}

// Begin commits an account as provisioning, with its sealed password and due
// at once, if it has no row or is at_source; the account's row and the sealed
// password are one transaction. Where another login was first, it writes
// nothing and returns that account with begun false.
func (s *Store) Begin(ctx context.Context, n NewAccount) (a Account, begun bool, err error) {
	return Account{}, false, errors.ErrUnsupported
}

// Note writes native or at_source for an account that has no row, or whose
// state is one of from; otherwise it returns the account as it is and ErrChanged.
func (s *Store) Note(ctx context.Context, id config.Identity, to State, from ...State) (Account, error) {
	return Account{}, errors.ErrUnsupported
}

// SealPassword keeps the newest password of an account that has not flipped,
// counts PasswordVersion up unless it is the one kept already, and makes the
// account due. After the flip it returns ErrChanged.
func (s *Store) SealPassword(ctx context.Context, id int64, password config.Secret) (version int64, err error) {
	return 0, errors.ErrUnsupported
}

// Password opens the sealed password of an account, or returns ErrNoPassword.
func (s *Store) Password(ctx context.Context, id int64) (password config.Secret, version int64, err error) {
	return config.Secret{}, 0, errors.ErrUnsupported
}

// EraseUnused erases, with their keys, the passwords last used before a time,
// and says how many there were.
func (s *Store) EraseUnused(ctx context.Context, before time.Time) (int, error) {
	return 0, errors.ErrUnsupported
}

// Retry makes a waiting, failed or conflicting account due at once, back in
// the state in which its work stopped. Others return ErrChanged.
func (s *Store) Retry(ctx context.Context, address string) (Account, error) {
	return Account{}, errors.ErrUnsupported
}

// Exclude keeps an account that has not flipped at the source; an unknown one
// gets a row. A claim on it is fenced off. After the flip: ErrChanged.
func (s *Store) Exclude(ctx context.Context, id config.Identity) (Account, error) {
	return Account{}, errors.ErrUnsupported
}

// ---- the migration as a whole

// Active reports whether new accounts may begin in a domain.
func (s *Store) Active(ctx context.Context, domain string) (bool, error) {
	return false, errors.ErrUnsupported
}

// SeedActive records the settings' value at the first start; later it changes
// nothing. It returns the value in force.
func (s *Store) SeedActive(ctx context.Context, domain string, active bool) (bool, error) {
	return false, errors.ErrUnsupported
}

// SetActive starts or stops the migration of a domain.
func (s *Store) SetActive(ctx context.Context, domain string, active bool) error {
	return errors.ErrUnsupported
}

// Statistics are the figures of `migproxy status`, over all domains.
type Statistics struct {
	StartedAt             time.Time       `json:"started_at"` // when the first account began; zero before
	MailboxesSeen         int64           `json:"mailboxes_seen"`
	MailboxesMigrated     int64           `json:"mailboxes_migrated"`
	MailboxesFailed       int64           `json:"mailboxes_failed"`
	MessagesMigrated      int64           `json:"messages_migrated"`
	BytesMigrated         int64           `json:"bytes_migrated"`
	LastMailbox           string          `json:"last_mailbox"`
	LastMailboxMigratedAt time.Time       `json:"last_mailbox_migrated_at"`
	Errors                int64           `json:"errors"`
	Accounts              map[State]int64 `json:"accounts"`
}

// Statistics counts.
func (s *Store) Statistics(ctx context.Context) (Statistics, error) {
	return Statistics{}, errors.ErrUnsupported
}

// ---- events

// Event appends a line to the migration's log; address may be empty.
func (s *Store) Event(ctx context.Context, address, text string) error { return errors.ErrUnsupported }

// Events lists events with an ID above after, oldest first, at most limit;
// address "" is all. limit 0 is no limit. A negative after gives the last
// -after events.
func (s *Store) Events(ctx context.Context, address string, after int64, limit int) ([]Event, error) {
	return nil, errors.ErrUnsupported
}

// Subscribe publishes what becomes of accounts, and, when events is true, a
// Change with AccountID 0 for each new event. A slow subscriber never blocks a
// writer: of several changes of one account it gets at least the last. cancel
// closes the channel.
func (s *Store) Subscribe(events bool) (changes <-chan Change, cancel func()) { return nil, nil }

// ---- work, as the migrator uses it

// Claim is a worker's hold on one account. Every write through it checks the
// fencing number and returns ErrFenced when it was lost.
type Claim struct {
	Account Account // as it was when claimed; refreshed by the methods that write it
	// helper: store, owner, fence
}

// TakeBack frees what a predecessor of this process held.
func (s *Store) TakeBack(ctx context.Context, owner string) error { return errors.ErrUnsupported }

// ClaimNext claims the account that has been due for longest; nil when none is.
func (s *Store) ClaimNext(ctx context.Context, owner string, lease time.Duration) (*Claim, error) {
	return nil, errors.ErrUnsupported
}

// NextDue is when the next unclaimed account is due; zero when none is.
func (s *Store) NextDue(ctx context.Context) (time.Time, error) {
	return time.Time{}, errors.ErrUnsupported
}

// Renew prolongs the lease.
func (c *Claim) Renew(ctx context.Context, lease time.Duration) error { return errors.ErrUnsupported }

// Refresh reads the account again.
func (c *Claim) Refresh(ctx context.Context) error { return errors.ErrUnsupported }

// SetOrigin commits how the account comes to be on the target; with
// OriginCreated and OriginAdopted the state becomes copying.
func (c *Claim) SetOrigin(ctx context.Context, o Origin) error { return errors.ErrUnsupported }

// SetExpected commits how many messages the source has.
func (c *Claim) SetExpected(ctx context.Context, n int64) error { return errors.ErrUnsupported }

// Release ends the claim and says when to look again: state (waiting, failed,
// conflict, or unchanged), the reason, and due (zero: never by itself).
// Attempts count up when failed is true, and start again from zero otherwise.
func (c *Claim) Release(ctx context.Context, to State, reason string, due time.Time, failed bool) error {
	return errors.ErrUnsupported
}

// Flip makes the account active (or, in mode passwords, finished) and ends the
// claim, but only while PasswordVersion is still passwordVersion: otherwise
// ErrChanged, and the newer password is to be set and tried first.
func (c *Claim) Flip(ctx context.Context, to State, passwordVersion int64) error {
	return errors.ErrUnsupported
}

// Folders lists the account's folders in the order in which they were put.
func (c *Claim) Folders(ctx context.Context) ([]Folder, error) { return nil, errors.ErrUnsupported }

// PutFolder adds a folder to the mapping (ID 0; it is set) or writes its
// UIDVALIDITYs, subscription and Matched.
func (c *Claim) PutFolder(ctx context.Context, f *Folder) error { return errors.ErrUnsupported }

// Ledger lists a folder's runs of its present SourceUIDValidity, by SourceFirst.
func (c *Claim) Ledger(ctx context.Context, folderID int64) ([]Run, error) {
	return nil, errors.ErrUnsupported
}

// OpenIntent commits an intent and sets its ID.
func (c *Claim) OpenIntent(ctx context.Context, i *Intent) error { return errors.ErrUnsupported }

// Intents lists the account's intents that were not settled, oldest first.
func (c *Claim) Intents(ctx context.Context) ([]Intent, error) { return nil, errors.ErrUnsupported }

// Settle ends an intent (nil where there was none, for messages recognised on
// the target) with the messages of it that are on the target, in source order:
// one transaction with the ledger, the account's counts and ProgressAt.
func (c *Claim) Settle(ctx context.Context, folderID int64, i *Intent, done []Message) error {
	return errors.ErrUnsupported
}

// NoteAltered records messages that the target changed.
func (c *Claim) NoteAltered(ctx context.Context, a ...Altered) error { return errors.ErrUnsupported }

// PutAside keeps a message that the target refused, reading its octets to the
// end without holding them in memory, and sets ID.
func (c *Claim) PutAside(ctx context.Context, m *SetAside, octets io.Reader) error {
	return errors.ErrUnsupported
}

// SetAsideUIDs lists the source UIDs of a folder that are in quarantine.
func (c *Claim) SetAsideUIDs(ctx context.Context, folderID int64) ([]uint32, error) {
	return nil, errors.ErrUnsupported
}

// SetAside lists the messages in quarantine of an account.
func (s *Store) SetAside(ctx context.Context, accountID int64) ([]SetAside, error) {
	return nil, errors.ErrUnsupported
}

// SetAsideOctets writes the octets of a message in quarantine.
func (s *Store) SetAsideOctets(ctx context.Context, id int64, w io.Writer) error {
	return errors.ErrUnsupported
}

// AlteredMessages lists what the target changed, of an account.
func (s *Store) AlteredMessages(ctx context.Context, accountID int64) ([]Altered, error) {
	return nil, errors.ErrUnsupported
}

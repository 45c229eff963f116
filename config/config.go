// Package config holds the settings of migproxy: their structure, how they are
// read (YAML, then MIGPROXY_ environment variables) and what is refused.
//
// It imports no other room of the project.
package config

import "strings"

//go:generate go run ./internal/docgen ../docs/configuration.md

// Config is the whole configuration file.
//
// docs/configuration.md is generated from the doc, default and example tags of
// this structure and of those below it. The default tags are also where Load
// takes the defaults from.
type Config struct {
	Hostname      string     `koanf:"hostname" doc:"Name that this server calls itself in greetings. Default: the host's own name." example:"mail.example.com"`
	DefaultDomain string     `koanf:"default_domain" doc:"Domain of login names without one, where neither the TLS server name nor the listener gives it. Must be one of the domains below. Without it such logins fail." example:"example.com"`
	State         State      `koanf:"state" doc:"Where accounts, work and the ledger are kept."`
	TLS           TLS        `koanf:"tls" doc:"What the listeners offer to clients."`
	Listeners     []Listener `koanf:"listeners" doc:"The addresses on which clients are served. At least one."`
	Admin         Admin      `koanf:"admin" doc:"Where metrics, health and the command line reach the running server."`
	Limits        Limits     `koanf:"limits" doc:"What one client may take."`
	Shutdown      Shutdown   `koanf:"shutdown" doc:"How the server ends."`
	Domains       []Domain   `koanf:"domains" doc:"The mail domains and the two servers that each moves between. At least one."`
	Migration     Migration  `koanf:"migration" doc:"How the copy works."`
	Log           Log        `koanf:"log" doc:"What is written where."`
}

// State says where accounts, work and the ledger are kept.
type State struct {
	URL               string   `koanf:"url" doc:"The database: sqlite:// and an absolute path. It is made at the first start. Required." example:"sqlite:///var/lib/migproxy/migproxy.db"`
	KeyFile           string   `koanf:"key_file" doc:"The key that seals passwords: 32 random bytes, mode 0600, made at the first start. Back it up apart from the database. Required." example:"/var/lib/migproxy/key"`
	CredentialsMaxAge Duration `koanf:"credentials_max_age" default:"90d" doc:"A sealed password is erased when its account is finished, or this long after its last use."`
}

// TLS is what the listeners offer to clients.
type TLS struct {
	Certificates        []Certificate  `koanf:"certificates" doc:"The certificates, chosen by the TLS server name; the first is for clients that ask for none. Needed by listeners with tls: starttls or implicit. ECDSA keys take less work than RSA."`
	MinVersion          TLSVersion     `koanf:"min_version" default:"1.2" doc:"Least TLS version that clients may use."`
	AllowPlaintextLogin PlaintextLogin `koanf:"allow_plaintext_login" default:"false" doc:"Who may log in without TLS: nobody, everybody, or clients on this machine."`
}

// Certificate names a PEM certificate chain and its private key.
type Certificate struct {
	Cert string `koanf:"cert" doc:"PEM file with the certificate and its chain. Required." example:"/etc/migproxy/tls.crt"`
	Key  string `koanf:"key" doc:"PEM file with the private key. Required." example:"/etc/migproxy/tls.key"`
}

// TLSVersion is the least TLS version offered, "1.2" or "1.3".
type TLSVersion string

// PlaintextLogin says who may log in without TLS.
type PlaintextLogin string

// The values of PlaintextLogin.
const (
	PlaintextNever    PlaintextLogin = "false"
	PlaintextAlways   PlaintextLogin = "true"
	PlaintextLoopback PlaintextLogin = "loopback"
)

// Protocol is a protocol that clients log in with.
type Protocol string

// The values of Protocol.
const (
	IMAP Protocol = "imap"
	POP3 Protocol = "pop3"
)

// TLSMode says how a connection comes to TLS. Listeners know none, starttls
// and implicit; connections to servers know detect as well: try STARTTLS, go
// on without it where it is not offered.
type TLSMode string

// The values of TLSMode.
const (
	TLSNone     TLSMode = "none"
	TLSStartTLS TLSMode = "starttls"
	TLSImplicit TLSMode = "implicit"
	TLSDetect   TLSMode = "detect"
)

// Listener is one address on which clients are served.
type Listener struct {
	Protocol Protocol `koanf:"protocol" doc:"What is spoken here. Required." example:"imap"`
	Address  Address  `koanf:"address" doc:"Where to listen; without a host on every address, port 0 for any free port. Required." example:":143"`
	TLS      TLSMode  `koanf:"tls" default:"starttls" doc:"starttls (STLS for POP3), implicit from the first byte, or none. detect is for servers only."`
	Domain   string   `koanf:"domain" doc:"Domain of login names without one, on this address. Must be one of the domains below."`
}

// Admin is where metrics and the command line reach the running server.
type Admin struct {
	Address Address `koanf:"address" default:"127.0.0.1:8025" doc:"HTTP: /metrics, /healthz and /readyz. Anybody who reaches it may read them."`
	Socket  string  `koanf:"socket" default:"/run/migproxy/admin.sock" doc:"Unix socket of the command line, mode 0600. At most 107 bytes."`
}

// Limits bound what one client may take.
type Limits struct {
	LoginTimeout    Duration  `koanf:"login_timeout" default:"60s" doc:"How long a client may take to log in."`
	IdleTimeout     Duration  `koanf:"idle_timeout" default:"35m" doc:"How long a session may be silent in both directions. RFC 9051 asks for at least 30 minutes."`
	PerAddress      int       `koanf:"per_address" default:"100" doc:"Connections at a time from one client address."`
	PerAccount      int       `koanf:"per_account" default:"50" doc:"Sessions at a time of one account."`
	TrustedNetworks []Network `koanf:"trusted_networks" default:"127.0.0.0/8, ::1" doc:"Networks whose clients are not limited and slowed down by address."`
}

// Shutdown says how long sessions may go on after SIGTERM.
type Shutdown struct {
	Grace Duration `koanf:"grace" default:"30s" doc:"How long sessions may go on after SIGTERM; 0s ends them at once."`
}

// Domain is one mail domain and the two servers it moves between.
type Domain struct {
	Name       string     `koanf:"name" doc:"The domain. Required." example:"example.com"`
	Source     Source     `koanf:"source" doc:"The old server. A protocol without a section is not served by it."`
	Target     Target     `koanf:"target" doc:"The new server. A protocol without a section is not served by it. IMAP is needed in mode accounts."`
	Mode       Mode       `koanf:"mode" default:"accounts" doc:"What the login of an account that only the source knows begins: accounts creates it on the target and copies its mail; passwords sets the password on the target and copies nothing."`
	Adopt      bool       `koanf:"adopt" default:"false" doc:"Copy mail into accounts that the target has already, if both servers take the same password. Otherwise such accounts are left alone. Default with the driver none: true."`
	AccessMode AccessMode `koanf:"access_mode" default:"username" doc:"How an account's addresses are found: username takes the login name as the address; standard finds one more, that which its user writes from most; extended finds every address that its mail was delivered to. docs/aliases.md says how."`
	Extended   Extended   `koanf:"extended" doc:"extended: headers that are no evidence, for sources that write them wrongly."`
	Aliases    Aliases    `koanf:"aliases" doc:"standard and extended: what is done with addresses that are found."`
	Parking    Parking    `koanf:"parking" doc:"What a user gets while his mail is copied."`
	Wave       Wave       `koanf:"wave" doc:"Which accounts may migrate now; the others stay at the source. Counts at the first start only; afterwards the command wave says so. Patterns are matched against the whole address, whatever its case; * stands for any run of characters."`
}

// Mode says what a login of an account that has not moved begins.
type Mode string

// The values of Mode.
const (
	ModeAccounts  Mode = "accounts"  // create the account and copy its mail
	ModePasswords Mode = "passwords" // set the password on the target, copy nothing
)

// AccessMode says how an account's addresses are found.
type AccessMode string

// The values of AccessMode.
const (
	AccessStandard AccessMode = "standard" // and the address that its user writes from
	AccessUsername AccessMode = "username" // the login name is the address
	AccessExtended AccessMode = "extended" // and every address that its mail was delivered to
)

// Extended are the sub-modes of AccessExtended.
type Extended struct {
	IgnoreXEnvelopeTo bool `koanf:"ignore_x_envelope_to" default:"false" doc:"Leave out X-Envelope-To."`
	IgnoreReceived    bool `koanf:"ignore_received" default:"false" doc:"Leave out the for clause of Received."`
}

// Aliases says what is done with addresses that are found.
type Aliases struct {
	Minimum      int    `koanf:"minimum" default:"3" doc:"How many messages must show an address."`
	Approval     bool   `koanf:"approval" doc:"Whether an address is proposed only, for the administrator to decide (migproxy aliases). Without an accounts file it always is. Default: true without an accounts file, false with one."`
	AccountsFile string `koanf:"accounts_file" doc:"A file with all accounts of the source, one a line, by their addresses; further addresses that are known may follow. What is another account's there is never claimed. It is read at the start." example:"/etc/migproxy/accounts"`
}

// Source is the old server of a domain. A protocol that is nil is not served
// by it.
type Source struct {
	Protocols    []Protocol `koanf:"protocols" doc:"What the copy reads from: [imap], [pop3] (INBOX alone, for servers without IMAP), or [imap, pop3] (the mail by IMAP, and beside it how POP3 numbers it). Default: imap if it is there, else pop3." example:"[imap]"`
	IMAP         *Server    `koanf:"imap" doc:"How to reach it over IMAP."`
	POP3         *Server    `koanf:"pop3" doc:"How to reach it over POP3."`
	POP3ExpireOK bool       `koanf:"pop3_expire_ok" default:"false" doc:"Read also a POP3 server that announces EXPIRE 0: that it may delete messages once they are read. migproxy never asks it to; whether it does nevertheless only its administrator knows."`
	Master       Master     `koanf:"master" doc:"A user who may log in for every other. Accounts whose own password is not known, or no longer taken, are read with it."`
}

// Target is the new server of a domain.
type Target struct {
	IMAP      *Server   `koanf:"imap" doc:"How to reach it over IMAP."`
	POP3      *Server   `koanf:"pop3" doc:"How to reach it over POP3."`
	Master    Master    `koanf:"master" doc:"A user who may log in for every other. Accounts whose own password is not known, or no longer taken, are written with it."`
	Provision Provision `koanf:"provision" doc:"How accounts are created there."`
}

// Server is how to reach one server over one protocol.
type Server struct {
	Address   Addresses `koanf:"address" doc:"host:port, or a list of them, tried in this order. Required." example:"old.example.com:993"`
	TLS       TLSMode   `koanf:"tls" default:"starttls" doc:"implicit, starttls (and nothing without it), detect (starttls where it is offered, else without) or none."`
	Username  Template  `koanf:"username" default:"{address}" doc:"The user name that this server is sent: {address}, {local}, {domain} or {login} (as the client typed it), and text around them."`
	CAFile    string    `koanf:"ca_file" doc:"PEM file with the authorities that may have signed its certificate, instead of the system's."`
	PinSHA256 string    `koanf:"pin_sha256" doc:"SHA-256 of its certificate (DER), 64 hexadecimal digits, colons allowed: this certificate is taken whoever signed it, and no other."`
}

// Master is a user who may log in for every other user of a server.
type Master struct {
	User         string      `koanf:"user" doc:"Its name, as the server knows it. Default: there is none." example:"migration"`
	PasswordFile string      `koanf:"password_file" doc:"A file with its password." example:"/etc/migproxy/master"`
	Style        MasterStyle `koanf:"style" default:"authzid" doc:"How the server is told whose mailbox is meant: authzid (the authorisation identity of SASL PLAIN) or separator (the login name user*master)."`
}

// MasterStyle says how a master user's login names the mailbox.
type MasterStyle string

// The values of MasterStyle.
const (
	MasterAuthzid   MasterStyle = "authzid"   // SASL PLAIN with an authorisation identity (RFC 4616)
	MasterSeparator MasterStyle = "separator" // the login name user*master
)

// Provision says how accounts are created on the target.
type Provision struct {
	Driver  Driver   `koanf:"driver" doc:"exec runs a command; passwd-file writes a Dovecot passwd-file; none creates nothing: mail is copied into accounts that the target has already, and who has none there stays at the source. Required." example:"exec"`
	Command []string `koanf:"command" doc:"exec: the program, by its absolute path, and its arguments." example:"[/usr/local/bin/create-account]"`
	Timeout Duration `koanf:"timeout" default:"30s" doc:"exec: how long the command may take."`
	Path    string   `koanf:"path" doc:"passwd-file: the file. It must be there, empty if need be." example:"/etc/dovecot/migrated-users"`
	Lock    string   `koanf:"lock" doc:"passwd-file: the lock that whatever else writes the file must hold as well. Default: path and .lock." example:"/etc/dovecot/migrated-users.lock"`
}

// Driver names a provision driver.
type Driver string

// The values of Driver.
const (
	DriverExec       Driver = "exec"
	DriverPasswdFile Driver = "passwd-file"
	DriverNone       Driver = "none"
)

// Parking is what a user gets while his mail is copied.
type Parking struct {
	Mode         ParkingMode `koanf:"mode" doc:"source: his old mailbox, as before; when little is left to copy, his sessions are closed at a quiet moment, and the next login is on the target. notice: a read-only mailbox with one message that says why and how far. account: a read-only mailbox with the messages of a migration account. hold: a temporary failure at each login. Default: account if one is named, else source. POP3 clients get a temporary failure in every mode but source."`
	Account      string      `koanf:"account" doc:"account: the migration account on the target, whose INBOX is shown." example:"migration@example.com"`
	PasswordFile string      `koanf:"password_file" doc:"account: a file with that account's password." example:"/etc/migproxy/parking"`
	Template     string      `koanf:"template" doc:"notice: a file with the text (Go text/template). Default: a text of our own."`
	Flip         FlipAt      `koanf:"flip" doc:"source: how little must be left to copy for the flip to begin. A pass that finds more is followed by another."`
	Max          Duration    `koanf:"max" default:"1h" doc:"How long a user stays parked while the copy makes no progress; then he gets his old mailbox on the source until it goes on. In the mode source he has it anyway."`
}

// FlipAt says how much a pass over a mailbox in use may have found for the flip to
// begin: the last pass, for which logins are held, finds about as much.
type FlipAt struct {
	Messages int `koanf:"messages" default:"200" doc:"Messages that are new, gone or moved."`
	Octets   int `koanf:"octets" default:"20000000" doc:"Octets of new messages."`
}

// ParkingMode is a way of parking.
type ParkingMode string

// The values of ParkingMode.
const (
	ParkSource  ParkingMode = "source" // his old mailbox, until the flip
	ParkNotice  ParkingMode = "notice"
	ParkAccount ParkingMode = "account"
	ParkHold    ParkingMode = "hold"
)

// Wave says which accounts may migrate now. Patterns are matched against the
// whole address; * stands for any run of characters.
type Wave struct {
	Include []string `koanf:"include" default:"*" doc:"Addresses or patterns that may migrate." example:"[\"a*@example.com\"]"`
	Exclude []string `koanf:"exclude" doc:"Addresses or patterns that may not, even if they are included." example:"[\"director@example.com\"]"`
	// MaxFailed is how many of its accounts may fail before no further one begins.
	MaxFailed int `koanf:"max_failed" default:"10" doc:"When so many accounts of the domain have failed since it was started, no further one begins, until the command start; 0 is no limit. Unlike the patterns, it counts at every start."`
}

// Migration is how the copy works.
type Migration struct {
	Active      bool     `koanf:"active" default:"true" doc:"Whether new accounts begin to migrate. Counts at the first start only; afterwards the commands start and stop say so."`
	Concurrency int      `koanf:"concurrency" default:"4" doc:"Accounts that are copied at a time."`
	CatchUp     Duration `koanf:"catch_up" default:"5m" doc:"How often accounts that have moved are looked at on the source for mail that arrived there since, until they are finished."`
	SettleQuiet Duration `koanf:"settle_quiet" default:"5s" doc:"How long a target's folder must have been still before a batch that was cut off is settled: a server may commit after the connection was lost."`
	Rate        Rate     `koanf:"rate" doc:"What may be taken from one source server, over all accounts. A source that says itself that it is asked too much is left alone for a while whatever stands here."`

	AfterAccount []string `koanf:"after_account" doc:"A program, by its absolute path, and its arguments, that is run after each account that has moved, and again when it is finished (docs/operations.md). Default: none." example:"[/usr/local/bin/after-account]"`
}

// Rate bounds what is taken from one source server, over all accounts. 0 is no
// limit.
type Rate struct {
	Messages    int `koanf:"messages" default:"0" doc:"Messages a second that are read; 0 is no limit."`
	Octets      int `koanf:"octets" default:"0" doc:"Octets of messages a second that are read; 0 is no limit."`
	Connections int `koanf:"connections" default:"0" doc:"Connections at a time of the copy; 0 is no limit. Logins of users are not counted."`
}

// Log is what is written where.
type Log struct {
	Level  string `koanf:"level" default:"info" doc:"Least severity that is written: debug, info, warn or error."`
	Format string `koanf:"format" default:"console" doc:"console (for people) or json (for programs)."`
	File   string `koanf:"file" doc:"File that is appended to. Default: standard error."`
}

// Domain returns a configured domain, whatever the case of its name; nil when
// there is none.
func (c *Config) Domain(name string) *Domain {
	name = strings.ToLower(name)
	for i := range c.Domains {
		if c.Domains[i].Name == name {
			return &c.Domains[i]
		}
	}
	return nil
}

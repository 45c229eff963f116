// Package config holds the settings of migproxy: their structure, how they are
// read (YAML, then MIGPROXY_ environment variables) and what is refused.
//
// It imports no other room of the project.
package config

import "time"

// Config is the whole configuration file.
//
// docs/configuration.md is generated from the doc, default and example tags of
// this structure and of those below it.
type Config struct {
	Hostname      string     `koanf:"hostname" doc:"Name this server calls itself in greetings. Default: the host's own name."`
	DefaultDomain string     `koanf:"default_domain" doc:"Domain of login names without one, where neither the TLS server name nor the listener gives it."`
	State         State      `koanf:"state"`
	TLS           TLS        `koanf:"tls"`
	Listeners     []Listener `koanf:"listeners"`
	Admin         Admin      `koanf:"admin"`
	Limits        Limits     `koanf:"limits"`
	Shutdown      Shutdown   `koanf:"shutdown"`
	Domains       []Domain   `koanf:"domains"`
	Migration     Migration  `koanf:"migration"`
	Log           Log        `koanf:"log"`
}

// State says where accounts, work and the ledger are kept.
type State struct {
	URL               string   `koanf:"url"`
	KeyFile           string   `koanf:"key_file"`
	CredentialsMaxAge Duration `koanf:"credentials_max_age"`
}

// TLS is what the listeners offer to clients.
type TLS struct {
	Certificates        []Certificate  `koanf:"certificates"`
	MinVersion          TLSVersion     `koanf:"min_version"`
	AllowPlaintextLogin PlaintextLogin `koanf:"allow_plaintext_login"`
}

// Certificate names a PEM certificate chain and its private key.
type Certificate struct {
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
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
	Protocol Protocol `koanf:"protocol"`
	Address  Address  `koanf:"address"`
	TLS      TLSMode  `koanf:"tls"`
	Domain   string   `koanf:"domain"`
}

// Admin is where metrics and the command line reach the running server.
type Admin struct {
	Address Address `koanf:"address"`
	Socket  string  `koanf:"socket"`
}

// Limits bound what one client may take.
type Limits struct {
	LoginTimeout    Duration  `koanf:"login_timeout"`
	IdleTimeout     Duration  `koanf:"idle_timeout"`
	PerAddress      int       `koanf:"per_address"`
	PerAccount      int       `koanf:"per_account"`
	TrustedNetworks []Network `koanf:"trusted_networks"`
}

// Shutdown says how long sessions may go on after SIGTERM.
type Shutdown struct {
	Grace Duration `koanf:"grace"`
}

// Domain is one mail domain and the two servers it moves between.
type Domain struct {
	Name       string     `koanf:"name"`
	Source     Source     `koanf:"source"`
	Target     Target     `koanf:"target"`
	Mode       Mode       `koanf:"mode"`
	Adopt      bool       `koanf:"adopt"`
	AccessMode AccessMode `koanf:"access_mode"`
	Parking    Parking    `koanf:"parking"`
	Wave       Wave       `koanf:"wave"`
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
const AccessUsername AccessMode = "username" // the login name is the address

// Source is the old server of a domain. A protocol that is nil is not served
// by it.
type Source struct {
	IMAP *Server `koanf:"imap"`
	POP3 *Server `koanf:"pop3"`
}

// Target is the new server of a domain.
type Target struct {
	IMAP      *Server   `koanf:"imap"`
	POP3      *Server   `koanf:"pop3"`
	Provision Provision `koanf:"provision"`
}

// Server is how to reach one server over one protocol.
type Server struct {
	Address   Addresses `koanf:"address"` // tried in this order
	TLS       TLSMode   `koanf:"tls"`
	Username  Template  `koanf:"username"`
	CAFile    string    `koanf:"ca_file"`
	PinSHA256 string    `koanf:"pin_sha256"`
}

// Provision says how accounts are created on the target.
type Provision struct {
	Driver  Driver   `koanf:"driver"`
	Command []string `koanf:"command"` // exec
	Timeout Duration `koanf:"timeout"` // exec
	Path    string   `koanf:"path"`    // passwd-file
	Lock    string   `koanf:"lock"`    // passwd-file
}

// Driver names a provision driver.
type Driver string

// The values of Driver.
const (
	DriverExec       Driver = "exec"
	DriverPasswdFile Driver = "passwd-file"
)

// Parking is what a user gets while his mail is copied.
type Parking struct {
	Mode         ParkingMode `koanf:"mode"`
	Account      string      `koanf:"account"`       // mode account
	PasswordFile string      `koanf:"password_file"` // mode account
	Template     string      `koanf:"template"`      // mode notice: a file; empty is the built-in text
	Max          Duration    `koanf:"max"`
}

// ParkingMode is a way of parking.
type ParkingMode string

// The values of ParkingMode.
const (
	ParkNotice  ParkingMode = "notice"
	ParkAccount ParkingMode = "account"
	ParkHold    ParkingMode = "hold"
)

// Wave says which accounts may migrate now. Patterns are matched against the
// whole address; * stands for any run of characters.
type Wave struct {
	Include []string `koanf:"include"`
	Exclude []string `koanf:"exclude"`
}

// Migration is how the copy works.
type Migration struct {
	Active      bool     `koanf:"active"`
	Concurrency int      `koanf:"concurrency"`
	SettleQuiet Duration `koanf:"settle_quiet"`
}

// Log is what is written where.
type Log struct {
	Level  string `koanf:"level"`
	Format string `koanf:"format"`
	File   string `koanf:"file"`
}

// Duration is a time.Duration that also reads days: "90d", "1d12h".
type Duration time.Duration

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

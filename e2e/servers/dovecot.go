package servers

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"
)

// DovecotOptions say what is special about one Dovecot.
type DovecotOptions struct {
	Separator string // hierarchy separator, "/" by default
	Prefix    string // of the personal namespace, such as "INBOX."
	// SentName is the folder that bears \Sent; "Sent" by default.
	SentName string
	// MailSize, such as "2m", has the mail lie on a disk of its own of this size,
	// which only this Dovecot sees and which is gone after a Stop. Needs root.
	MailSize string
	// Extra is added to the end of the configuration.
	Extra string
}

// Dovecot is a running Dovecot with a passwd-file and Maildirs below Dir.
type Dovecot struct {
	Dir                      string
	IMAP, IMAPS, POP3, POP3S int
	// CAFile holds the certificate it shows, which is its own authority.
	CAFile string
	// PasswdFile may be written while it runs: Dovecot reads it anew.
	PasswdFile string

	t       testing.TB
	opts    DovecotOptions
	proc    process
	logFile *os.File
}

// StartDovecot starts a Dovecot that ends with the test.
func StartDovecot(t testing.TB, o DovecotOptions) *Dovecot {
	t.Helper()
	if o.Separator == "" {
		o.Separator = "/"
	}
	if o.SentName == "" {
		o.SentName = "Sent"
	}
	ports := FreePorts(t, 4)
	d := &Dovecot{t: t, opts: o, Dir: scratch(t, "dovecot"),
		IMAP: ports[0], IMAPS: ports[1], POP3: ports[2], POP3S: ports[3]}
	d.PasswdFile = filepath.Join(d.Dir, "users", "passwd")
	d.CAFile = WriteCertificate(t, d.Dir)
	for _, sub := range []string{"users", "mail", "run"} {
		if err := os.MkdirAll(filepath.Join(d.Dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.write(d.PasswdFile, "")
	if os.Geteuid() == 0 {
		uid, gid := mailUser(t)
		if err := os.Chown(filepath.Join(d.Dir, "mail"), uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if d.logFile, err = os.Create(filepath.Join(d.Dir, "stdout.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Stop()
		_ = d.logFile.Close()
		if t.Failed() {
			t.Logf("dovecot %s:\n%s", d.Dir, d.logTail())
		}
	})
	d.write(filepath.Join(d.Dir, "dovecot.conf"), d.config())
	d.Start()
	return d
}

// Start starts it again after Stop or Kill, on the same ports.
func (d *Dovecot) Start() {
	d.t.Helper()
	command := d.onOwnDisk("/usr/sbin/dovecot", "-F", "-c", filepath.Join(d.Dir, "dovecot.conf"))
	if err := d.proc.start(d.logFile, command[0], command[1:]...); err != nil {
		d.t.Fatalf("dovecot: %v (run `make setup` first)", err)
	}
	for port, prefix := range map[int]string{d.IMAP: "* OK", d.POP3: "+OK"} {
		if err := waitGreeting(port, prefix); err != nil {
			d.t.Fatalf("dovecot: %v\n%s", err, d.logTail())
		}
	}
}

// Stop ends it as an administrator would.
func (d *Dovecot) Stop() { d.proc.stop(syscall.SIGTERM) }

// Kill ends all of its processes at once, in the middle of what they do.
func (d *Dovecot) Kill() { d.proc.stop(syscall.SIGKILL) }

// AddUser adds a user with a password, given in the clear. A Dovecot that has
// answered a login within this second learns of it only in the next one.
func (d *Dovecot) AddUser(name, password string) {
	d.t.Helper()
	d.add(name, password, "")
}

// AddName adds a further name, with a password of its own, under which a user
// logs in to his mailbox.
func (d *Dovecot) AddName(name, password, owner string) {
	d.t.Helper()
	d.add(name, password, "user="+owner)
}

func (d *Dovecot) add(name, password, extra string) {
	d.t.Helper()
	f, err := os.OpenFile(d.PasswdFile, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(f, "%s:{PLAIN.b64}%s::::::%s\n", name, base64std(password), extra); err != nil {
		d.t.Fatal(err)
	}
	// It reads the file anew only where its time in seconds has changed.
	changed := before.ModTime().Add(time.Second)
	if now := time.Now(); now.After(changed) {
		changed = now
	}
	if err := os.Chtimes(d.PasswdFile, time.Time{}, changed); err != nil {
		d.t.Fatal(err)
	}
}

// Maildir is where a user's mail lies.
func (d *Dovecot) Maildir(name string) string {
	return filepath.Join(d.Dir, "mail", name, "Maildir")
}

// Log is what it has logged so far.
func (d *Dovecot) Log() string {
	b, err := os.ReadFile(filepath.Join(d.Dir, "dovecot.log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (d *Dovecot) logTail() string {
	lines := strings.Split(d.Log(), "\n")
	if len(lines) > 40 {
		lines = lines[len(lines)-40:]
	}
	return strings.Join(lines, "\n")
}

func (d *Dovecot) write(path, text string) {
	d.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

func (d *Dovecot) config() string {
	uid, gid := mailUser(d.t)
	self := "dovecot"
	login := "dovenull"
	group := "dovecot"
	if os.Geteuid() != 0 {
		u, err := user.Current()
		if err != nil {
			d.t.Fatal(err)
		}
		g, err := user.LookupGroupId(u.Gid)
		if err != nil {
			d.t.Fatal(err)
		}
		self, login, group = u.Username, u.Username, g.Name
	}
	var b strings.Builder
	err := dovecotConfig.Execute(&b, map[string]any{
		"D": d, "O": d.opts, "UID": uid, "GID": gid, "Self": self, "Login": login, "Group": group,
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return b.String()
}

// mailUser owns the mail: Dovecot serves no mail as root.
func mailUser(t testing.TB) (uid, gid int) {
	if os.Geteuid() != 0 {
		return os.Geteuid(), os.Getegid()
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	return atoi(t, u.Uid), atoi(t, u.Gid)
}

var dovecotConfig = template.Must(template.New("dovecot.conf").Parse(`
protocols = imap pop3
listen = 127.0.0.1
base_dir = {{.D.Dir}}/run
state_dir = {{.D.Dir}}/run
log_path = {{.D.Dir}}/dovecot.log
default_internal_user = {{.Self}}
default_internal_group = {{.Group}}
default_login_user = {{.Login}}
ssl = yes
ssl_cert = <{{.D.Dir}}/tls.crt
ssl_key = <{{.D.Dir}}/tls.key
ssl_min_protocol = TLSv1.2
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_username_chars =
auth_username_format = %Lu
auth_failure_delay = 0
login_trusted_networks = 127.0.0.0/8
mail_max_userip_connections = 200
first_valid_uid = 1
mail_uid = {{.UID}}
mail_gid = {{.GID}}
mail_location = maildir:~/Maildir
passdb {
  driver = passwd-file
  args = username_format=%u {{.D.PasswdFile}}
}
userdb {
  driver = static
  args = uid={{.UID}} gid={{.GID}} home={{.D.Dir}}/mail/%u
}
namespace inbox {
  inbox = yes
  separator = {{.O.Separator}}
  prefix = {{.O.Prefix}}
  mailbox {{.O.SentName}} {
    special_use = \Sent
    auto = subscribe
  }
  mailbox Drafts {
    special_use = \Drafts
  }
  mailbox Trash {
    special_use = \Trash
  }
}
service imap-login {
  chroot =
  service_count = 0
  process_limit = 1
  inet_listener imap {
    port = {{.D.IMAP}}
  }
  inet_listener imaps {
    port = {{.D.IMAPS}}
    ssl = yes
  }
}
service pop3-login {
  chroot =
  service_count = 0
  process_limit = 1
  inet_listener pop3 {
    port = {{.D.POP3}}
  }
  inet_listener pop3s {
    port = {{.D.POP3S}}
    ssl = yes
  }
}
service anvil {
  chroot =
  # No penalty for wrong passwords: all of the tests' clients have one address.
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service stats {
  chroot =
}
{{.O.Extra}}
`))

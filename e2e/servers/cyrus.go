package servers

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"text/template"
)

// CyrusOptions say what is special about one Cyrus.
type CyrusOptions struct {
	// Classic writes names as Cyrus did by default before version 3, and as
	// Debian configures it: "INBOX." before each, "." between them.
	Classic bool
	// Extra is added to the end of imapd.conf.
	Extra string
}

// Cyrus is a running Cyrus IMAP and POP3 server with virtual domains, and its
// administrator.
type Cyrus struct {
	Dir        string
	IMAP, POP3 int
	// CAFile holds the certificate it shows, which is its own authority.
	CAFile string
	// AddUserCommand is a program that creates an account: with the address as
	// its argument and the password, which it takes as it is, on standard input.
	AddUserCommand string

	CyrusOptions

	t     testing.TB
	files string // the unpacked packages
	proc  process
	out   *os.File
}

const (
	cyrusAdmin         = "admin"
	cyrusAdminPassword = "the administrator's"
)

// StartCyrus starts a Cyrus that ends with the test.
func StartCyrus(t testing.TB, o CyrusOptions) *Cyrus {
	t.Helper()
	ports := FreePorts(t, 2)
	c := &Cyrus{t: t, CyrusOptions: o, Dir: scratch(t, "cyrus"), IMAP: ports[0], POP3: ports[1], files: cyrusFiles(t)}
	c.CAFile = WriteCertificate(t, c.Dir)
	c.AddUserCommand = filepath.Join(c.Dir, "add-user")
	for _, sub := range []string{"var", "spool", "proc", "lock"} {
		if err := os.MkdirAll(filepath.Join(c.Dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c.render("imapd.conf", cyrusIMAPD, 0o644)
	c.render("cyrus.conf", cyrusServices, 0o644)
	c.render("add-user", cyrusAddUser, 0o755)
	if err := c.saslpasswd("localhost", cyrusAdmin, cyrusAdminPassword).Run(); err != nil {
		t.Fatalf("cyrus: saslpasswd2: %v", err)
	}
	if os.Geteuid() == 0 { // it leaves root at once, and owns all that it has
		if out, err := exec.Command("chown", "-R", c.User(), c.Dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	var err error
	if c.out, err = os.Create(filepath.Join(c.Dir, "output.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Stop()
		_ = c.out.Close()
		if t.Failed() {
			b, _ := os.ReadFile(c.out.Name())
			t.Logf("cyrus:\n%s", b)
		}
	})
	c.Start()
	return c
}

// Start starts it again after Stop, on the same ports.
func (c *Cyrus) Start() {
	c.t.Helper()
	cmd := exec.Command(c.Bin("master"), "-C", filepath.Join(c.Dir, "imapd.conf"), "-M", filepath.Join(c.Dir, "cyrus.conf"), "-p", filepath.Join(c.Dir, "pid"))
	cmd.Env = c.Env()
	if err := c.proc.startCommand(c.out, cmd); err != nil {
		c.t.Fatalf("cyrus: %v (run `make setup` first)", err)
	}
	for port, prefix := range map[int]string{c.IMAP: "* OK", c.POP3: "+OK"} {
		if err := waitGreeting(port, prefix); err != nil {
			c.t.Fatalf("cyrus: %v", err)
		}
	}
}

// Stop ends it.
func (c *Cyrus) Stop() { c.proc.stop(syscall.SIGTERM) }

// AddUser creates an account (user@domain) with a password and an INBOX.
func (c *Cyrus) AddUser(name, password string) {
	c.t.Helper()
	cmd := exec.Command(c.AddUserCommand, name)
	cmd.Stdin = strings.NewReader(password)
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("cyrus: %s: %v\n%s", name, err, out)
	}
}

// Bin is the path of one of its programs.
func (c *Cyrus) Bin(name string) string { return filepath.Join(c.files, "usr/lib/cyrus/bin", name) }

// SASLPasswd is the program that sets passwords.
func (c *Cyrus) SASLPasswd() string { return filepath.Join(c.files, "usr/sbin/saslpasswd2") }

// Libraries is where the unpacked programs find their libraries.
func (c *Cyrus) Libraries() string {
	dirs, err := filepath.Glob(filepath.Join(c.files, "usr/lib/*-linux-gnu*"))
	if err != nil {
		c.t.Fatal(err)
	}
	old, err := filepath.Glob(filepath.Join(c.files, "lib/*-linux-gnu*"))
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.Join(append(dirs, old...), ":")
}

// SASLPlugins is where SASL finds its mechanisms and its database: among the
// unpacked files, or on this machine.
func (c *Cyrus) SASLPlugins() string {
	var dirs []string
	for _, dir := range strings.Split(c.Libraries(), ":") {
		dirs = append(dirs, filepath.Join(dir, "sasl2"), filepath.Join(strings.TrimPrefix(dir, c.files), "sasl2"))
	}
	return strings.Join(dirs, ":")
}

// Env is the environment that its programs need.
func (c *Cyrus) Env() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH=" + c.Libraries(), "SASL_PATH=" + c.SASLPlugins()}
}

// User runs it: Cyrus does not stay root.
func (c *Cyrus) User() string {
	if os.Geteuid() == 0 {
		return "nobody"
	}
	u, err := user.Current()
	if err != nil {
		c.t.Fatal(err)
	}
	return u.Username
}

func (c *Cyrus) saslpasswd(domain, name, password string) *exec.Cmd {
	cmd := exec.Command(c.SASLPasswd(), "-c", "-p", "-f", filepath.Join(c.Dir, "sasldb2"), "-u", domain, name)
	cmd.Env = c.Env()
	cmd.Stdin = strings.NewReader(password)
	return cmd
}

func (c *Cyrus) render(name string, tpl *template.Template, mode os.FileMode) {
	c.t.Helper()
	var b strings.Builder
	err := tpl.Execute(&b, map[string]any{"C": c, "Admin": cyrusAdmin, "Password": fmt.Sprintf("%q", cyrusAdminPassword)})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.Dir, name), []byte(b.String()), mode); err != nil {
		c.t.Fatal(err)
	}
}

// cyrusFiles is where `make setup` unpacked the packages.
func cyrusFiles(t testing.TB) string {
	t.Helper()
	_, self, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(self), "..", ".servers", "cyrus")
	if _, err := os.Stat(filepath.Join(dir, "usr/lib/cyrus/bin/master")); err != nil {
		t.Fatalf("cyrus: %v (run `make setup` first)", err)
	}
	return dir
}

var cyrusIMAPD = template.Must(template.New("imapd.conf").Parse(`
configdirectory: {{.C.Dir}}/var
proc_path: {{.C.Dir}}/proc
mboxname_lockpath: {{.C.Dir}}/lock
defaultpartition: default
partition-default: {{.C.Dir}}/spool
cyrus_user: {{.C.User}}
admins: {{.Admin}}
servername: localhost
virtdomains: userid
defaultdomain: localhost
allowplaintext: yes
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: {{.C.Dir}}/sasldb2
sasl_mech_list: PLAIN LOGIN
tls_server_cert: {{.C.Dir}}/tls.crt
tls_server_key: {{.C.Dir}}/tls.key
unixhierarchysep: {{if .C.Classic}}no{{else}}yes{{end}}
altnamespace: {{if .C.Classic}}no{{else}}yes{{end}}
popminpoll: 0
failedloginpause: 0
{{.C.Extra}}
`))

var cyrusServices = template.Must(template.New("cyrus.conf").Parse(`
START {
  recover cmd="{{.C.Bin "ctl_cyrusdb"}} -C {{.C.Dir}}/imapd.conf -r"
}
SERVICES {
  imap cmd="{{.C.Bin "imapd"}} -C {{.C.Dir}}/imapd.conf" listen="127.0.0.1:{{.C.IMAP}}" prefork=1
  pop3 cmd="{{.C.Bin "pop3d"}} -C {{.C.Dir}}/imapd.conf" listen="127.0.0.1:{{.C.POP3}}" prefork=1
}
EVENTS {
}
`))

// What an administrator does with cyradm and saslpasswd2. The password's
// octets are stored as they are.
var cyrusAddUser = template.Must(template.New("add-user").Parse(`#!/usr/bin/env python3
import imaplib, os, subprocess, sys
local, domain = sys.argv[1].split("@")
env = dict(os.environ, LD_LIBRARY_PATH="{{.C.Libraries}}", SASL_PATH="{{.C.SASLPlugins}}")
subprocess.run(["{{.C.SASLPasswd}}", "-c", "-p", "-f", "{{.C.Dir}}/sasldb2", "-u", domain, local],
               input=sys.stdin.buffer.read(), env=env, check=True)
c = imaplib.IMAP4("127.0.0.1", {{.C.IMAP}}, timeout=20)
c.login("{{.Admin}}", {{.Password}})
root = "user{{if .C.Classic}}.{{else}}/{{end}}" + sys.argv[1]
if c.list('""', '"' + root + '"')[1] == [None]:
    typ, data = c.create('"' + root + '"')
    assert typ == "OK", data
c.logout()
`))

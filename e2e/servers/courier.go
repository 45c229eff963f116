package servers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/go-crypt/crypt/algorithm/shacrypt"
)

// Courier is a running Courier IMAP and POP3 server. Its paths are compiled
// in, so it lives in a root directory of its own below Dir.
type Courier struct {
	Dir        string
	IMAP, POP3 int

	t                testing.TB
	users            []string
	auth, imap, pop3 process
	log              *os.File
}

// couriers libraries are found by this, inside of its root directory.
const courierLibraries = "LD_LIBRARY_PATH=/usr/lib:/usr/lib/x86_64-linux-gnu:/usr/lib/courier-authlib"

// StartCourier starts a Courier with these users (name to password), which
// ends with the test.
func StartCourier(t testing.TB, users map[string]string) *Courier {
	t.Helper()
	ports := FreePorts(t, 2)
	c := &Courier{t: t, Dir: scratch(t, "courier"), IMAP: ports[0], POP3: ports[1]}
	c.layOut(courierFiles(t))
	for name, password := range users {
		c.addUser(name, password)
	}
	c.makeUserDB()
	var err error
	if c.log, err = os.Create(c.Dir + ".log"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Stop()
		_ = c.log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(c.log.Name())
			t.Logf("courier:\n%s", b)
		}
		_ = os.Remove(c.log.Name())
	})
	c.Start()
	return c
}

// Start starts it again after Stop, on the same ports.
func (c *Courier) Start() {
	c.t.Helper()
	c.run(&c.auth, "/usr/lib/courier/courier-authlib/authdaemond")
	tcpd := []string{"/usr/sbin/couriertcpd", "-address=127.0.0.1", "-maxprocs=100", "-maxperip=100", "-nodnslookup", "-noidentlookup"}
	c.run(&c.imap, append(tcpd, fmt.Sprint(c.IMAP), "/usr/lib/courier/courier/imaplogin", "/usr/bin/imapd", "Maildir")...)
	c.run(&c.pop3, append(tcpd, fmt.Sprint(c.POP3), "/usr/lib/courier/courier/courierpop3login", "/usr/lib/courier/courier/courierpop3d", "Maildir")...)
	for port, prefix := range map[int]string{c.IMAP: "* OK", c.POP3: "+OK"} {
		if err := waitGreeting(port, prefix); err != nil {
			c.t.Fatalf("courier: %v", err)
		}
	}
}

// Stop ends it.
func (c *Courier) Stop() {
	for _, p := range []*process{&c.imap, &c.pop3, &c.auth} {
		p.stop(syscall.SIGTERM)
	}
}

// Maildir is where a user's mail lies.
func (c *Courier) Maildir(name string) string {
	return filepath.Join(c.Dir, "mail", name, "Maildir")
}

// courierFiles is where `make setup` unpacked the packages.
func courierFiles(t testing.TB) string {
	t.Helper()
	_, self, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(self), "..", ".servers", "courier")
	if _, err := os.Stat(filepath.Join(dir, "usr/bin/imapd")); err != nil {
		t.Fatalf("courier: %v (run `make setup` first)", err)
	}
	return dir
}

// layOut makes the root directory: the unpacked packages, the libraries of
// this machine that they need, the devices and the configuration.
func (c *Courier) layOut(files string) {
	c.t.Helper()
	c.must(exec.Command("cp", "-a", files+"/.", c.Dir))
	for _, lib := range neededLibraries(c.t, files) {
		dest := filepath.Join(c.Dir, lib)
		c.mkdir(filepath.Dir(dest))
		c.must(exec.Command("cp", "-L", lib, dest))
	}
	for _, dir := range []string{"dev", "run/courier/authdaemon", "etc/courier", "mail", "tmp"} {
		c.mkdir(filepath.Join(c.Dir, dir))
	}
	c.device("null", 3)
	c.device("urandom", 9)
	c.write("etc/courier/authdaemonrc", "authmodulelist=\"authuserdb\"\nauthmodulelistorig=\"authuserdb\"\n"+
		"daemons=3\nauthdaemonvar=/run/courier/authdaemon\n")
}

// device makes a character device of major number 1.
func (c *Courier) device(name string, minor int) {
	c.t.Helper()
	path := filepath.Join(c.Dir, "dev", name)
	c.must(asRoot("mknod", "-m", "666", path, "c", "1", fmt.Sprint(minor)))
}

// neededLibraries lists what the unpacked programs need of this machine.
func neededLibraries(t testing.TB, files string) []string {
	var programs []string
	for _, pattern := range []string{"usr/bin/imapd", "usr/sbin/couriertcpd", "usr/lib/courier/courier/*", "usr/lib/courier/courier-authlib/*", "usr/lib/courier-authlib/*.so.0.0.0"} {
		found, err := filepath.Glob(filepath.Join(files, pattern))
		if err != nil {
			t.Fatal(err)
		}
		programs = append(programs, found...)
	}
	cmd := exec.Command("ldd", programs...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LD_LIBRARY_PATH=" + strings.Join([]string{
		filepath.Join(files, "usr/lib"), filepath.Join(files, "usr/lib/x86_64-linux-gnu"), filepath.Join(files, "usr/lib/courier-authlib")}, ":")}
	out, _ := cmd.Output() // it complains of those that are scripts
	seen := map[string]bool{}
	var libs []string
	for _, field := range strings.Fields(string(out)) {
		if strings.HasPrefix(field, "/") && !strings.HasSuffix(field, ":") && !strings.HasPrefix(field, files) && !seen[field] {
			seen[field] = true
			libs = append(libs, field)
		}
	}
	return libs
}

func (c *Courier) addUser(name, password string) {
	c.t.Helper()
	hasher, err := shacrypt.New(shacrypt.WithSHA512(), shacrypt.WithIterations(1000))
	if err != nil {
		c.t.Fatal(err)
	}
	digest, err := hasher.Hash(password)
	if err != nil {
		c.t.Fatal(err)
	}
	uid, gid := mailUser(c.t)
	for _, sub := range []string{"cur", "new", "tmp"} {
		c.mkdir(filepath.Join(c.Maildir(name), sub))
	}
	if os.Geteuid() == 0 {
		c.must(exec.Command("chown", "-R", fmt.Sprintf("%d:%d", uid, gid), filepath.Join(c.Dir, "mail")))
	}
	c.users = append(c.users, fmt.Sprintf("%s\tuid=%d|gid=%d|home=/mail/%s|mail=/mail/%s/Maildir|imappw=%s|pop3pw=%s",
		name, uid, gid, name, name, digest.Encode(), digest.Encode()))
}

func (c *Courier) makeUserDB() {
	c.t.Helper()
	for _, db := range []string{"userdb", "userdbshadow"} {
		cmd := c.command("/usr/lib/courier/courier-authlib/makedatprog", "-", "/etc/courier/tmp", "/etc/courier/"+db+".dat")
		cmd.Stdin = strings.NewReader(strings.Join(c.users, "\n") + "\n.\n")
		c.must(cmd)
	}
}

// command runs a program of Courier in its root directory.
func (c *Courier) command(args ...string) *exec.Cmd {
	return asRoot(append([]string{"env", "-i", courierLibraries, "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"IMAP_CAPABILITY=IMAP4rev1 UIDPLUS CHILDREN NAMESPACE THREAD=ORDEREDSUBJECT SORT QUOTA",
		"IMAP_KEYWORDS=1", "IMAP_TLS_REQUIRED=0", "IMAP_STARTTLS=NO", "IMAP_MAILBOX_SANITY_CHECK=0",
		"IMAP_EMPTYTRASH=", "IMAP_USELOCKS=0", "POP3_TLS_REQUIRED=0", "POP3_STARTTLS=NO", "MAILDIRPATH=Maildir",
		"chroot", c.Dir}, args...)...)
}

func (c *Courier) run(p *process, args ...string) {
	c.t.Helper()
	p.root = os.Geteuid() != 0
	if err := p.startCommand(c.log, c.command(args...)); err != nil {
		c.t.Fatalf("courier: %v", err)
	}
}

func (c *Courier) must(cmd *exec.Cmd) {
	c.t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
}

func (c *Courier) mkdir(dir string) {
	c.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
}

func (c *Courier) write(path, text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.Dir, path), []byte(text), 0o666); err != nil {
		c.t.Fatal(err)
	}
}

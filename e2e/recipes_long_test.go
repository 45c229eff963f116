//go:build long

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

// postgres is a PostgreSQL of the test's own, a plain process on loopback.
type postgres struct {
	t    *testing.T
	bin  string
	port int
	cmd  *exec.Cmd
}

// account is who runs it: it does not want to be root.
func (p *postgres) account() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := osuser.Lookup("nobody")
	if err != nil {
		p.t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32) // they are numbers on every Unix
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (p *postgres) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, program), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.account(), Pdeathsig: syscall.SIGQUIT}
	return cmd
}

func startPostgres(t *testing.T) *postgres {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		t.Fatal("there is no PostgreSQL: run `sh e2e/setup.sh long` first")
	}
	dir, err := os.MkdirTemp("/tmp", "mp-pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &postgres{t: t, bin: found[len(found)-1], port: servers.FreePorts(t, 1)[0]}
	if c := p.account(); c != nil {
		if err := os.Chown(dir, int(c.Uid), int(c.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "data")
	run(t, p.command("initdb", "-D", data, "-U", "migproxy", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"))
	p.cmd = p.command("postgres", "-D", data, "-h", "127.0.0.1", "-p", strconv.Itoa(p.port), "-k", dir, "-c", "fsync=off")
	var said bytes.Buffer
	p.cmd.Stdout, p.cmd.Stderr = &said, &said
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	if err := eventually(20*time.Second, func() error {
		return p.command("pg_isready", "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(p.port)).Run()
	}); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	p.sql("CREATE DATABASE mail", "postgres")
	return p
}

// stop ends it, and its sessions with it.
func (p *postgres) stop() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	_ = p.cmd.Wait() // it was ended by a signal
	p.cmd = nil
}

func (p *postgres) sql(text, database string) string {
	p.t.Helper()
	cmd := p.command("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", strconv.Itoa(p.port), "-U", "migproxy", database)
	cmd.Stdin = strings.NewReader(text)
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestRecipeDovecotPostgreSQL(t *testing.T) {
	p := startPostgres(t)
	p.sql(readFile(t, recipeFile(t, "schema.sql")), "mail")
	connect := fmt.Sprintf("host=127.0.0.1 port=%d dbname=mail user=migproxy", p.port)
	d := sqlDovecot(t, "driver = sqlite", "driver = pgsql", "connect = /var/lib/mail-users/users.db", "connect = "+connect)
	testRecipe(t, recipe{
		command: []string{recipeFile(t, "dovecot-postgresql.py"), connect},
		opens:   func(t *testing.T, address, password string) bool { return logsIn(t, d.IMAP, address, password) },
		foreign: func(*testing.T, string) { p.sql(foreignUser, "mail") },
		alias: func(_ *testing.T, address string) string {
			return p.sql("SELECT address FROM aliases WHERE alias = '"+address+"'", "mail")
		},
		utf8Only: true,
		away:     func(*testing.T) { p.stop() },
	})
}

// postmap is a command line that runs Postfix's, unpacked or installed, with
// settings of its own.
func postmap(t *testing.T) string {
	t.Helper()
	_, self, _, _ := runtime.Caller(0)
	files := filepath.Join(filepath.Dir(self), ".servers/postfix")
	program, libraries := "/usr/sbin/postmap", ""
	if _, err := os.Stat(program); err != nil {
		program = filepath.Join(files, "usr/sbin/postmap")
		found, err := filepath.Glob(filepath.Join(files, "usr/lib/*-linux-gnu*"))
		if err != nil {
			t.Fatal(err)
		}
		libraries = "LD_LIBRARY_PATH=" + strings.Join(append(found, filepath.Join(files, "usr/lib/postfix")), ":") + " "
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v (run `sh e2e/setup.sh long` first)", err)
	}
	conf := filepath.Dir(writeFile(t, "main.cf", "compatibility_level = 3.6\nmail_owner = mail\nsetgid_group = daemon\n"))
	return libraries + program + " -c " + conf
}

func TestRecipePostfixFiles(t *testing.T) {
	dir, program := t.TempDir(), postmap(t)
	d := servers.StartDovecot(t, servers.DovecotOptions{})
	for name, text := range map[string]string{
		"vmailbox": "# kept by hand\npostmaster@example.com OK\n", "virtual": "", "users": "# the passwords\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(d.PasswdFile); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // Dovecot reads it as a user of its own
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "users"), d.PasswdFile); err != nil {
		t.Fatal(err)
	}
	lookup := func(t *testing.T, table, key string) string {
		t.Helper()
		out, err := exec.Command("sh", "-c", program+" -q \"$0\" hash:\"$1\"", key, filepath.Join(dir, table)).Output()
		var status *exec.ExitError
		if err != nil && (!errors.As(err, &status) || len(status.Stderr) > 0) {
			t.Fatalf("%v %s", err, status.Stderr)
		}
		return strings.TrimSpace(string(out))
	}
	testRecipe(t, recipe{
		command: []string{recipeFile(t, "postfix-files.py"), dir},
		opens: func(t *testing.T, address, password string) bool {
			if lookup(t, "vmailbox", address) != "OK" {
				t.Errorf("Postfix does not know %s", address)
			}
			// A Dovecot that has answered a login within this second looks at its
			// file again only in the next one.
			return eventually(2*time.Second, func() error {
				if !logsIn(t, d.IMAP, address, password) {
					return errors.New("not yet")
				}
				return nil
			}) == nil
		},
		foreign: func(t *testing.T, address string) {
			vmailbox := filepath.Join(dir, "vmailbox")
			if err := os.WriteFile(vmailbox, []byte(readFile(t, vmailbox)+address+"\tOK\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		},
		alias: func(t *testing.T, address string) string { return lookup(t, "virtual", address) },
		// A Dovecot 2.3 never finds a name with an apostrophe in a passwd-file.
		oddName: "o_brien&=sons+1@example.com",
		seen:    recorded(t, "postmap", "exec env "+program+" \"$@\""),
		away: func(t *testing.T) {
			if text := readFile(t, filepath.Join(dir, "vmailbox")); !strings.HasPrefix(text, "# kept by hand\npostmaster@example.com OK\nold@") {
				t.Errorf("what others wrote has changed:\n%s", text)
			}
			if err := os.Remove(filepath.Join(dir, "virtual")); err != nil {
				t.Fatal(err)
			}
		},
	})
}

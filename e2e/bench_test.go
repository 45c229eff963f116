package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

const benchPassword = "benchmark"

// BenchmarkCopy moves the same mailboxes between the same two Dovecots by
// migproxy, from the login to the flip, and by mbsync.
//
//	go test -run '^$' -bench Copy -benchtime 3x ./e2e
func BenchmarkCopy(b *testing.B) {
	for _, mailbox := range []struct {
		name     string
		messages int
		folders  int
		size     func(*rand.Rand) int
	}{
		{"real", 4000, 25, func(r *rand.Rand) int { return min(300+int(12_000*math.Exp(1.87*r.NormFloat64())), 8<<20) }},
		{"small", 20_000, 4, func(*rand.Rand) int { return 3000 }},
	} {
		source := servers.StartDovecot(b, servers.DovecotOptions{Separator: "."})
		target := servers.StartDovecot(b, servers.DovecotOptions{Separator: "."})
		octets := fillMaildir(b, source, "template@example.com", mailbox.messages, mailbox.folders, mailbox.size)
		p := newProxy(b, binary, settings{
			// In the clear, as mbsync is run here.
			source: endpoint{imap: source.IMAP, tls: "none"}, target: endpoint{imap: target.IMAP, tls: "none"},
			provision: fmt.Sprintf("{ driver: passwd-file, path: %s }", target.PasswdFile),
		}).start()
		n := 0
		next := func() string {
			n++
			name := fmt.Sprintf("bench%d@example.com", n)
			source.AddUser(name, benchPassword)
			run(b, exec.Command("cp", "-a", filepath.Dir(source.Maildir("template@example.com")), filepath.Dir(source.Maildir(name))))
			awaitLogin(b, source, name, benchPassword)
			return name
		}
		each := func(b *testing.B, prepare, move func(name string)) {
			for range b.N {
				b.StopTimer()
				name := next()
				prepare(name)
				b.StartTimer()
				move(name)
			}
			per := b.Elapsed().Seconds() / float64(b.N)
			b.ReportMetric(float64(mailbox.messages)/per, "msg/s")
			b.ReportMetric(float64(octets)/1e6/per, "MB/s")
			b.ReportMetric(0, "ns/op")
		}
		b.Run(mailbox.name+"/migproxy", func(b *testing.B) {
			each(b, func(string) {}, p.move)
		})
		b.Run(mailbox.name+"/mbsync", func(b *testing.B) {
			each(b, func(name string) {
				target.AddUser(name, benchPassword)
				awaitLogin(b, target, name, benchPassword)
			}, func(name string) { mbsyncRun(b, source, target, name) })
		})
	}
}

// move logs a user in and waits for the last line of his move.
func (p *proxy) move(name string) {
	p.t.Helper()
	log := exec.Command(p.bin, "log", "-f", name, "--config", p.config)
	out, err := log.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := log.Start(); err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = log.Process.Kill(); _ = log.Wait() }()
	c := dial(p.t, p.imap, false)
	c.until("* OK")
	c.send(fmt.Sprintf("a LOGIN %s %s\r\nb LOGOUT\r\n", name, benchPassword))
	c.until("a OK")
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "'"+name+"' migrated, ") {
			return
		}
	}
	p.t.Fatalf("%s has not moved", name)
}

func mbsyncRun(b *testing.B, source, target *servers.Dovecot, name string) {
	b.Helper()
	dir := b.TempDir()
	account := func(id string, d *servers.Dovecot) string {
		return fmt.Sprintf("IMAPAccount %s\nHost 127.0.0.1\nPort %d\nUser %s\nPass %s\nSSLType None\nAuthMechs LOGIN\n\nIMAPStore %s\nAccount %s\n\n",
			id, d.IMAP, name, benchPassword, id, id)
	}
	rc := filepath.Join(dir, "rc")
	text := account("old", source) + account("new", target) +
		fmt.Sprintf("Channel all\nFar :old:\nNear :new:\nPatterns *\nCreate Near\nSync Pull\nCopyArrivalDate yes\nSyncState %s/state-\n", dir)
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	run(b, exec.Command("mbsync", "-q", "-c", rc, "-a"))
}

// fillMaildir writes a mailbox as files, for a user who need not log in, and
// returns its octets.
func fillMaildir(t testing.TB, d *servers.Dovecot, name string, messages, folders int, size func(*rand.Rand) int) int64 {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	total := int64(0)
	for i := range messages {
		dir := d.Maildir(name)
		if f := i % folders; f > 0 {
			dir = filepath.Join(dir, fmt.Sprintf(".Folder %02d", f))
		}
		for _, sub := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		octets := append(fmt.Appendf(nil, "From: <a@example.net>\r\nSubject: message %d\r\nMessage-ID: <%d@example.net>\r\n\r\n", i, i), body(r, size(r))...)
		total += int64(len(octets))
		path := filepath.Join(dir, "cur", fmt.Sprintf("%d.M%dP1.old,S=%d,W=%d:2,S", 1500000000+i, i, len(octets), len(octets)))
		if err := os.WriteFile(path, octets, 0o600); err != nil {
			t.Fatal(err)
		}
		date := time.Unix(int64(1500000000+i), 0)
		if err := os.Chtimes(path, date, date); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		info, err := os.Stat(filepath.Join(d.Dir, "mail"))
		if err != nil {
			t.Fatal(err)
		}
		owner := info.Sys().(*syscall.Stat_t)
		run(t, exec.Command("chown", "-R", fmt.Sprintf("%d:%d", owner.Uid, owner.Gid), filepath.Join(d.Dir, "mail")))
	}
	return total
}

func run(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
}

// BenchmarkIdleSessions says how much memory the process has for 1,000 users
// who are logged in and do nothing, in the clear and over TLS on their side.
//
//	go test -run '^$' -bench IdleSessions -benchtime 1x ./e2e
func BenchmarkIdleSessions(b *testing.B) {
	const sessions = 1000
	for _, tls := range []bool{false, true} {
		b.Run(fmt.Sprintf("tls=%v", tls), func(b *testing.B) {
			target := servers.StartDovecot(b, servers.DovecotOptions{
				Extra: "mail_max_userip_connections = 2000\nservice imap {\n  process_limit = 2000\n  client_limit = 1\n}\nservice imap-login {\n  client_limit = 3000\n}\nservice anvil {\n  client_limit = 8000\n}\nservice auth {\n  client_limit = 8000\n}\n"})
			p := newProxy(b, binary, settings{
				source: dovecotEndpoint(target),
				target: endpoint{imap: target.IMAP, tls: "none"}, provision: fmt.Sprintf("{ driver: passwd-file, path: %s }", target.PasswdFile),
			}).start()
			for i := range sessions {
				target.AddUser(fmt.Sprintf("idle%d@example.com", i), benchPassword)
			}
			before := pss(b, p.cmd.Process.Pid)
			port := p.imap
			if tls {
				port = p.imaps
			}
			for range b.N {
				for i := range sessions {
					c := dial(b, port, tls)
					c.until("* OK")
					c.send(fmt.Sprintf("a LOGIN idle%d@example.com %s\r\n", i, benchPassword))
					if text := c.until("a "); !strings.HasPrefix(text, "a OK") {
						b.Fatal(text)
					}
				}
			}
			after := pss(b, p.cmd.Process.Pid)
			b.ReportMetric(float64(after)/1024, "MiB-PSS")
			b.ReportMetric(float64(after-before)/sessions, "KiB-PSS/session")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// pss is the proportional set size of a process in KiB.
func pss(t testing.TB, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("Pss:")); ok {
			n, err := strconv.Atoi(string(bytes.Fields(rest)[0]))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no Pss")
	return 0
}

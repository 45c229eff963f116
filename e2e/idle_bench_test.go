package e2e

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"migproxy/e2e/servers"
)

const benchPassword = "benchmark"

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

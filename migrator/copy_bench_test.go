package migrator_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/e2e/servers"
	"migproxy/store"
)

// BenchmarkCopy moves a mailbox of small messages in four folders between two
// Dovecots that sync as they do by default.
func BenchmarkCopy(b *testing.B) {
	const folders, each = 4, 2500
	source := servers.StartDovecot(b, servers.DovecotOptions{Separator: "/"})
	target := servers.StartDovecot(b, servers.DovecotOptions{Separator: "/"})
	for b.Loop() {
		b.StopTimer()
		local := fmt.Sprintf("user%d", time.Now().UnixNano())
		source.AddUser(local+"@"+domain, secret)
		c := dial(b, source.IMAP, local+"@"+domain, secret)
		for i := range folders - 1 {
			if err := c.Create(fmt.Sprintf("f%d", i), nil).Wait(); err != nil {
				b.Fatal(err)
			}
		}
		for i, dir := range []string{"", ".f0", ".f1", ".f2"} {
			seed(b, filepath.Join(source.Maildir(local+"@"+domain), dir), i, each)
		}
		bench := newBench(b, source.IMAP, target.IMAP, &dovecotDriver{d: target})
		bench.begin(b, store.NewAccount{Identity: identity(local), Password: config.NewSecret(secret)})
		start := time.Now()
		b.StartTimer()
		a := bench.run(b, bench.options(b), local, rest...)
		if a.State != store.Active || a.Messages != folders*each {
			b.Fatal(a.State, a.Messages, a.Reason)
		}
		b.ReportMetric(float64(a.Messages)/time.Since(start).Seconds(), "messages/s")
	}
}

// seed writes messages into a Maildir, as its owner.
func seed(t testing.TB, dir string, folder, n int) {
	t.Helper()
	info, err := os.Stat(filepath.Dir(filepath.Join(dir, "cur")))
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		body := message(folder*n+i, strings.Repeat("0123456789abcdef0123456789abcdef\r\n", 85))
		path := filepath.Join(dir, "cur", fmt.Sprintf("%d.M%dP1.host,S=%d:2,S", 1552000000+i, i, len(body)))
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		chown(t, path, info)
	}
}

package proxy

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"

	"migproxy/config"
)

// memoryTarget is a target with the migration account alone.
func memoryTarget(t *testing.T) (*imapmemserver.User, *config.Server) {
	t.Helper()
	memory := imapmemserver.New()
	user := imapmemserver.NewUser("migration@example.com", "of the administrator")
	if err := user.Create("INBOX", nil); err != nil {
		t.Fatal(err)
	}
	memory.AddUser(user)
	server := imapserver.New(&imapserver.Options{InsecureAuth: true,
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return memory.NewSession(), nil, nil
		}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return user, &config.Server{TLS: config.TLSNone,
		Address: config.Addresses{{Host: "127.0.0.1", Port: uint16(l.Addr().(*net.TCPAddr).Port)}}}
}

func add(t *testing.T, user *imapmemserver.User, message string) {
	t.Helper()
	r := strings.NewReader(message)
	if _, err := user.Append("INBOX", literal{r}, &imap.AppendOptions{}); err != nil {
		t.Fatal(err)
	}
}

type literal struct{ *strings.Reader }

func (l literal) Size() int64 { return l.Reader.Size() }

func TestParkingShowsTheMigrationAccount(t *testing.T) {
	user, server := memoryTarget(t)
	add(t, user, "Subject: first\r\n\r\nWe are moving.\r\n")
	add(t, user, "Subject: second\r\n\r\nIt will not take long.\r\n")
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("of the administrator\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *config.Config) {
		c.Domains[0].Target.IMAP = server
		c.Domains[0].Parking = config.Parking{Mode: config.ParkAccount, Account: "migration@example.com", PasswordFile: file}
	})
	p := w.park()
	validity, _ := p.numbers()
	got := p.do("FETCH 1:* (UID BODY[])")
	if !strings.Contains(got, "* 2 FETCH (UID 2 ") || !strings.Contains(got, "It will not take long.") || strings.Contains(got, "3 FETCH") {
		t.Error(got)
	}
	// One user's Sent is not the next one's mail.
	if got := p.do("APPEND INBOX {5+}\r\nhello"); !strings.HasPrefix(got, "a NO [UNAVAILABLE]") {
		t.Error(got)
	}
	inbox := w.broker.lots["example.com"].inbox
	<-inbox.loading
	inbox.now = func() time.Time { return time.Now().Add(inboxAge) }
	inbox.loading <- struct{}{}
	add(t, user, "Subject: third\r\n\r\nAlmost there.\r\n")
	if got := p.do("NOOP"); got != "* 3 EXISTS\na OK NOOP completed" {
		t.Error(got)
	}
	if v, next := w.park().numbers(); v != validity || next != "4" {
		t.Errorf("UIDVALIDITY %s, then %s; UIDNEXT %s", validity, v, next)
	}
}

// A migration account that cannot be opened keeps nobody from being parked.
func TestParkingFallsBackToTheNotice(t *testing.T) {
	_, server := memoryTarget(t)
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *config.Config) {
		c.Domains[0].Target.IMAP = server
		c.Domains[0].Parking = config.Parking{Mode: config.ParkAccount, Account: "migration@example.com", PasswordFile: file}
	})
	p := w.park()
	p.do("SELECT INBOX")
	if got := p.do("FETCH 1 BODY[TEXT]"); !strings.Contains(got, "None of your mail is lost") {
		t.Error(got)
	}
}

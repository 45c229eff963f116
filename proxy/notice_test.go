package proxy

import (
	"flag"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestNoticeGolden(t *testing.T) {
	own := filepath.Join(t.TempDir(), "template")
	if err := os.WriteFile(own, []byte(`{{define "subject"}}Umzug für {{.Address}}
Bcc: all@example.com{{end}}Übrig: {{.Expected}}, fertig: {{.Messages}} ({{.Percent}} %), {{.Domain}}, {{.Hostname}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	account := store.Account{Identity: config.Identity{Local: "änne", Domain: "example.com"}, Messages: 250, Expected: 1000}
	for _, tt := range []struct {
		golden, template string
		account          store.Account
	}{
		{"notice.eml", "", account},
		{"notice_uncounted.eml", "", store.Account{Identity: account.Identity}},
		{"notice_own.eml", own, account},
	} {
		t.Run(tt.golden, func(t *testing.T) {
			n, err := newNotice(tt.template, "mail.example.com")
			if err != nil {
				t.Fatal(err)
			}
			got, err := n.render(newNoticeData(tt.account, n.hostname), 42, time.Date(2026, 3, 1, 9, 30, 0, 0, time.FixedZone("", 3600)))
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", tt.golden)
			if *update {
				if err := os.WriteFile(golden, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			m, err := mail.ReadMessage(strings.NewReader(string(got)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.Header.Date(); err != nil || m.Header.Get("Bcc") != "" || m.Header.Get("Message-Id") == "" {
				t.Errorf("header %v, %v", m.Header, err)
			}
			for line := range strings.SplitSeq(strings.TrimSuffix(string(got), "\r\n"), "\r\n") {
				if len(line) > 78 || strings.ContainsAny(line, "\r\n") || strings.IndexFunc(line, func(r rune) bool { return r > 126 }) >= 0 {
					t.Errorf("not fit for every reader: %q", line)
				}
			}
		})
	}
}

// More messages than were counted are not more than all.
func TestNoticePercent(t *testing.T) {
	d := newNoticeData(store.Account{Messages: 12, Expected: 10}, "")
	if d.Percent != 100 || d.Messages != 10 {
		t.Errorf("%+v", d)
	}
}

// Mistakes in what parking needs are found at the start.
func TestParkingSettings(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	server, err := upstream.NewServer(config.IMAP, config.Server{TLS: config.TLSNone, Address: config.Addresses{{Host: "localhost", Port: 1}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	good := write("good", " p\u00e4ss \r\n")
	for _, tt := range []struct {
		name    string
		parking config.Parking
		want    string
	}{
		{"no template", config.Parking{Template: dir + "/none"}, "parking.template: open " + dir + "/none: no such file or directory"},
		{"broken template", config.Parking{Template: write("broken", "{{.Address")}, "parking.template: template: notice:1: unclosed action"},
		{"unknown field", config.Parking{Template: write("field", "{{.Password}}")}, "parking.template: template: notice:1:2: executing \"notice\" at <.Password>: can't evaluate field Password in type proxy.noticeData"},
		{"no account", config.Parking{Mode: config.ParkAccount, PasswordFile: good}, `parking.account: "" is no address; write one such as migration@example.com`},
		{"no password file", config.Parking{Mode: config.ParkAccount, Account: "m@example.com", PasswordFile: dir + "/none"}, "parking.password_file: open " + dir + "/none: no such file or directory"},
		{"empty password file", config.Parking{Mode: config.ParkAccount, Account: "m@example.com", PasswordFile: write("empty", "\n")}, "parking.password_file: " + dir + "/empty is empty; write the password into it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newLot(&config.Config{}, &upstream.Domain{Config: &config.Domain{Name: "example.com", Parking: tt.parking}, Target: upstream.Side{IMAP: server}})
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v\nwant %s", err, tt.want)
			}
		})
	}
	l, err := newLot(&config.Config{}, &upstream.Domain{Target: upstream.Side{IMAP: server},
		Config: &config.Domain{Name: "example.com", Parking: config.Parking{Mode: config.ParkAccount, Account: "m@example.com", PasswordFile: good}}})
	if err != nil || l.inbox.creds.Password.Reveal() != " p\u00e4ss " {
		t.Errorf("the password was read wrong: %v", err)
	}
}

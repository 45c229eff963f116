package main

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/upstream"
)

// imapServer says these lines to whoever connects: a greeting, and an answer
// to CAPABILITY. It ends with the test.
func imapServer(t *testing.T, greeting, capabilities string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go speakIMAP(c, greeting, capabilities)
		}
	}()
	return l.Addr().String()
}

func speakIMAP(c net.Conn, greeting, capabilities string) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(c, "* OK %s\r\n", greeting)
	buf, rest := make([]byte, 4096), ""
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		rest += string(buf[:n])
		for {
			line, after, whole := strings.Cut(rest, "\r\n")
			if !whole {
				break
			}
			rest = after
			tag, command, _ := strings.Cut(line, " ")
			if strings.EqualFold(command, "CAPABILITY") {
				fmt.Fprintf(c, "* CAPABILITY %s\r\n", capabilities)
			}
			fmt.Fprintf(c, "%s OK done\r\n", tag)
		}
	}
}

func TestCheck(t *testing.T) {
	source := imapServer(t, "Old Server \x1b[31mready", "IMAP4rev1 ID NAMESPACE")
	target := imapServer(t, "New Server ready", "IMAP4rev1 UIDPLUS LITERAL+ SPECIAL-USE IDLE")
	o := runCLI(t, "check", "--config", settingsFile(t, source, target))
	if o.status != exitDone || o.stderr != "" {
		t.Errorf("%+v", o)
	}
	// Ports have as many digits as they like: the columns follow.
	hide := strings.NewReplacer(source, "SOURCE", target, "TARGET")
	golden(t, "check", regexp.MustCompile(` +`).ReplaceAllString(hide.Replace(o.stdout), " "))

	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	o = runCLI(t, "check", "--config", settingsFile(t, source, gone.Addr().String()))
	if o.status != exitFailed || !strings.Contains(o.stdout, "target imap: cannot be used") ||
		!strings.Contains(o.stderr, "1 of 2 servers cannot be used") {
		t.Errorf("%+v", o)
	}
}

// What check says about a source that is read over POP3.
func TestCheckNotesOverPOP3(t *testing.T) {
	for _, c := range []struct {
		name         string
		source       config.Source
		capabilities []string
		want, not    string
	}{
		{"all is well", config.Source{Protocols: []config.Protocol{config.POP3}}, []string{"TOP", "UIDL", "EXPIRE 30"}, "INBOX alone", "if the source's pop3"},
		{"what is kept", config.Source{Protocols: []config.Protocol{config.POP3}}, nil, "kept: octets; what", "kept: folders"},
		{"EXPIRE 0", config.Source{Protocols: []config.Protocol{config.IMAP, config.POP3}}, []string{"EXPIRE 0 USER"}, "write pop3_expire_ok: true", "INBOX alone"},
		{"EXPIRE 0 is known", config.Source{Protocols: []config.Protocol{config.POP3}, POP3ExpireOK: true}, []string{"EXPIRE 0"}, "the settings take that", "write pop3_expire_ok"},
		{"no UIDL", config.Source{Protocols: []config.Protocol{config.POP3}}, []string{"TOP"}, "make migration.catch_up long", "no TOP"},
		{"no TOP", config.Source{Protocols: []config.Protocol{config.POP3}}, []string{"UIDL"}, "by RETR", "no UIDL"},
		{"not read over POP3", config.Source{Protocols: []config.Protocol{config.IMAP}}, []string{"EXPIRE 0"}, "kept: folders", "EXPIRE"},
	} {
		findings := []*finding{
			{side: "source", protocol: config.POP3, probe: upstream.Probe{Remote: "192.0.2.1:995", TLSVersion: "TLS 1.3", Capabilities: c.capabilities}},
			{side: "target", protocol: config.IMAP, probe: upstream.Probe{Remote: "192.0.2.2:993", TLSVersion: "TLS 1.3"}},
		}
		all := strings.Join(notes(&config.Domain{Source: c.source}, findings), "\n")
		if !strings.Contains(all, c.want) || strings.Contains(all, c.not) {
			t.Errorf("%s: %s", c.name, all)
		}
	}
}

// What check says about each thing that a server can be.
func TestCheckNotes(t *testing.T) {
	domain := &config.Domain{Source: config.Source{POP3: &config.Server{}}, Adopt: true}
	imap := func(change func(*finding)) *finding {
		f := &finding{side: "target", protocol: config.IMAP, probe: upstream.Probe{Remote: "192.0.2.1:993", TLSVersion: "TLS 1.3", TakesClientAddress: true}}
		change(f)
		return f
	}
	pop3 := func(host string, believes bool) *finding {
		return &finding{side: "target", protocol: config.POP3, probe: upstream.Probe{Remote: host + ":995", TLSVersion: "TLS 1.3", TakesClientAddress: believes}}
	}
	whole := []string{"UIDPLUS", "MULTIAPPEND", "LITERAL+", "SPECIAL-USE"}
	for _, c := range []struct {
		name      string
		findings  []*finding
		want, not string
	}{
		{"in the clear", []*finding{imap(func(f *finding) { f.probe.TLSVersion = "" })}, "target imap: PASSWORDS AND MAIL GO OVER THE NETWORK IN THE CLEAR", ""},
		{"in the clear on this machine", []*finding{imap(func(f *finding) { f.probe.TLSVersion, f.probe.Remote = "", "[::1]:143" })}, "", "IN THE CLEAR"},
		{"unreachable", []*finding{imap(func(f *finding) { f.err = errors.New("refused") })}, "target imap: cannot be used: refused", "UIDPLUS"},
		{"parking", []*finding{imap(func(f *finding) { f.loginErr = errors.New("miss") })}, "parking cannot work: miss", ""},
		{"no ID", []*finding{imap(func(f *finding) { f.probe.TakesClientAddress = false })}, "TAKES NO CLIENT ADDRESSES", "login_trusted_networks"},
		{"ID", []*finding{imap(func(*finding) {})}, "login_trusted_networks", "BELIEVE"},
		{"ID and a POP3 that trusts", []*finding{imap(func(*finding) {}), pop3("192.0.2.1", true)}, "believes them if it is the same Dovecot", "login_trusted_networks"},
		{"ID and another host's POP3", []*finding{imap(func(*finding) {}), pop3("192.0.2.2", true)}, "only after a login", "same Dovecot"},
		{"POP3 that does not trust", []*finding{pop3("192.0.2.1", false)}, "DOES NOT BELIEVE OUR CLIENT ADDRESSES", ""},
		{"not shown before login", []*finding{imap(func(*finding) {})}, "if the target has no UIDPLUS after login", "the target has no UIDPLUS: "},
		{"shown", []*finding{imap(func(f *finding) { f.probe.Capabilities = whole })}, "kept: folders", "UIDPLUS"},
		{"shown after login", []*finding{imap(func(f *finding) { f.loggedIn = whole[1:] })}, "the target has no UIDPLUS: what arrived is settled by looking", "MULTIAPPEND"},
		{"POP3 users", []*finding{imap(func(*finding) {})}, "the target has no pop3", ""},
		{"adopt", []*finding{imap(func(*finding) {})}, "adopt: accounts that the target has", ""},
		{"mail flow", nil, "all three roads", ""},
	} {
		got := strings.Join(notes(domain, c.findings), "\n")
		if !strings.Contains(got, c.want) || (c.not != "" && strings.Contains(got, c.not)) {
			t.Errorf("%s: want %q and not %q in\n%s", c.name, c.want, c.not, got)
		}
	}
}

// What parking on the source asks of the administrator and of the target.
func TestCheckNotesOfParkingOnTheSource(t *testing.T) {
	target := &finding{side: "target", protocol: config.IMAP, loggedIn: []string{"IMAP4rev1"},
		probe: upstream.Probe{Remote: "192.0.2.1:993", TLSVersion: "TLS 1.3", TakesClientAddress: true}}
	for mode, wants := range map[config.ParkingMode]bool{config.ParkSource: true, config.ParkNotice: false} {
		all := strings.Join(notes(&config.Domain{Parking: config.Parking{Mode: mode}}, []*finding{target}), "\n")
		for _, text := range []string{"CLOSE DIRECT ACCESS TO THE SOURCE", "choose another parking mode", "the source has no imap"} {
			if strings.Contains(all, text) != wants {
				t.Errorf("%s: %q is there: %t, in\n%s", mode, text, !wants, all)
			}
		}
	}
}

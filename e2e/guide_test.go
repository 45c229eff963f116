package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"migproxy/e2e/servers"
)

const guidePath = "../docs/guide.md"

// guideUsers are the users of the guide's old server and their passwords.
var guideUsers = []struct{ name, password string }{
	{"anna@example.com", `a"b\c %`}, {"bert@example.com", "bert's"}, {"carla@example.com", "carla's"},
	{"dora@example.com", "dora's password"}, {"emil@example.com", "nobody knows it"}, {"fritz@example.com", "fritz's"},
}

// guideStep is one block or play of the guide, in its order.
type guideStep struct {
	line int      // where it begins
	info []string // what stands behind its fence; "play" and a name for a play
	text string
}

// guideSteps reads the fenced blocks and the plays of the guide.
func guideSteps(t *testing.T) (steps []guideStep) {
	t.Helper()
	var open *guideStep
	for i, line := range strings.Split(readFile(t, guidePath), "\n") {
		play, isPlay := strings.CutPrefix(line, "<!-- play: ")
		switch {
		case open != nil && line == "```":
			steps, open = append(steps, *open), nil
		case open != nil:
			open.text += line + "\n"
		case strings.HasPrefix(line, "```"):
			open = &guideStep{line: i + 1, info: strings.Fields(line[3:])}
		case isPlay:
			steps = append(steps, guideStep{i + 1, []string{"play"}, strings.TrimSuffix(play, " -->")})
		}
	}
	if open != nil {
		t.Fatalf("the block of line %d has no end", open.line)
	}
	return steps
}

// guideWorld is a clean machine and two servers.
type guideWorld struct {
	*proxy
	t              *testing.T
	root           string            // the machine's /
	substitute     *strings.Replacer // the only differences between guide and machine
	source, target *servers.Dovecot
	kept           string // what an administrator's shell remembers: aliases
	output         string // of the last block
	before         map[string]view
}

func newGuideWorld(t *testing.T, steps []guideStep) *guideWorld {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "mp-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil { // Dovecot reads in it, as a user of its own
		t.Fatal(err)
	}
	ports := servers.FreePorts(t, 5)
	w := &guideWorld{t: t, root: root, before: map[string]view{}}
	w.proxy = &proxy{t: t, dir: root, bin: root + "/usr/local/bin/migproxy", config: root + "/etc/migproxy/migproxy.yaml",
		imap: ports[0], imaps: ports[1], pop3: ports[2], pop3s: ports[3], admin: ports[4],
		env: []string{"SSL_CERT_FILE=" + root + "/authorities.crt"}}

	master := filepath.Join(root, "masters")
	if err := os.WriteFile(master, []byte("migration:{PLAIN}the old server's master password\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.source = servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep,
		Extra: "passdb {\n  driver = passwd-file\n  args = " + master + "\n  master = yes\n}\n"})
	paths := []string{
		"/etc/", root + "/etc/", "/var/lib/migproxy", root + "/var/lib/migproxy", "/run/migproxy", root + "/run/migproxy",
		"/usr/local/", root + "/usr/local/", "/root/", root + "/root/",
		" -o migproxy", "", " -g migproxy", "", "runuser -u migproxy -- ", "", "chgrp migproxy", fmt.Sprintf("chgrp %d", os.Getegid()),
		"192.0.2.10:143", servers.Address(w.imap), "192.0.2.10:993", servers.Address(w.imaps),
		"192.0.2.10:110", servers.Address(w.pop3), "192.0.2.10:995", servers.Address(w.pop3s),
		"127.0.0.1:8025", servers.Address(w.admin), "192.0.2.10", "127.0.0.1",
		"old.example.com:993", servers.Address(w.source.IMAPS), "old.example.com:995", servers.Address(w.source.POP3S),
	}
	var extra strings.Builder
	for _, s := range steps {
		if slices.Equal(s.info, []string{"conf", "target"}) {
			extra.WriteString(strings.NewReplacer(paths...).Replace(s.text))
		}
	}
	w.target = servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep, Extra: extra.String()})
	w.substitute = strings.NewReplacer(append(paths,
		"new.example.com:143", servers.Address(w.target.IMAP), "new.example.com:110", servers.Address(w.target.POP3))...)

	for _, u := range guideUsers {
		w.source.AddUser(u.name, u.password)
	}
	awaitLogin(t, w.source, guideUsers[len(guideUsers)-1].name, guideUsers[len(guideUsers)-1].password)
	for _, u := range guideUsers {
		c := login(t, w.source.IMAP, u.name, u.password)
		appendTo(t, c, "INBOX", note("first of "+u.name), note("second of "+u.name))
		appendTo(t, c, "Sent", note("sent by "+u.name))
		if err := c.Logout().Wait(); err != nil {
			t.Fatal(err)
		}
	}
	// What lies in the directory in which the administrator begins, and what a machine has.
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	deploy, err := filepath.Abs("../deploy")
	if err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(root, "root")
	for _, dir := range []string{work + "/bin", root + "/etc"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"bin/migproxy": bin, "deploy": deploy} {
		if err := os.Symlink(to, filepath.Join(work, name)); err != nil {
			t.Fatal(err)
		}
	}
	servers.WriteCertificate(t, work)
	authorities := readFile(t, w.source.CAFile) + readFile(t, w.target.CAFile)
	if err := os.WriteFile(root+"/authorities.crt", []byte(authorities), 0o644); err != nil {
		t.Fatal(err)
	}
	if w.proxy.output, err = os.Create(root + "/output.log"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.stop(syscall.SIGTERM)
		_ = w.proxy.output.Close()
		if t.Failed() {
			t.Logf("migproxy:\n%s", tail(w.read("output.log"), 60))
		}
	})
	return w
}

// runBlock runs a block as an administrator's shell would.
func (w *guideWorld) runBlock(s guideStep) {
	w.t.Helper()
	text := w.substitute.Replace(s.text)
	cmd := exec.CommandContext(w.t.Context(), "sh", "-e", "-c", w.kept+text)
	cmd.Dir = w.root + "/root"
	cmd.Env = append(os.Environ(), append(w.env, "PATH="+w.root+"/usr/local/bin:"+os.Getenv("PATH"))...)
	out, err := cmd.CombinedOutput()
	w.output = string(out)
	w.t.Logf("%s\n%s", s.text, w.output)
	want := 0
	for _, word := range s.info {
		if _, err := fmt.Sscanf(word, "status=%d", &want); err == nil {
			break
		}
	}
	if cmd.ProcessState.ExitCode() != want {
		w.t.Fatalf("line %d of the guide: %v\n%s%s", s.line, err, s.text, out)
	}
	if slices.Contains(s.info, "keep") {
		w.kept += text
	}
}

// write adds a block to the file that it names.
func (w *guideWorld) write(s guideStep) {
	w.t.Helper()
	path := w.substitute.Replace(s.info[1])
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(w.substitute.Replace(s.text))
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// shows holds what the last block said against what the guide shows of it.
func (w *guideWorld) shows(s guideStep) {
	w.t.Helper()
	plain := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	for line := range strings.Lines(s.text) {
		if !strings.Contains(plain(w.output), plain(line)) {
			w.t.Errorf("line %d of the guide: the output lacks %q:\n%s", s.line, plain(line), w.output)
		}
	}
}

// serve starts migproxy as the unit does.
func (w *guideWorld) serve() {
	w.t.Helper()
	unit := readFile(w.t, w.root+"/etc/systemd/system/migproxy.service")
	if !strings.Contains(unit, "ExecStart=/usr/local/bin/migproxy serve --config /etc/migproxy/migproxy.yaml\n") {
		w.t.Errorf("the unit starts something else:\n%s", unit)
	}
	for _, dir := range []string{"/var/lib/migproxy", "/run/migproxy"} { // StateDirectory, RuntimeDirectory
		if err := os.MkdirAll(w.root+dir, 0o700); err != nil {
			w.t.Fatal(err)
		}
	}
	w.start()
}

// enter lets a user log in through migproxy, and gives what his client shows.
func (w *guideWorld) enter(name string, read bool) answer {
	w.t.Helper()
	r := request{Op: "commands", Port: w.imaps, TLS: "implicit", User: name, Commands: [][]any{{"select", "INBOX", true}, {"fetch", "1:*", "(BODY.PEEK[])"}}}
	if read {
		r.Op, r.Commands = "dump", nil
	}
	for _, u := range guideUsers {
		if strings.HasPrefix(u.name, name) {
			r.Password = u.password
		}
	}
	return ask(w.t, r)
}

// has fails unless a user finds all his mail through migproxy.
func (w *guideWorld) has(name string) {
	w.t.Helper()
	sameMail(w.t, w.before[name], viewOf(w.t, w.enter(name, true), "", targetSep, nil))
}

// remember keeps what the source has now.
func (w *guideWorld) remember() {
	w.t.Helper()
	for _, u := range guideUsers {
		w.before[u.name] = viewOf(w.t, ask(w.t, request{Op: "dump", Port: w.source.IMAP, User: u.name, Password: u.password}), "", targetSep, nil)
	}
}

// plays are what users and other administrators do between the guide's steps.
func (w *guideWorld) plays() map[string]func() {
	t := w.t
	return map[string]func(){
		"Fritz was tried out on the new server": func() {
			if err := os.WriteFile(w.root+"/etc/dovecot/migproxy/migrated-users", []byte("fritz@example.com:{PLAIN}tried out::::::\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		},
		"anna logs in": func() {
			w.has("anna@example.com") // wherever her account is by then
			w.awaitState("anna@example.com", "active")
		},
		"anna reads her mail": func() { w.has("anna@example.com") },
		"bert logs in and stays": func() {
			w.has("bert@example.com")
			w.awaitState("bert@example.com", "at_source")
		},
		"mail for anna arrives at the old server": func() {
			appendTo(t, login(t, w.source.IMAP, "anna@example.com", guideUsers[0].password), "INBOX", note("from a colleague"))
			w.remember()
		},
		"anna has it": func() {
			if err := eventually(copyDeadline, func() error {
				if n := len(viewOf(t, w.enter("anna@example.com", true), "", targetSep, nil).folders["INBOX"]); n != 3 {
					return fmt.Errorf("anna has %d messages", n)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
			w.has("anna@example.com")
		},
		"everybody logs in": func() {
			w.has("bert@example.com")
			carla := request{Op: "pop3list", Port: w.pop3s, TLS: "implicit", User: "carla@example.com", Password: "carla's"}
			if a := ask(t, carla); !a.OK || len(a.UIDL) != 2 { // from either server
				t.Errorf("%+v", a)
			}
			w.enter("fritz@example.com", false)
			w.awaitState("bert@example.com", "active")
			w.awaitState("carla@example.com", "active")
			w.awaitState("fritz@example.com", "conflict")
			carla.Op = "pop3dump" // she reads her mail once she has moved
			if a := ask(t, carla); !a.OK || len(a.UIDL) != 2 {
				t.Errorf("%+v", a)
			}
		},
		"Fritz moves": func() {
			w.awaitState("fritz@example.com", "active")
			w.has("fritz@example.com")
		},
		"Emil logs in": func() {
			w.enter("emil@example.com", false)
			w.awaitState("emil@example.com", "active")
		},
		"the old server is switched off": func() {
			w.source.Stop()
			for _, u := range guideUsers {
				if u.name != "carla@example.com" { // her POP3 client has marked her mail as read
					w.has(u.name)
				}
			}
			if a := ask(t, request{Op: "commands", Port: w.imaps, TLS: "implicit", User: "bert", Password: "guessed"}); a.OK || !strings.Contains(a.Error, "AUTHENTICATIONFAILED") {
				t.Errorf("%+v", a)
			}
		},
	}
}

// The guide is followed word for word on a clean machine, from an empty
// directory to the end of the migration. What cannot be run here is named here.
func TestTheGuide(t *testing.T) {
	steps := guideSteps(t)
	w := newGuideWorld(t, steps)
	w.remember()
	plays := w.plays()
	nothing := func() {}
	notRun := map[string]struct {
		why  string
		play func() // what happens in its place
	}{
		"dig +noall +answer imap.example.com mx example.com     # the second column is the time to live": {"there is no DNS", nothing},
		"make build": {"the tests have built it", nothing},
		"useradd --system --home-dir /var/lib/migproxy --shell /usr/sbin/nologin migproxy": {"the machine is not to be changed", nothing},
		"systemctl daemon-reload":                         {"no systemd", w.serve},
		"dig +short imap.example.com        # 192.0.2.10": {"there is no DNS", nothing},
		"nft add rule inet filter input tcp dport { 110, 143, 993, 995 } ip saddr != 192.0.2.10 reject     # on the old server": {"the machine is not to be changed", nothing},
		"migproxy log -f": {"it has no end, and there is no journal", nothing},
		"migproxy account exclude scanner@example.com":                                            {"there is no such account", nothing},
		"chown root:dovecot /etc/dovecot/migrated-users && chmod 640 /etc/dovecot/migrated-users": {"no systemd", func() { w.stop(syscall.SIGTERM) }},
	}
	ran := 0
	for _, s := range steps {
		switch first, _, _ := strings.Cut(s.text, "\n"); {
		case s.info[0] == "play":
			play, known := plays[s.text]
			if !known {
				t.Fatalf("line %d of the guide: the test cannot play %q", s.line, s.text)
			}
			play()
			delete(plays, s.text)
		case len(s.info) > 1 && s.info[1] == "run" && s.info[0] == "sh":
			w.runBlock(s)
			ran++
		case slices.Equal(s.info, []string{"sh"}):
			instead, known := notRun[first]
			if !known {
				t.Fatalf("line %d of the guide: mark the block with run, or say in this test why it is not:\n%s", s.line, s.text)
			}
			t.Logf("line %d of the guide is not run: %s\n%s", s.line, instead.why, s.text)
			instead.play()
			delete(notRun, first)
		case slices.Equal(s.info, []string{"text", "output"}):
			w.shows(s)
		case slices.Equal(s.info, []string{"conf", "target"}): // read before, when the target was started
		case len(s.info) == 2 && strings.HasPrefix(s.info[1], "/"):
			w.write(s)
		default:
			t.Fatalf("line %d of the guide: nothing is known of a block %q", s.line, s.info)
		}
		if t.Failed() {
			t.Fatalf("after line %d of the guide", s.line)
		}
	}
	for name := range plays {
		t.Errorf("the guide has no place for %q", name)
	}
	for first, b := range notRun {
		t.Errorf("the guide has no block %q (%s)", first, b.why)
	}
	if ran < 15 {
		t.Errorf("only %d blocks were run", ran)
	}
	for _, u := range guideUsers { // without migproxy
		if u.name != "carla@example.com" {
			sameMail(t, w.before[u.name], viewOf(t, ask(t, request{Op: "dump", Port: w.target.IMAP, User: u.name, Password: u.password}), "", targetSep, nil))
		}
	}
	if report := readFile(t, w.root+"/root/proof.html"); !strings.Contains(report, "emil@example.com") {
		t.Error("the report lacks an account")
	}
}

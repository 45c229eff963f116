package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"migproxy/e2e/servers"
)

func cyrusEndpoint(c *servers.Cyrus) endpoint {
	return endpoint{imap: c.IMAP, pop3: c.POP3, tls: "starttls", caFile: c.CAFile}
}

// cyrusProvision creates accounts in a Cyrus as an administrator's script
// would.
func cyrusProvision(t testing.TB, c *servers.Cyrus) string {
	t.Helper()
	const script = `#!/usr/bin/env python3
import base64, json, os, subprocess, sys
r = json.load(sys.stdin)
made = %q + "/" + r["account"]
if r["op"] == "lookup":
    sys.exit(2 if os.path.exists(made) else 0)
subprocess.run([%q, r["account"]], input=base64.b64decode(r["password_base64"]), check=True)
open(made, "w")
`
	command := filepath.Join(t.TempDir(), "provision.py")
	if err := os.WriteFile(command, fmt.Appendf(nil, script, t.TempDir(), c.AddUserCommand), 0o755); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("{ driver: exec, command: [%s] }", command)
}

// moveBy lets one login of the user move the account.
func moveBy(t testing.TB, s settings) *proxy {
	t.Helper()
	p := newProxy(t, binary, s).start()
	if first := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls"}); !first.OK {
		t.Fatalf("%+v", first)
	}
	return p
}

// Whatever a Cyrus stores reaches a Dovecot.
func TestMoveFromCyrus(t *testing.T) {
	source := servers.StartCyrus(t, servers.CyrusOptions{Classic: true})
	source.AddUser(user, password)
	target := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
	stored := slices.DeleteFunc(oddities(), refusedByCyrus)
	paths := folderPaths("Sent")
	paths[3] = []string{"Lists", "what a Cyrus allows: ~+(&#$"}
	fillWith(t, login(t, source.IMAP, user, password), "INBOX.", ".", stored, paths)
	before, recent := ask(t, request{Op: "dump", Port: source.IMAP}), recentIn(t, source.IMAP)
	p := moveBy(t, settings{
		source: cyrusEndpoint(source), target: dovecotEndpoint(target),
		provision: fmt.Sprintf("{ driver: passwd-file, path: %s }", target.PasswdFile),
	})
	p.awaitState(user, "active")
	after := ask(t, request{Op: "dump", Port: source.IMAP})
	if now := recentIn(t, source.IMAP); !reflect.DeepEqual(before, after) || now != recent || recent == "* 0 RECENT\r\n" {
		t.Errorf("the source has changed: %q, before %q", now, recent)
	}
	sourceSide := viewOf(t, after, "INBOX.", ".", nil)
	sameMail(t, sourceSide, viewOf(t, ask(t, request{Op: "dump", Port: target.IMAP}), "", targetSep, nil))
	p.allIsWell()
}

func TestMoveToCyrus(t *testing.T) {
	source := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
	source.AddUser(user, password)
	moveToCyrus(t, dovecotEndpoint(source), "", targetSep, "")
}

// moveToCyrus moves a mailbox from a server that writes names with this prefix
// and separator. What a Cyrus does not keep is listed in docs/limits.md; nothing
// else is lost. If a step is given, migproxy is killed there once, over a batch of
// which Cyrus refuses nothing.
func moveToCyrus(t *testing.T, source endpoint, prefix, sep, step string) {
	t.Helper()
	target := servers.StartCyrus(t, servers.CyrusOptions{})
	bin, inbox, folders := binary, oddities(), folderPaths("Sent")
	report := []string{"Altered by the target      1\n", "Message contains invalid header"}
	if step != "" {
		bin, inbox, report = killable, slices.DeleteFunc(inbox, refusedByCyrus), report[:1]
		folders = nil // so that it is this batch
	}
	fillWith(t, login(t, source.imap, user, password), prefix, sep, inbox, folders)
	r := runner{proxy: newProxy(t, bin, settings{source: source, target: cyrusEndpoint(target), provision: cyrusProvision(t, target)}),
		user: user, password: password}
	if step != "" {
		r.kill(step)
		r.env = nil
	}
	r.start()
	if err := r.begin(); err != nil {
		t.Fatal(err)
	}
	r.awaitState(user, "active")
	want := viewOf(t, ask(t, request{Op: "dump", Port: source.imap}), prefix, sep, cyrusNames)
	want.folders["INBOX"] = asCyrusKeeps(want.folders["INBOX"])
	sameMail(t, want, viewOf(t, ask(t, request{Op: "dump", Port: target.IMAP}), "", targetSep, nil))
	shown, err := r.cli("account", "show", user)
	for _, text := range report {
		if err != nil || !strings.Contains(shown, text) {
			t.Errorf("the report lacks %q: %v\n%s", text, err, shown)
		}
	}
	if v := r.allIsWell(); v.Total.Altered != 1 || v.Total.SetAside != len(report)-1 {
		t.Errorf("%+v", v)
	}
}

// A message above the target's limit (APPENDLIMIT, RFC 7889) is set aside, and
// the others move.
func TestMessageAboveTheTargetsLimit(t *testing.T) {
	source := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
	source.AddUser(user, password)
	target := servers.StartCyrus(t, servers.CyrusOptions{Extra: "maxmessagesize: 500"})
	inbox := []mail{note("before")}
	inbox = append(inbox, slices.DeleteFunc(oddities(), func(m mail) bool { return len(m.octets) < 500_000 })...)
	inbox = append(inbox, note("after"))
	fillWith(t, login(t, source.IMAP, user, password), "", targetSep, inbox, nil)
	p := moveBy(t, settings{source: dovecotEndpoint(source), target: cyrusEndpoint(target), provision: cyrusProvision(t, target)})
	p.awaitState(user, "active")
	got := viewOf(t, ask(t, request{Op: "dump", Port: target.IMAP}), "", targetSep, nil).folders["INBOX"]
	shown, err := p.cli("account", "show", user)
	if err != nil || len(got) != 2 || !strings.Contains(shown, "Set aside                  1\n") || !strings.Contains(shown, "APPENDLIMIT") {
		t.Errorf("%q %v\n%s", got, err, shown)
	}
}

// refusedByCyrus tells messages whose first line is no header field.
func refusedByCyrus(m mail) bool { return bytes.HasPrefix(m.octets, []byte("no header")) }

// asCyrusKeeps takes what Cyrus refuses out of a folder's view, and has the
// octets above 127 in headers as it stores them: each an X.
func asCyrusKeeps(view []string) []string {
	for _, m := range oddities() {
		digest := fmt.Sprintf("%x", sha256.Sum256(m.octets))
		if refusedByCyrus(m) {
			view = slices.DeleteFunc(view, func(line string) bool { return strings.HasPrefix(line, digest) })
			continue
		}
		header, text, _ := bytes.Cut(m.octets, []byte("\r\n\r\n"))
		header = bytes.Map(func(r rune) rune {
			if r > 127 {
				return 'X'
			}
			return r
		}, header)
		munged := fmt.Sprintf("%x", sha256.Sum256(slices.Concat(header, []byte("\r\n\r\n"), text)))
		for i := range view {
			view[i] = strings.Replace(view[i], digest, munged, 1)
		}
	}
	slices.Sort(view)
	return view
}

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"migproxy/e2e/servers"
)

// large are the messages of oddities that take room.
func large() []mail {
	return slices.DeleteFunc(oddities(), func(m mail) bool { return len(m.octets) < 500_000 })
}

// A target that tells its quota is asked before anything is copied.
func TestNoRoomIsForeseen(t *testing.T) {
	room := newQuota(t, "1500K")
	p := newPairOf(t, "", room.settings()+"\nprotocol imap {\n  mail_plugins = $mail_plugins imap_quota\n}\n")
	fill(t, p.source.IMAP, user, password, sourcePrefix, sourceSep, "Gesendet")
	fillWith(t, login(t, p.source.IMAP, user, password), sourcePrefix, sourceSep, large(), [][]string{{"Gesendet"}, {"zuletzt"}})
	p.move()
	a := p.awaitState(user, "waiting")
	if !strings.Contains(a.Error, "nothing was copied yet") || !strings.Contains(a.Error, "room for 1536000") || a.Messages != 0 {
		t.Errorf("%+v", a)
	}
	room.set("100M")
	p.target.Stop()
	p.target.Start()
	p.awaitState(user, "active")
	sameMail(t, p.sourceView(), p.targetView())
}

// A target whose disk is full in the middle of the copy gets the rest when there
// is room again, and nothing is held against the message under way.
func TestTheTargetsDiskIsFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a disk of its own needs root")
	}
	source := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
	target := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep, MailSize: "3m"})
	source.AddUser(user, password)
	fill(t, source.IMAP, user, password, "", targetSep, "Sent")
	fillWith(t, login(t, source.IMAP, user, password), "", targetSep, large(), [][]string{{"Sent"}, {"zuletzt"}})
	p := moveBy(t, settings{source: dovecotEndpoint(source), target: dovecotEndpoint(target),
		provision: fmt.Sprintf("{ driver: passwd-file, path: %s }", target.PasswdFile)})
	// Dovecot says SERVERBUG or OVERQUOTA, as the file is that it could not write.
	if a := p.awaitState(user, "waiting"); !strings.Contains(a.Error, "the target takes no more mail at present") && !strings.Contains(a.Error, "quota") || a.Messages == 0 {
		t.Errorf("%+v", a)
	}
	target.ResizeMail("100m")
	p.awaitState(user, "active")
	both := func(port int) view { return viewOf(t, ask(t, request{Op: "dump", Port: port}), "", targetSep, nil) }
	sameMail(t, both(source.IMAP), both(target.IMAP))
	if shown, err := p.cli("account", "show", user); err != nil || !strings.Contains(shown, "Set aside                  0\n") {
		t.Errorf("%v\n%s", err, shown)
	}
}

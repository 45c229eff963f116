package e2e

import (
	"fmt"
	"slices"
	"testing"

	"migproxy/e2e/servers"
)

// sourceKind starts a server that users leave, with the user's mail in it.
type sourceKind func(t *testing.T) (e endpoint, look func(rename map[string]string) view)

// targetKind starts the server that they come to. keeps says what it makes of a
// mailbox, as docs/limits.md does.
type targetKind func(t *testing.T) (e endpoint, provision string, keeps func(view) view)

// sourceKinds and targetKinds are the pairs that are to be equal after a move.
var (
	sourceKinds = map[string]sourceKind{"Dovecot": fromDovecot, "Courier": fromCourier, "Cyrus": fromCyrus, "POP3": fromPOP3}
	targetKinds = map[string]targetKind{"Dovecot": toDovecot, "Cyrus": toCyrus}
)

// cyrusNames are what a Cyrus makes of the fixture's names.
var cyrusNames = map[string]string{"Lists\x00quote\"and\\back": "Lists\x00quote_and_back"}

// looking is how another client sees the user's mailbox on a server.
func looking(t *testing.T, port int, prefix, sep string) func(map[string]string) view {
	return func(rename map[string]string) view {
		return viewOf(t, ask(t, request{Op: "dump", Port: port}), prefix, sep, rename)
	}
}

func fromDovecot(t *testing.T) (endpoint, func(map[string]string) view) {
	d := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
	d.AddUser(user, password)
	fill(t, d.IMAP, user, password, "", targetSep, "Sent")
	return dovecotEndpoint(d), looking(t, d.IMAP, "", targetSep)
}

func fromCourier(t *testing.T) (endpoint, func(map[string]string) view) {
	c := servers.StartCourier(t, map[string]string{user: password})
	fill(t, c.IMAP, user, password, "INBOX.", ".", "Sent")
	return endpoint{imap: c.IMAP, pop3: c.POP3, tls: "none"}, looking(t, c.IMAP, "INBOX.", ".")
}

func fromCyrus(t *testing.T) (endpoint, func(map[string]string) view) {
	c := servers.StartCyrus(t, servers.CyrusOptions{Classic: true})
	c.AddUser(user, password)
	paths := folderPaths("Sent")
	paths[3] = []string{"Lists", "what a Cyrus allows: ~+(&#$"}
	fillWith(t, login(t, c.IMAP, user, password), "INBOX.", ".", slices.DeleteFunc(oddities(), refusedByCyrus), paths)
	return cyrusEndpoint(c), looking(t, c.IMAP, "INBOX.", ".")
}

// fromPOP3 is a server that is reached over POP3 alone, and has folders besides,
// which nobody sees. What it has is the INBOX as POP3 gives it, without flags and
// dates.
func fromPOP3(t *testing.T) (endpoint, func(map[string]string) view) {
	d := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
	d.AddUser(user, password)
	fill(t, d.IMAP, user, password, "", targetSep, "Sent")
	e := dovecotEndpoint(d)
	e.imap = 0
	return e, func(map[string]string) view {
		return view{folders: map[string][]string{"INBOX": overPOP3(looking(t, d.IMAP, "", targetSep)(nil), oddities())}}
	}
}

func toDovecot(t *testing.T) (endpoint, string, func(view) view) {
	d := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
	return dovecotEndpoint(d), fmt.Sprintf("{ driver: passwd-file, path: %s }", d.PasswdFile), nil
}

func toCyrus(t *testing.T) (endpoint, string, func(view) view) {
	c := servers.StartCyrus(t, servers.CyrusOptions{})
	return cyrusEndpoint(c), cyrusProvision(t, c), func(v view) view {
		v.folders["INBOX"] = asCyrusKeeps(v.folders["INBOX"])
		return v
	}
}

// moveBetween moves the user's mailbox and holds both sides against each other:
// by a client that the project did not write, and by migproxy's own word.
func moveBetween(t *testing.T, source sourceKind, target targetKind) {
	from, look := source(t)
	to, provision, keeps := target(t)
	p := moveBy(t, settings{source: from, target: to, provision: provision})
	p.awaitState(user, "active")
	var rename map[string]string
	if keeps != nil {
		rename = cyrusNames
	}
	want := look(rename)
	if keeps != nil {
		want = keeps(want)
	}
	got := looking(t, to.imap, "", targetSep)(nil)
	if from.imap == 0 {
		got.folders["INBOX"], got.subscribed = overPOP3(got, nil), nil
	}
	sameMail(t, want, got)
	if said, err := p.cli("verify", user, "--deep"); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}

// Two pairs of the matrix; the others take longer.
func TestMoveFromCyrusToCyrus(t *testing.T) {
	moveBetween(t, sourceKinds["Cyrus"], targetKinds["Cyrus"])
}

func TestMoveFromPOP3ToDovecot(t *testing.T) {
	moveBetween(t, sourceKinds["POP3"], targetKinds["Dovecot"])
}

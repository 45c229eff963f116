package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/upstream"
)

// cuttingTarget lets everybody in, and cuts each connection at a command. It
// returns its port and what it was asked.
func cuttingTarget(t *testing.T, at string) (port uint16, commands func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all []string
	var served sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		served.Wait()
	})
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer func() { _ = c.Close() }()
				_, _ = fmt.Fprint(c, "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR LITERAL+ NAMESPACE] hello\r\n")
				lines := bufio.NewScanner(c)
				for lines.Scan() {
					tag, command, _ := strings.Cut(lines.Text(), " ")
					name, _, _ := strings.Cut(command, " ")
					mu.Lock()
					all = append(all, command)
					mu.Unlock()
					if name == at {
						return
					}
					switch name {
					case "CAPABILITY":
						_, _ = fmt.Fprint(c, "* CAPABILITY IMAP4rev1 LITERAL+ NAMESPACE\r\n")
					case "NAMESPACE":
						_, _ = fmt.Fprint(c, "* NAMESPACE ((\"Mail\\\"box.\" \".\")) NIL NIL\r\n")
					}
					_, _ = fmt.Fprintf(c, "%s OK done\r\n", tag)
				}
			})
		}
	})
	return uint16(l.Addr().(*net.TCPAddr).Port), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// The scratch folder goes also when the connection breaks while it is used; and
// if it stays, the administrator is told its name.
func TestScratchFolderIsRemoved(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	parking := config.Parking{Account: "migration@example.com", PasswordFile: file}
	for _, at := range []string{"CREATE", "APPEND", "DELETE"} {
		t.Run(at, func(t *testing.T) {
			port, commands := cuttingTarget(t, at)
			server, err := upstream.NewServer(config.IMAP, config.Server{Address: config.Addresses{{Host: "127.0.0.1", Port: port}},
				TLS: config.TLSNone, Username: "{address}"}, zap.NewNop())
			if err != nil {
				t.Fatal(err)
			}
			got := try(t.Context(), server, parking, nil)
			var created, deleted string
			for _, c := range commands() {
				if rest, ok := strings.CutPrefix(c, "CREATE "); ok {
					created = rest
				}
				if rest, ok := strings.CutPrefix(c, "DELETE "); ok {
					deleted = rest
				}
			}
			if got.err == nil || created == "" || created != deleted || !strings.HasPrefix(created, `"Mail\"box.migproxy-check-`) {
				t.Errorf("created %s, deleted %s: %v", created, deleted, got.err)
			}
			if (got.left != nil) != (at == "DELETE") {
				t.Errorf("left: %v", got.left)
			}
			if notes := strings.Join(trialNotes(&finding{side: "target", protocol: config.IMAP, trial: got}), "\n"); !strings.Contains(notes, "could not be tried") ||
				strings.Contains(notes, "could not be removed, please do so") != (at == "DELETE") {
				t.Error(notes)
			}
		})
	}
	if got := try(t.Context(), nil, config.Parking{Account: "migration@example.com"}, nil); got != nil {
		t.Error("tried without a password")
	}
}

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

// workingUser is what working_user.py is asked.
type workingUser struct {
	User        string            `json:"user"`
	Password    string            `json:"password"`
	SourcePort  int               `json:"source_port"`
	Source      [2]string         `json:"source"` // prefix and separator, by which it is told from the target
	SourceNames map[string]string `json:"source_names,omitempty"`
	IMAP        int               `json:"imap"`
	IMAPS       int               `json:"imaps,omitempty"`
	Seed        uint64            `json:"seed"`
	Messages    int               `json:"messages"` // that he has from the start
	After       int               `json:"after"`    // what he does after the flip
	Limit       int               `json:"limit"`    // seconds until the flip
	Own         []string          `json:"own"`      // folders that the target makes by itself
	Phone       string            `json:"phone,omitempty"`
	Crashes     bool              `json:"crashes,omitempty"`
	Transcript  string            `json:"transcript"`
}

// news is one line of what working_user.py says.
type news struct {
	Event string
	Text  string
	Model struct {
		Folders    map[string][]string
		Subscribed []string
	}
	Stats struct {
		Ops, Before, Cut, Repeated int
		Mbsync                     int
		MbsyncCut                  int `json:"mbsync cut"`
		Logins                     []float64
		Kinds                      map[string]int
	}
}

// view is the model as a mailbox is seen on a server, but for the dates.
func (n news) view() view { return view{folders: n.Model.Folders, subscribed: n.Model.Subscribed} }

// worker is a user who works.
type worker struct {
	t          testing.TB
	transcript string
	in         io.WriteCloser
	events     chan news
}

// startWorker starts a user, who makes his mailbox on the source first.
func startWorker(t testing.TB, u workingUser) *worker {
	t.Helper()
	u.Transcript = filepath.Join(t.TempDir(), "transcript")
	w := &worker{t: t, transcript: u.Transcript, events: make(chan news)}
	cmd := exec.Command("python3", "working_user.py")
	var err error
	if w.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer close(w.events)
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				break
			}
			var n news
			if err := json.Unmarshal(line, &n); err != nil {
				n = news{Event: "violation", Text: fmt.Sprintf("%v in %q", err, line)}
			}
			select {
			case w.events <- n:
			case <-over:
			}
		}
		if err := cmd.Wait(); err != nil || errs.Len() > 0 {
			select {
			case w.events <- news{Event: "violation", Text: fmt.Sprintf("%v\n%s", err, errs.String())}:
			case <-over:
			}
		}
	}()
	t.Cleanup(func() {
		close(over)
		_ = cmd.Process.Kill()
		<-ended
	})
	request, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.in.Write(append(request, '\n')); err != nil {
		t.Fatal(err)
	}
	w.await("filled")
	return w
}

// goOn lets the user begin to work, or go on after the flip.
func (w *worker) goOn() {
	w.t.Helper()
	if _, err := io.WriteString(w.in, "go\n"); err != nil {
		w.t.Fatal(err)
	}
}

// await waits for the next thing that he says, which must be this.
func (w *worker) await(event string) news {
	w.t.Helper()
	select {
	case n, ok := <-w.events:
		if !ok {
			w.t.Fatalf("he ended before %q", event)
		}
		if n.Event != event {
			w.t.Fatalf("%s: %s\n%+v\n%s", n.Event, n.Text, n.Stats, tail(readFile(w.t, w.transcript), 60))
		}
		return n
	case <-time.After(3 * copyDeadline):
		w.t.Fatalf("no %q\n%s", event, tail(readFile(w.t, w.transcript), 60))
	}
	panic("not reached")
}

// undated takes the dates away, which the model has not.
func (v view) undated() view {
	bare := view{folders: map[string][]string{}, subscribed: v.subscribed}
	for name, list := range v.folders {
		bare.folders[name] = []string{}
		for _, m := range list {
			bare.folders[name] = append(bare.folders[name], m[:strings.LastIndex(m, " ")])
		}
		slices.Sort(bare.folders[name])
	}
	return bare
}

// without takes empty folders away that a server makes by itself.
func (v view) without(own ...string) view {
	for _, name := range own {
		if list, ok := v.folders[name]; ok && len(list) == 0 {
			delete(v.folders, name)
		}
	}
	v.subscribed = slices.DeleteFunc(slices.Clone(v.subscribed), func(s string) bool {
		_, ok := v.folders[s] // a name may be subscribed that is no folder's
		return !ok
	})
	return v
}

// differences are the first thirty between two views, in which every folder and
// every subscription counts.
func differences(want, got view) error {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, name := range keys(want.folders) {
		if _, ok := got.folders[name]; !ok {
			add("%q is missing, with %d messages", name, len(want.folders[name]))
			continue
		}
		for _, m := range minus(want.folders[name], got.folders[name]) {
			add("%q lacks %s", name, m)
		}
		for _, m := range minus(got.folders[name], want.folders[name]) {
			add("%q has besides %s", name, m)
		}
	}
	for _, name := range keys(got.folders) {
		if _, ok := want.folders[name]; !ok {
			add("%q is there besides, with %d messages", name, len(got.folders[name]))
		}
	}
	for _, s := range minus(want.subscribed, got.subscribed) {
		add("%q is not subscribed", s)
	}
	for _, s := range minus(got.subscribed, want.subscribed) {
		add("%q is subscribed besides", s)
	}
	if len(lines) == 0 {
		return nil
	}
	if n := len(lines); n > 30 {
		lines = append(lines[:30], fmt.Sprintf("and %d more", n-30))
	}
	return errors.New(strings.Join(lines, "\n"))
}

// office is a source with a working user in it, and the target that he comes to.
type office struct {
	source endpoint
	target *servers.Dovecot
	look   func() view // at the source
	user   workingUser
}

func dovecotOffice(t testing.TB) *office {
	s := servers.StartDovecot(t, servers.DovecotOptions{Separator: sourceSep, Prefix: sourcePrefix, SentName: "Gesendet"})
	s.AddUser(user, workPassword)
	o := &office{source: dovecotEndpoint(s)}
	o.user.SourceNames = map[string]string{"Sent": "Gesendet"}
	return o.ready(t, s.IMAP)
}

func courierOffice(t testing.TB) *office {
	c := servers.StartCourier(t, map[string]string{user: workPassword})
	o := &office{source: endpoint{imap: c.IMAP, pop3: c.POP3, tls: "none"}}
	return o.ready(t, c.IMAP)
}

// workPassword is one that mbsync's settings can hold.
const workPassword = "works-all-day"

func (o *office) ready(t testing.TB, port int) *office {
	o.target = servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
	o.look = func() view {
		rename := map[string]string{}
		for to, from := range o.user.SourceNames {
			rename[from] = to
		}
		return viewOf(t, ask(t, request{Op: "dump", Port: port, Password: workPassword}), sourcePrefix, sourceSep, rename)
	}
	o.user.User, o.user.Password, o.user.SourcePort = user, workPassword, port
	o.user.Source = [2]string{sourcePrefix, sourceSep}
	o.user.Own = []string{"Sent", "Drafts", "Trash"}
	return o
}

// lookTarget is what the target shows to another client.
func (o *office) lookTarget(t testing.TB) view {
	return viewOf(t, ask(t, request{Op: "dump", Port: o.target.IMAP, Password: workPassword}), "", targetSep, nil)
}

// settings park the user at his source until little is left.
func (o *office) settings() settings {
	return settings{
		source: o.source, target: dovecotEndpoint(o.target),
		provision: fmt.Sprintf("{ driver: passwd-file, path: %s, lock: %s }", o.target.PasswdFile, filepath.Join(o.target.Dir, "users", "lock")),
		domain:    "    parking: { mode: source, flip: { messages: 50 } }\n",
		migration: "settle_quiet: 500ms, rate: { messages: 60 }",
	}
}

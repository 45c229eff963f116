package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
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
	Messages    int               `json:"messages"`        // that he has from the start
	After       int               `json:"after"`           // what he does after the flip
	Limit       int               `json:"limit"`           // seconds until the flip
	Stays       bool              `json:"stays,omitempty"` // ends then, and is not to flip
	Own         []string          `json:"own"`             // folders that the target makes by itself
	Phone       string            `json:"phone,omitempty"`
	RenamesOnce bool              `json:"renames_once,omitempty"` // no folder that was renamed before
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

// besides takes away what a target has besides: empty folders that it makes by
// itself, and subscriptions of what is no folder on the source.
func (u workingUser) besides(target, source view) (view, view) {
	got := view{folders: maps.Clone(target.folders)}
	maps.DeleteFunc(got.folders, func(name string, list []string) bool {
		_, ok := source.folders[name]
		return !ok && len(list) == 0 && (u.Crashes || slices.Contains(u.Own, name)) // working_user.py says why
	})
	got.subscribed = subscribedFolders(target.subscribed, got.folders)
	return view{folders: source.folders, subscribed: subscribedFolders(source.subscribed, source.folders)}, got
}

func subscribedFolders(names []string, folders map[string][]string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(s string) bool {
		_, ok := folders[s]
		return !ok
	})
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
	server *servers.Dovecot // the source, if it is one
	target *servers.Dovecot
	look   func() view // at the source
	user   workingUser
}

// dovecotOffice has no Maildir: a folder of Dovecot 2.3 that is renamed while another
// session reads it may stand still for seconds there, or show no messages.
func dovecotOffice(t testing.TB) *office {
	s := servers.StartDovecot(t, servers.DovecotOptions{Separator: sourceSep, Prefix: sourcePrefix, SentName: "Gesendet",
		Extra: "mail_location = sdbox:~/sdbox\nmail_fsync = never"})
	s.AddUser(user, workPassword)
	o := &office{source: dovecotEndpoint(s), server: s}
	o.user.SourceNames = map[string]string{"Sent": "Gesendet"}
	return o.ready(t, s.IMAP)
}

func courierOffice(t testing.TB) *office {
	c := servers.StartCourier(t, map[string]string{user: workPassword})
	o := &office{source: endpoint{imap: c.IMAP, pop3: c.POP3, tls: "none"}}
	o.user.RenamesOnce = true // or a Courier 5.0 ends with "Fatal error: Not a directory"
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
		migration: "settle_quiet: 500ms, rate: { messages: 20 }",
	}
}

// works lets the user work through the proxy until the flip and a little longer,
// and holds both servers against his model.
func (o *office) works(t testing.TB, seed uint64) {
	t.Helper()
	s := o.settings()
	s.target.imap = newValve(t, o.target.IMAP).port
	p := newProxy(t, binary, s)
	u := o.user
	u.IMAP, u.IMAPS, u.Seed, u.Limit = p.imap, p.imaps, seed, 120
	u.Phone = filepath.Join(t.TempDir(), "phone")
	w := startWorker(t, u)
	p.start()
	w.goOn()
	n := w.await("flipped")
	t.Logf("seed %d: %d things done before the flip, %d connections lost quietly, %d commands repeated, mbsync run %d times and cut %d times, logins %v",
		seed, n.Stats.Before, n.Stats.Cut, n.Stats.Repeated, n.Stats.Mbsync, n.Stats.MbsyncCut, n.Stats.Logins)
	if n.Stats.Before < 15 {
		t.Errorf("he did %d things before the flip: that is no work", n.Stats.Before)
	}
	source := o.flipped(t, p, n)
	w.goOn()
	o.ended(t, source, w.await("done"))
	if t.Failed() {
		t.Log(tail(readFile(t, w.transcript), 200))
	}
}

// flipped holds the moment of the flip against the model: the source, the target,
// and migproxy's own word. It returns what the source has.
func (o *office) flipped(t testing.TB, p *proxy, n news) view {
	t.Helper()
	if a := p.awaitState(user, "active"); a.Error != "" {
		t.Errorf("%+v", a)
	}
	source, target := o.look(), o.lookTarget(t)
	if err := differences(n.view(), source.undated()); err != nil {
		t.Errorf("the source is not what the user left:\n%v", err)
	}
	if err := differences(o.user.besides(target, source)); err != nil {
		t.Errorf("the target is not the source at the flip:\n%v", err)
	}
	if said, err := p.cli("verify", user, "--deep"); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
	if said, err := p.cli("account", "show", user); err != nil || !strings.Contains(said, "Verified before the flip: ") {
		t.Errorf("no proof among the events: %v\n%s", err, said)
	}
	return source
}

// ended holds what the user left behind on the target against his model. The
// source is as it was at the flip.
func (o *office) ended(t testing.TB, source view, n news) {
	t.Helper()
	if err := differences(o.user.besides(o.lookTarget(t).undated(), n.view())); err != nil {
		t.Errorf("the target is not what the user left:\n%v", err)
	}
	if err := differences(source, o.look()); err != nil {
		t.Errorf("the source has changed since the flip:\n%v", err)
	}
}

// A user works in his old mailbox with several clients, and goes on in the new one:
// none of them shows an error, and everything that he did is there.
func TestUserWorksUntilTheFlip(t *testing.T) {
	t.Run("Dovecot", func(t *testing.T) {
		t.Parallel()
		o := dovecotOffice(t)
		o.user.Messages, o.user.After = 180, 8
		o.works(t, 1)
	})
	t.Run("Courier", func(t *testing.T) { // which takes a second for a login, and two to rename
		t.Parallel()
		o := courierOffice(t)
		o.user.Messages, o.user.After = 60, 4
		o.works(t, 1)
	})
}

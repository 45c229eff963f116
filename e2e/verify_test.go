package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"migproxy/e2e/hostile"
)

// verification is what `migproxy verify --json` says.
type verification struct {
	Address string
	Problem string
	Notes   []string
	Total   struct {
		Same, Digest, Altered, Moved int
		SetAside                     int                    `json:"set_aside"`
		SourceSide                   struct{ Messages int } `json:"source_side"`
	}
	Folders []struct {
		Source      string
		Notes       []string
		Differences []struct {
			Kind      string
			SourceUID int `json:"source_uid"`
			TargetUID int `json:"target_uid"`
		}
	}
}

// verify runs it for one account. err tells its exit status.
func (p *proxy) verify(args ...string) (verification, error) {
	p.t.Helper()
	var v verification
	out, err := p.cli(append([]string{"verify", user, "--json"}, args...)...)
	if bad := json.Unmarshal([]byte(out), &v); bad != nil {
		p.t.Fatalf("%v, %v in %q", err, bad, out)
	}
	return v, err
}

// allIsWell fails unless verify finds both servers to be the same, but for what
// was set aside or has moved on the source, plainly and by the octets of every
// message.
func (p *proxy) allIsWell() (deep verification) {
	p.t.Helper()
	plain, err := p.verify()
	if n := plain.Total; err != nil || n.Same == 0 || n.Same+n.SetAside+n.Moved != n.SourceSide.Messages {
		p.t.Errorf("%v: %+v", err, plain)
	}
	deep, err = p.verify("--deep")
	if err != nil || deep.Total.Same != plain.Total.Same || deep.Total.Digest != deep.Total.Same {
		p.t.Errorf("%v: %+v", err, deep)
	}
	return deep
}

// said lists the differences, as kind:source UID, and names every folder but
// one.
func (v *verification) said(folder string) []string {
	var all []string
	for _, f := range v.Folders {
		for _, d := range f.Differences {
			text := fmt.Sprintf("%s:%d", d.Kind, d.SourceUID)
			if f.Source != folder {
				text += " in " + f.Source
			}
			all = append(all, text)
		}
	}
	slices.Sort(all)
	return all
}

// fileOf finds the message with a text in the INBOX of a Maildir.
func fileOf(t testing.TB, maildir, text string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(maildir, "[cn][ue][rw]", "*"))
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(path string) bool { return !strings.Contains(readFile(t, path), text) })
	if len(files) != 1 {
		t.Fatalf("%q is in %q", text, files)
	}
	return files[0]
}

// spoil changes messages in a Dovecot's Maildir behind its back, while it is
// down, and lets it forget what it knows of them but their UIDs.
func spoil(t testing.TB, maildir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Remove(fileOf(t, maildir, "About removed.")))

	altered := fileOf(t, maildir, "About altered.")
	info, err := os.Stat(altered)
	must(err)
	b, err := os.ReadFile(altered)
	must(err)
	must(os.WriteFile(altered, bytes.Replace(b, []byte("About altered."), []byte("About altared."), 1), 0o600))
	must(os.Chtimes(altered, time.Time{}, info.ModTime()))

	doubled := fileOf(t, maildir, "About doubled.")
	info, err = os.Stat(doubled)
	must(err)
	b, err = os.ReadFile(doubled)
	must(err)
	again := filepath.Join(filepath.Dir(doubled), "9"+filepath.Base(doubled))
	must(os.WriteFile(again, b, 0o600))
	owner := info.Sys().(*syscall.Stat_t)
	must(os.Chown(again, int(owner.Uid), int(owner.Gid)))
	must(os.Chtimes(again, time.Time{}, info.ModTime().Add(time.Hour)))

	flagged := fileOf(t, maildir, "About flagged.")
	name, _, _ := strings.Cut(filepath.Base(flagged), ":2,")
	must(os.Rename(flagged, filepath.Join(maildir, "cur", name+":2,F")))

	dated := fileOf(t, maildir, "About dated.")
	info, err = os.Stat(dated)
	must(err)
	must(os.Chtimes(dated, time.Time{}, info.ModTime().Add(time.Hour)))

	indices, err := filepath.Glob(filepath.Join(maildir, "dovecot.index*"))
	must(err)
	for _, path := range indices {
		must(os.Remove(path))
	}
}

func TestVerifyFindsWhatIsWrong(t *testing.T) {
	p := newPair(t, binary, nil)
	p.source.AddUser(user, password)
	c := login(t, p.source.IMAP, user, password)
	names := []string{"removed", "altered", "kept", "doubled", "flagged", "dated"} // UIDs 1 to 6
	var mails []mail
	for _, name := range names {
		m := note(name)
		m.flags = []imap.Flag{imap.FlagSeen, "$Label1"}
		mails = append(mails, m)
	}
	fillWith(t, c, sourcePrefix, sourceSep, append(mails, oddities()...), folderPaths("Gesendet"))
	deliver(t, p.source.Maildir(user), "1700000000.M1P1.old", "Subject: recent\n\nNobody has read this.\n")
	p.start()
	if first := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls"}); !first.OK {
		t.Fatalf("%+v", first)
	}
	p.awaitState(user, "active")

	// Neither side is changed by it, not even what is recent.
	here, there := filesOf(t, p.source.Maildir(user)), filesOf(t, p.target.Maildir(user))
	deep := p.allIsWell()
	for _, f := range deep.Folders {
		if len(f.Notes) > 0 {
			t.Errorf("%s: %q", f.Source, f.Notes)
		}
	}
	sameFiles(t, here, filesOf(t, p.source.Maildir(user)))
	sameFiles(t, there, filesOf(t, p.target.Maildir(user)))
	if out, err := p.cli("verify", "--all", "--deep"); err != nil || !strings.Contains(out, user+": complete\n") || !strings.Contains(out, "1 accounts verified, 1 complete\n") {
		t.Errorf("%v: %s", err, out)
	}

	p.target.Stop()
	spoil(t, p.target.Maildir(user))
	p.target.Start()
	// A byte that leaves the size the same shows in the octets alone.
	plain := []string{"date:6", "doubled:4", "flags:5", "missing:1"}
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{nil, plain},
		{[]string{"--deep"}, append([]string{"octets:2"}, plain...)},
	} {
		slices.Sort(tc.want)
		v, err := p.verify(tc.args...)
		if have := v.said("INBOX"); err == nil || !strings.Contains(err.Error(), "exit status 1") || v.Problem != "" || !slices.Equal(have, tc.want) {
			t.Errorf("%q: %v, %q, want %q", tc.args, err, have, tc.want)
		}
	}
	page := filepath.Join(t.TempDir(), "report.html")
	out, err := p.cli("verify", "--all", "--domain", "example.com", "--deep", "--report", page)
	if err == nil || !strings.Contains(out, user+": NOT COMPLETE\n") {
		t.Errorf("%v: %s", err, out)
	}
	for _, want := range []string{"The account is not complete.", user, "1 missing, 1 with other octets, 1 with other flags, 1 with another date, 1 doubled"} {
		if !strings.Contains(readFile(t, page), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
}

// A folder that was renamed on the source after the flip is not missing: its
// messages were copied under the old name.
func TestVerifyAfterAFolderWasRenamed(t *testing.T) {
	p := newPair(t, binary, func(s *settings) { s.migration = "settle_quiet: 500ms, catch_up: 500ms" })
	p.source.AddUser(user, password)
	c := login(t, p.source.IMAP, user, password)
	fillWith(t, c, sourcePrefix, sourceSep, []mail{note("first"), note("second")}, [][]string{{"Gesendet"}, {"Lists"}})
	p.start()
	if first := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls"}); !first.OK {
		t.Fatalf("%+v", first)
	}
	p.awaitState(user, "active")
	if err := login(t, p.source.IMAP, user, password).Rename(sourcePrefix+"Lists", sourcePrefix+"Old lists", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := eventually(copyDeadline, func() error { _, err := p.verify(); return err }); err != nil {
		t.Fatal(err)
	}
	v := p.allIsWell()
	if v.Total.Moved != 3 || !strings.Contains(fmt.Sprint(v), "The source does not have this folder any more.") {
		t.Errorf("%+v", v)
	}
}

// go-imap drops what this source sends, or loses the connection at it: verify
// notices, reads it otherwise, and says so.
func TestVerifyAHostileServer(t *testing.T) {
	for _, tc := range []struct {
		name   string
		faults hostile.Faults
		notes  []string
	}{
		{"bodies before UIDs", hostile.Faults{BodyFirst: true}, []string{"it did not give them", "in date-time", "it cannot send this name"}},
		{"unasked responses", hostile.Faults{Unasked: true}, []string{"it failed 3 times on this server"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBattle(t, tc.faults, hostile.Faults{Capabilities: extensions})
			b.awaitState(user, "active")
			b.target.Lock()
			before := b.target.Writes
			b.target.Unlock()
			v := b.allIsWell()
			notes := fmt.Sprint(v)
			for _, want := range append(tc.notes, "of the source was read by the copier's own reader, not by go-imap") {
				if !strings.Contains(notes, want) {
					t.Errorf("%q is not in %s", want, notes)
				}
			}
			b.same()
			b.target.Lock()
			defer b.target.Unlock()
			if b.target.Writes != before {
				t.Error("verify wrote on the target")
			}
		})
	}
}

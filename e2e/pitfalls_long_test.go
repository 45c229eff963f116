//go:build long

package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// A message of 100 MB goes through, and is verified, without being held in
// memory.
func TestAMessageOf100MB(t *testing.T) {
	p := newPairOf(t, "", "")
	line := bytes.Repeat([]byte("0123456789abcde"), 5)
	large := mail{octets: append([]byte("Subject: large\r\n\r\n"), bytes.Repeat(append(line, "\r\n"...), 100_000_000/(len(line)+2))...),
		date: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)}
	fillWith(t, login(t, p.source.IMAP, user, password), sourcePrefix, sourceSep, []mail{note("before"), large, note("after")}, nil)
	p.move()
	p.awaitState(user, "active")
	p.allIsWell()
	if kb := p.peakMemory(); kb > 100_000 {
		t.Errorf("%d kB of memory", kb)
	}
	sameMail(t, p.sourceView(), p.targetView())
}

// A folder of 200,000 messages takes no more memory than one of a few.
func TestAFolderOf200000(t *testing.T) {
	p := newPairOf(t, "", "")
	fillMaildir(t, p.source, user, 200_000, 1, func(r *rand.Rand) int { return 100 + r.IntN(200) })
	p.move()
	if a := p.awaitStateFor(20*time.Minute, user, "active"); a.Messages != 200_000 {
		t.Errorf("%+v", a)
	}
	if kb := p.peakMemory(); kb > 100_000 {
		t.Errorf("%d kB of memory", kb)
	}
	if strings.Contains(p.read("migproxy.log"), "the move has stopped for now") {
		t.Error("the target cut the connection")
	}
	sameMail(t, p.sourceView(), p.targetView())
}

// Five hundred folders, some of them empty, nested and unsubscribed.
func TestFiveHundredFolders(t *testing.T) {
	p := newPairOf(t, "", "")
	var paths [][]string
	for i := range 500 {
		top := fmt.Sprintf("Folder %03d", i/10)
		switch i % 10 {
		case 0:
			paths = append(paths, []string{top})
		case 1:
			paths = append(paths, []string{top, "deep", "deeper", "deepest"})
		default:
			paths = append(paths, []string{top, fmt.Sprintf("Ördner %d", i)})
		}
	}
	fillWith(t, login(t, p.source.IMAP, user, password), sourcePrefix, sourceSep, []mail{note("in the inbox")}, paths)
	p.move()
	p.awaitState(user, "active")
	sameMail(t, p.sourceView(), p.targetView())
}

// peakMemory is the most that the program has had resident so far, in kB.
func (p *proxy) peakMemory() int {
	p.t.Helper()
	_, rest, found := strings.Cut(readFile(p.t, fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid)), "VmHWM:")
	var kb int
	if _, err := fmt.Sscan(rest, &kb); !found || err != nil {
		p.t.Fatal(err)
	}
	return kb
}

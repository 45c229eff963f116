package proxy

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"migproxy/config"
)

// play feeds a tracker a dialogue: what the client sends begins with >, what the
// server sends with <. It returns what becomes of the tracker after each part: s
// it stands still, b busy, l lost.
func playDialogue(t sessionTracker, dialogue ...string) string {
	var all strings.Builder
	for _, part := range dialogue {
		if part[0] == '>' {
			t.sent([]byte(part[1:]))
		} else {
			t.came([]byte(part[1:]))
		}
		switch {
		case t.lost():
			all.WriteByte('l')
		case t.standsStill():
			all.WriteByte('s')
		default:
			all.WriteByte('b')
		}
	}
	return all.String()
}

// dialogues are what trackers are tried with: the protocol, the dialogue, and what
// becomes of the tracker.
var dialogues = []struct {
	protocol config.Protocol
	name     string
	dialogue []string
	want     string
}{
	{config.IMAP, "a command", []string{">a NOOP\r\n", "<* 3 EXISTS\r\n", "<a OK done\r\n"}, "bbs"},
	{config.IMAP, "in a line", []string{">a NO", ">OP\r", ">\n", "<a O", "<K\r", "<\n"}, "bbbbbs"},
	{config.IMAP, "LF alone", []string{">a NOOP\n", "<a OK\n"}, "bs"},
	{config.IMAP, "what the server says by itself", []string{"<* 3 EXI", "<STS\r\n"}, "bs"},
	{config.IMAP, "pipelined", []string{">a NOOP\r\nb NOOP\r\nc FETCH 1 FLAGS\r\n", "<b OK\r\n", "<a OK\r\n", "<* 1 FETCH (FLAGS ())\r\n", "<c OK\r\n"}, "bbbbs"},
	{config.IMAP, "a literal", []string{">a APPEND x {5}\r\n", "<+ go\r\n", ">hel", ">lo", ">\r\n", "<* 1 EXISTS\r\n", "<a OK\r\n"}, "bbbbbbs"},
	{config.IMAP, "a literal of lines", []string{">a APPEND x {14}\r\n", "<+\r\n", ">b NOOP\r\nDONE\r\n", ">\r\n", "<a OK\r\n"}, "bbbbs"},
	{config.IMAP, "an empty literal", []string{">a APPEND x {0}\r\n", "<+ \r\n", ">\r\n", "<a NO empty\r\n"}, "bbbs"},
	{config.IMAP, "LITERAL+", []string{">a APPEND x {5+}\r\nhello\r\n", "<a OK\r\n"}, "bs"},
	{config.IMAP, "a binary literal", []string{">a APPEND x ~{5+}\r\nhe\x00lo\r\n", "<a OK\r\n"}, "bs"},
	{config.IMAP, "LITERAL+ refused early", []string{">a APPEND x {5+}\r\nhe", "<a NO [TOOBIG] {5}\r\n", ">llo", ">\r\n"}, "bbbs"},
	{config.IMAP, "several literals", []string{">a APPEND x {1}\r\n", "<+\r\n", ">h {2}\r\n", "<+\r\n", ">he\r\n", "<a OK\r\n"}, "bbbbbs"},
	{config.IMAP, "a literal refused", []string{">a APPEND x {5}\r\n", "<a NO [TRYCREATE]\r\n", ">b CREATE x\r\n", "<b OK\r\n"}, "bsbs"},
	{config.IMAP, "a second literal refused", []string{">a APPEND x {1}\r\n", "<+\r\n", ">h {2}\r\n", "<a NO full\r\n", ">b NOOP\r\n", "<b OK\r\n"}, "bbbsbs"},
	{config.IMAP, "a literal behind another command", []string{">a NOOP\r\nb APPEND x {1}\r\n", "<a OK\r\n", "<+\r\n", ">h\r\n", "<b OK\r\n"}, "bbbbs"},
	{config.IMAP, "a literal sent unasked", []string{">a APPEND x {5}\r\nhello\r\n"}, "l"},
	{config.IMAP, "a long tag, a literal refused", []string{">client-000000001 APPEND x {5}\r\n", "<client-000000001 NO\r\n", ">client-000000002 NOOP\r\n", "<client-000000002 OK\r\n"}, "bsbs"},
	{config.IMAP, "an empty line behind a literal", []string{">a APPEND x {1+}\r\nh\r\n\r\n", "<a OK\r\n"}, "bs"},
	{config.IMAP, "a text like a literal", []string{">a SEARCH SUBJECT \"{5}\"\r\n", "<* SEARCH\r\na OK {5}\r\n"}, "bs"},
	{config.IMAP, "literals of the server", []string{">a FETCH 1 BODY[]\r\n", "<* 1 FETCH (BODY[] {8}\r\n", "<a OK x\r\n)\r\n", "<a OK\r\n"}, "bbbs"},
	{config.IMAP, "IDLE", []string{">a IDLE\r\n", "<+ idling\r\n", "<* 3 EX", "<ISTS\r\n", ">DONE\r\n", "<a OK\r\n"}, "bsbsbs"},
	{config.IMAP, "IDLE, and the end of a line comes later", []string{">a IDLE\r\n", "<+\r\n", ">DO", ">ne\r\nb NOOP\r\n", "<a OK\r\n", "<b OK\r\n"}, "bsbbbs"},
	{config.IMAP, "IDLE behind a command", []string{">a NOOP\r\nb IDLE\r\n", "<+ idling\r\n", "<a OK\r\n"}, "bbs"},
	{config.IMAP, "IDLE ended before it began", []string{">a IDLE\r\nDONE\r\n", "<+ idling\r\n", "<a OK\r\n"}, "bbs"},
	{config.IMAP, "IDLE refused", []string{">a idle\r\n", "<a BAD no\r\n", ">b NOOP\r\n", "<b OK\r\n"}, "bsbs"},
	{config.IMAP, "IDLE twice", []string{">a IDLE\r\n", "<+\r\n", ">DONE\r\nb IDLE\r\n", "<a OK\r\n", "<+\r\n", ">DONE\r\n", "<b OK\r\n"}, "bsbbsbs"},
	{config.IMAP, "a command in IDLE", []string{">a IDLE\r\n", "<+\r\n", ">b NOOP\r\n"}, "bsl"},
	{config.IMAP, "a + that nobody asked for", []string{">a NOOP\r\n", "<+ what?\r\n"}, "bl"},
	{config.IMAP, "an answer to nothing", []string{"<a OK\r\n"}, "l"},
	{config.IMAP, "a DONE too many", []string{">DONE\r\n"}, "l"},
	{config.IMAP, "no IMAP", []string{">\x78\x9c\x01\x02 x\n"}, "l"},
	{config.IMAP, "no IMAP from the server", []string{"<\x78\x9c\x01\x02\n"}, "l"},
	{config.IMAP, "COMPRESS", []string{">a compress deflate\r\n", "<a OK begin\r\n"}, "ll"},
	{config.IMAP, "COMPRESS in a literal", []string{">a APPEND x {20+}\r\nb COMPRESS DEFLATE\r\n", ">\r\n", "<a OK\r\n"}, "bbs"},
	{config.IMAP, "no name", []string{">a\r\n"}, "l"},
	{config.IMAP, "a literal of no size", []string{">a SEARCH {x" + strings.Repeat("9", 40) + "}\r\n"}, "l"},
	{config.IMAP, "a long line", []string{">a FETCH " + strings.Repeat("1,", 5000) + "2 FLAGS\r\n", "<a OK\r\n"}, "bs"},

	{config.POP3, "one line", []string{">STAT\r\n", "<+OK 2", "< 320\r\n"}, "bbs"},
	{config.POP3, "several lines", []string{">RETR 1\r\n", "<+OK\r\n", "<Subject: .\r\n\r\n..\r\n.x\r\n", "<.\r", "<\n"}, "bbbbs"},
	{config.POP3, "refused", []string{">RETR 9\r\n", "<-ERR no such message\r\n"}, "bs"},
	{config.POP3, "in a line", []string{">RE", ">TR 1\r\n", "<+OK\r\n.\r\n"}, "bbs"},
	{config.POP3, "lists", []string{">LIST\r\n", "<+OK\r\n", "<1 2\r\n.\r\n", ">list 1\r\n", "<+OK 1 2\r\n", ">UIDL\r\n", "<+OK\r\n", "<.\r\n", ">UIDL 1\r\n", "<+OK 1 x\r\n"}, "bbsbsbbsbs"},
	{config.POP3, "pipelined", []string{">DELE 1\r\nTOP 2 0\r\nNOOP\r\n", "<+OK\r\n", "<+OK\r\nx\r\n", "<.\r\n+OK\r\n"}, "bbbs"},
	{config.POP3, "a command of its own", []string{">XSENDER 1\r\n", "<-ERR what?\r\n", ">XSENDER 1\r\n", "<+OK a@b\r\n"}, "bsbl"},
	{config.POP3, "an answer to nothing", []string{"<-ERR idle for too long\r\n"}, "l"},
	{config.POP3, "a challenge", []string{">AUTH PLAIN\r\n", "<+ \r\n"}, "bl"},
	{config.POP3, "too many", []string{">" + strings.Repeat("NOOP\r\n", maxPipelined+1)}, "l"},
}

func TestSessionTracker(t *testing.T) {
	for _, tt := range dialogues {
		if got := playDialogue(newSessionTracker(tt.protocol), tt.dialogue...); got != tt.want {
			t.Errorf("%s, %s: %s, want %s", tt.protocol, tt.name, got, tt.want)
		}
	}
}

func TestSessionTrackerSaysByeOnlyBetweenResponses(t *testing.T) {
	for _, tt := range []struct {
		dialogue []string
		want     bool
	}{
		{[]string{"<* 1 EXISTS\r\n"}, true},
		{[]string{">a IDLE\r\n", "<+ idling\r\n"}, true},
		{[]string{">what\r\n"}, true},
		{[]string{"<* 1 EXI"}, false},
		{[]string{"<* BYE gone\r\n"}, false},
		{[]string{">a COMPRESS DEFLATE\r\n", "<a OK\r\n"}, false},
	} {
		tracker := newSessionTracker(config.IMAP)
		playDialogue(tracker, tt.dialogue...)
		if got := tracker.mayBye(); got != tt.want {
			t.Errorf("%q: %v", tt.dialogue, got)
		}
	}
	if newSessionTracker(config.POP3).mayBye() {
		t.Error("a BYE in POP3")
	}
}

// FuzzSessionTracker: however the streams are cut, the tracker comes to the same,
// and it never says that a session stands still in the middle of a line.
func FuzzSessionTracker(f *testing.F) {
	for _, d := range dialogues {
		// One octet in front of each part says who sends it and how long it is.
		var script []byte
		for _, part := range d.dialogue {
			for b := []byte(part[1:]); len(b) > 0; {
				n := min(len(b), 127)
				head := byte(n)
				if part[0] == '<' {
					head |= 0x80
				}
				script = append(append(script, head), b[:n]...)
				b = b[n:]
			}
		}
		f.Add(script, d.protocol == config.POP3)
	}
	f.Fuzz(func(t *testing.T, script []byte, pop3 bool) {
		protocol := config.IMAP
		if pop3 {
			protocol = config.POP3
		}
		whole, cut := newSessionTracker(protocol), newSessionTracker(protocol)
		var last [2]byte // of the client and of the server
		for len(script) > 0 {
			who, n := script[0]>>7, min(int(script[0]&0x7f), len(script)-1)
			part := bytes.Clone(script[1 : 1+n])
			script = script[1+n:]
			if n == 0 {
				continue
			}
			last[who] = part[n-1]
			feed, feedCut := whole.sent, cut.sent
			if who == 1 {
				feed, feedCut = whole.came, cut.came
			}
			feed(part)
			for _, c := range part {
				feedCut([]byte{c})
			}
			if got, want := fmt.Sprint(cut.standsStill(), cut.lost(), cut.mayBye()), fmt.Sprint(whole.standsStill(), whole.lost(), whole.mayBye()); got != want {
				t.Fatalf("after %q: %s, want %s", part, got, want)
			}
			if whole.standsStill() && (whole.lost() || last[0] != 0 && last[0] != '\n' || last[1] != 0 && last[1] != '\n') {
				t.Fatalf("stands still behind %q and %q", last[0], last[1])
			}
		}
	})
}

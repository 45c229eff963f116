package demo

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// folder is one folder of the old server with its messages.
type folder struct {
	name     string
	messages []message
}

type message struct {
	octets []byte
	flags  []imap.Flag
	date   time.Time
}

// moverMail is a mailbox as one has it after some years: nested folders, read
// and unread, answered and flagged, attachments, twins, other alphabets.
func moverMail() []folder {
	r := rand.New(rand.NewPCG(2026, 1))
	inbox := correspondence(r, 45, "ines@example.net")
	twin := letter(r, "ines@example.net", "Sent twice by mistake", 900)
	return []folder{
		{"INBOX", append(inbox, twin, twin)},
		{"Sent", correspondence(r, 25, mover)},
		{"Drafts", []message{{octets: []byte("Subject: not finished\r\n\r\nDear"), flags: []imap.Flag{imap.FlagDraft}, date: dayOf(r)}}},
		{"Archive", nil},
		{"Archive/2024", correspondence(r, 18, "kim@example.org")},
		{"Archive/2025", correspondence(r, 18, "kim@example.org")},
		{"Projects/Überfahrt & Ankunft", correspondence(r, 12, "søren@example.org")},
		{"Projects/日本", []message{letter(r, "aiko@example.jp", "=?UTF-8?B?44GT44KT44Gr44Gh44Gv?=", 600)}},
		{"Photos", []message{photo(r, 160_000), photo(r, 90_000)}},
		{"Empty", nil},
	}
}

func stayerMail() []folder {
	r := rand.New(rand.NewPCG(2026, 2))
	return []folder{{"INBOX", correspondence(r, 20, "otto@example.net")}, {"Sent", correspondence(r, 5, stayer)}}
}

func correspondence(r *rand.Rand, n int, from string) []message {
	subjects := []string{"Lunch on Friday", "Minutes of the meeting", "Re: offer", "Invoice", "=?UTF-8?Q?Gr=C3=BC=C3=9Fe?=", "Fwd: have you seen this", "The keys"}
	list := make([]message, n)
	for i := range list {
		list[i] = letter(r, from, subjects[r.IntN(len(subjects))], 300+r.IntN(5000))
	}
	return list
}

// letter is a plain message; one in five has no Message-ID, as in real life.
func letter(r *rand.Rand, from, subject string, octets int) message {
	m := message{date: dayOf(r)}
	var b strings.Builder
	fmt.Fprintf(&b, "From: <%s>\r\nTo: <%s>\r\nSubject: %s\r\nDate: %s\r\n", from, mover, subject, m.date.Format(time.RFC1123Z))
	if r.IntN(5) > 0 {
		fmt.Fprintf(&b, "Message-ID: <%x@%s>\r\n", r.Uint64(), domain)
	}
	b.WriteString("Content-Type: text/plain; charset=utf-8\r\n\r\n")
	words := []string{"the", "ship", "leaves", "at", "noon", "and", "we", "bring", "bread", "für", "alle", "—", "wait", "for", "rain"}
	for line := 0; b.Len() < octets; {
		w := words[r.IntN(len(words))]
		if line += len(w) + 1; line > 70 {
			b.WriteString("\r\n")
			line = len(w) + 1
		}
		b.WriteString(w + " ")
	}
	b.WriteString("\r\n")
	m.octets = []byte(b.String())
	m.flags = [][]imap.Flag{nil, {imap.FlagSeen}, {imap.FlagSeen}, {imap.FlagSeen, imap.FlagAnswered}, {imap.FlagFlagged}}[r.IntN(5)]
	return m
}

func photo(r *rand.Rand, octets int) message {
	raw := make([]byte, octets)
	for i := range raw {
		raw[i] = byte(r.Uint32())
	}
	m := letter(r, "ines@example.net", "A photo", 400)
	text := "Subject: A photo\r\nContent-Type: image/jpeg\r\nContent-Transfer-Encoding: base64\r\n\r\n"
	for encoded := base64.StdEncoding.EncodeToString(raw); encoded != ""; {
		n := min(76, len(encoded))
		text += encoded[:n] + "\r\n"
		encoded = encoded[n:]
	}
	m.octets = []byte(text)
	return m
}

func dayOf(r *rand.Rand) time.Time {
	zone := time.FixedZone("", (r.IntN(25)-12)*3600)
	return time.Date(2018+r.IntN(8), time.Month(1+r.IntN(12)), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), 0, zone)
}

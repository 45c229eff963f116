package proxy

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"migproxy/config"
	"migproxy/store"
)

// FuzzParkedSession: whatever a parked client sends, its session ends with
// his stream, and nothing panics.
func FuzzParkedSession(f *testing.F) {
	for _, seed := range []string{
		"a SELECT INBOX\r\nb FETCH 1:* (UID FLAGS ENVELOPE BODYSTRUCTURE BODY[] BODY[1.MIME] BINARY.SIZE[1])",
		"a EXAMINE INBOX\r\nb UID FETCH *:4294967295,$ FULL\r\nc FETCH 0 ALL\r\nd FETCH 2:1 BODY[HEADER.FIELDS (To)]<1.5>",
		"a SELECT INBOX\r\nb SEARCH NOT (OR 1 (UID $)) SENTON 1-Jan-2020\r\nc UID SEARCH RETURN (MIN COUNT SAVE) TEXT {3+}\r\nabc\r\n",
		"a APPEND INBOX (\\Seen) {5+}\r\nhello\r\nb APPEND x {3}\r\nabc (\\Seen) {3}\r\nabc",
		"a LIST \"\" (%/% INBOX \"\") RETURN (STATUS (MESSAGES DELETED SIZE) CHILDREN)\r\nb LSUB x *\r\nc STATUS inbox (RECENT DELETED-STORAGE APPENDLIMIT)",
		"a IDLE\r\nDONE\r\nb ENABLE IMAP4rev2 UTF8=ACCEPT\r\nc SELECT INBOX\r\nd CLOSE\r\ne FETCH 1 UID\r\nf EXPUNGE",
		"a SELECT INBOX\r\nb STORE 1 FLAGS \\Deleted\r\nc EXPUNGE\r\nd MOVE 1 x\r\ne UNSELECT\r\nf NAMESPACE\r\ng LOGIN a b",
		"\x00\xff {", "a IDLE\r\n",
	} {
		f.Add(seed)
	}
	core, logs := observer.New(zap.WarnLevel)
	ctx, cancel := context.WithCancel(context.Background())
	p, err := newParking(ctx, nil, zap.New(core))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		cancel()
		p.close()
	})
	n, err := newNotice("", "mail.example.com")
	if err != nil {
		f.Fatal(err)
	}
	account := store.Account{ID: 1, CreatedAt: time.Now(), Identity: config.Identity{Local: "anna", Domain: "example.com"}}
	f.Fuzz(func(t *testing.T, commands string) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		session, _, err := p.open(ctx, &lot{notice: n}, account)
		if err != nil {
			t.Fatal(err)
		}
		defer session.Conn.Close()
		deadline, _ := ctx.Deadline()
		if err := session.Conn.SetDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			io.WriteString(session.Conn, commands+"\r\n")
			session.Conn.(*duplex).CloseWrite()
		}()
		if _, err := io.Copy(io.Discard, session.Reader); err != nil {
			t.Fatal(err)
		}
		<-sent
		for _, entry := range logs.TakeAll() {
			if strings.Contains(entry.Message, "panic") {
				t.Fatal(entry.Message)
			}
		}
	})
}

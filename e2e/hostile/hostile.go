// Package hostile is an IMAP server for tests that does what real servers do
// on their bad days: bodies before UIDs, unasked FETCHes, odd dates, flags and
// names, cut literals, refused and half-refused batches, late commits, BYEs.
package hostile

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Message is one message of a mailbox.
type Message struct {
	UID    uint32
	Octets string
	Flags  string // as in a flag list, without the parentheses
	Date   string // INTERNALDATE without quotes, as it is to be sent
}

// Mailbox is one folder, named as on the wire.
type Mailbox struct {
	Name        string
	Attrs       string
	UIDValidity uint32
	UIDNext     uint32
	Messages    []Message
	Subscribed  bool
}

// Faults are what a server does wrong. The zero value is a server without
// any extension that behaves.
type Faults struct {
	// Capabilities after IMAP4rev1, such as "UIDPLUS MULTIAPPEND LITERAL+".
	Capabilities string
	// BodyFirst sends the body of a FETCH before its UID.
	BodyFirst bool
	// Unasked sends responses that nobody asked for around each FETCH.
	Unasked bool
	// Early sends a message's flags, unasked, before each response to a FETCH.
	Early bool
	// CutBody cuts the connection in the middle of so many bodies.
	CutBody int
	// ByeFetch answers so many fetches of bodies with a BYE.
	ByeFetch int
	// SilentFetch never answers so many fetches of bodies, and SilentAppend so
	// many APPENDs, which are not stored; the connection stays open.
	SilentFetch, SilentAppend int
	// Leaves makes the message of this UID disappear once it was listed.
	Leaves uint32
	// Hides leaves the message of this UID out of every FETCH, without a word.
	Hides uint32

	// Refuse says which messages are refused, and with which response code and
	// text; empty is taken. An APPEND of several stores none of them.
	Refuse func(octets string) string
	// HalfRefuse makes so many APPENDs of several messages store the first
	// half and answer NO all the same.
	HalfRefuse int
	// Unanswered cuts the connection after so many whole APPENDs, and stores
	// their messages only Late afterwards.
	Unanswered int
	Late       time.Duration
	// Forget answers so many APPENDs with OK and stores nothing.
	Forget int
	// ByeAppend answers so many APPENDs with a BYE, and CutAppend cuts the
	// connection within their first message; neither stores anything.
	ByeAppend, CutAppend int
	// WrongUIDs answers so many APPENDs with UIDs that are not those of the
	// stored messages.
	WrongUIDs int
}

// Server is a running server. Lock before looking at what it has.
type Server struct {
	sync.Mutex
	Port      int
	Mailboxes []*Mailbox
	Faults    Faults
	// Allow decides logins.
	Allow func(user, password string) bool
	// Writes counts commands that change something. Touches counts those that
	// would change \Recent or \Seen: SELECT, and FETCH without PEEK.
	Writes, Touches int

	conns sync.WaitGroup
}

// Start starts a server that ends with the test.
func Start(t testing.TB, allow func(user, password string) bool, boxes ...*Mailbox) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Port: l.Addr().(*net.TCPAddr).Port, Mailboxes: boxes, Allow: allow}
	open := map[net.Conn]bool{}
	s.conns.Add(1)
	go func() {
		defer s.conns.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.Lock()
			open[c] = true
			s.Unlock()
			s.conns.Add(1)
			go func() {
				defer s.conns.Done()
				s.serve(c)
				s.Lock()
				delete(open, c)
				s.Unlock()
			}()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		s.Lock()
		for c := range open {
			_ = c.Close()
		}
		s.Unlock()
		s.conns.Wait()
	})
	return s
}

// Inbox is an INBOX with these messages.
func Inbox(messages ...Message) *Mailbox {
	return &Mailbox{Name: "INBOX", UIDValidity: 7, UIDNext: uint32(len(messages) + 1), Messages: messages, Subscribed: true}
}

func (s *Server) find(name string) *Mailbox {
	for _, b := range s.Mailboxes {
		if b.Name == name || strings.EqualFold(name, "INBOX") && b.Name == "INBOX" {
			return b
		}
	}
	return nil
}

// take counts a fault down and says whether it is to happen now.
func take(n *int) bool {
	if *n > 0 {
		*n--
		return true
	}
	return false
}

// session is one connection.
type session struct {
	s        *Server
	c        net.Conn
	r        *bufio.Reader
	w        *bufio.Writer
	selected *Mailbox
}

func (s *Server) serve(c net.Conn) {
	defer c.Close()
	x := &session{s: s, c: c, r: bufio.NewReader(c), w: bufio.NewWriter(c)}
	x.say("* OK IMAP4rev1 ready")
	for {
		if x.w.Flush() != nil {
			return
		}
		args, err := x.command()
		if err != nil || len(args) < 2 {
			return
		}
		if x.silent(args) {
			_, _ = io.Copy(io.Discard, x.r) // until the other side gives up
			return
		}
		if !x.answer(args[0], strings.ToUpper(args[1]), args[2:]) {
			_ = x.w.Flush()
			return
		}
	}
}

// silent reports whether this command is to get no answer.
func (x *session) silent(args []string) bool {
	x.s.Lock()
	defer x.s.Unlock()
	command := strings.ToUpper(strings.Join(args[1:], " "))
	switch {
	case strings.HasPrefix(command, "UID FETCH") && strings.Contains(command, "BODY"):
		return take(&x.s.Faults.SilentFetch)
	case strings.HasPrefix(command, "APPEND"):
		return take(&x.s.Faults.SilentAppend)
	}
	return false
}

func (x *session) say(lines ...string) {
	for _, l := range lines {
		_, _ = x.w.WriteString(l + "\r\n")
	}
}

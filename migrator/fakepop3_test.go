package migrator_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// popMail is one message of a fake POP3 server.
type popMail struct {
	body string // as it is stored; sent as it is, but for a line end that is missing
	uidl string
}

// fakePOP3 is a POP3 server with one user, whose misbehaviour is scripted. Like
// a real one it locks the maildrop for each session.
type fakePOP3 struct {
	l    net.Listener
	port int
	wg   sync.WaitGroup

	mu       sync.Mutex
	conns    map[net.Conn]bool
	password string
	mails    []popMail
	caps     []string // nil: CAPA is unknown
	locked   bool     // a session is on
	log      []string
	sessions int

	login     func(n int) string            // an -ERR for the nth login
	size      func(m popMail) int           // as LIST tells it
	noUIDL    bool                          // it is unknown
	uidls     func(names []string) []string // lines, as UIDL sends them
	top       func(m popMail, lines int) (body string, refused bool)
	onMessage func(command string, m popMail) (refused, cut bool)
}

func newFakePOP3(t testing.TB, password string) *fakePOP3 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakePOP3{l: l, port: l.Addr().(*net.TCPAddr).Port, password: password, conns: map[net.Conn]bool{},
		caps: []string{"TOP", "UIDL", "SASL PLAIN", "RESP-CODES", "EXPIRE NEVER"}}
	f.wg.Go(f.serve)
	t.Cleanup(func() {
		_ = l.Close()
		f.mu.Lock()
		for c := range f.conns {
			_ = c.Close()
		}
		f.mu.Unlock()
		f.wg.Wait()
	})
	return f
}

// add puts a message into the maildrop.
func (f *fakePOP3) add(bodies ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, body := range bodies {
		f.mails = append(f.mails, popMail{body: body, uidl: fmt.Sprintf("uid-%d", len(f.mails)+1)})
	}
}

// fill adds n messages, each equal to the next one.
func (f *fakePOP3) fill(n int) {
	for i := range n {
		f.add(message(i/2, strings.Repeat("x", i/2%7)+"\r\n"))
	}
}

// contents are the bodies as they come over POP3, sorted.
func (f *fakePOP3) contents() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, m := range f.mails {
		all = append(all, m.sent())
	}
	slices.Sort(all)
	return all
}

func (m popMail) sent() string {
	if m.body != "" && !strings.HasSuffix(m.body, "\r\n") {
		return m.body + "\r\n"
	}
	return m.body
}

func (f *fakePOP3) serve() {
	for {
		c, err := f.l.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.conns[c] = true
		f.mu.Unlock()
		f.wg.Go(func() {
			defer c.Close()
			s := &popSession{f: f, r: bufio.NewReader(c), w: bufio.NewWriter(c)}
			s.printf("+OK hello\r\n")
			for s.command() == nil {
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if s.user {
				f.locked = false
			}
			delete(f.conns, c)
		})
	}
}

// popSession is one connection.
type popSession struct {
	f     *fakePOP3
	r     *bufio.Reader
	w     *bufio.Writer
	user  bool
	mails []popMail // as they were at the login
}

func (s *popSession) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(s.w, format, args...)
	_ = s.w.Flush()
}

func (s *popSession) command() error {
	line, err := s.r.ReadString('\n')
	if err != nil {
		return err
	}
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	words := append(strings.Fields(line), "", "", "")
	name := strings.ToUpper(words[0])
	if s.user {
		f.log = append(f.log, strings.TrimSpace(line))
	}
	switch name {
	case "CAPA":
		if f.caps == nil {
			s.printf("-ERR what\r\n")
			return nil
		}
		s.printf("+OK\r\n%s\r\n.\r\n", strings.Join(f.caps, "\r\n"))
	case "AUTH":
		s.printf("+ \r\n")
		initial, err := s.r.ReadString('\n')
		if err != nil {
			return err
		}
		plain, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(initial))
		_, password, _ := strings.Cut(strings.TrimPrefix(string(plain), "\x00"), "\x00")
		return s.login(password)
	case "USER":
		s.printf("+OK\r\n")
	case "PASS":
		return s.login(strings.TrimRight(line[5:], "\r\n"))
	case "QUIT":
		s.printf("+OK bye\r\n")
		return io.EOF
	case "LIST":
		text := "+OK\r\n"
		for i, m := range s.mails {
			size := len(m.body)
			if f.size != nil {
				size = f.size(m)
			}
			text += fmt.Sprintf("%d %d\r\n", i+1, size)
		}
		s.printf("%s.\r\n", text)
	case "UIDL":
		if f.noUIDL {
			s.printf("-ERR what\r\n")
			return nil
		}
		var names []string
		for i, m := range s.mails {
			names = append(names, fmt.Sprintf("%d %s", i+1, m.uidl))
		}
		if f.uidls != nil {
			names = f.uidls(names)
		}
		s.printf("+OK\r\n%s.\r\n", strings.Join(append(names, ""), "\r\n"))
	case "TOP", "RETR":
		return s.message(name, words)
	default:
		s.printf("-ERR what\r\n")
	}
	return nil
}

func (s *popSession) login(password string) error {
	f := s.f
	f.sessions++
	if f.login != nil {
		if no := f.login(f.sessions); no != "" {
			s.printf("-ERR %s\r\n", no)
			return nil
		}
	}
	switch {
	case password != f.password:
		s.printf("-ERR [AUTH] wrong\r\n")
	case f.locked:
		s.printf("-ERR [IN-USE] another session has it\r\n")
	default:
		f.locked, s.user = true, true
		s.mails = slices.Clone(f.mails)
		s.printf("+OK\r\n")
	}
	return nil
}

func (s *popSession) message(name string, words []string) error {
	n, _ := strconv.Atoi(words[1])
	if n < 1 || n > len(s.mails) {
		s.printf("-ERR no such message\r\n")
		return nil
	}
	m := s.mails[n-1]
	body := m.sent()
	if name == "TOP" {
		lines, _ := strconv.Atoi(words[2])
		refused := false
		if s.f.top != nil {
			body, refused = s.f.top(m, lines)
		} else {
			body = topLines(body, lines)
		}
		if refused {
			s.printf("-ERR what\r\n")
			return nil
		}
	}
	var refused, cut bool
	if s.f.onMessage != nil {
		refused, cut = s.f.onMessage(name, m)
	}
	if refused {
		s.printf("-ERR not this one\r\n")
		return nil
	}
	if cut {
		s.printf("+OK\r\n%s", stuff(body[:len(body)/2]))
		return io.EOF
	}
	s.printf("+OK %d octets\r\n%s.\r\n", len(body), stuff(body))
	return nil
}

// topLines is a header and some lines of the text.
func topLines(body string, lines int) string {
	header, text, found := strings.Cut(body, "\r\n\r\n")
	if !found {
		return body
	}
	var b strings.Builder
	b.WriteString(header + "\r\n\r\n")
	for _, line := range strings.SplitAfter(text, "\r\n") {
		if lines == 0 {
			break
		}
		lines--
		b.WriteString(line)
	}
	return b.String()
}

// stuff puts a dot before those at the beginning of a line.
func stuff(body string) string {
	body = strings.ReplaceAll(body, "\r\n.", "\r\n..")
	if strings.HasPrefix(body, ".") {
		body = "." + body
	}
	return body
}

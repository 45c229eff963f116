package proxy

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"migproxy/config"
)

// testServer is a tiny IMAP or POP3 server with chosen answers, which counts
// who was asked. After login it answers every command with its name.
type testServer struct {
	name     string
	protocol config.Protocol
	address  config.Address

	mu     sync.Mutex
	answer string            // to every login: yes, miss, refused, unavailable; "password" compares
	valid  map[string]string // user name: password, for "password"
	asked  int
	open   int // sessions that are logged in
	authz  []string
	change func() // called once, before an answer is given
	// command is shown each line of a session that is logged in; true: it has
	// answered.
	command func(c io.Writer, line string) bool
	closed  *sync.Cond
}

func startServer(t *testing.T, name string, protocol config.Protocol, answer string) *testServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	s := &testServer{name: name, protocol: protocol, answer: answer, valid: map[string]string{},
		address: config.Address{Host: "127.0.0.1", Port: uint16(port)}}
	s.closed = sync.NewCond(&s.mu)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				s.serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return s
}

func (s *testServer) config() *config.Server {
	return &config.Server{Address: config.Addresses{s.address}, TLS: config.TLSNone}
}

func (s *testServer) set(answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *testServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// recount begins to count anew.
func (s *testServer) recount() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = 0
}

// idle waits until no session is logged in.
func (s *testServer) idle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.open > 0 {
		s.closed.Wait()
	}
}

// decide answers one login; user and password come as SASL PLAIN has them.
func (s *testServer) decide(plain string) string {
	b, _ := base64.StdEncoding.DecodeString(plain)
	f := strings.SplitN(string(b), "\x00", 3)
	if len(f) != 3 {
		return "unavailable"
	}
	return s.check(f[0], f[1], f[2])
}

func (s *testServer) check(authzid, user, password string) string {
	s.mu.Lock()
	change := s.change
	s.change = nil
	s.mu.Unlock()
	if change != nil {
		change()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	s.authz = append(s.authz, authzid)
	answer := s.answer
	if answer == "password" {
		answer = "miss"
		if want, ok := s.valid[user]; ok && want == password {
			answer = "yes"
		}
	}
	if answer == "yes" {
		s.open++
	}
	return answer
}

// answers shows a line to command.
func (s *testServer) answers(c io.Writer, line string) bool {
	s.mu.Lock()
	command := s.command
	s.mu.Unlock()
	return command != nil && command(c, line)
}

// show has every line of a session that is logged in shown to command.
func (s *testServer) show(command func(c io.Writer, line string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.command = command
}

func (s *testServer) left() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	s.closed.Broadcast()
}

func (s *testServer) serve(c net.Conn) {
	r := bufio.NewReader(c)
	if s.protocol == config.POP3 {
		s.servePOP3(c, r)
		return
	}
	fmt.Fprintf(c, "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] %s\r\n", s.name)
	for in := false; ; {
		line, err := r.ReadString('\n')
		tag, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		verb, args, _ := strings.Cut(rest, " ")
		switch {
		case strings.EqualFold(verb, "LOGOUT"): // it is for the client to close
		case err != nil:
			if in {
				s.left()
			}
			return
		case in && s.answers(c, line):
		case strings.EqualFold(verb, "AUTHENTICATE"):
			switch s.decide(strings.TrimPrefix(args, "PLAIN ")) {
			case "yes":
				in = true
				fmt.Fprintf(c, "%s OK [CAPABILITY IMAP4rev1 IDLE] in\r\n", tag)
			case "miss":
				fmt.Fprintf(c, "%s NO [AUTHENTICATIONFAILED] secret of %s\r\n", tag, s.name)
			case "refused":
				fmt.Fprintf(c, "%s NO [CONTACTADMIN] secret of %s\r\n", tag, s.name)
			default:
				fmt.Fprintf(c, "%s NO [UNAVAILABLE] secret of %s\r\n", tag, s.name)
			}
		case strings.EqualFold(verb, "CAPABILITY"):
			fmt.Fprintf(c, "* CAPABILITY IMAP4rev1 IDLE\r\n%s OK %s\r\n", tag, s.name)
		default:
			fmt.Fprintf(c, "%s OK %s\r\n", tag, s.name)
		}
	}
}

func (s *testServer) servePOP3(c net.Conn, r *bufio.Reader) {
	fmt.Fprintf(c, "+OK %s\r\n", s.name)
	in, user := false, ""
	for {
		line, err := r.ReadString('\n')
		verb, args, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		switch verb = strings.ToUpper(verb); {
		case verb == "QUIT":
		case err != nil:
			if in {
				s.left()
			}
			return
		case in && s.answers(c, line):
		case verb == "CAPA":
			io.WriteString(c, "+OK\r\nUSER\r\n.\r\n")
		case verb == "USER":
			user = args
			io.WriteString(c, "+OK\r\n")
		case verb == "PASS":
			switch s.check("", user, args) {
			case "yes":
				in = true
				io.WriteString(c, "+OK\r\n")
			case "miss":
				io.WriteString(c, "-ERR [AUTH] no\r\n")
			default:
				io.WriteString(c, "-ERR [SYS/TEMP] no\r\n")
			}
		default:
			fmt.Fprintf(c, "+OK %s\r\n", s.name)
		}
	}
}

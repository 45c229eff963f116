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
	"time"
)

// fakeMail is one message of a fake server.
type fakeMail struct {
	uid   uint32
	body  string
	flags []string
	date  string
	gmail uint64 // X-GM-MSGID
}

// fakeBox is one mailbox of a fake server.
type fakeBox struct {
	name       string
	attrs      string
	validity   uint32
	next       uint32
	mails      []fakeMail
	subscribed bool
}

// verdict is what a fake server does with an APPEND.
type verdict struct {
	no       string        // answer NO with this code and text, and keep nothing
	keep     bool          // with no or cut: keep the messages all the same
	cut      bool          // close the connection instead of an answer
	late     time.Duration // keep them only after this time
	noUIDs   bool
	tamperer func(string) string
	date     string // of all messages, in place of theirs
}

// fakeServer is an IMAP server with one user, whose misbehaviour is scripted.
type fakeServer struct {
	t    testing.TB
	l    net.Listener
	port int
	wg   sync.WaitGroup

	mu        sync.Mutex
	conns     map[net.Conn]bool
	password  string
	passwords map[string]string // of users by name; all others have password
	master    string            // a master user's password, for a login in another's name
	logins    int               // tries to log in
	exists    bool              // the user
	limit     int               // of the user's connections; 0 is none
	users     int               // connections that are logged in
	loginCode string
	caps      string
	prefix    string
	delim     string
	others    string // the other namespaces, as in NAMESPACE
	permanent string
	foldsCase bool   // of mailbox names
	flags     string // FLAGS of each mailbox
	renumbers bool   // a renamed mailbox has another UIDVALIDITY
	made      int    // mailboxes
	boxes     []*fakeBox
	appends   int
	log       []string

	onAppend func(n int, mails []fakeMail) verdict
	// onCommand gives the answer to a command without its tag, behind lines without
	// one, to be given in place of the usual one, or nothing. A BYE ends the
	// connection.
	onCommand func(name, args string) string
	// hides says which messages a list of a folder leaves out.
	hides func(m fakeMail) bool
	// onFetch says whether to leave a body out, or to cut in the middle of it.
	onFetch func(m fakeMail) (skip, cut bool)
}

func newFake(t testing.TB, password string) *fakeServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeServer{t: t, l: l, port: l.Addr().(*net.TCPAddr).Port, password: password, exists: password != "",
		conns: map[net.Conn]bool{}, delim: "/", permanent: `\Answered \Flagged \Deleted \Seen \Draft \*`,
		caps: "IMAP4rev1 LITERAL+ MULTIAPPEND UIDPLUS NAMESPACE SPECIAL-USE SASL-IR AUTH=PLAIN"}
	f.box("INBOX")
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

func (f *fakeServer) serve() {
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
			s := &fakeSession{f: f, r: bufio.NewReader(c), w: bufio.NewWriter(c)}
			// Without capabilities, which a test may have set only now: what the client
			// sends comes after that.
			_, _ = fmt.Fprint(c, "* OK hello\r\n")
			for s.command() == nil {
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if s.user {
				f.users--
			}
		})
	}
}

// box returns a mailbox, new where it is not there. The server's mu is held, or
// nobody is connected.
func (f *fakeServer) box(name string) *fakeBox {
	if b := f.find(name); b != nil {
		return b
	}
	b := &fakeBox{name: name, validity: uint32(1000 + f.made), next: 1}
	f.made++
	f.boxes = append(f.boxes, b)
	return b
}

func (f *fakeServer) find(name string) *fakeBox {
	for _, b := range f.boxes {
		if b.name == name || f.foldsCase && strings.EqualFold(b.name, name) {
			return b
		}
	}
	return nil
}

// rename gives a mailbox and those below it new names; remove takes one away. For
// both the server's mu is held, or nobody is connected.
func (f *fakeServer) rename(from, to string) {
	for _, b := range f.boxes {
		if b.name == from || strings.HasPrefix(b.name, from+f.delim) {
			b.name, b.subscribed = to+strings.TrimPrefix(b.name, from), false
			if f.renumbers {
				b.validity += 100
			}
		}
	}
}

func (f *fakeServer) remove(name string) (was bool) {
	at := slices.IndexFunc(f.boxes, func(b *fakeBox) bool { return b.name == name })
	if at >= 0 {
		f.boxes = slices.Delete(f.boxes, at, at+1)
	}
	return at >= 0
}

func (b *fakeBox) add(m fakeMail) uint32 {
	m.uid = b.next
	b.next++
	b.mails = append(b.mails, m)
	return m.uid
}

// fill adds n messages, each equal to the next one where twins is set.
func (b *fakeBox) fill(n int, twins bool) {
	for i := range n {
		k := i
		if twins {
			k = i / 2
		}
		b.add(fakeMail{body: message(k, strings.Repeat("x", k%7)), flags: []string{`\Seen`, "$Label1"}, date: "14-Mar-2019 05:06:07 +0100"})
	}
}

// contents are the bodies and flags of a mailbox as a sorted multiset.
func (f *fakeServer) contents(box string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	if b := f.find(box); b != nil {
		for _, m := range b.mails {
			all = append(all, strings.Join(m.flags, " ")+"|"+m.date+"|"+m.body)
		}
	}
	slices.Sort(all)
	return all
}

// fakeSession is one connection.
type fakeSession struct {
	f    *fakeServer
	r    *bufio.Reader
	w    *bufio.Writer
	open *fakeBox
	user bool
}

func (s *fakeSession) printf(format string, args ...any) { _, _ = fmt.Fprintf(s.w, format, args...) }

// command reads one command with its literals, and answers it.
func (s *fakeSession) command() error {
	var texts []string
	var literals []string
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return err
		}
		line = strings.TrimRight(line, "\r\n")
		texts = append(texts, line)
		open := strings.LastIndexByte(line, '{')
		if open < 0 || !strings.HasSuffix(line, "}") {
			break
		}
		mark := strings.TrimSuffix(line[open+1:], "}")
		size, err := strconv.Atoi(strings.TrimSuffix(mark, "+"))
		if err != nil {
			break
		}
		if !strings.HasSuffix(mark, "+") {
			s.printf("+ go on\r\n")
			_ = s.w.Flush()
		}
		literal := make([]byte, size)
		if _, err := io.ReadFull(s.r, literal); err != nil {
			return err
		}
		literals = append(literals, string(literal))
	}
	words := strings.SplitN(texts[0], " ", 3)
	if len(words) < 2 {
		return io.EOF
	}
	words = append(words, "")
	err := s.answer(words[0], strings.ToUpper(words[1]), words[2], texts, literals)
	if flush := s.w.Flush(); err == nil {
		err = flush
	}
	return err
}

func unquote(s string) string { return strings.Trim(s, `"`) }

func (s *fakeSession) answer(tag, name, args string, texts, literals []string) error {
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if name != "LOGIN" && name != "AUTHENTICATE" {
		f.log = append(f.log, name+" "+args)
	}
	if f.onCommand != nil {
		switch answer := f.onCommand(name, args); {
		case strings.HasPrefix(answer, "* BYE"):
			s.printf("%s\r\n", answer)
			_ = s.w.Flush()
			return io.EOF
		case answer != "":
			last := strings.LastIndexByte(answer, '\n') + 1
			s.printf("%s%s %s\r\n", answer[:last], tag, answer[last:])
			return nil
		}
	}
	ok := func() error { s.printf("%s OK done\r\n", tag); return nil }
	no := func(text string) error { s.printf("%s NO %s\r\n", tag, text); return nil }
	switch name {
	case "CAPABILITY":
		s.printf("* CAPABILITY %s\r\n", f.caps)
	case "AUTHENTICATE":
		plain, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(args, "PLAIN "))
		f.logins++
		if f.loginCode != "" {
			return no(f.loginCode + " not now")
		}
		parts := strings.Split(string(plain), "\x00") // authzid, authcid, password
		mastered := f.master != "" && parts[0] != "" && parts[len(parts)-1] == f.master
		password, own := f.passwords[parts[min(1, len(parts)-1)]]
		if !own {
			password = f.password
		}
		if !f.exists || !mastered && parts[len(parts)-1] != password {
			return no("[AUTHENTICATIONFAILED] wrong")
		}
		if f.limit > 0 && f.users >= f.limit {
			return no("[LIMIT] too many connections")
		}
		s.user = true
		f.users++
		s.printf("%s OK [CAPABILITY %s] welcome\r\n", tag, f.caps)
		return nil
	case "NAMESPACE":
		others := f.others
		if others == "" {
			others = "NIL NIL"
		}
		s.printf("* NAMESPACE ((%q %q)) %s\r\n", f.prefix, f.delim, others)
	case "LIST", "LSUB":
		for _, b := range f.boxes {
			if name == "LIST" && (strings.Contains(args, "*") || strings.Contains(args, `"`+b.name+`"`)) || b.subscribed {
				s.printf("* %s (%s) %q %q\r\n", name, b.attrs, f.delim, b.name)
			}
		}
	case "STATUS":
		b := f.find(unquote(args[:strings.LastIndex(args, " (")]))
		if b == nil {
			return no("[NONEXISTENT] no such mailbox")
		}
		s.printf("* STATUS %q (MESSAGES %d UIDNEXT %d UIDVALIDITY %d)\r\n", b.name, len(b.mails), b.next, b.validity)
	case "SELECT", "EXAMINE":
		b := f.find(unquote(args))
		if b == nil {
			return no("[NONEXISTENT] no such mailbox")
		}
		s.open = b
		if f.flags != "" {
			s.printf("* FLAGS (%s)\r\n", f.flags)
		}
		s.printf("* %d EXISTS\r\n* OK [UIDVALIDITY %d] v\r\n* OK [PERMANENTFLAGS (%s)] f\r\n", len(b.mails), b.validity, f.permanent)
	case "CREATE":
		box := unquote(strings.SplitN(args, " (", 2)[0])
		if f.find(box) != nil {
			return no("[ALREADYEXISTS] is there")
		}
		f.box(box)
	case "SUBSCRIBE":
		f.box(unquote(args)).subscribed = true
	case "UNSUBSCRIBE":
		if b := f.find(unquote(args)); b != nil {
			b.subscribed = false
		}
	case "RENAME":
		names := strings.SplitN(unquote(args), `" "`, 2)
		if f.find(names[1]) != nil {
			return no("[ALREADYEXISTS] is there")
		}
		f.rename(names[0], names[1])
	case "DELETE":
		if !f.remove(unquote(args)) {
			return no("[NONEXISTENT] no such mailbox")
		}
	case "UID":
		if strings.HasPrefix(args, "STORE ") {
			s.store(args)
			return ok()
		}
		if set, is := strings.CutPrefix(args, "EXPUNGE "); is {
			s.open.mails = slices.DeleteFunc(slices.Clone(s.open.mails), func(m fakeMail) bool {
				return wanted(set, m.uid, m.uid) && slices.Contains(m.flags, `\Deleted`)
			})
			return ok()
		}
		return s.fetch(tag, args)
	case "APPEND":
		return s.append(tag, texts, literals)
	case "LOGOUT":
		s.printf("* BYE bye\r\n%s OK done\r\n", tag)
		_ = s.w.Flush()
		return io.EOF
	}
	return ok()
}

// wanted reads a UID set.
func wanted(set string, uid, last uint32) bool {
	for _, part := range strings.Split(set, ",") {
		from, to, isRange := strings.Cut(part, ":")
		if !isRange {
			to = from
		}
		number := func(s string) uint32 {
			if s == "*" {
				return last
			}
			n, _ := strconv.ParseUint(s, 10, 32)
			return uint32(n)
		}
		a, b := number(from), number(to)
		if min(a, b) <= uid && uid <= max(a, b) {
			return true
		}
	}
	return false
}

func (s *fakeSession) fetch(tag, args string) error {
	words := strings.SplitN(args, " ", 3)
	if s.open == nil || len(words) < 3 {
		s.printf("%s BAD what\r\n", tag)
		return nil
	}
	var last uint32
	for _, m := range s.open.mails {
		last = m.uid
	}
	for i, m := range s.open.mails {
		if !wanted(words[1], m.uid, last) {
			continue
		}
		var skip, cut bool
		if strings.Contains(words[2], "BODY.PEEK[]") {
			if s.f.onFetch != nil {
				skip, cut = s.f.onFetch(m)
			}
			switch {
			case skip:
			case cut:
				s.printf("* %d FETCH (UID %d BODY[] {%d}\r\n%s", i+1, m.uid, len(m.body), m.body[:len(m.body)/2])
				_ = s.w.Flush()
				return io.EOF
			default:
				s.printf("* %d FETCH (UID %d BODY[] {%d}\r\n%s)\r\n", i+1, m.uid, len(m.body), m.body)
			}
			continue
		}
		if s.f.hides != nil && s.f.hides(m) {
			continue
		}
		gmail := ""
		if strings.Contains(words[2], "X-GM-MSGID") {
			gmail = fmt.Sprintf("X-GM-MSGID %d ", m.gmail)
		}
		s.printf("* %d FETCH (%sUID %d FLAGS (%s) INTERNALDATE %q RFC822.SIZE %d)\r\n", i+1, gmail, m.uid, strings.Join(m.flags, " "), m.date, len(m.body))
	}
	s.printf("%s OK done\r\n", tag)
	return nil
}

// store does UID STORE.
func (s *fakeSession) store(args string) {
	words := strings.SplitN(args, " ", 4)
	flags := strings.Fields(strings.Trim(words[3], "()"))
	for i := range s.open.mails {
		m := &s.open.mails[i]
		if !wanted(words[1], m.uid, m.uid) {
			continue
		}
		m.flags = slices.DeleteFunc(slices.Clone(m.flags), func(f string) bool { return slices.Contains(flags, f) })
		if words[2][0] == '+' {
			m.flags = append(m.flags, flags...)
		}
	}
}

func (s *fakeSession) append(tag string, texts, literals []string) error {
	f := s.f
	name := unquote(strings.Fields(texts[0])[2])
	var mails []fakeMail
	for i, body := range literals {
		head := texts[i]
		if i == 0 {
			head = strings.SplitN(head, " ", 4)[3]
		}
		m := fakeMail{body: body}
		if from, to := strings.IndexByte(head, '('), strings.IndexByte(head, ')'); from >= 0 && to > from {
			m.flags = strings.Fields(head[from+1 : to])
		}
		if parts := strings.Split(head, `"`); len(parts) > 2 {
			m.date = strings.TrimSpace(parts[1])
		}
		mails = append(mails, m)
	}
	f.appends++
	var v verdict
	if f.onAppend != nil {
		v = f.onAppend(f.appends, mails)
	}
	b := f.find(name)
	if b == nil {
		s.printf("%s NO [TRYCREATE] no such mailbox\r\n", tag)
		return nil
	}
	var uids []string
	keep := func() {
		for _, m := range mails {
			if v.tamperer != nil {
				m.body = v.tamperer(m.body)
			}
			if v.date != "" {
				m.date = v.date
			}
			uids = append(uids, strconv.Itoa(int(b.add(m))))
		}
	}
	switch {
	case v.late > 0:
		f.wg.Go(func() {
			<-time.After(v.late)
			f.mu.Lock()
			defer f.mu.Unlock()
			keep()
		})
	case v.keep || v.no == "" && !v.cut:
		keep()
	}
	switch {
	case v.cut:
		return io.EOF
	case v.no != "":
		s.printf("%s NO %s\r\n", tag, v.no)
	case v.noUIDs || !strings.Contains(f.caps, "UIDPLUS"):
		s.printf("%s OK done\r\n", tag)
	default:
		s.printf("%s OK [APPENDUID %d %s] done\r\n", tag, b.validity, strings.Join(uids, ","))
	}
	return nil
}

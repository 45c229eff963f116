package proxy

import (
	"bytes"

	"migproxy/config"
)

// sessionTracker follows both directions of a session and knows whether it stands
// still: the client has nothing half sent, and the server nothing to answer. It
// never changes the streams. What the client sends is shown to it before the server
// gets it, and what the server sends before the client gets it, so that it sees
// causes before their effects.
type sessionTracker interface {
	sent(b []byte) // by the client
	came(b []byte) // from the server
	standsStill() bool
	// lost: the streams cannot be followed any more.
	lost() bool
	// mayBye: a BYE may be added to what the server sends.
	mayBye() bool
}

func newSessionTracker(p config.Protocol) sessionTracker {
	if p == config.POP3 {
		return &pop3Tracker{}
	}
	t := &imapTracker{awaited: -1}
	t.responses.responded = t.responded
	return t
}

// maxTracked is how much of a line a tracker keeps.
const maxTracked = 80

// idling says how far an IDLE (RFC 2177) has come.
type idling int

const (
	idleNone   idling = iota
	idleAsked         // the server has not said + yet
	idleGoing         // it has
	idleEnding        // the client has said DONE
)

// imapTracker is the tracker of an IMAP session. Commands are counted, not told
// apart: a server may answer them in any order.
type imapTracker struct {
	responses responseTracker
	broken    bool // what the client sends, or what it means, is not understood
	opaque    bool // from here on the stream may be something else than IMAP

	open    int // commands without their tagged response
	idle    idling
	idleTag [responseHead]byte // as much as a response's head keeps

	inside  bool  // a command has begun
	later   bool  // the line is not the first one of its command
	skip    int64 // octets of a literal still to come
	awaited int64 // octets of a literal that the server has to ask for; -1: none
	head    [maxTracked]byte
	nHead   int
	line    lineEnd
}

func (t *imapTracker) lost() bool { return t.broken || t.responses.lost }

func (t *imapTracker) mayBye() bool { return !t.opaque && !t.responses.bye && t.responses.between() }

// standsStill counts an IDLE as that: its client does nothing but wait.
func (t *imapTracker) standsStill() bool {
	if t.lost() || t.inside || !t.responses.between() {
		return false
	}
	return t.open == 0 || t.open == 1 && t.idle == idleGoing
}

func (t *imapTracker) came(b []byte) { t.responses.feed(b) }

func (t *imapTracker) sent(b []byte) {
	for len(b) > 0 && !t.broken {
		if t.skip > 0 {
			n := min(t.skip, int64(len(b)))
			t.skip -= n
			b = b[n:]
			continue
		}
		if t.awaited >= 0 {
			// Octets of the literal or a new command: whether the server takes
			// them for one or the other, only its answer tells.
			t.broken = true
			return
		}
		line, rest, ended := bytes.Cut(b, []byte{'\n'})
		t.inside = t.inside || len(line) > 0
		t.nHead += copy(t.head[t.nHead:], line)
		t.line.keep(line)
		b = rest
		if ended {
			t.endLine()
		}
	}
}

// endLine is called at each LF of the client outside of literals.
func (t *imapTracker) endLine() {
	l, clear := t.line.literal()
	t.line.n = 0
	if !t.later {
		t.begun(bytes.TrimSuffix(t.head[:t.nHead], []byte{'\r'}))
	}
	switch {
	case t.broken:
	case !clear:
		t.broken = true
	case l.found && l.waits:
		t.awaited, t.later = l.octets, true
	case l.found:
		t.skip, t.later = l.octets, true
	default:
		t.inside, t.later, t.nHead = false, false, 0
	}
}

// begun counts a command by its first line. What is no command at all is not
// guessed at: the server may answer it with a tag or without one.
func (t *imapTracker) begun(line []byte) {
	if t.idle == idleAsked || t.idle == idleGoing {
		if !bytes.EqualFold(line, []byte("DONE")) {
			t.broken = true
		}
		t.idle = idleEnding
		return
	}
	if len(line) == 0 {
		return // some clients end a literal with two
	}
	tag, rest, named := bytes.Cut(line, []byte{' '})
	name, _, _ := bytes.Cut(rest, []byte{' '})
	if len(tag) == 0 || len(name) == 0 || !named || len(tag)+1+len(name) >= maxTracked || tag[0] == '*' || tag[0] == '+' || !plainASCII(tag) {
		t.broken = true
		return
	}
	t.open++
	switch {
	case bytes.EqualFold(name, []byte("IDLE")):
		t.idle = idleAsked
		t.idleTag = [responseHead]byte{}
		copy(t.idleTag[:], tag)
	case bytes.EqualFold(name, []byte("COMPRESS")), bytes.EqualFold(name, []byte("STARTTLS")):
		t.broken, t.opaque = true, true
	}
}

func plainASCII(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// responded is called at the end of each response.
func (t *imapTracker) responded(head []byte) {
	word, _, _ := bytes.Cut(bytes.TrimSuffix(head, []byte{'\r'}), []byte{' '})
	switch {
	case len(word) == 0:
		t.broken = true
	case word[0] == '+':
		t.asked()
	case word[0] != '*':
		t.answered(word)
	}
}

// asked: the server said +.
func (t *imapTracker) asked() {
	switch {
	case t.awaited >= 0:
		t.skip, t.awaited = t.awaited, -1
	case t.idle == idleAsked:
		t.idle = idleGoing
	case t.idle != idleEnding: // of an IDLE that the client has ended before it began
		t.broken = true
	}
}

// answered: a tagged response came. One to the command that waits for its literal
// to be asked for refuses it (RFC 9051 section 4.3).
func (t *imapTracker) answered(tag []byte) {
	if t.open == 0 {
		t.broken = true
		return
	}
	t.open--
	if t.awaited >= 0 && sameTag(t.head[:t.nHead], tag) {
		t.awaited, t.inside, t.later, t.nHead = -1, false, false, 0
	}
	if t.idle != idleNone && sameTag(t.idleTag[:], tag) {
		t.idle = idleNone
	}
}

// sameTag compares the tag of a command with that of a response, as far as the
// response's head keeps it.
func sameTag(command, response []byte) bool {
	n := len(response)
	if len(command) < n || !bytes.Equal(command[:n], response) {
		return false
	}
	return n == responseHead || len(command) == n || command[n] == ' ' || command[n] == 0
}

// maxPipelined bounds how many commands a POP3 client may have under way for the
// session to be followed.
const maxPipelined = 1000

// pop3Tracker is the tracker of a POP3 session (RFC 1939, RFC 2449), in which
// commands are answered in their order.
type pop3Tracker struct {
	broken bool
	open   []pop3Answers // what the server has not answered

	sending  bool // the client has begun a line
	command  [maxTracked]byte
	nCommand int

	coming  bool // the server has begun a line
	inside  bool // an answer of several lines
	answer  [5]byte
	nAnswer int
}

// pop3Answers is how many lines the answer to a command has.
type pop3Answers byte

const (
	oneLine      pop3Answers = iota
	severalLines             // if it is +OK
	whoKnows                 // if it is +OK
)

func (t *pop3Tracker) lost() bool   { return t.broken }
func (t *pop3Tracker) mayBye() bool { return false } // there is none (RFC 1939 section 3)

func (t *pop3Tracker) standsStill() bool {
	return !t.broken && len(t.open) == 0 && !t.sending && !t.coming
}

func (t *pop3Tracker) sent(b []byte) {
	for len(b) > 0 && !t.broken {
		line, rest, ended := bytes.Cut(b, []byte{'\n'})
		t.sending = !ended
		t.nCommand += copy(t.command[t.nCommand:], line)
		b = rest
		if !ended {
			return
		}
		if len(t.open) >= maxPipelined {
			t.broken = true
			return
		}
		t.open = append(t.open, pop3AnswersTo(bytes.TrimSuffix(t.command[:t.nCommand], []byte{'\r'})))
		t.nCommand = 0
	}
}

func pop3AnswersTo(command []byte) pop3Answers {
	cmd := parsePOP3Command(command)
	switch cmd.name {
	case "STAT", "DELE", "NOOP", "RSET", "QUIT", "UTF8":
		return oneLine
	case "RETR", "TOP", "CAPA":
		return severalLines
	case "LIST", "UIDL":
		if cmd.arg == "" {
			return severalLines
		}
		return oneLine
	}
	return whoKnows
}

func (t *pop3Tracker) came(b []byte) {
	for len(b) > 0 && !t.broken {
		line, rest, ended := bytes.Cut(b, []byte{'\n'})
		t.coming = !ended
		t.nAnswer += copy(t.answer[t.nAnswer:], line)
		b = rest
		if ended {
			t.endLine(bytes.TrimSuffix(t.answer[:t.nAnswer], []byte{'\r'}))
			t.nAnswer = 0
		}
	}
}

// endLine is called at each LF of the server with the beginning of the line.
func (t *pop3Tracker) endLine(line []byte) {
	switch {
	case t.inside:
		t.inside = !bytes.Equal(line, []byte{'.'})
	case len(t.open) == 0:
		t.broken = true
		return
	case bytes.HasPrefix(line, []byte("-ERR")):
	case !bytes.HasPrefix(line, []byte("+OK")) || t.open[0] == whoKnows:
		t.broken = true
		return
	default:
		t.inside = t.open[0] == severalLines
	}
	if !t.inside {
		t.open = t.open[1:]
	}
}

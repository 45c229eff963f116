package hostile

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// command reads one command, its strings and literals unpacked. A list in
// parentheses is one argument, with them. Further literals of an APPEND are
// read as they come.
func (x *session) command() ([]string, error) {
	var args []string
	for {
		line, err := x.r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		line = strings.TrimRight(line, "\r\n")
		fields, size, literal := split(line)
		args = append(args, fields...)
		if !literal {
			return args, nil
		}
		octets, err := x.literal(line, size, len(args) > 1 && strings.EqualFold(args[1], "APPEND"))
		if err != nil {
			return nil, err
		}
		args = append(args, octets)
	}
}

func (x *session) literal(line string, size int, appended bool) (string, error) {
	if !strings.HasSuffix(line, "+}") {
		x.say("+ go on")
		if err := x.w.Flush(); err != nil {
			return "", err
		}
	}
	b := make([]byte, size)
	if appended && x.cuts() {
		_, _ = io.ReadFull(x.r, b[:size/2])
		return "", errors.New("cut on purpose")
	}
	_, err := io.ReadFull(x.r, b)
	return string(b), err
}

// cuts reports whether to cut the connection within this message.
func (x *session) cuts() bool {
	x.s.Lock()
	defer x.s.Unlock()
	return take(&x.s.Faults.CutAppend)
}

// split cuts a line into its arguments; literal says that it ends in one.
func split(line string) (args []string, size int, literal bool) {
	for line = strings.TrimLeft(line, " "); line != ""; line = strings.TrimLeft(line, " ") {
		switch line[0] {
		case '"':
			var b strings.Builder
			i := 1
			for ; i < len(line) && line[i] != '"'; i++ {
				if line[i] == '\\' {
					i++
				}
				b.WriteByte(line[i])
			}
			args, line = append(args, b.String()), line[min(i+1, len(line)):]
		case '(':
			depth, i := 0, 0
			for ; i < len(line); i++ {
				if line[i] == '(' {
					depth++
				} else if line[i] == ')' {
					if depth--; depth == 0 {
						break
					}
				}
			}
			args, line = append(args, line[:min(i+1, len(line))]), line[min(i+1, len(line)):]
		case '{':
			n, err := strconv.Atoi(strings.TrimSuffix(strings.Trim(line, "{}"), "+"))
			return args, n, err == nil
		default:
			word, rest, _ := strings.Cut(line, " ")
			args, line = append(args, word), rest
		}
	}
	return args, 0, false
}

// answer carries out one command; false ends the connection.
func (x *session) answer(tag, name string, args []string) bool {
	s := x.s
	s.Lock()
	defer s.Unlock()
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	switch name {
	case "CAPABILITY":
		x.say("* CAPABILITY IMAP4rev1 " + s.Faults.Capabilities)
	case "LOGIN":
		return x.login(tag, arg(0), arg(1))
	case "AUTHENTICATE":
		parts := strings.Split(decode64(arg(1)), "\x00")
		if len(parts) != 3 {
			x.say(tag + " BAD no initial response")
			return true
		}
		return x.login(tag, parts[1], parts[2])
	case "NAMESPACE":
		x.say(`* NAMESPACE (("" "/")) NIL NIL`)
	case "LIST", "LSUB":
		x.list(name, arg(1))
	case "STATUS":
		b := s.find(arg(0))
		if b == nil {
			x.say(tag + " NO [NONEXISTENT] no such mailbox")
			return true
		}
		x.say(fmt.Sprintf("* STATUS %s (MESSAGES %d UIDNEXT %d UIDVALIDITY %d)", quote(b.Name), len(b.Messages), b.UIDNext, b.UIDValidity))
	case "EXAMINE", "SELECT":
		if name == "SELECT" {
			s.Touches++
		}
		if x.selected = s.find(arg(0)); x.selected == nil {
			x.say(tag + " NO [NONEXISTENT] no such mailbox")
			return true
		}
		x.say(fmt.Sprintf("* %d EXISTS", len(x.selected.Messages)), "* 0 RECENT",
			`* OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft \*)] as you like`,
			fmt.Sprintf("* OK [UIDVALIDITY %d] so be it", x.selected.UIDValidity))
	case "CREATE":
		s.Writes++
		if s.find(arg(0)) != nil {
			x.say(tag + " NO [ALREADYEXISTS] there")
			return true
		}
		s.Mailboxes = append(s.Mailboxes, &Mailbox{Name: arg(0), UIDValidity: uint32(100 + len(s.Mailboxes)), UIDNext: 1})
	case "SUBSCRIBE":
		s.Writes++
		if b := s.find(arg(0)); b != nil {
			b.Subscribed = true
		}
	case "APPEND":
		s.Writes++
		return x.append(tag, args)
	case "FETCH":
		return x.fetch(tag, arg(0), strings.ToUpper(arg(1)), false)
	case "UID":
		if strings.EqualFold(arg(0), "FETCH") {
			return x.fetch(tag, arg(1), strings.ToUpper(strings.Join(args[2:], " ")), true)
		}
		s.Writes++
		x.say(tag + " BAD not here")
		return true
	case "NOOP", "ID", "UNSELECT", "CLOSE", "ENABLE":
	case "LOGOUT":
		x.say("* BYE", tag+" OK")
		return false
	default:
		s.Writes++
		x.say(tag + " BAD not here")
		return true
	}
	x.say(tag + " OK done")
	return true
}

func decode64(text string) string {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return ""
	}
	return string(b)
}

func quote(name string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}

func (x *session) login(tag, user, password string) bool {
	if !x.s.Allow(user, password) {
		x.say(tag + " NO [AUTHENTICATIONFAILED] no")
		return true
	}
	x.say(tag + " OK [CAPABILITY IMAP4rev1 " + x.s.Faults.Capabilities + "] in")
	return true
}

func (x *session) list(command, pattern string) {
	if pattern == "" {
		x.say(`* LIST (\Noselect) "/" ""`)
		return
	}
	for _, b := range x.s.Mailboxes {
		if command == "LIST" || b.Subscribed {
			name := quote(b.Name)
			if strings.Contains(b.Name, `"`) { // as many servers send it
				name = fmt.Sprintf("{%d}\r\n%s", len(b.Name), b.Name)
			}
			x.say(fmt.Sprintf("* %s (%s) \"/\" %s", command, b.Attrs, name))
		}
	}
}

var headerFields = regexp.MustCompile(`\[HEADER\.FIELDS \([^)]*\)\]`)

var dateField = regexp.MustCompile(`(?m)^Date: .*\r\n`)

// fetch answers what a copier asks: the items of a listing, or bodies. The set
// is one of UIDs or of sequence numbers.
func (x *session) fetch(tag, set, items string, byUID bool) bool {
	b := x.selected
	if b == nil {
		x.say(tag + " BAD nothing selected")
		return true
	}
	f := &x.s.Faults
	bodies := strings.Contains(items, "BODY")
	if strings.Contains(items, "BODY[") || strings.Contains(items, "RFC822.TEXT") {
		x.s.Touches++
	}
	if bodies && take(&f.ByeFetch) {
		x.say("* BYE [UNAVAILABLE] the disk is full of sand")
		return false
	}
	section := "BODY[]"
	for i, m := range b.Messages {
		n := i + 1
		if byUID && !contains(set, m.UID) || !byUID && !contains(set, uint32(n)) || m.UID == f.Hides {
			continue
		}
		if fields := headerFields.FindString(items); fields != "" { // these messages have no other that is asked for
			section = "BODY" + fields
			m.Octets = dateField.FindString(m.Octets) + "\r\n"
		}
		if f.Early {
			x.say(fmt.Sprintf(`* %d FETCH (UID %d FLAGS (%s))`, n, m.UID, m.Flags))
		}
		if f.Unasked {
			x.say(fmt.Sprintf(`* %d FETCH (UID %d FLAGS (\Seen $Odd]Flag) X-GM-MSGID 17)`, n, m.UID),
				fmt.Sprintf(`* %d FETCH (FLAGS (\Answered))`, n), "* VANISHED (EARLIER) 900:910", fmt.Sprintf("* %d EXISTS", len(b.Messages)), "* XUNKNOWN {3}\r\nabc (")
		}
		if !bodies {
			x.say(fmt.Sprintf(`* %d FETCH (FLAGS (%s) INTERNALDATE "%s" RFC822.SIZE %d UID %d)`, n, m.Flags, m.Date, len(m.Octets), m.UID))
			continue
		}
		head, tail := fmt.Sprintf("* %d FETCH (UID %d %s {%d}\r\n", n, m.UID, section, len(m.Octets)), ")"
		if f.BodyFirst {
			head, tail = fmt.Sprintf("* %d FETCH (%s {%d}\r\n", n, section, len(m.Octets)), fmt.Sprintf(" UID %d)", m.UID)
		}
		_, _ = x.w.WriteString(head)
		if len(m.Octets) > 20 && take(&f.CutBody) {
			_, _ = x.w.WriteString(m.Octets[:len(m.Octets)/2])
			return false
		}
		x.say(m.Octets + tail)
	}
	if !bodies && f.Leaves != 0 {
		for i, m := range b.Messages {
			if m.UID == f.Leaves {
				b.Messages = append(b.Messages[:i:i], b.Messages[i+1:]...)
				break
			}
		}
	}
	x.say(tag + " OK fetched")
	return true
}

// contains reports whether a UID is in a set such as 1:3,7,9:*.
func contains(set string, uid uint32) bool {
	for part := range strings.SplitSeq(set, ",") {
		first, last, isRange := strings.Cut(part, ":")
		if !isRange {
			last = first
		}
		from, to := number(first), number(last)
		if uid >= from && uid <= to {
			return true
		}
	}
	return false
}

func number(text string) uint32 {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 1<<32 - 1 // *
	}
	return uint32(n)
}

// append stores the messages of one APPEND: mailbox, then for each message its
// flags, its date and its octets.
func (x *session) append(tag string, args []string) bool {
	f := &x.s.Faults
	b := x.s.find(args[0])
	if b == nil {
		x.say(tag + " NO [TRYCREATE] no such mailbox")
		return true
	}
	messages, err := parseAppend(args[1:])
	if err != nil || len(messages) > 1 && !strings.Contains(f.Capabilities, "MULTIAPPEND") {
		x.say(tag + " BAD cannot be read")
		return true
	}
	if f.Refuse != nil {
		for _, m := range messages {
			if code := f.Refuse(m.Octets); code != "" {
				x.say(tag + " NO " + code)
				return true
			}
		}
	}
	if len(messages) > 1 && take(&f.HalfRefuse) {
		b.store(messages[:len(messages)/2])
		x.say(tag + " NO halfway")
		return true
	}
	if take(&f.ByeAppend) {
		x.say("* BYE [UNAVAILABLE] going down")
		return false
	}
	if take(&f.Forget) {
		x.say(tag + " OK stored")
		return true
	}
	if take(&f.Unanswered) {
		x.s.conns.Add(1)
		time.AfterFunc(f.Late, func() {
			defer x.s.conns.Done()
			x.s.Lock()
			defer x.s.Unlock()
			b.store(messages)
		})
		return false
	}
	first := b.UIDNext
	b.store(messages)
	if strings.Contains(f.Capabilities, "UIDPLUS") {
		last := b.UIDNext - 1
		if take(&f.WrongUIDs) {
			first, last = first+1000, last+1000
		}
		x.say(fmt.Sprintf("%s OK [APPENDUID %d %d:%d] stored", tag, b.UIDValidity, first, last))
	} else {
		x.say(tag + " OK stored")
	}
	return true
}

func parseAppend(args []string) ([]Message, error) {
	var list []Message
	m := Message{Date: now()}
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case strings.HasPrefix(a, "(") && strings.HasSuffix(a, ")"):
			m.Flags = strings.Trim(a, "()")
		case len(a) == 26 && strings.Count(a, ":") == 2:
			m.Date = a
		default:
			m.Octets = a
			list = append(list, m)
			m = Message{Date: now()}
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no message")
	}
	return list, nil
}

func now() string { return time.Now().Format("_2-Jan-2006 15:04:05 -0700") }

func (b *Mailbox) store(messages []Message) {
	for _, m := range messages {
		m.UID = b.UIDNext
		b.UIDNext++
		b.Messages = append(b.Messages, m)
	}
}

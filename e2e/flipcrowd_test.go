package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

// crowdPoll is how often a polling client asks for new mail, while it is not silent
// for so long that a quiet moment is always there.
const crowdPoll = 3 * time.Second

// heldAtMost is what 99 of 100 logins must be answered in.
const heldAtMost = 10 * time.Second

// crowdClient is a client with one connection: it listens (IDLE), or stores a message
// now and then and asks in between. It comes back without a word when the connection ends at a quiet moment,
// and ends when it is on the target.
type crowdClient struct {
	user   string
	port   int
	idles  bool
	logins []time.Duration
	polls  int
	stored []string // digests of the messages that were taken

	net.Conn
	buf []byte
}

// errQuiet: the connection has ended while nothing was outstanding.
var errQuiet = errors.New("ended at a quiet moment")

// next reads a line. errQuiet is a goodbye or a bare end.
func (c *crowdClient) next(deadline time.Time) (string, error) {
	if err := c.SetReadDeadline(deadline); err != nil {
		return "", err
	}
	chunk := make([]byte, 4096)
	for {
		if i := bytes.IndexByte(c.buf, '\n'); i >= 0 {
			text := string(c.buf[:i+1])
			c.buf = c.buf[i+1:]
			if strings.HasPrefix(text, "* BYE") {
				return text, errQuiet
			}
			return text, nil
		}
		n, err := c.Read(chunk)
		c.buf = append(c.buf, chunk[:n]...)
		if n == 0 && errors.Is(err, io.EOF) && len(c.buf) == 0 {
			return "", errQuiet
		}
		if n == 0 && err != nil {
			return "", err
		}
	}
}

// command does one command and returns what was said.
func (c *crowdClient) command(tag, text string) (string, error) {
	if _, err := io.WriteString(c, tag+" "+text+"\r\n"); err != nil {
		return "", errQuiet // it was closed before
	}
	var said strings.Builder
	for {
		text, err := c.next(time.Now().Add(time.Minute))
		if errors.Is(err, errQuiet) && said.Len() > 0 {
			return "", fmt.Errorf("cut in the middle of a response: %q, %q", said.String(), text)
		}
		if err != nil {
			return "", err
		}
		said.WriteString(text)
		if rest, ok := strings.CutPrefix(text, tag+" "); ok {
			if !strings.HasPrefix(rest, "OK") {
				return "", fmt.Errorf("%s: %q", tag, text)
			}
			return said.String(), nil
		}
	}
}

// run is the client's life until it is on the target.
func (c *crowdClient) run(ctx context.Context) error {
	for ctx.Err() == nil {
		onTarget, err := c.session(ctx)
		if c.Conn != nil {
			_ = c.Conn.Close()
		}
		if onTarget || err != nil && !errors.Is(err, errQuiet) {
			return err
		}
	}
	return ctx.Err()
}

func (c *crowdClient) session(ctx context.Context) (onTarget bool, err error) {
	c.buf = nil
	if c.Conn, err = net.Dial("tcp", servers.Address(c.port)); err != nil {
		return false, err
	}
	if greeting, err := c.next(time.Now().Add(time.Minute)); err != nil {
		return false, fmt.Errorf("the greeting: %q, %v", greeting, err)
	}
	began := time.Now()
	if _, err := c.command("a", "LOGIN "+c.user+" "+workPassword); err != nil {
		return false, fmt.Errorf("a login, after %s: %v", time.Since(began), err) // not answered is no quiet end
	}
	c.logins = append(c.logins, time.Since(began))
	said, err := c.command("n", "NAMESPACE")
	if err != nil {
		return false, err
	}
	if !strings.Contains(said, `"`+sourcePrefix+`"`) {
		_, err := c.command("z", "LOGOUT")
		if errors.Is(err, errQuiet) || err != nil && strings.Contains(err.Error(), "* BYE") {
			err = nil
		}
		return true, err
	}
	if _, err := c.command("s", "SELECT INBOX"); err != nil {
		return false, err
	}
	if c.idles {
		if _, err := io.WriteString(c, "i IDLE\r\n"); err != nil {
			return false, errQuiet
		}
	}
	for poll := time.Now().Add(crowdPoll); ctx.Err() == nil; {
		text, err := c.next(poll)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout() && len(c.buf) == 0:
			poll = poll.Add(crowdPoll)
			if !c.idles {
				if err := c.poll(); err != nil {
					return false, err
				}
			}
		case err != nil:
			return false, err
		case !strings.HasPrefix(text, "* ") && !strings.HasPrefix(text, "+ "):
			return false, fmt.Errorf("unasked for: %q", text)
		}
	}
	return false, ctx.Err()
}

func (c *crowdClient) poll() error {
	c.polls++
	if c.polls%2 == 0 {
		_, err := c.command("p", "NOOP")
		return err
	}
	m := note(fmt.Sprintf("%s-stores-%d", c.user, c.polls)).octets
	_, err := c.command("p", fmt.Sprintf("APPEND INBOX {%d+}\r\n%s", len(m), m))
	if err == nil {
		c.stored = append(c.stored, fmt.Sprintf("%x", sha256.Sum256(m)))
	}
	return err
}

// crowdMoves moves many users at once, each with a client or two, and holds how
// long their logins took against the promise.
func crowdMoves(t *testing.T, users, messages int) {
	o := dovecotOffice(t)
	names := make([]string, users)
	for i := range names {
		names[i] = fmt.Sprintf("user%d@example.com", i)
		o.server.AddUser(names[i], workPassword)
	}
	awaitLogin(t, o.server, names[users-1], workPassword)
	for _, name := range names { // alike they would be one owner's
		c := login(t, o.server.IMAP, name, workPassword)
		if err := c.Create(sourcePrefix+"Lists", nil).Wait(); err != nil {
			t.Fatal(err)
		}
		for i := range messages {
			appendTo(t, c, []string{"INBOX", sourcePrefix + "Lists"}[i%2], note(fmt.Sprintf("%s-%d", name, i)))
		}
		if err := c.Logout().Wait(); err != nil {
			t.Fatal(err)
		}
	}
	s := o.settings()
	s.target.imap = newValve(t, o.target.IMAP).port
	s.migration = fmt.Sprintf("settle_quiet: 500ms, concurrency: 4, rate: { messages: %d }", users*messages/10)
	p := newProxy(t, binary, s).start()

	ctx, cancel := context.WithTimeout(t.Context(), copyDeadline+time.Duration(users)*5*time.Second)
	defer cancel()
	var clients []*crowdClient
	for i, name := range names {
		clients = append(clients, &crowdClient{user: name, port: p.imap, idles: i%2 == 0})
		if i%3 == 0 {
			clients = append(clients, &crowdClient{user: name, port: p.imap, idles: i%2 == 1})
		}
	}
	var wg sync.WaitGroup
	began := time.Now()
	for _, c := range clients {
		wg.Go(func() {
			if err := c.run(ctx); err != nil {
				a, bad := p.state(c.user)
				t.Errorf("%s: %v; %+v, %v", c.user, err, a, bad)
				cancel()
			}
		})
	}
	wg.Wait()
	t.Logf("%d users with %d connections had moved after %s", users, len(clients), time.Since(began))
	var logins []time.Duration
	for _, c := range clients {
		logins = append(logins, c.logins...)
	}
	slices.Sort(logins)
	at := func(percent int) time.Duration { return logins[(len(logins)-1)*percent/100] }
	t.Logf("%d logins took: half of them at most %s, 90%% %s, 95%% %s, 99%% %s, all %s", len(logins), at(50), at(90), at(95), at(99), at(100))
	if at(99) >= heldAtMost {
		t.Errorf("99%% of the logins took up to %s, more than %s", at(99), heldAtMost)
	}
	stored := 0
	for _, name := range names {
		p.awaitState(name, "active")
		want := viewOf(t, ask(t, request{Op: "dump", Port: o.server.IMAP, User: name, Password: workPassword}), sourcePrefix, sourceSep, sentName)
		got := viewOf(t, ask(t, request{Op: "dump", Port: o.target.IMAP, User: name, Password: workPassword}), "", targetSep, nil)
		if err := differences(o.user.besides(got, want)); err != nil {
			t.Errorf("%s:\n%v", name, err)
		}
		for _, c := range clients {
			if c.user != name {
				continue
			}
			for _, digest := range c.stored {
				if n := strings.Count(strings.Join(got.folders["INBOX"], "\n"), digest); n != 1 {
					t.Errorf("%s: what was stored while he moved is there %d times", name, n)
				}
			}
			stored += len(c.stored)
		}
	}
	t.Logf("%d messages were stored meanwhile", stored)
}

// Five users move at once; thirty do in the long tests.
func TestCrowdFlips(t *testing.T) { crowdMoves(t, 5, 60) }

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/upstream"
)

// bridge is a relay between two scripted ends.
type bridge struct {
	client, server *peer
	drain          context.CancelFunc
	why            chan string
}

// relayBetween runs a relay; ours are its ends of the two connections.
func relayBetween(t testing.TB, p config.Protocol, idle time.Duration, ourClient, ourServer net.Conn, client, server *peer) *bridge {
	t.Helper()
	drain, stop := context.WithCancel(context.Background())
	counters := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bytes"}, []string{"direction"})
	r := newRelay(newConn(ourClient, "h"), &upstream.Session{Conn: ourServer, Reader: bufio.NewReader(ourServer)}, relayOptions{
		protocol: p, idle: idle, drain: drain, log: zap.NewNop(),
		toServer: counters.WithLabelValues(toServer), toClient: counters.WithLabelValues(toClient)})
	b := &bridge{client: client, server: server, drain: stop, why: make(chan string, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.why <- r.run()
	}()
	t.Cleanup(func() {
		ourClient.Close()
		ourServer.Close()
		<-done
		stop()
	})
	return b
}

func newBridge(t testing.TB, p config.Protocol, idle time.Duration) *bridge {
	t.Helper()
	c1, c2 := tcpPair(t)
	s1, s2 := tcpPair(t)
	return relayBetween(t, p, idle, c2, s1, newPeer(t, c1), newPeer(t, s2))
}

// TestRelayHalfClosedClientStillGetsEverything: Dovecot drops what it has not
// answered when it sees the end, so that it must not see it meanwhile; a server
// that waits for the end gets it all the same.
func TestRelayHalfClosedClientStillGetsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pipeBridge(t)
		b.client.send("a FETCH 1 BODY[]\r\n")
		b.server.exactly("a FETCH 1 BODY[]\r\n")
		synctest.Wait() // a pipe whose other end has closed takes no deadline
		b.client.closeWrite()
		for range 10 {
			time.Sleep(linger - time.Second)
			b.server.send("* 1 FETCH (FLAGS ())\r\n")
			b.client.exactly("* 1 FETCH (FLAGS ())\r\n")
		}
		b.server.send("a OK done\r\n")
		b.client.exactly("a OK done\r\n")
		quiet := time.Now()
		if rest := b.server.rest(); rest != "" || time.Since(quiet) != linger {
			t.Errorf("the server got %q after %v", rest, time.Since(quiet))
		}
	})
}

func TestRelayPassesAHalfCloseOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pipeBridge(t)
		body := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB
		b.client.send("a FETCH 1 BODY[]\r\n")
		b.server.exactly("a FETCH 1 BODY[]\r\n")
		synctest.Wait() // a pipe whose other end has closed takes no deadline
		b.client.closeWrite()
		if rest := b.server.rest(); rest != "" { // the server sees the end, and only then answers
			t.Errorf("the server got %q", rest)
		}
		answer := "* 1 FETCH (BODY[] {4194304}\r\n" + body + ")\r\na OK done\r\n"
		go b.server.send(answer)
		b.client.exactly(answer)
		b.server.Close()
		if rest := b.client.rest(); rest != "" {
			t.Errorf("the client got %q", rest)
		}
		if why := receive(t, b.why); why != whyClient {
			t.Errorf("ended because %q", why)
		}
	})
}

func TestRelayHalfClosedServerIsPassedOn(t *testing.T) {
	b := newBridge(t, config.POP3, time.Minute)
	b.server.send("+OK bye\r\n")
	b.server.closeWrite()
	if got := b.client.rest(); got != "+OK bye\r\n" {
		t.Errorf("the client got %q", got)
	}
	b.client.send("last words\r\n")
	b.server.exactly("last words\r\n")
	b.client.Close()
	if why := receive(t, b.why); why != whyServer {
		t.Errorf("ended because %q", why)
	}
}

// TestRelayByeOnlyBetweenResponses: the server sends something and dies.
func TestRelayByeOnlyBetweenResponses(t *testing.T) {
	tests := []struct {
		name, client, sent string
		bye                bool
	}{
		{"nothing yet", "", "", true},
		{"after a response", "", "* 1 EXISTS\r\n", true},
		{"in IDLE", "a IDLE\r\n", "+ idling\r\n", true},
		{"in a line", "", "* 1 EXI", false},
		{"after CR", "", "* 1 EXISTS\r", false},
		{"in a literal", "", "* 1 FETCH (BODY[] {10}\r\n12345", false},
		{"a literal that looks like lines", "", "* 1 FETCH (BODY[] {10}\r\n* 1 OK\r\n\r\n", false},
		{"behind a literal", "", "* 1 FETCH (BODY[] {2}\r\n12", false},
		{"between two literals", "", "* 1 FETCH (A {2}\r\n12 B {3}\r\n", false},
		{"after a literal's response", "", "* 1 FETCH (BODY[] {2}\r\n12)\r\n", true},
		{"an empty literal", "", "* 1 FETCH (BODY[] {0}\r\n)\r\n", true},
		{"text that looks like a literal", "", "* OK see {5}\r\n", true},
		{"a tagged text that looks like a literal", "", "a NO {5}\r\n", true},
		{"after its own BYE", "", "* BYE gone\r\n", false},
		{"the client's LOGOUT", "a LOGOUT\r\n", "* bye see you\r\na OK done\r\n", false},
		{"a compressed stream", "a COMPRESS DEFLATE\r\n", "a OK begin\r\n", false},
		{"what is no IMAP", "", "\x78\x9c\x01\x02\n", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := newBridge(t, config.IMAP, time.Minute)
			b.client.send(test.client)
			b.server.exactly(test.client)
			b.server.send(test.sent)
			b.client.exactly(test.sent)
			b.server.Close()
			want := ""
			if test.bye {
				want = byeServerGone
			}
			if got := b.client.rest(); got != want {
				t.Errorf("then the client got %q, want %q", got, want)
			}
		})
	}
	t.Run("POP3 just closes", func(t *testing.T) {
		b := newBridge(t, config.POP3, time.Minute)
		b.server.Close()
		if got := b.client.rest(); got != "" {
			t.Errorf("the client got %q", got)
		}
	})
}

func TestRelayDrain(t *testing.T) {
	t.Run("idle session", func(t *testing.T) {
		t.Parallel()
		b := newBridge(t, config.IMAP, time.Minute)
		b.server.send("* 1 EXISTS\r\n")
		b.client.exactly("* 1 EXISTS\r\n")
		b.drain()
		b.client.exactly(byeDraining)
		b.client.send("a APPEND INBOX {4+}\r\nmail\r\n") // too late to be answered, so it must not be done
		if got := b.server.rest(); got != "" {
			t.Errorf("the server got %q", got)
		}
		if got := b.client.rest(); got != "" {
			t.Errorf("then the client got %q", got)
		}
		b.client.Close()
		if why := receive(t, b.why); why != whyDrained {
			t.Errorf("ended because %q", why)
		}
	})
	t.Run("in a response", func(t *testing.T) {
		t.Parallel()
		b := newBridge(t, config.IMAP, time.Minute)
		b.server.send("* 1 FETCH (BODY[] {10}\r\n12345")
		b.client.exactly("* 1 FETCH (BODY[] {10}\r\n12345")
		b.drain()
		rest := "67890)\r\n* 2 FETCH (FLAGS ())\r\n"
		b.server.send(rest)
		b.client.exactly(rest + byeDraining)
	})
	// An answer that comes in several responses is not cut off between them.
	t.Run("in an answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := pipeBridge(t)
			b.client.send("a FETCH 1:* FLAGS\r\n")
			b.server.exactly("a FETCH 1:* FLAGS\r\n")
			b.drain()
			for range 5 {
				b.server.send("* 1 FETCH (FLAGS ())\r\n")
				b.client.exactly("* 1 FETCH (FLAGS ())\r\n")
				time.Sleep(drainQuiet / 2)
			}
			b.server.send("a OK done\r\n")
			b.client.exactly("a OK done\r\n" + byeDraining)
		})
	})
	t.Run("POP3 after the answer", func(t *testing.T) {
		t.Parallel()
		b := newBridge(t, config.POP3, time.Minute)
		b.server.send("+OK")
		b.client.exactly("+OK")
		b.drain()
		b.server.send(" done\r\n")
		if got := b.client.rest(); got != " done\r\n" {
			t.Errorf("the client got %q", got)
		}
	})
}

func TestRelayIdle(t *testing.T) {
	b := newBridge(t, config.IMAP, 100*time.Millisecond)
	if got := b.client.rest(); got != byeIdle {
		t.Errorf("the client got %q", got)
	}
	b.client.Close()
	if why := receive(t, b.why); why != whyIdle {
		t.Errorf("ended because %q", why)
	}
}

// pipeBridge is a relay between two pipes, for a synctest bubble.
func pipeBridge(t *testing.T) *bridge {
	c1, c2 := newDuplex()
	s1, s2 := newDuplex()
	return relayBetween(t, config.IMAP, time.Hour, c2, s1, &peer{t, c1, bufio.NewReader(c1)}, &peer{t, s2, bufio.NewReader(s2)})
}

func TestRelayIdleLimitCountsBothDirections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pipeBridge(t)
		for range 5 { // the server is silent, the client is not
			time.Sleep(40 * time.Minute)
			b.client.send("+\r\n")
			b.server.exactly("+\r\n")
		}
		begun := time.Now()
		b.client.exactly(byeIdle)
		if idle := time.Since(begun); idle != time.Hour {
			t.Errorf("ended after %v", idle)
		}
	})
}

func TestRelayToAPipeEndsSoonAfterTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c1, c2 := net.Pipe()
		s1, s2 := net.Pipe()
		b := relayBetween(t, config.IMAP, time.Hour, c2, s1, &peer{t, c1, bufio.NewReader(c1)}, &peer{t, s2, bufio.NewReader(s2)})
		begun := time.Now()
		b.client.Close()
		if why := receive(t, b.why); why != whyClient || time.Since(begun) > linger {
			t.Errorf("ended after %v because %q", time.Since(begun), why)
		}
		if _, err := b.server.r.ReadByte(); err != io.EOF {
			t.Errorf("the parked mailbox got %v", err)
		}
	})
}

// TestRelayAbortFreesTheServer: a client that vanishes does not leave its
// server's session behind.
func TestRelayAbortFreesTheServer(t *testing.T) {
	b := newBridge(t, config.IMAP, time.Minute)
	b.client.Conn.(*net.TCPConn).SetLinger(0) // closing resets
	b.client.Close()
	b.server.rest()
	if why := receive(t, b.why); why != whyClient {
		t.Errorf("ended because %q", why)
	}
}

func TestRelayLargeStreamsBothWaysAtOnce(t *testing.T) {
	b := newBridge(t, config.POP3, time.Minute)
	data := strings.Repeat("both ways at once\r\n", 1<<17)
	go b.client.send(data)
	go b.server.send(data)
	arrived := make(chan bool, 1)
	go func() {
		got := make([]byte, len(data))
		_, err := io.ReadFull(b.server.r, got)
		arrived <- err == nil && string(got) == data
	}()
	b.client.exactly(data)
	if !receive(t, arrived) {
		t.Error("the server got something else")
	}
}

// responses are streams to cut anywhere.
var responses = []string{
	"* 1 EXISTS\r\n* 2 FETCH (BODY[] {12}\r\n* BYE x\r\n12)\r\na OK done {3}\r\n",
	"* LIST () \".\" {3+}\r\na\nb\r\n* BYE now\r\n",
	"+ idle\r\n\r\n* OK {99999999999999999999}\r\n* X {99999999999999999999}\r\nabc",
	"* X " + strings.Repeat("y", 100) + "{4}\r\nabcd {0}\r\n\r\nx" + strings.Repeat("z", 50) + "}\r\n",
	"\x00binary", "* 1 FETCH (X ~{2}\r\n\x00\x01)\r\n",
}

func TestTrackerDoesNotCareHowTheStreamIsCut(t *testing.T) {
	for _, s := range responses {
		for i := range len(s) {
			for j := i; j < len(s); j++ {
				checkCuts(t, []byte(s), i, j)
			}
		}
	}
}

// checkCuts compares a tracker that gets the stream at once with one that gets
// it in three pieces.
func checkCuts(t *testing.T, stream []byte, i, j int) {
	t.Helper()
	var whole, cut responseTracker
	whole.feed(stream)
	cut.feed(stream[:i])
	cut.feed(stream[i:j])
	cut.feed(stream[j:])
	if cut.between() != whole.between() || cut.bye != whole.bye || cut.lost != whole.lost || cut.skip != whole.skip {
		t.Fatalf("%q cut at %d and %d: %+v, want %+v", stream, i, j, cut, whole)
	}
	if whole.between() && len(stream) > 0 && !bytes.HasSuffix(stream, []byte("\n")) {
		t.Fatalf("%q counts as ended", stream)
	}
}

func FuzzResponseTracker(f *testing.F) {
	for i, s := range responses {
		f.Add([]byte(s), uint(i), uint(3*i))
	}
	f.Fuzz(func(t *testing.T, stream []byte, i, j uint) {
		n := uint(len(stream) + 1)
		i, j = i%n, j%n
		checkCuts(t, stream, int(min(i, j)), int(max(i, j)))
	})
}

func FuzzCompressWatch(f *testing.F) {
	f.Add([]byte("a compress DEFLATE\r\n"), uint(5))
	f.Add([]byte("a NOOP\r\nb COMPRESS DEFLATE\r\n"), uint(12))
	f.Add([]byte("COMPRESS DEFLATE\r\n"), uint(1))
	f.Fuzz(func(t *testing.T, stream []byte, i uint) {
		var whole, cut compressWatch
		want := whole.feed(stream)
		k := i % uint(len(stream)+1)
		cut.feed(stream[:k])
		if got := cut.feed(stream[k:]); got != want {
			t.Fatalf("%q cut at %d: %v, want %v", stream, k, got, want)
		}
	})
}

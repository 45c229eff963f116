package aliasresolve

import (
	"io"
	"strings"
	"testing"
)

// scan gives what a message says, as "address: headers" lines.
func scan(header string, sent bool) string {
	s := NewScanner(own)
	io.WriteString(s, header)
	return show(s.Evidence(sent))
}

func show(seen []Sighting) string {
	var lines []string
	for _, s := range seen {
		lines = append(lines, s.Address+": "+s.Headers.String())
	}
	return strings.Join(lines, "\n")
}

func TestScanner(t *testing.T) {
	long := strings.Repeat("x", maxField)
	for _, test := range []struct {
		name, header, want string
		sent               bool
	}{
		{name: "nothing", header: ""},
		{name: "no header", header: "\r\nDelivered-To: a@example.com\r\n"},
		{name: "body", header: "Subject: x\r\n\r\nDelivered-To: a@example.com\r\n"},
		{name: "body after LF", header: "Subject: x\n\nDelivered-To: a@example.com\n"},
		{name: "each header", header: "Delivered-To: a@example.com\nX-Original-To: b@example.com\nEnvelope-To: c@example.com\nX-Envelope-To: d@example.com\nReceived: by x for <e@example.com>; y\nFrom: f@example.com\nTo: g@example.com\nCc: h@example.com\nBcc: i@example.com\nReply-To: j@example.com\nReturn-Path: <k@example.com>\n",
			want: "a@example.com: Delivered-To\nb@example.com: X-Original-To\nc@example.com: Envelope-To\nd@example.com: X-Envelope-To\ne@example.com: Received\ng@example.com: To\nh@example.com: Cc"},
		{name: "each once", header: "Delivered-To: a@example.com\nDelivered-To: A@example.com\nTo: a@EXAMPLE.com, a@example.com\n", want: "a@example.com: Delivered-To, To"},
		{name: "other domains", header: "Delivered-To: a@example.net\nTo: b@example.net\nCc: c@notexample.com\n", want: "a@example.net: Delivered-To"},
		{name: "no end", header: "Delivered-To: a@example.com", want: "a@example.com: Delivered-To"},
		{name: "folded", header: "Delivered-To:\r\n <a\r\n\t@example.com>\r\n", want: "a@example.com: Delivered-To"},
		{name: "a line of white space goes on", header: "Delivered-To: \r\n \r\n a@example.com\r\n", want: "a@example.com: Delivered-To"},
		{name: "case and space of names", header: "dELIVERED-tO \t: a@example.com\n", want: "a@example.com: Delivered-To"},
		{name: "CR before a name", header: "\rDelivered-To: a@example.com\n\r\r\nX-Original-To: b@example.com\n", want: "b@example.com: X-Original-To"},
		{name: "begins folded", header: " Delivered-To: a@example.com\n : b@example.com\n"},
		{name: "mbox", header: "From a@example.com Thu Mar  6\nDelivered-To: a@example.com\n", want: "a@example.com: Delivered-To"},
		{name: "NUL", header: "Delivered-To: a\x00@example.com\nDelivered-To: b@example.com\x00\n"},
		{name: "several in one", header: "Delivered-To: a@example.com, b@example.com\nEnvelope-To: a@example.com b@example.com\nX-Original-To: x: a@example.com\n"},
		{name: "no domain", header: "Delivered-To: a\nX-Original-To: \"\"\n"},
		{name: "qmail", header: "Delivered-To: example.com-a@example.com\nDelivered-To: example.com-@example.com\nX-Original-To: example.com-b@example.com\n",
			want: "a@example.com: Delivered-To\nexample.com-@example.com: Delivered-To\nexample.com-b@example.com: X-Original-To"},
		{name: "too long a field", header: "Delivered-To: a@example.com (" + long + ")\nX-Original-To: b@example.com\n", want: "b@example.com: X-Original-To"},
		{name: "too long a name", header: long + ": x\nDelivered-To: a@example.com\n", want: "a@example.com: Delivered-To"},
		{name: "the longest header", header: "Delivered-To: a@example.com\n" + strings.Repeat("X: y\n", (maxHeader-29)/5) + "\n", want: "a@example.com: Delivered-To"},
		{name: "too long a header", header: "Delivered-To: a@example.com\n" + strings.Repeat("X: y\n", maxHeader/5) + "\n"},

		{name: "sent", sent: true, header: "Delivered-To: a@example.com\nReceived: for <b@example.com>;\nFrom: C <c@example.com>\nTo: d@example.com\n", want: "c@example.com: From"},
		{name: "sent, two authors", sent: true, header: "From: c@example.com, d@example.net\n"},
		{name: "sent, two From", sent: true, header: "From: c@example.com\nFrom: d@example.net\n"},
		{name: "sent elsewhere", sent: true, header: "From: c@example.net\n"},
		{name: "sent, a colleague's name", sent: true, header: "From: \"a@example.com\" <c@example.com>\n", want: "c@example.com: From"},

		{name: "to himself", header: "X-Original-To: a@example.com\nDelivered-To: b@example.com\nFrom: a@example.com\nCc: a@example.com\n", want: "a@example.com: X-Original-To, From, Cc\nb@example.com: Delivered-To"},
		{name: "to himself, delivered to another", header: "Delivered-To: b@example.com\nFrom: a@example.com\nTo: a@example.com\n", want: "b@example.com: Delivered-To\na@example.com: To"},
		{name: "to another, delivered to himself", header: "Delivered-To: a@example.com\nFrom: a@example.com\nTo: b@example.com\n", want: "a@example.com: Delivered-To\nb@example.com: To"},
		{name: "to himself, delivered nowhere", header: "From: a@example.com\nTo: a@example.com\n", want: "a@example.com: To"},
		{name: "to himself, over a list", header: "Delivered-To: a@example.com\nFrom: a@example.com\nTo: a@example.com\nList-Id: x\n", want: "a@example.com: Delivered-To, To"},

		{name: "list", header: "X-Original-To: a@example.com\nReceived: for <b@example.com>;\nReceived: for <team@example.com>;\nDelivered-To: c@example.com\nTo: team@example.com\nList-Post: <mailto:Team@example.com?subject=x>\n",
			want: "a@example.com: X-Original-To\nb@example.com: Received\nteam@example.com: List"},
		{name: "list by id", header: "Delivered-To: a.b@example.com\nDelivered-To: c@example.com\nList-Id: \"<x.example.com>\" <A.B.Example.com>\n", want: "a.b@example.com: List"},
		{name: "list of ezmlm", header: "Delivered-To: mailing list a@example.com\nDelivered-To: b@example.com\n", want: "a@example.com: List"},
		{name: "list of Majordomo", header: "Delivered-To: a@example.com\nSender: Owner-A@example.com\n", want: "a@example.com: List"},
		{name: "list of Mailman", header: "Delivered-To: a@example.com\nSender: A <a-bounces@example.com>\n", want: "a@example.com: List"},
		{name: "list of Google", header: "Delivered-To: a@example.com\nMailing-list: list a@example.com; contact b@example.com\n", want: "a@example.com: List"},
		{name: "a secretary is no list", header: "Delivered-To: a@example.com\nSender: a@example.com\n", want: "a@example.com: Delivered-To"},

		{name: "forwarded by Gmail", header: "Delivered-To: a@example.com\nX-Forwarded-For: b@example.com a@example.com\nDelivered-To: b@example.com\n", want: "a@example.com: Delivered-To"},
		{name: "sent by a webmail", header: "Delivered-To: a@example.com\nX-Forwarded-For: 192.0.2.1\nDelivered-To: b@example.com\n", want: "a@example.com: Delivered-To\nb@example.com: Delivered-To"},
		{name: "redirected by Sieve", header: "Delivered-To: a@example.com\nX-Sieve-Redirected-From: b@example.com\nDelivered-To: b@example.com\n", want: "a@example.com: Delivered-To"},
		{name: "resent", header: "Delivered-To: a@example.com\nResent-From: b@example.com\nDelivered-To: b@example.com\n", want: "a@example.com: Delivered-To"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := scan(test.header, test.sent); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

// Wherever a message is cut, and octet by octet, it says the same.
func TestScannerInPieces(t *testing.T) {
	messages := []string{"\rDelivered-To: a@example.com\n\r\r\nDelivered-To: b@example.com\r\n\rX\n\r\nDelivered-To: c@example.com\n", "\r", "\r\n", "\r\r\n\n"}
	for _, m := range readCorpus(t) {
		messages = append(messages, m.header)
	}
	s := NewScanner(own)
	for _, m := range messages {
		want := scan(m, false)
		for i := range len(m) {
			io.WriteString(s, m[:i])
			io.WriteString(s, m[i:])
			if got := show(s.Evidence(false)); got != want {
				t.Errorf("%q cut at %d:\n%s\nwant\n%s", m, i, got, want)
			}
		}
		for i := range len(m) {
			io.WriteString(s, m[i:i+1])
		}
		if got := show(s.Evidence(false)); got != want {
			t.Errorf("%q octet by octet:\n%s\nwant\n%s", m, got, want)
		}
	}
}

// One message says nothing of the next.
func TestScannerForgets(t *testing.T) {
	s := NewScanner(own)
	for _, left := range []string{"X-Original-To: x@example.com\nList-Id: <b.example.com>\nResent-To: x\nFrom: a@example.com\n To:", "Delivered-To: x@example.com\n\n", "\r", "x", "Delivered-To: b@example.com",
		strings.Repeat("X", maxHeader+1), strings.Repeat("X: y\n", maxHeader)} {
		io.WriteString(s, left)
		s.Evidence(false)
		io.WriteString(s, "Delivered-To: b@example.com\r\nX-Original-To: a@example.com\r\n\r\n")
		if got, want := show(s.Evidence(false)), "b@example.com: Delivered-To\na@example.com: X-Original-To"; got != want {
			t.Errorf("after %.20q: got\n%s\nwant\n%s", left, got, want)
		}
	}
}

func TestReceivedFor(t *testing.T) {
	for value, want := range map[string]string{
		"from a by b with SMTP for <a@example.com>; x":                              "<a@example.com>",
		"from a\r\n\tby b (Exim)\r\n\tid x\r\n\tfor a@example.com;\r\n\tx":          "a@example.com",
		"by b for a@example.com (single-drop); x":                                   "a@example.com",
		"by b FOR (to (whom)) <a@example.com>\n (x); y":                             "<a@example.com>",
		"by b for <@c,@d:a@example.com>; x":                                         "<@c,@d:a@example.com>",
		"by b for <a@example.com> with SMTP; for <b@example.com>":                   "<a@example.com>",
		"from for (x) by b for <a@example.com>; x":                                  "<a@example.com>",
		"from for by for with x":                                                    "",
		"by b (for <a@example.com>); x":                                             "",
		"by b (envelope-from <a@example.com>) \"for\" <a@example.com>; x":           "",
		"by b; for <a@example.com>":                                                 "",
		"by b for <a@example.com>,<b@example.com>; x":                               "",
		"by b for <a@example.com> <b@example.com>; x":                               "",
		"by b for a@example.com b@example.com; x":                                   "",
		"by b for <a@example.com":                                                   "",
		"by b for (a@example.com":                                                   "",
		"by b for":                                                                  "",
		"":                                                                          "",
		"(qmail 1 invoked for bounce); 3 Mar 2025 10:00:00 -0000":                   "",
		"from x (x [192.0.2.1]) by y (8.1/8.1) with ESMTP id A for <a@example.com>": "<a@example.com>",
	} {
		if got := string(receivedFor([]byte(value))); got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}

// BenchmarkScanner: the header of an ordinary message, 2 kB, in pieces as they
// come from a connection, and 30 kB of text after it.
func BenchmarkScanner(b *testing.B) {
	message := []byte(strings.ReplaceAll(readCorpus(b)[0].header, "\r\n\r\n", "\r\n") +
		"X-Spam-Report: " + strings.Repeat("x", 70) + strings.Repeat("\r\n\t"+strings.Repeat("y", 70), 15) + "\r\n" +
		"Received: from a.example (a.example [192.0.2.1]) by b.example (Postfix) with ESMTPS id 1 for <a.rossi@example.com>; Wed, 5 Mar 2025 11:00:00 +0100\r\n\r\n" + strings.Repeat("text\r\n", 5000))
	s, c := NewScanner(own), NewCollector(DefaultLimit)
	b.ReportAllocs()
	for b.Loop() {
		for p := message; len(p) > 0; {
			n := min(len(p), 4096)
			s.Write(p[:n])
			p = p[n:]
		}
		c.Message(s.Evidence(false))
	}
}

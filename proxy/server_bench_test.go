package proxy

import (
	"io"
	"strings"
	"testing"
)

func BenchmarkLogin(b *testing.B) {
	back := newBackend(b)
	f := start(b, back)
	for b.Loop() {
		p := f.connect(imapPlain)
		p.send("t LOGIN user pw\r\n")
		p.expect("t OK")
		p.Close()
		<-back.attempts
		(<-back.servers).Close()
	}
}

func BenchmarkRelay(b *testing.B) {
	back := newBackend(b)
	f := start(b, back)
	for name, listener := range map[string]int{"plain": imapPlain, "tls": imapTLS} {
		b.Run(name, func(b *testing.B) {
			p := f.with(b).connect(listener)
			p.send("t LOGIN user pw\r\n")
			p.expect("t OK")
			server := back.server()
			body := "* 1 FETCH (BODY[] {1048576}\r\n" + strings.Repeat("0123456789abcdef", 1<<16) + ")\r\n"
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				go server.send(body)
				if _, err := io.CopyN(io.Discard, p.r, int64(len(body))); err != nil {
					b.Fatal(err)
				}
			}
			p.Close()
		})
	}
}

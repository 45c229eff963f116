package imapwire

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// The copy's usual message has 12 kB.
const benchSize = 12_000

func BenchmarkFetch(b *testing.B) {
	message := bytes.Repeat([]byte("x"), benchSize)
	var answer bytes.Buffer
	for uid := 1; uid <= 100; uid++ {
		fmt.Fprintf(&answer, "* %d FETCH (UID %d BODY[] {%d}\r\n%s)\r\n", uid, uid, benchSize, message)
	}
	c := dial(b, "", Options{}, func(s *server) {
		for {
			line, err := s.br.ReadString('\n')
			if err != nil {
				return
			}
			tag, _, _ := strings.Cut(line, " ")
			s.raw(answer.String() + tag + " OK\r\n")
		}
	})
	var uids []uint32
	for uid := range uint32(100) {
		uids = append(uids, uid+1)
	}
	b.SetBytes(benchSize)
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; {
		err := c.FetchBodies(b.Context(), uids, func(_ uint32, _ int64, r io.Reader) error {
			done++
			_, err := io.Copy(io.Discard, r)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFetchMeta(b *testing.B) {
	c := dial(b, "", Options{}, func(s *server) {
		line, err := s.br.ReadString('\n')
		if err != nil {
			return
		}
		tag, _, _ := strings.Cut(line, " ")
		const block = 1000
		for uid := 1; uid <= b.N; {
			var answer bytes.Buffer
			for range block {
				fmt.Fprintf(&answer, "* %d FETCH (UID %d FLAGS (\\Seen $MDNSent) INTERNALDATE \"01-Jan-2001 00:00:00 +0100\" RFC822.SIZE 12345)\r\n", uid, uid)
				uid++
			}
			s.raw(answer.String())
		}
		s.raw(tag + " OK\r\n")
	})
	b.ReportAllocs()
	b.ResetTimer()
	if err := c.FetchMeta(b.Context(), 1, 0, func(Meta) error { return nil }); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkAppend(b *testing.B) {
	message := bytes.Repeat([]byte("x"), benchSize)
	date := time.Now()
	const batch = 50
	c := dial(b, "LITERAL+ MULTIAPPEND", Options{}, func(s *server) {
		for {
			line, err := s.br.ReadString('\n')
			if err != nil {
				return
			}
			tag, _, _ := strings.Cut(line, " ")
			for strings.HasSuffix(line, "+}\r\n") {
				if _, err := s.br.Discard(benchSize); err != nil {
					return
				}
				if line, err = s.br.ReadString('\n'); err != nil {
					return
				}
			}
			s.raw(tag + " OK [APPENDUID 1 1:50] done\r\n")
		}
	})
	b.SetBytes(benchSize)
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += batch {
		a, err := c.Append(b.Context(), "INBOX")
		if err != nil {
			b.Fatal(err)
		}
		for range batch {
			if err := a.Add([]string{`\Seen`}, date, benchSize, bytes.NewReader(message)); err != nil {
				b.Fatal(err)
			}
		}
		if err := a.End(); err != nil {
			b.Fatal(err)
		}
		if _, uids, err := a.Wait(b.Context()); err != nil || len(uids) != batch {
			b.Fatal(uids, err)
		}
	}
}

package config_test

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"migproxy/config"
)

func TestDuration(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"90d": 90 * day, "1d12h": 36 * time.Hour, "0s": 0, "1h30m": 90 * time.Minute, "250ms": 250 * time.Millisecond, "0d": 0,
	} {
		var d config.Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.Std() != want {
			t.Errorf("%s: got %v, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "60", "d", "1.5d", "-1d", "1d-1h", "+1h", "1h1d", "1d1d", "99999d", "106751d100000h", "ten"} {
		var d config.Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %v", text, d)
		}
	}
}

func TestAddress(t *testing.T) {
	for text, want := range map[string]config.Address{
		":143":                 {Port: 143},
		"0.0.0.0:0":            {Host: "0.0.0.0"},
		"[::1]:143":            {Host: "::1", Port: 143},
		"mail.example.com:993": {Host: "mail.example.com", Port: 993},
		"localhost:65535":      {Host: "localhost", Port: 65535},
		"mail_1.example:25":    {Host: "mail_1.example", Port: 25},
		"müller.example:143":   {Host: "müller.example", Port: 143},
	} {
		var a config.Address
		if err := a.UnmarshalText([]byte(text)); err != nil || a != want || a.String() != text {
			t.Errorf("%s: got %v, %v", text, a, err)
		}
	}
	for _, text := range []string{"", "143", "mail.example.com", "::1:143", "[::1]", ":imap", ":-1", ":65536", "*:143", "a b:1", "-a:1", "a..b:1", "imap://a:143"} {
		var a config.Address
		if err := a.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %v", text, a)
		}
	}
}

func TestNetwork(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.0/8": "127.0.0.0/8", "192.0.2.1": "192.0.2.1/32", "::1": "::1/128", "2001:db8::/32": "2001:db8::/32",
	} {
		var n config.Network
		if err := n.UnmarshalText([]byte(text)); err != nil || n.String() != want {
			t.Errorf("%s: got %v, %v", text, n, err)
		}
	}
	for _, text := range []string{"", "10.0.0.1/8", "10.0.0.0/33", "fe80::1%eth0", "localhost", "10.0.0.0/8/8"} {
		var n config.Network
		if err := n.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %v", text, n)
		}
	}
}

func TestWavePattern(t *testing.T) {
	for text, want := range map[string]string{ // empty: refused
		"anna@example.com": "anna@example.com", "ANNA@Example.COM": "anna@example.com", "o'brien@example.com": "o'brien@example.com",
		"müller@example.com": "müller@example.com", "*": "*", "a*": "a*", "A*@example.com": "a*@example.com", "*.x@example.com": "*.x@example.com",
		"anna@*": "anna@*", "*@*.com": "*@*.com", "*.com": "*.com", "*a*b*": "*a*b*", "a.*@example.com": "a.*@example.com",
		"": "", " ": "", "anna": "", "@example.com": "", "anna@": "", "@": "", "anna@example.com ": "", "anna\x00@example.com": "", "an\tna*": "",
		"anna@@example.com": "", "a*@b@example.com": "", "a..b@example.com": "", "user:hunter2@example.com": "", "a[bc]*": "", "a%@example.com": "",
		"\xff*": "", "*\u202e@example.com": "", strings.Repeat("a", 400) + "*": "", "@*": "", "a?*/@example.com": "",
		"anna@example.org": "", "*@example.org": "", "*@*.org": "", "anna@sub.example.com": "", "*.rossi": "", "*son": "", "a*@": "",
	} {
		got, err := config.WavePattern(text, "example.com")
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.ContainsFunc(err.Error(), unicode.IsControl)) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, want := range map[string]string{"*.rossi": "write *.rossi@example.com", "anna@example.org": "not in the domain example.com", "anna": "write anna@example.com"} {
		if _, err := config.WavePattern(text, "example.com"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestWaveOfADomain(t *testing.T) {
	w, err := config.Wave{Include: []string{"B*", "anna@example.com", "Anna@Example.com", "bert@example.com", "x@example.org"},
		Exclude: []string{"BERT@example.com", "anna"}, MaxFailed: 3}.Of("example.com")
	want := config.Wave{Include: []string{"b*", "anna@example.com"}, Exclude: []string{"bert@example.com"}, MaxFailed: 3}
	if !reflect.DeepEqual(w, want) || err == nil || !strings.Contains(err.Error(), `"anna": `) || !strings.Contains(err.Error(), `"x@example.org": `) {
		t.Errorf("%+v, %v", w, err)
	}
	if w, err := (config.Wave{Include: []string{"*"}}).Of("example.com"); err != nil || !reflect.DeepEqual(w.Include, []string{"*"}) {
		t.Errorf("%+v, %v", w, err)
	}
}

func TestWave(t *testing.T) {
	for _, c := range []struct {
		include, exclude []string
		address          string
		want             bool
	}{
		{[]string{"*"}, nil, "anna@example.com", true},
		{nil, nil, "anna@example.com", false},
		{[]string{"anna@example.com"}, nil, "anna@example.com", true},
		{[]string{"Anna@Example.com"}, nil, "anna@EXAMPLE.com", true},
		{[]string{"anna@example.com"}, nil, "hanna@example.com", false},
		{[]string{"anna@example.com"}, nil, "anna@example.com.org", false},
		{[]string{"a*@example.com"}, nil, "anna@example.com", true},
		{[]string{"a*@example.com"}, nil, "bea@example.com", false},
		{[]string{"*@example.com"}, []string{"anna@*"}, "anna@example.com", false},
		{[]string{"*"}, []string{"ANNA@example.com"}, "anna@example.com", false},
		{[]string{"a*a*a@b"}, nil, "aa@b", false},
		{[]string{"a*a*a@b"}, nil, "aaa@b", true},
		{[]string{"*n*a@*"}, nil, "anna@example.com", true},
		{[]string{"ab*ba"}, nil, "aba", false},
		{[]string{"a.c@d"}, nil, "abc@d", false},
		{[]string{"[a]*@d", "?@d"}, nil, "a@d", false},
	} {
		w := config.Wave{Include: c.include, Exclude: c.exclude}
		if got := w.Includes(c.address); got != c.want {
			t.Errorf("%+v, %s: got %v", w, c.address, got)
		}
	}
}

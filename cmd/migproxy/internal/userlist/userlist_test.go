package userlist

import (
	"fmt"
	"strings"
	"testing"

	"migproxy/config"
)

func show(users []User) string {
	var b strings.Builder
	for _, u := range users {
		fmt.Fprintf(&b, "%d %s %q %v\n", u.Line, u.Login, u.Password.Reveal(), u.Aliases)
	}
	return b.String()
}

func TestRead(t *testing.T) {
	for _, c := range []struct {
		name, file, text, want string
	}{
		{"lines", "list.txt", "\uFEFF# a comment\n\nanna@example.com:s3cret\r\nbert:p w :B.Rossi@Example.com\ncarl\n  \nd@example.com:\n",
			"3 anna@example.com \"s3cret\" []\n4 bert \"p w \" [b.rossi@example.com]\n5 carl \"\" []\n7 d@example.com \"\" []\n"},
		{"escapes", "list", `a:p\:q\\r\s:x@example.com` + "\n" + `b:\\`,
			"1 a \"p:q\\\\r\\\\s\" [x@example.com]\n2 b \"\\\\\" []\n"},
		{"csv", "list.csv", "User,Password,Alias\r\nanna@example.com,\"p,\"\"q\",a@example.com, b@example.com\nbert,\" x\"\n\"carl\"\n",
			"2 anna@example.com \"p,\\\"q\" [a@example.com b@example.com]\n3 bert \" x\" []\n4 carl \"\" []\n"},
		{"json", "LIST.JSONL", `{"user":"anna@example.com","password":"p:\"ü"}` + "\n\n" + `{"user":"bert","password_base64":"/w==","alias":"b@example.com","aliases":["c@example.com"]}`,
			"1 anna@example.com \"p:\\\"ü\" []\n3 bert \"\\xff\" [b@example.com c@example.com]\n"},
		{"nothing", "list", "# nobody\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			users, err := Read(strings.NewReader(c.text), FormatOf(c.file))
			if err != nil || show(users) != c.want {
				t.Errorf("%v\n%swant\n%s", err, show(users), c.want)
			}
		})
	}
}

// A bad line is named by its number, all of them are, and no text repeats a
// password.
func TestBadLines(t *testing.T) {
	const (
		noUser  = "the user has a space or a separator in it; write user:password, one user a line, or user,password in CSV"
		noAlias = `alias 1 is no address; write alias@domain, or if it belongs to the password, \: for a colon there, or quotes around the password in CSV`
	)
	for _, c := range []struct {
		format     Format
		text, want string
	}{
		{Lines, "a:hunter2\n:hunter2\nb:hunter2:x:y\nc:hunter2:alias\na b:hunter2\nA:hunter2",
			"line 2: has no user; write user:password\n" +
				"line 3: has 4 fields; write user:password:alias@domain, and \\: for a colon in the password\n" +
				"line 4: " + noAlias + "\n" +
				"line 5: " + noUser + "\n" +
				"line 6: the user \"A\" is on line 1 already; take one away"},
		// A password with a separator in it, or behind another one than there must be.
		{Lines, "a@example.com:pa55:hunter2\nb@example.com:pa55:hunter2@x y", "line 1: " + noAlias + "\nline 2: " + noAlias},
		{Lines, "a@example.com hunter2\nb@example.com;hunter2\nc@example.com,hunter2\nd@example.com\thunter2\ne@example.com|hunter2\nf@example.com\u00a0hunter2",
			"line 1: " + noUser + "\nline 2: " + noUser + "\nline 3: " + noUser + "\nline 4: " + noUser + "\nline 5: " + noUser + "\nline 6: " + noUser},
		{CSV, "a@example.com,pa,hunter2\nb@example.com;hunter2\nc@example.com:hunter2", "line 1: " + noAlias + "\nline 2: " + noUser + "\nline 3: " + noUser},
		{JSON, `{"user":"a@example.com hunter2"}` + "\n" + `{"user":"b","alias":"hunter2"}`, "line 1: " + noUser + "\nline 2: " + noAlias},
		{Lines, "a:hunter2\x00", "line 1: the password has a NUL in it, which no server takes"},
		{Lines, "a\n" + strings.Repeat("x", maxLine+1), "line 2: is longer than 65536 octets; is this a list of users?"},
		{CSV, "a,hunter2\nb,\"hunter2", "line 2: is no CSV (extraneous or missing \" in quoted-field); write user,password,alias, with quotes around what has a comma or a quote in it"},
		{JSON, `{"user":"a","pasword":"hunter2"}`, `line 1: is no JSON object of the right kind; write {"user": "anna@example.com", "password": "...", "alias": "a.rossi@example.com"}`},
		{JSON, `{"user":"a","password":"hunter2","password_base64":"eA=="}`, "line 1: has password and password_base64; take one away"},
		{JSON, `["hunter2"]`, `line 1: is no JSON object of the right kind; write {"user": "anna@example.com", "password": "...", "alias": "a.rossi@example.com"}`},
	} {
		users, err := Read(strings.NewReader(c.text), c.format)
		if err == nil || err.Error() != c.want || users != nil {
			t.Errorf("%.60q: got\n%v\nwant\n%s", c.text, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.60q: a password is in the error", c.text)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("anna:p\\:q:x@example.com\n# c\nbert", "lines")
	f.Add("user,password\na,\"b\"\"\"\n", "csv")
	f.Add(`{"user":"a","password":"b"}`, "json")
	f.Fuzz(func(t *testing.T, text, format string) {
		users, err := Read(strings.NewReader(text), Format(format))
		if err != nil && users != nil {
			t.Error("users beside an error")
		}
		for _, u := range users {
			if u.Login == "" || u.Line < 1 || u.Password.String() != config.NewSecret("x").String() {
				t.Errorf("%+v", u)
			}
		}
	})
}

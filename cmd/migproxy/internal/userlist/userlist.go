// Package userlist reads the lists of users that `migproxy migrate --file`
// takes: plain lines, CSV, or JSON lines.
package userlist

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"unicode"

	"migproxy/config"
)

// maxLine bounds one line, in octets.
const maxLine = 64 << 10

// separators stand in no address that is moved. Lists of other programs have them
// between a user and his password.
const separators = ",;:|\x00"

// User is one user of a list.
type User struct {
	Line     int    // where it stands, from 1
	Login    string // an address, or a name without a domain
	Password config.Secret
	Aliases  []string // further addresses; the first gives a bare name its domain
}

// Format is how a list is written.
type Format string

// The formats.
const (
	// Lines are user, user:password or user:password:alias@domain. A backslash
	// before a colon or a backslash makes it a part of the password. Lines that
	// are blank or begin with # are passed over.
	Lines Format = "lines"
	// CSV (RFC 4180) has the same three columns, and further aliases behind
	// them. A first row that begins with "user" names the columns.
	CSV Format = "csv"
	// JSON has an object a line: user, password or password_base64, and alias or
	// aliases.
	JSON Format = "json"
)

// Formats lists them.
func Formats() []string { return []string{string(Lines), string(CSV), string(JSON)} }

// FormatOf tells the format by the name of a file.
func FormatOf(name string) Format {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".csv":
		return CSV
	case ".json", ".jsonl", ".ndjson":
		return JSON
	}
	return Lines
}

// Error is what is wrong with a line.
type Error struct {
	Line int
	Text string // what to write instead; never a password
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Text) }

func wrong(line int, format string, args ...any) error {
	return &Error{line, fmt.Sprintf(format, args...)}
}

// Read reads a whole list. Where lines are wrong, the error joins an *Error for
// each, and no user is returned.
func Read(r io.Reader, format Format) ([]User, error) {
	br := bufio.NewReader(r)
	if mark, err := br.Peek(3); err == nil && bytes.Equal(mark, []byte("\uFEFF")) {
		_, _ = br.Discard(3) // cannot fail: they are there
	}
	var users []User
	var errs []error
	add := func(u User, err error) {
		if err == nil {
			err = check(&u)
		}
		if err != nil {
			errs = append(errs, err)
			return
		}
		users = append(users, u)
	}
	var err error
	switch format {
	case CSV:
		err = readCSV(br, add)
	case JSON:
		err = readLines(br, parseJSON, add)
	default:
		err = readLines(br, parseLine, add)
	}
	if errs = append(errs, twice(users)...); err != nil || len(errs) > 0 {
		return nil, errors.Join(append(errs, err)...)
	}
	return users, nil
}

// check holds a user against what any of them must be. What is wrong is not
// repeated: where a separator is missing, or there is one too many, it is a part of
// a password.
func check(u *User) error {
	switch {
	case u.Login == "":
		return wrong(u.Line, "has no user; write user:password")
	case strings.ContainsAny(u.Login, separators) || strings.ContainsFunc(u.Login, unicode.IsSpace):
		return wrong(u.Line, "the user has a space or a separator in it; write user:password, one user a line, or user,password in CSV")
	case strings.ContainsRune(u.Password.Reveal(), 0):
		return wrong(u.Line, "the password has a NUL in it, which no server takes")
	}
	for i, alias := range u.Aliases {
		local, domain, ok := strings.Cut(alias, "@")
		if !ok || local == "" || domain == "" || strings.ContainsAny(alias, separators) || strings.ContainsFunc(alias, unicode.IsSpace) {
			return wrong(u.Line, "alias %d is no address; write alias@domain, or if it belongs to the password, \\: for a colon there, or quotes around the password in CSV", i+1)
		}
		u.Aliases[i] = strings.ToLower(alias)
	}
	return nil
}

// twice finds users that are there twice.
func twice(users []User) (errs []error) {
	first := map[string]int{}
	for _, u := range users {
		name := strings.ToLower(u.Login)
		if line, known := first[name]; known {
			errs = append(errs, wrong(u.Line, "the user %q is on line %d already; take one away", u.Login, line))
			continue
		}
		first[name] = u.Line
	}
	return errs
}

// readLines passes each line that says something to parse.
func readLines(r io.Reader, parse func(n int, line string) (User, error), add func(User, error)) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	n := 0
	for s.Scan() {
		n++
		line := s.Text() // without its line end, LF or CRLF
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		add(parse(n, line))
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return wrong(n+1, "is longer than %d octets; is this a list of users?", maxLine)
	}
	return s.Err()
}

// parseLine reads user:password:alias.
func parseLine(n int, line string) (User, error) {
	fields := splitLine(line)
	u := User{Line: n, Login: fields[0]}
	if len(fields) > 1 {
		u.Password = config.NewSecret(fields[1])
	}
	switch {
	case len(fields) > 3:
		return u, wrong(n, "has %d fields; write user:password:alias@domain, and \\: for a colon in the password", len(fields))
	case len(fields) == 3 && fields[2] != "":
		u.Aliases = []string{fields[2]}
	}
	return u, nil
}

// splitLine parts a line at colons.
func splitLine(line string) []string {
	fields := []string{""}
	for i := 0; i < len(line); i++ {
		last := len(fields) - 1
		switch {
		case line[i] == '\\' && i+1 < len(line) && (line[i+1] == ':' || line[i+1] == '\\'):
			i++
			fields[last] += line[i : i+1]
		case line[i] == ':':
			fields = append(fields, "")
		default:
			fields[last] += line[i : i+1]
		}
	}
	return fields
}

// row is one line of JSON.
type row struct {
	User           string   `json:"user"`
	Password       string   `json:"password"`
	PasswordBase64 []byte   `json:"password_base64"`
	Alias          string   `json:"alias"`
	Aliases        []string `json:"aliases"`
}

func parseJSON(n int, line string) (User, error) {
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	var v row
	if err := d.Decode(&v); err != nil || d.More() {
		// The decoder's own text may repeat what it could not read.
		return User{}, wrong(n, `is no JSON object of the right kind; write {"user": "anna@example.com", "password": "...", "alias": "a.rossi@example.com"}`)
	}
	u := User{Line: n, Login: v.User, Password: config.NewSecret(v.Password), Aliases: v.Aliases}
	if len(v.PasswordBase64) > 0 {
		if v.Password != "" {
			return u, wrong(n, "has password and password_base64; take one away")
		}
		u.Password = config.NewSecret(v.PasswordBase64)
	}
	if v.Alias != "" {
		u.Aliases = append([]string{v.Alias}, v.Aliases...)
	}
	return u, nil
}

func readCSV(r io.Reader, add func(User, error)) error {
	c := csv.NewReader(r)
	c.FieldsPerRecord = -1
	for first := true; ; first = false {
		fields, err := c.Read()
		var bad *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &bad): // its text has no field in it
			return wrong(bad.Line, "is no CSV (%v); write user,password,alias, with quotes around what has a comma or a quote in it", bad.Err)
		case err != nil:
			return err
		}
		line, _ := c.FieldPos(0)
		if first && strings.EqualFold(strings.TrimSpace(fields[0]), "user") {
			continue
		}
		u := User{Line: line, Login: strings.TrimSpace(fields[0])}
		if len(fields) > 1 {
			u.Password = config.NewSecret(fields[1])
		}
		for _, alias := range fields[min(2, len(fields)):] {
			if alias = strings.TrimSpace(alias); alias != "" {
				u.Aliases = append(u.Aliases, alias)
			}
		}
		add(u, nil)
	}
}

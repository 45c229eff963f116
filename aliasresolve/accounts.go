package aliasresolve

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Bounds on the list of accounts.
const (
	maxAccountsLine = 64 << 10 // octets
	maxAccounts     = 1 << 20  // addresses
)

// Accounts is the administrator's list of the source's accounts
// (aliases.accounts_file). A nil one is empty.
type Accounts struct {
	owners map[string][]string // accounts by address, their own among them
}

// AccountsError is a mistake in the list of accounts.
type AccountsError struct {
	Line int // from 1
	Text string
}

func (e *AccountsError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Text) }

// ReadAccounts reads a list of accounts: on each line the address of one,
// followed by further addresses of it that are known, if any, after white space
// or commas. Everything after a # that begins a line or follows white space is
// a comment. A mistake is an *AccountsError, and nothing of the list counts.
func ReadAccounts(r io.Reader) (*Accounts, error) { return readAccounts(r, maxAccounts) }

func readAccounts(r io.Reader, limit int) (*Accounts, error) {
	a := &Accounts{owners: map[string][]string{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4<<10), maxAccountsLine)
	n := 0
	for lines.Scan() {
		n++
		text := lines.Text()
		if n == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		if mistake := a.line(text); mistake != "" {
			return nil, &AccountsError{Line: n, Text: mistake}
		}
		if len(a.owners) > limit {
			return nil, &AccountsError{Line: n, Text: fmt.Sprintf("is past %d addresses; list the accounts of one domain only", limit)}
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, &AccountsError{Line: n + 1, Text: fmt.Sprintf("is longer than %d octets; write one account a line", maxAccountsLine)}
	} else if err != nil {
		return nil, fmt.Errorf("list of accounts, after line %d: %w", n, err)
	}
	return a, nil
}

// line takes a line, and says what is wrong with it.
func (a *Accounts) line(text string) (mistake string) {
	account := ""
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\r' }) {
		if word[0] == '#' {
			break
		}
		address, ok := Normalise(word)
		if !ok {
			return fmt.Sprintf("%.80q is no address; write local@domain, and # before a comment", word)
		}
		if account == "" {
			account = address
		}
		// The last one alone is looked at: an address may stand on all lines.
		if owners := a.owners[address]; len(owners) == 0 || owners[len(owners)-1] != account {
			a.owners[address] = append(owners, account)
		}
	}
	return ""
}

// of gives the account that a login is: its own, where the list has one of that
// name, else the one that has it as a further address. Where several have it so,
// as they have info@, it is none of them, and what is theirs is not its own.
func (a *Accounts) of(login string) []string {
	owners := a.Owners(login)
	switch {
	case slices.Contains(owners, login):
		return []string{login}
	case len(owners) > 1:
		return nil
	}
	return owners
}

// Owners gives the accounts that have an address, by their own one. An account
// on several lines may be named several times.
func (a *Accounts) Owners(address string) []string {
	if a == nil {
		return nil
	}
	return a.owners[address]
}

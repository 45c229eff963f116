package aliasresolve

import (
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// own are the own domains of the corpus's organisation.
var own = NewDomains("example.com", "example.org", "bücher.example")

// corpusMessage is one header of the corpus.
type corpusMessage struct {
	file    string
	mailbox string
	folder  string
	times   int
	header  string // with CRLF, and the empty line
}

// sentFolders are the folders of the corpus that the copy knows as \Sent.
var sentFolders = []string{"Sent", "INBOX.Sent", "Sent Items", "Gesendet", "Gesendete Elemente", "[Gmail]/Sent Mail"}

func (m corpusMessage) sent() bool { return slices.Contains(sentFolders, m.folder) }

// readCorpus reads testdata/corpus. A message begins with
// "== mailbox folder x times", a comment with ##.
func readCorpus(t testing.TB) []corpusMessage {
	t.Helper()
	files, err := filepath.Glob("testdata/corpus/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	var all []corpusMessage
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.Split("\n"+string(data), "\n== ")[1:] {
			head, text, _ := strings.Cut(part, "\n")
			text, _, _ = strings.Cut(text, "\n##")
			where, count, found := strings.Cut(head, " x ")
			mailbox, folder, ok := strings.Cut(where, " ")
			times, err := strconv.Atoi(count)
			if !found || !ok || err != nil {
				t.Fatalf("%s: %q is not == mailbox folder x times", file, head)
			}
			text = strings.TrimRight(text, "\n") + "\n\n"
			all = append(all, corpusMessage{filepath.Base(file), mailbox, folder, times, strings.ReplaceAll(text, "\n", "\r\n")})
		}
	}
	return all
}

// corpusMailboxes counts what the mailboxes of the corpus show.
func corpusMailboxes(t testing.TB) []Mailbox {
	t.Helper()
	scanner, collectors := NewScanner(own), map[string]*Collector{}
	for _, m := range readCorpus(t) {
		c := collectors[m.mailbox]
		if c == nil {
			c = NewCollector(DefaultLimit)
			collectors[m.mailbox] = c
		}
		io.WriteString(scanner, m.header+"From: body@example.com\r\n")
		seen := scanner.Evidence(m.sent())
		for range m.times {
			c.Message(seen)
		}
	}
	var all []Mailbox
	for _, login := range slices.Sorted(maps.Keys(collectors)) {
		all = append(all, Mailbox{Login: login, Tally: collectors[login].Tally()})
	}
	return all
}

// truth says whose the addresses are: by account, the one written from first.
func readTruth(t testing.TB) map[string][]string {
	t.Helper()
	data, err := os.ReadFile("testdata/truth.txt")
	if err != nil {
		t.Fatal(err)
	}
	truth := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); words[0] != "#" {
			truth[words[0]] = words[1:]
		}
	}
	return truth
}

func readCorpusAccounts(t testing.TB) *Accounts {
	t.Helper()
	f, err := os.Open("testdata/accounts.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	accounts, err := ReadAccounts(f)
	if err != nil {
		t.Fatal(err)
	}
	return accounts
}

// corpusRules are all settings by which the corpus is decided.
var corpusRules = map[string]Rules{
	"username":                   {Mode: Username, Domains: own, Minimum: 3},
	"standard":                   {Mode: Standard, Domains: own, Minimum: 3},
	"extended":                   {Mode: Extended, Domains: own, Minimum: 3},
	"extended without received":  {Mode: Extended, Domains: own, Minimum: 3, IgnoreReceived: true},
	"extended without x-env":     {Mode: Extended, Domains: own, Minimum: 3, IgnoreXEnvelopeTo: true},
	"extended with neither":      {Mode: Extended, Domains: own, Minimum: 3, IgnoreXEnvelopeTo: true, IgnoreReceived: true},
	"standard, every one counts": {Mode: Standard, Domains: own, Minimum: 1},
	"extended, every one counts": {Mode: Extended, Domains: own, Minimum: 1},
}

func shown(mailboxes []Mailbox, r Rules) Shown {
	s := Shown{}
	for _, m := range mailboxes {
		s.Add(m, r)
	}
	return s
}

// Promise 9: once the mailboxes are known, no mailbox of the corpus claims an
// address that is not its user's, whatever the mode.
func TestCorpusClaimsNobodyElsesAddress(t *testing.T) {
	mailboxes, truth, accounts := corpusMailboxes(t), readTruth(t), readCorpusAccounts(t)
	// Addresses of nobody, which reach the catch-all's owner only.
	truth["jan@example.com"] = append(truth["jan@example.com"], "qwertz123@example.com", "admin@example.com")
	for name, r := range corpusRules {
		known := Known{Shown: shown(mailboxes, r), Accounts: accounts}
		claimants := map[string]string{}
		for _, m := range mailboxes {
			for _, c := range Decide(m, r, known).Claims {
				if !slices.Contains(truth[m.Login], c.Address) {
					t.Errorf("%s: %s claims %s, which is not his: %v", name, m.Login, c.Address, c.Evidence)
				}
				if other := claimants[c.Address]; other != "" {
					t.Errorf("%s: %s and %s claim %s", name, other, m.Login, c.Address)
				}
				if c.Proposed {
					t.Errorf("%s: %s of %s is only proposed, with a list of accounts and without approval", name, c.Address, m.Login)
				}
				claimants[c.Address] = m.Login
			}
		}
	}
}

// In whatever order mailboxes are read, nobody claims an account's address, nor
// one that an earlier mailbox shows. What a later one shows as well is
// withdrawn then: in the end the order has made no difference.
func TestCorpusInAnyOrder(t *testing.T) {
	mailboxes, accounts := corpusMailboxes(t), readCorpusAccounts(t)
	random := rand.New(rand.NewPCG(1, 2))
	for range 25 {
		random.Shuffle(len(mailboxes), func(i, j int) { mailboxes[i], mailboxes[j] = mailboxes[j], mailboxes[i] })
		for name, r := range corpusRules {
			shown := Shown{}
			for _, m := range mailboxes {
				before := maps.Clone(shown)
				shown.Add(m, r)
				for _, c := range Decide(m, r, Known{Shown: shown, Accounts: accounts}).Claims {
					if owners := accounts.Owners(c.Address); len(owners) > 0 && !slices.Contains(owners, m.Login) {
						t.Fatalf("%s: %s claims %s, the account of another", name, m.Login, c.Address)
					}
					if by := before[c.Address]; len(by) > 0 {
						t.Fatalf("%s: %s claims %s, which %v showed before", name, m.Login, c.Address, by)
					}
				}
			}
		}
	}
}

// Without the list of accounts nothing is claimed unapproved; nor with it, where
// approval is asked for or the list does not have the mailbox itself.
func TestCorpusProposes(t *testing.T) {
	mailboxes := corpusMailboxes(t)
	stranger, err := ReadAccounts(strings.NewReader("somebody@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range corpusRules {
		for _, approval := range []bool{false, true} {
			for which, accounts := range map[string]*Accounts{"no list": nil, "an incomplete list": stranger, "a list": readCorpusAccounts(t)} {
				if which == "a list" && !approval {
					continue
				}
				r.Approval = approval
				for _, m := range mailboxes {
					for _, c := range Decide(m, r, Known{Shown: shown(mailboxes, r), Accounts: accounts}).Claims {
						if !c.Proposed {
							t.Errorf("%s, %s, approval %v: %s claims %s unapproved", name, which, approval, m.Login, c.Address)
						}
					}
				}
			}
		}
	}
}

// How many of the addresses that people of the corpus have are found. What is
// missed is printed, with its reason.
func TestCorpusRecall(t *testing.T) {
	mailboxes, truth, accounts := corpusMailboxes(t), readTruth(t), readCorpusAccounts(t)
	floors := map[string]float64{"standard": 0.91, "extended": 0.84, "extended without received": 0.60,
		"extended without x-env": 0.84, "extended with neither": 0.56}
	for _, name := range slices.Sorted(maps.Keys(floors)) {
		r := corpusRules[name]
		known := Known{Shown: shown(mailboxes, r), Accounts: accounts}
		found, all := 0, 0
		for _, m := range mailboxes {
			d := Decide(m, r, known)
			expected := truth[m.Login]
			if r.Mode == Standard {
				expected = expected[:1]
			}
			for _, address := range expected {
				if address == "-" {
					continue
				}
				all++
				if slices.ContainsFunc(d.Claims, func(c Claim) bool { return c.Address == address }) {
					found++
					continue
				}
				i := slices.IndexFunc(d.Withdrawn, func(w Withdrawal) bool { return w.Address == address })
				if i < 0 {
					t.Logf("%s: %s is not found: no message of %s shows it", name, address, m.Login)
					continue
				}
				t.Logf("%s: %s of %s is withdrawn: %s %v", name, address, m.Login, d.Withdrawn[i].Reason, d.Withdrawn[i].By)
			}
		}
		recall := float64(found) / float64(all)
		t.Logf("%s: recall %d of %d, %.2f", name, found, all, recall)
		if recall < floors[name] {
			t.Errorf("%s: recall %.2f, want %.2f at least", name, recall, floors[name])
		}
	}
}

package provision

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"migproxy/config"
)

// What the command's exit status means. Every other status is a failure.
const (
	exitDone  = 0
	exitTaken = 2
)

const (
	defaultTimeout = 30 * time.Second
	// pipeGrace is how long a child of the command may hold standard error open
	// once the command itself has ended or was killed.
	pipeGrace = 2 * time.Second
	// stderrKept is how much of the end of standard error is held in memory,
	// reasonMax how much of that reaches an error's text, in octets.
	stderrKept = 16 << 10
	reasonMax  = 1 << 10
)

// request is the one JSON object that the command reads on standard input.
type request struct {
	Op      string `json:"op"`
	Account string `json:"account"`
	Domain  string `json:"domain"`
	// Password is left out where the password is not valid UTF-8, which JSON
	// cannot carry; PasswordBase64 always has its octets.
	Password       string `json:"password,omitempty"`
	PasswordBase64 []byte `json:"password_base64,omitempty"`
	Alias          string `json:"alias,omitempty"`
}

// execDriver runs the administrator's command, once for each operation.
type execDriver struct {
	command []string
	timeout time.Duration
}

var _ Driver = (*execDriver)(nil)

func newExec(cfg config.Provision) (*execDriver, error) {
	if len(cfg.Command) == 0 || cfg.Command[0] == "" {
		return nil, errors.New("provision.command: the driver exec needs a command; write the path of a program and its arguments")
	}
	if _, err := exec.LookPath(cfg.Command[0]); err != nil {
		return nil, fmt.Errorf("provision.command: %w; name a program that may be executed", err)
	}
	d := &execDriver{command: cfg.Command, timeout: cfg.Timeout.Std()}
	if d.timeout <= 0 {
		d.timeout = defaultTimeout
	}
	return d, nil
}

func (d *execDriver) Lookup(ctx context.Context, account config.Identity) error {
	return d.run(ctx, "lookup", account, config.Secret{}, "")
}

func (d *execDriver) Ensure(ctx context.Context, account config.Identity, password config.Secret) error {
	return d.run(ctx, "ensure", account, password, "")
}

func (d *execDriver) SetPassword(ctx context.Context, account config.Identity, password config.Secret) error {
	return d.run(ctx, "set_password", account, password, "")
}

func (d *execDriver) AddAlias(ctx context.Context, account config.Identity, alias string) error {
	return d.run(ctx, "add_alias", account, config.Secret{}, alias)
}

func (d *execDriver) RemoveAlias(ctx context.Context, account config.Identity, alias string) error {
	return d.run(ctx, "remove_alias", account, config.Secret{}, alias)
}

// run runs the command in a process group of its own, which is killed when
// the time is up.
func (d *execDriver) run(ctx context.Context, op string, account config.Identity, password config.Secret, alias string) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	input, err := encodeRequest(op, account, password, alias)
	if err != nil {
		return err
	}
	stderr := &tail{limit: stderrKept}
	cmd := exec.CommandContext(ctx, d.command[0], d.command[1:]...)
	cmd.Stdin = bytes.NewReader(input)
	cmd.Stderr = stderr
	cmd.Env = minimalEnvironment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = pipeGrace

	err = cmd.Run()
	if cmd.ProcessState == nil {
		return fmt.Errorf("provision %s %s: cannot run %s: %w", op, account.Address(), d.command[0], err)
	}
	if ctx.Err() != nil && !cmd.ProcessState.Exited() {
		return fmt.Errorf("provision %s %s: %s was killed, it had not ended after %s (provision.timeout): %w%s",
			op, account.Address(), d.command[0], d.timeout, ctx.Err(), stderr.reason(password))
	}
	// exec.ErrWaitDelay beside status 0 is a daemon that the command left
	// behind with our pipe; the command itself has done its work.
	switch code := cmd.ProcessState.ExitCode(); code {
	case exitDone:
		return nil
	case exitTaken:
		return ErrTaken
	case -1:
		return fmt.Errorf("provision %s %s: %s ended by a signal (%s)%s",
			op, account.Address(), d.command[0], cmd.ProcessState, stderr.reason(password))
	default:
		return fmt.Errorf("provision %s %s: %s ended with status %d%s",
			op, account.Address(), d.command[0], code, stderr.reason(password))
	}
}

func encodeRequest(op string, account config.Identity, password config.Secret, alias string) ([]byte, error) {
	r := request{Op: op, Account: account.Address(), Domain: account.Domain, Alias: alias}
	if secret := password.Reveal(); secret != "" {
		r.PasswordBase64 = []byte(secret)
		if utf8.ValidString(secret) {
			r.Password = secret
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("provision %s: %w", op, err)
	}
	return b.Bytes(), nil
}

// minimalEnvironment is all that the command inherits: our own environment may
// hold settings with secrets in them.
func minimalEnvironment() []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return []string{"PATH=" + path, "LANG=C.UTF-8"}
}

// tail is a writer that keeps the end of what is written.
type tail struct {
	limit int
	kept  []byte
	cut   bool // what came before kept was thrown away
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > t.limit {
		p, t.cut = p[len(p)-t.limit:], true
	}
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - t.limit; over > 0 {
		t.kept, t.cut = append(t.kept[:0], t.kept[over:]...), true
	}
	return n, nil
}

// reason gives the last lines as one line that may be logged, with the
// password masked, in front of it ": ". It is empty where nothing was written.
func (t *tail) reason(password config.Secret) string {
	// First mask, then cut: a cut password would no longer be recognised. What
	// was cut already may begin within one.
	spellings := spellingsOf(password)
	text := mask(string(t.kept), spellings)
	if t.cut {
		for _, s := range spellings {
			text = withoutEndOf(text, s)
		}
	}
	text = strings.TrimSpace(text)
	if over := len(text) - reasonMax; over > 0 {
		text = text[over:]
	}
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "?"), "\n", "; ")
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	if text == "" {
		return ": it gave no reason on standard error"
	}
	return ": " + text
}

// spellingsOf lists the spellings in which a script is likely to repeat a
// password: as it is, in base64, in JSON, as a shell's trace or Python's repr
// quotes it, and as it stands in a URL.
func spellingsOf(password config.Secret) []string {
	secret := password.Reveal()
	if secret == "" {
		return nil
	}
	ascii := strconv.QuoteToASCII(secret)
	repr := strings.ReplaceAll(secret, `\`, `\\`)
	spellings := []string{
		secret,
		base64.StdEncoding.EncodeToString([]byte(secret)),
		strings.ReplaceAll(secret, "'", `'\''`),
		repr,
		strings.ReplaceAll(repr, "'", `\'`),
		ascii[1 : len(ascii)-1],
		url.QueryEscape(secret),
		url.PathEscape(secret),
	}
	for _, escapeHTML := range []bool{true, false} {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(escapeHTML)
		if enc.Encode(secret) == nil {
			quoted := strings.TrimSpace(b.String())
			spellings = append(spellings, quoted[1:len(quoted)-1])
		}
	}
	return spellings
}

func mask(text string, spellings []string) string {
	for _, s := range spellings {
		text = strings.ReplaceAll(text, s, config.Secret{}.String())
	}
	return text
}

// withoutEndOf cuts the longest end of s off the beginning of text.
func withoutEndOf(text, s string) string {
	for i := 1; i < len(s); i++ {
		if rest, found := strings.CutPrefix(text, s[i:]); found {
			return rest
		}
	}
	return text
}

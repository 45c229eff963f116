package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

const (
	user     = "anna@example.com"
	password = `a"b\c{d%e:f g ü `
)

// copyDeadline bounds every wait for a copy to end.
const copyDeadline = 90 * time.Second

// binary builds the program once for all tests. killable has the kill points
// in it that the shipped one has not.
var (
	binary   = sync.OnceValues(func() (string, error) { return build("migproxy") })
	killable = sync.OnceValues(func() (string, error) { return build("migproxy-kill", "-tags", "killtest") })
)

var buildDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "migproxy-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func build(name string, args ...string) (string, error) {
	path := filepath.Join(buildDir, name)
	args = append(append([]string{"build", "-o", path}, args...), "migproxy/cmd/migproxy")
	out, err := exec.Command("go", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
}

// endpoint is one server as the settings name it.
type endpoint struct {
	imap, pop3 int // ports
	tls        string
	caFile     string
	protocols  string // what the copy reads from, such as "[imap, pop3]"
}

func dovecotEndpoint(d *servers.Dovecot) endpoint {
	return endpoint{imap: d.IMAP, pop3: d.POP3, tls: "starttls", caFile: d.CAFile}
}

func (e endpoint) yaml() string {
	var b strings.Builder
	for _, p := range []struct {
		name string
		port int
	}{{"imap", e.imap}, {"pop3", e.pop3}} {
		if p.port != 0 {
			fmt.Fprintf(&b, "      %s: { address: \"127.0.0.1:%d\", tls: %s, ca_file: %q }\n", p.name, p.port, e.tls, e.caFile)
		}
	}
	if e.protocols != "" {
		fmt.Fprintf(&b, "      protocols: %s\n", e.protocols)
	}
	return b.String()
}

// settings are what tests vary.
type settings struct {
	source, target endpoint
	provision      string // the whole value
	domain         string // more lines of the domain, indented by four
	migration      string // more of the migration's, such as "concurrency: 1"
	active         string // "true" unless given
}

// proxy is a running migproxy.
type proxy struct {
	t                 testing.TB
	dir, config, bin  string
	imap, imaps, pop3 int
	pop3s, admin      int
	env               []string
	cmd               *exec.Cmd
	done              chan error
	output            *os.File
}

// newProxy writes the settings; start starts it.
func newProxy(t testing.TB, bin func() (string, error), s settings) *proxy {
	t.Helper()
	path, err := bin()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "mp-")
	if err != nil {
		t.Fatal(err)
	}
	ports := servers.FreePorts(t, 5)
	p := &proxy{t: t, dir: dir, config: filepath.Join(dir, "migproxy.yaml"), bin: path,
		imap: ports[0], imaps: ports[1], pop3: ports[2], pop3s: ports[3], admin: ports[4]}
	if s.active == "" {
		s.active = "true"
	}
	if !strings.Contains(s.domain, "parking:") {
		s.domain += "    parking: { mode: notice }\n"
	}
	if s.migration == "" {
		s.migration = "settle_quiet: 500ms"
	}
	cert := servers.WriteCertificate(t, dir)
	text := fmt.Sprintf(`hostname: proxy.example.com
default_domain: example.com
state: { url: "sqlite://%[1]s/state.db", key_file: %[1]s/key }
tls:
  certificates: [{ cert: %[2]s, key: %[1]s/tls.key }]
  allow_plaintext_login: loopback
listeners:
  - { protocol: imap, address: "127.0.0.1:%[3]d", tls: starttls }
  - { protocol: imap, address: "127.0.0.1:%[4]d", tls: implicit }
  - { protocol: pop3, address: "127.0.0.1:%[5]d", tls: starttls }
  - { protocol: pop3, address: "127.0.0.1:%[6]d", tls: implicit }
admin: { address: "127.0.0.1:%[7]d", socket: %[1]s/admin.sock }
shutdown: { grace: 2s }
domains:
  - name: example.com
    source:
%[8]s    target:
%[9]s      provision: %[10]s
%[11]s
migration: { active: %[12]s, %[13]s }
log: { level: debug, format: json, file: %[1]s/migproxy.log }
`, dir, cert, p.imap, p.imaps, p.pop3, p.pop3s, p.admin, s.source.yaml(), s.target.yaml(), s.provision, s.domain, s.active, s.migration)
	if err := os.WriteFile(p.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if p.output, err = os.Create(filepath.Join(dir, "output.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop(syscall.SIGTERM)
		_ = p.output.Close()
		if t.Failed() {
			t.Logf("migproxy:\n%s\n%s", tail(p.read("output.log"), 40), tail(p.read("migproxy.log"), 80))
			if os.Getenv("E2E_KEEP") != "" {
				t.Logf("kept %s", dir)
				return
			}
		}
		_ = os.RemoveAll(dir)
	})
	return p
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (p *proxy) read(name string) string {
	b, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// start runs `migproxy serve` and waits until it greets.
func (p *proxy) start() *proxy {
	p.t.Helper()
	p.launch()
	if err := p.ready(); err != nil {
		p.t.Fatal(err)
	}
	return p
}

func (p *proxy) launch() {
	p.t.Helper()
	p.cmd = exec.Command(p.bin, "serve", "--config", p.config)
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.done = make(chan error, 1)
	go func(cmd *exec.Cmd, done chan<- error) { done <- cmd.Wait() }(p.cmd, p.done)
}

// ready waits for the greeting; it fails at once when the process ends.
func (p *proxy) ready() error {
	return eventually(20*time.Second, func() error {
		select {
		case err := <-p.done:
			p.done <- err
			return fatal{fmt.Errorf("migproxy ended: %w", err)}
		default:
		}
		c, err := net.DialTimeout("tcp", servers.Address(p.imap), time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// stop sends a signal and waits for the end.
func (p *proxy) stop(sig syscall.Signal) {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(sig)
	p.wait()
}

// wait waits for the end of the process, however it comes.
func (p *proxy) wait() {
	select {
	case <-p.done:
	case <-time.After(60 * time.Second):
		_ = p.cmd.Process.Kill()
		p.t.Errorf("migproxy did not end within 60 s")
		<-p.done
	}
	p.cmd = nil
}

// fatal ends eventually at once.
type fatal struct{ error }

// eventually asks until f returns nil, and gives its last error otherwise.
func eventually(within time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for {
		err := f()
		var end fatal
		if err == nil || errors.As(err, &end) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %s: %w", within, err)
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// cli runs a command against the running server.
func (p *proxy) cli(args ...string) (string, error) {
	return p.cliFor(60*time.Second, args...)
}

// cliFor runs a command that may take longer.
func (p *proxy) cliFor(limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.bin, append(args, "--config", p.config)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("migproxy %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// metrics is what Prometheus reads.
func (p *proxy) metrics() string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+servers.Address(p.admin)+"/metrics", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		p.t.Fatalf("%s, %v", response.Status, err)
	}
	return string(text)
}

// account is one line of `migproxy accounts --json`.
type account struct {
	Address  string `json:"address"`
	State    string `json:"state"`
	Messages int    `json:"messages"`
	Error    string `json:"error"`

	CaughtUpAt    time.Time `json:"caught_up_at"`
	NeedsPassword bool      `json:"needs_password"`
}

func (p *proxy) accounts() ([]account, error) {
	out, err := p.cli("accounts", "--json")
	if err != nil {
		return nil, err
	}
	var list []account
	return list, json.Unmarshal([]byte(out), &list)
}

// state is the state of one account, "" where it has no row.
func (p *proxy) state(address string) (account, error) {
	list, err := p.accounts()
	for _, a := range list {
		if a.Address == address {
			return a, err
		}
	}
	return account{}, err
}

// awaitState waits until an account is in a state.
func (p *proxy) awaitState(address, state string) account {
	p.t.Helper()
	return p.awaitStateFor(copyDeadline, address, state)
}

func (p *proxy) awaitStateFor(deadline time.Duration, address, state string) account {
	p.t.Helper()
	var a account
	err := eventually(deadline, func() (err error) {
		if a, err = p.state(address); err == nil && a.State != state {
			err = fmt.Errorf("%s is %q (%s), not %q", address, a.State, a.Error, state)
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// request is what client.py is asked.
type request struct {
	Op         string  `json:"op"`
	Host       string  `json:"host,omitempty"` // 127.0.0.1 unless given
	Port       int     `json:"port"`
	TLS        string  `json:"tls"`                   // none, starttls, implicit
	ServerName string  `json:"server_name,omitempty"` // for SNI
	User       string  `json:"user"`
	Password   string  `json:"password"`
	SASL       bool    `json:"sasl"`
	Commands   [][]any `json:"commands,omitempty"`
}

// answer is what client.py says.
type answer struct {
	OK           bool     `json:"ok"`
	Error        string   `json:"error"`
	Answers      [][]any  `json:"answers"`
	Capabilities []string `json:"capabilities"`
	Folders      []folder `json:"folders"`
	Subscribed   []string `json:"subscribed"`
	UIDL         []string `json:"uidl"`
	Digests      []string `json:"digests"`
}

type folder struct {
	Name     string    `json:"name"`
	Delim    string    `json:"delim"`
	Attrs    []string  `json:"attrs"`
	Messages []message `json:"messages"`
}

type message struct {
	UID    int      `json:"uid"`
	SHA256 string   `json:"sha256"`
	Octets int      `json:"octets"`
	Flags  []string `json:"flags"`
	Date   string   `json:"date"`
}

// ask runs the client that the project did not write.
func ask(t testing.TB, r request) answer {
	t.Helper()
	a, err := tryAsk(r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func tryAsk(r request) (answer, error) {
	if r.User == "" {
		r.User = user
	}
	if r.Password == "" {
		r.Password = password
	}
	if r.TLS == "" {
		r.TLS = "none"
	}
	in, err := json.Marshal(r)
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "python3", "client.py")
	cmd.Stdin = bytes.NewReader(in)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return answer{}, fmt.Errorf("client.py %s: %w\n%s", r.Op, err, errs.String())
	}
	var a answer
	return a, json.Unmarshal(out.Bytes(), &a)
}

// line is a raw client connection, for what imaplib cannot do.
type line struct {
	t testing.TB
	net.Conn
	buf []byte
}

func dial(t testing.TB, port int, implicitTLS bool) *line {
	t.Helper()
	var c net.Conn
	var err error
	if implicitTLS {
		c, err = tls.Dial("tcp", servers.Address(port), &tls.Config{InsecureSkipVerify: true})
	} else {
		c, err = net.Dial("tcp", servers.Address(port))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &line{t: t, Conn: c}
}

func (l *line) send(text string) {
	l.t.Helper()
	if _, err := l.Write([]byte(text)); err != nil {
		l.t.Fatal(err)
	}
}

// until reads until a line starts with one of the prefixes, and returns all
// that was read; it fails at the end of the stream or after a minute.
func (l *line) until(prefixes ...string) string {
	l.t.Helper()
	_ = l.SetReadDeadline(time.Now().Add(time.Minute))
	var seen strings.Builder
	chunk := make([]byte, 4096)
	for {
		for {
			i := bytes.IndexByte(l.buf, '\n')
			if i < 0 {
				break
			}
			text := string(l.buf[:i+1])
			l.buf = l.buf[i+1:]
			seen.WriteString(text)
			for _, p := range prefixes {
				if strings.HasPrefix(text, p) {
					return seen.String()
				}
			}
		}
		n, err := l.Read(chunk)
		l.buf = append(l.buf, chunk[:n]...)
		if err != nil && n == 0 {
			l.t.Fatalf("waiting for %q: %v after %q", prefixes, err, seen.String())
		}
	}
}

func run(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
}

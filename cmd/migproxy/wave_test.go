package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"migproxy/store"
)

func TestWave(t *testing.T) {
	w := startWorld(t)
	w.fill(t)
	list := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(list, []byte("\uFEFF# the accounts department\r\n\r\nBERT@example.com\r\n  c*@example.com\n#*\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, args string }{
		{"wave_list", "wave list"},
		{"wave_remove", "wave remove *"},
		{"wave_add", "wave add Anna@example.com"},
		{"wave_again", "wave add anna@example.com emil@example.com"},
		{"wave_file", "wave add --file " + list},
		{"wave_exclude", "wave add --exclude --domain EXAMPLE.com b*"},
		{"wave_remove_file", "wave remove --file " + list + " nobody@example.com"},
		{"wave_listed", "wave list --domain example.com"},
		{"wave_list_json", "wave list --json"},
		{"wave_status", "status"},
		{"wave_stop", "stop"},
		{"wave_add_stopped", "wave add dora@example.com"},
		{"wave_log", "log"},
	} {
		o := runCLI(t, append(strings.Fields(c.args), "--config", w.config)...)
		if o.status != exitDone || o.stderr != "" {
			t.Errorf("%s: status %d, %s", c.args, o.status, o.stderr)
		}
		golden(t, c.name, o.stdout)
	}
}

// What is wrong with a list is said of every line, and nothing is changed.
func TestWaveRefuses(t *testing.T) {
	w := startWorld(t)
	write := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bad := write("bad", "anna@example.com\n\nbert@example.com:hunter2\ncarl\n*@elsewhere.com\n*.rossi\n")
	long := write("long", "anna@example.com\n"+strings.Repeat("x", 1<<20)+"*\n")
	many := write("many", strings.Repeat("*\n", 50_001))
	nobody := write("nobody", "# nobody\n")
	for _, c := range []struct {
		args   string
		status int
		stderr []string
	}{
		{"wave", exitUsage, []string{"name a command"}},
		{"wave move", exitUsage, []string{`there is no command "migproxy wave move"`}},
		{"wave add", exitUsage, []string{"name addresses or patterns, or a list with --file"}},
		{"wave remove", exitUsage, []string{"name addresses or patterns"}},
		{"wave list *", exitUsage, []string{"unknown command"}},
		{"wave list --domain example.net", exitFailed, []string{`"example.net" is not in the settings`}},
		{"wave add * --domain example.net", exitFailed, []string{`"example.net" is not in the settings`}},
		{"wave add anna@example.net", exitFailed, []string{`the domain "example.net" is not in the settings; add it under domains`}},
		{"wave add anna@\x1b[31mexample.com", exitFailed, []string{"neither an address nor a pattern; write anna@example.com"}},
		{"wave add anna", exitFailed, []string{`"anna": this is neither`}},
		{"wave add *.rossi", exitFailed, []string{`write *.rossi@example.com`}},
		{"wave add --file /does/not/exist", exitFailed, []string{"--file: open /does/not/exist"}},
		{"wave add --file " + nobody, exitFailed, []string{nobody + " names nobody"}},
		{"wave add a* --file " + bad, exitFailed, []string{bad + ": line 3: this is neither", bad + ": line 4: this is neither",
			bad + `: line 5: the domain "elsewhere.com" is not in the settings`, bad + `: line 6: "*.rossi" matches no address`}},
		{"wave remove * --file " + bad, exitFailed, []string{bad + ": line 3: "}},
		{"wave add --file " + long, exitFailed, []string{long + ": line 2: "}},
		{"wave add --file " + many, exitFailed, []string{"split the list"}},
	} {
		o := runCLI(t, append(strings.Fields(c.args), "--config", w.config)...)
		if o.status != c.status || o.stdout != "" {
			t.Errorf("%q: status %d, %s%s", c.args, o.status, o.stdout, o.stderr)
		}
		for _, want := range c.stderr {
			if !strings.Contains(o.stderr, want) {
				t.Errorf("%q: %q is not in %s", c.args, want, o.stderr)
			}
		}
		if strings.Contains(o.stderr, "hunter2") || strings.Contains(o.stderr, "\x1b") {
			t.Errorf("%q: %s", c.args, o.stderr)
		}
	}
	if o := runCLI(t, "wave", "list", "--config", w.config); o.status != exitDone || strings.Join(strings.Fields(o.stdout), " ") != "DOMAIN PATTERN MAY MOVE STATE example.com * yes -" {
		t.Errorf("something was changed: %+v", o)
	}
}

// The list may come on standard input.
func TestWaveFromStandardInput(t *testing.T) {
	w := startWorld(t)
	r, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.WriteString("anna@example.com\n"); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	defer func(was *os.File) { os.Stdin = was; _ = r.Close() }(os.Stdin)
	os.Stdin = r
	if o := runCLI(t, "wave", "add", "--file", "-", "--config", w.config); o.status != exitDone || o.stdout != "Wave of example.com: added 1, already there 0\n" {
		t.Errorf("%+v", o)
	}
}

// A wave that stopped by itself is loud until it is started.
func TestStatusOfAWaveThatStopped(t *testing.T) {
	w := startWorld(t)
	if _, _, err := w.store.Begin(t.Context(), store.NewAccount{Identity: identity("anna")}); err != nil {
		t.Fatal(err)
	}
	c, err := w.store.ClaimNext(t.Context(), "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	c.MaxFailed = 1
	if err := c.Release(t.Context(), store.Failed, "the target \x1b[31mfell over", time.Time{}, true); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, args string }{{"wave_failed", "status"}, {"wave_failed_log", "log"}, {"wave_started", "start"}} {
		o := runCLI(t, c.args, "--config", w.config)
		if o.status != exitDone || strings.Contains(o.stdout, "\x1b") {
			t.Errorf("%s: %+v", c.args, o)
		}
		golden(t, c.name, o.stdout)
	}
}

package proxy

import (
	"fmt"
	"strings"
	"testing"

	"migproxy/config"
	"migproxy/store"
)

// TestLoginEverything plays the rows of the design with real connections and a
// real store: what the account is; its origin; in the wave and active;
// what the servers say; how often each was asked (target, source), the result,
// and what the account is afterwards.
func TestLoginEverything(t *testing.T) {
	const table = `
unknown      -       y yes         yes         1 0 target       native
unknown      -       y miss        yes         1 1 park         provisioning
unknown      -       n miss        yes         1 1 source       at_source
unknown      -       y miss        miss        1 1 miss         unknown
unknown      -       y miss        refused     1 1 refused      unknown
unknown      -       y miss        unavailable 1 1 unavailable! unknown
unknown      -       y refused     yes         1 0 refused      unknown
unknown      -       y unavailable yes         1 0 unavailable  unknown
unknown      -       n unavailable yes         1 1 source       unknown
unknown      -       n unavailable miss        1 1 unavailable! unknown
at_source    -       n miss        yes         0 1 source       at_source
at_source    -       y miss        yes         1 1 park         provisioning
at_source    -       y yes         yes         1 1 target       native
at_source    -       y unavailable yes         1 1 source       at_source
at_source    -       n yes         miss        1 1 target       native
at_source    -       n miss        miss        1 1 miss         at_source
at_source    -       y miss        unavailable 0 1 unavailable  at_source
provisioning -       y miss        yes         0 1 park         provisioning
provisioning free    n miss        yes         0 1 park         provisioning
provisioning free    y yes         miss        0 1 miss         provisioning
copying      created y miss        yes         0 1 park         copying
copying      created y yes         miss        0 1 miss         copying
copying      created y yes         unavailable 1 1 park         copying
copying      created y miss        unavailable 1 1 unavailable! copying
copying      created y unavailable unavailable 1 1 unavailable  copying
copying      adopted y yes         yes         1 0 target       copying
copying      adopted y miss        yes         1 0 miss         copying
copying      adopted y unavailable yes         1 0 unavailable  copying
active       created y yes         yes         1 0 target       active
active       created y miss        yes         1 0 miss         active
active       created y unavailable yes         1 0 unavailable  active
finished     created y miss        yes         1 0 miss         finished
native       -       y yes         yes         1 0 target       native
native       -       y miss        yes         1 0 miss         native
failed       created y miss        yes         0 1 park         failed
failed       free    y miss        miss        0 1 miss         failed
failed       adopted y yes         yes         1 0 target       failed
waiting      created y miss        yes         0 1 park         waiting
waiting      created y yes         unavailable 0 1 unavailable  waiting
conflict     -       y yes         yes         0 1 source       conflict
conflict     -       y yes         miss        1 1 target       conflict
conflict     free    y yes         miss        0 1 miss         conflict
conflict     -       y miss        unavailable 0 1 unavailable  conflict
excluded     -       y yes         yes         0 1 source       excluded
excluded     -       y yes         miss        1 1 target       excluded
excluded     created y yes         miss        0 1 miss         excluded
excluded     -       y miss        miss        1 1 miss         excluded
`
	playTable(t, table)
}

// The same with parking mode source, for what is otherwise there.
func TestLoginEverythingParkedAtSource(t *testing.T) {
	const table = `
unknown      -       y yes         yes         1 0 target       native
unknown      -       y miss        yes         1 1 source       provisioning
unknown      -       n miss        yes         1 1 source       at_source
unknown      -       y miss        unavailable 1 1 unavailable! unknown
unknown      -       y unavailable yes         1 0 unavailable  unknown
unknown      -       n unavailable yes         1 1 source       unknown
at_source    -       n miss        yes         0 1 source       at_source
at_source    -       y miss        yes         1 1 source       provisioning
at_source    -       y yes         yes         1 1 target       native
at_source    -       y unavailable yes         1 1 source       at_source
provisioning -       y miss        yes         0 1 source       provisioning
provisioning free    y yes         yes         0 1 source       provisioning
provisioning free    y yes         miss        0 1 miss         provisioning
provisioning free    y yes         unavailable 0 1 unavailable  provisioning
copying      created y yes         yes         0 1 source       copying
copying      created y yes         miss        0 1 miss         copying
copying      created y yes         refused     0 1 refused      copying
copying      created y yes         unavailable 0 1 unavailable  copying
copying      adopted y yes         yes         1 0 target       copying
copying      adopted y miss        yes         1 0 miss         copying
failed       created y yes         yes         0 1 source       failed
failed       created y yes         unavailable 0 1 unavailable  failed
failed       adopted y yes         yes         1 0 target       failed
waiting      created y yes         yes         0 1 source       waiting
waiting      created y yes         miss        0 1 miss         waiting
active       created y yes         yes         1 0 target       active
active       created y miss        yes         1 0 miss         active
conflict     free    y yes         yes         0 1 source       conflict
excluded     created y yes         yes         0 1 source       excluded
excluded     -       y yes         miss        1 1 target       excluded
`
	playTable(t, table, parkAtSource)
}

func playTable(t *testing.T, table string, change ...func(*config.Config)) {
	t.Helper()
	w := newWorld(t, append(change, func(c *config.Config) { c.Domains[0].Wave.Exclude = []string{"OUT*@example.com"} })...)
	row := 0
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		// A domain without a wave and one that is stopped are treated alike.
		ways := []string{"wave"}
		if f[2] == "n" {
			ways = append(ways, "stopped")
		}
		for _, way := range ways {
			t.Run(strings.Join(f[:5], "/")+"/"+way, func(t *testing.T) {
				w.t = t
				w.id.Local = fmt.Sprintf("in%d", row)
				if f[2] == "n" && way == "wave" {
					w.id.Local = fmt.Sprintf("out%d", row)
				}
				row++
				w.id.Login = w.id.Address()
				w.target.recount()
				w.source.recount()
				w.put(f[0], f[1], store.NewAccount{Mode: config.ModeAccounts})
				w.check(w.store.SetActive(w.ctx, "example.com", way != "stopped"))
				w.target.set(f[3])
				w.source.set(f[4])
				got := w.login(config.IMAP)
				_, state := w.account()
				got = fmt.Sprintf("%d %d %s %s", w.target.count(), w.source.count(), got, state)
				if want := strings.Join(f[5:], " "); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				w.target.idle() // what was opened only to ask is closed
				w.source.idle()
			})
		}
	}
}

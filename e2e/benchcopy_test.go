//go:build benchcopy

package e2e

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

// The options of make bench-copy, behind -args.
var (
	benchRun    = flag.String("run", "small,real,far,huge,many", "which mailboxes, with commas between them")
	benchTools  = flag.String("tools", "migproxy,mbsync,doveadm", "which tools, with commas between them")
	benchRounds = flag.Int("rounds", 3, "how often each is copied; medians are printed")
)

// benchMailbox is a mailbox to be copied.
type benchMailbox struct {
	name, what        string
	messages, folders int
	size              func(*rand.Rand) int
	roundTrip         time.Duration
	rounds            int // at most; 0 is as the options say
	alone             bool
}

// lognormal gives message sizes as mailboxes have them: most are small, and most
// of the octets are in a few large ones.
func lognormal(median float64) func(*rand.Rand) int {
	return func(r *rand.Rand) int { return min(300+int(median*math.Exp(1.87*r.NormFloat64())), 8<<20) }
}

func octets(n int) func(*rand.Rand) int { return func(*rand.Rand) int { return n } }

var benchMailboxes = []benchMailbox{
	{name: "small", what: "20,000 messages of 3 kB in 4 folders", messages: 20_000, folders: 4, size: octets(3000)},
	{name: "real", what: "4,000 messages of 75 kB on average in 20 folders", messages: 4000, folders: 20, size: lognormal(13_300)},
	{name: "far", what: "401 messages in 10 folders, with a round trip of 20 ms to each server", messages: 401, folders: 10,
		size: lognormal(25_300), roundTrip: 20 * time.Millisecond},
	{name: "huge", what: "one message of 150 MB", messages: 1, folders: 1, size: octets(150_000_000)},
	{name: "many", what: "200,000 messages of 3 kB in one folder, by migproxy only", messages: 200_000, folders: 1, size: octets(3000),
		rounds: 1, alone: true},
}

// TestBenchCopy copies the same mailboxes between the same two Dovecots, in the
// clear, by each tool in turn, and once more with nothing to do.
func TestBenchCopy(t *testing.T) {
	for _, name := range strings.Split(*benchRun, ",") {
		at := slices.IndexFunc(benchMailboxes, func(m benchMailbox) bool { return m.name == name })
		if at < 0 {
			t.Fatalf("-run %s: there is no such mailbox", name)
		}
		t.Run(name, func(t *testing.T) { benchCopy(t, benchMailboxes[at]) })
	}
}

func benchCopy(t *testing.T, m benchMailbox) {
	w := newBenchWorld(t, m)
	fmt.Printf("\n%s: %s, %d MB\n", m.name, m.what, w.octets/1e6)
	rounds := *benchRounds
	if m.rounds > 0 {
		rounds = min(rounds, m.rounds)
	}
	var tools []benchTool
	for _, tool := range allBenchTools {
		if slices.Contains(strings.Split(*benchTools, ","), tool.name) && (tool.name == "migproxy" || !m.alone) {
			tools = append(tools, tool)
		}
	}
	runs := map[string][]copied{}
	for range rounds {
		for _, tool := range tools {
			user := w.nextUser()
			c := tool.copy(t, w, user)
			w.verify(user)
			w.forget(user)
			runs[tool.name] = append(runs[tool.name], c)
		}
	}
	table := map[string]copied{}
	for name, all := range runs {
		table[name] = medians(all)
	}
	printTable(m, tools, table)
}

// cost is what one pass took.
type cost struct {
	wall, cpu float64 // seconds; of the tool's own processes, system time included
	peak      float64 // resident set size, MiB
}

// copied are the first pass and one with nothing to do.
type copied struct{ first, again cost }

func medians(all []copied) copied {
	median := func(of func(copied) float64) float64 {
		values := make([]float64, len(all))
		for i, c := range all {
			values[i] = of(c)
		}
		slices.Sort(values)
		return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
	}
	return copied{
		first: cost{median(func(c copied) float64 { return c.first.wall }), median(func(c copied) float64 { return c.first.cpu }),
			median(func(c copied) float64 { return c.first.peak })},
		again: cost{median(func(c copied) float64 { return c.again.wall }), median(func(c copied) float64 { return c.again.cpu }),
			median(func(c copied) float64 { return c.again.peak })},
	}
}

func printTable(m benchMailbox, tools []benchTool, table map[string]copied) {
	fmt.Printf("%-10s %8s %8s %8s %8s | %s\n", "", "wall s", "msg/s", "CPU s", "peak MiB", "nothing to do: wall s, CPU s, peak MiB")
	for _, tool := range tools {
		c := table[tool.name]
		fmt.Printf("%-10s %8.2f %8.0f %8.2f %8.1f | %6.2f %6.2f %6.1f\n", tool.name, c.first.wall,
			float64(m.messages)/c.first.wall, c.first.cpu, c.first.peak, c.again.wall, c.again.cpu, c.again.peak)
	}
	own, ok := table["migproxy"]
	for _, tool := range tools {
		if other := table[tool.name]; ok && tool.name != "migproxy" {
			fmt.Printf("migproxy is %.2f times as fast as %s, for %.2f of its CPU seconds and %.2f of its memory; with nothing to do %.2f times as fast\n",
				other.first.wall/own.first.wall, tool.name, own.first.cpu/other.first.cpu, own.first.peak/other.first.peak, other.again.wall/own.again.wall)
		}
	}
}

// benchWorld is two Dovecots, and a mailbox on the source of which every run
// gets a copy.
type benchWorld struct {
	t              testing.TB
	source, target *servers.Dovecot
	// These are the ports that clients use.
	sourcePort, targetPort int
	messages               int
	octets                 int64
	users                  int
}

package proxy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

// decisions is the table of the design, written out. The columns: state; origin;
// may the account begin (in the wave and active) y/n; adopt y/n; without
// progress for longer than parking.max y/n; what the target and what the source
// say; and then who is asked, in order (t, s; r is an attempt to begin the work
// again), and the result. * is anything, and the first line that fits counts. A ! after
// unavailable: it counts for the limits.
const decisions = `
unknown      *       * n * yes         *           t  native
unknown      *       y y * yes         yes         ts adopt
unknown      *       n y * yes         yes         ts at_source
unknown      *       * y * yes         miss        ts native
unknown      *       * y * yes         refused     ts refused
unknown      *       * y * yes         unavailable ts unavailable
unknown      *       * * * refused     *           t  refused
unknown      *       y * * miss        yes         ts begin
unknown      *       n * * miss        yes         ts at_source
unknown      *       * * * miss        miss        ts miss
unknown      *       * * * miss        refused     ts refused
unknown      *       * * * miss        unavailable ts unavailable!
unknown      *       y * * unavailable *           t  unavailable
unknown      *       n * * unavailable yes         ts source
unknown      *       n * * unavailable miss        ts unavailable!
unknown      *       n * * unavailable refused     ts refused
unknown      *       n * * unavailable unavailable ts unavailable

at_source    *       n * * *           yes         s  source
at_source    *       y n * yes         yes         st native
at_source    *       y y * yes         yes         st adopt
at_source    *       y * * miss        yes         st begin
at_source    *       y * * unavailable yes         st source
at_source    *       y * * refused     yes         st refused
at_source    *       * * * *           unavailable s  unavailable
at_source    *       * * * *           refused     s  refused
at_source    *       * * * yes         miss        st native
at_source    *       * * * miss        miss        st miss
at_source    *       * * * refused     miss        st refused
at_source    *       * * * unavailable miss        st unavailable!

active       *       * * * yes         *           t  target
active       *       * * * miss        *           t  miss
active       *       * * * refused     *           t  refused
active       *       * * * unavailable *           t  unavailable
finished     *       * * * yes         *           t  target
finished     *       * * * miss        *           t  miss
finished     *       * * * refused     *           t  refused
finished     *       * * * unavailable *           t  unavailable
native       *       * * * yes         *           t  target
native       *       * * * miss        *           t  miss
native       *       * * * refused     *           t  refused
native       *       * * * unavailable *           t  unavailable

provisioning adopted * * * yes         *           t  target
provisioning adopted * * * miss        *           t  miss
provisioning adopted * * * refused     *           t  refused
provisioning adopted * * * unavailable *           t  unavailable
copying      adopted * * * yes         *           t  target
copying      adopted * * * miss        *           t  miss
copying      adopted * * * refused     *           t  refused
copying      adopted * * * unavailable *           t  unavailable
failed       adopted * * * yes         *           t  target
failed       adopted * * * miss        *           t  miss
failed       adopted * * * refused     *           t  refused
failed       adopted * * * unavailable *           t  unavailable
waiting      adopted * * * yes         *           t  target
waiting      adopted * * * miss        *           t  miss
waiting      adopted * * * refused     *           t  refused
waiting      adopted * * * unavailable *           t  unavailable

provisioning *       * * n *           yes         s  park
provisioning *       * * y *           yes         s  source
provisioning *       * * * *           miss        s  miss
provisioning *       * * * *           refused     s  refused
provisioning *       * * * yes         unavailable st park
provisioning *       * * * miss        unavailable st unavailable!
provisioning *       * * * refused     unavailable st unavailable
provisioning *       * * * unavailable unavailable st unavailable
copying      *       * * n *           yes         s  park
copying      *       * * y *           yes         s  source
copying      *       * * * *           miss        s  miss
copying      *       * * * *           refused     s  refused
copying      *       * * * yes         unavailable st park
copying      *       * * * miss        unavailable st unavailable!
copying      *       * * * refused     unavailable st unavailable
copying      *       * * * unavailable unavailable st unavailable

failed       *       * * n *           yes         sr park
failed       *       * * y *           yes         sr source
failed       *       * * * *           miss        s  miss
failed       *       * * * *           refused     s  refused
failed       *       * * * *           unavailable s  unavailable
waiting      *       * * n *           yes         sr park
waiting      *       * * y *           yes         sr source
waiting      *       * * * *           miss        s  miss
waiting      *       * * * *           refused     s  refused
waiting      *       * * * *           unavailable s  unavailable

conflict     *       * * * *           yes         s  source
conflict     *       * * * *           unavailable s  unavailable
conflict     *       * * * *           refused     s  refused
conflict     created * * * *           miss        s  miss
conflict     free    * * * *           miss        s  miss
conflict     *       * * * yes         miss        st target
conflict     *       * * * miss        miss        st miss
conflict     *       * * * refused     miss        st refused
conflict     *       * * * unavailable miss        st unavailable!
excluded     *       * * * *           yes         s  source
excluded     *       * * * *           unavailable s  unavailable
excluded     *       * * * *           refused     s  refused
excluded     created * * * *           miss        s  miss
excluded     free    * * * *           miss        s  miss
excluded     *       * * * yes         miss        st target
excluded     *       * * * miss        miss        st miss
excluded     *       * * * refused     miss        st refused
excluded     *       * * * unavailable miss        st unavailable!
`

var (
	everyState  = append([]string{"unknown"}, asStrings(store.States())...)
	everyOrigin = []string{"-", "free", "created", "adopted"}
	everyAnswer = []string{"yes", "miss", "refused", "unavailable"}
	yesNo       = []string{"y", "n"}
)

func asStrings(states []store.State) (list []string) {
	for _, s := range states {
		list = append(list, string(s))
	}
	return list
}

var outcomes = map[string]upstream.Outcome{"yes": upstream.Accepted, "miss": upstream.Miss,
	"refused": upstream.Refused, "unavailable": upstream.Unavailable}

// expected looks a case up in a table such as decisions.
func expected(t *testing.T, table string, given ...string) (asked, result string) {
	t.Helper()
lines:
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		for i, g := range given {
			if f[i] != "*" && f[i] != g {
				continue lines
			}
		}
		return f[len(given)], f[len(given)+1]
	}
	t.Fatalf("the table has no line for %v", given)
	return "", ""
}

// play asks until the decision is final, with servers that answer as given.
func play(t *testing.T, f facts, target, source string) (asked, result string) {
	t.Helper()
	for range maxRounds {
		v := decide(f)
		switch v.action {
		case actAskTarget:
			if f.target != 0 {
				t.Fatal("the target was asked twice")
			}
			asked += "t"
			f.target = outcomes[target]
		case actAskSource:
			if f.source != 0 {
				t.Fatal("the source was asked twice")
			}
			asked += "s"
			f.source = outcomes[source]
		case actRevive:
			asked += "r"
			f.tried = true
		case actReject:
			for name, o := range outcomes {
				if o == v.outcome {
					result = name
				}
			}
			if v.outcome == upstream.Held {
				result = "held"
			}
			if v.outcome == upstream.Unavailable && f.missed() {
				result += "!"
			}
			return asked, result
		default:
			return asked, map[action]string{actRelayTarget: "target", actRelaySource: "source", actNoteNative: "native",
				actNoteAtSource: "at_source", actBegin: "begin", actAdopt: "adopt", actPark: "park", actAwait: "await"}[v.action]
		}
	}
	t.Fatal("no decision")
	return "", ""
}

func TestDecideEverything(t *testing.T) {
	for _, state := range everyState {
		for _, origin := range everyOrigin {
			for _, may := range yesNo {
				for _, adopt := range yesNo {
					for _, stale := range yesNo {
						for _, target := range everyAnswer {
							for _, source := range everyAnswer {
								given := []string{state, origin, may, adopt, stale, target, source}
								checkDecision(t, config.ModeAccounts, given...)
								checkDecision(t, config.ModePasswords, given...)
							}
						}
					}
				}
			}
		}
	}
}

// checkDecision compares one case with decisions, in its columns' order. Where
// only passwords are moved there is nothing to adopt; all else is the same.
func checkDecision(t *testing.T, mode config.Mode, given ...string) {
	t.Helper()
	state, origin, may, adopt, stale, target, source := given[0], given[1], given[2], given[3], given[4], given[5], given[6]
	row := slices.Clone(given)
	if mode == config.ModePasswords {
		row[3] = "n"
	}
	wantAsked, want := expected(t, decisions, row...)
	f := facts{may: may == "y", adopt: adopt == "y", stale: stale == "y", mode: mode, creates: true}
	if state != "unknown" {
		f.account = &store.Account{State: store.State(state), Origin: store.Origin(strings.Trim(origin, "-"))}
	}
	if asked, got := play(t, f, target, source); got != want || asked != wantAsked {
		t.Errorf("%s %v: asked %s, %s; want %s, %s", mode, given, asked, got, wantAsked, want)
	}
	if f.account != nil {
		f.account.Mode = mode
		if parked(f.account.State) && origin != "adopted" && mode != config.ModePasswords {
			return // with parking mode source these have a table of their own
		}
	}
	f.works = true
	if asked, got := play(t, f, target, source); got != want || asked != wantAsked {
		t.Errorf("parking mode source, %s %v: asked %s, %s; want %s, %s", mode, given, asked, got, wantAsked, want)
	}
}

// In parking mode source whoever would be parked goes on working on the source,
// and waits while the last pass before the flip is under way. The columns: state;
// how far the flip has come; delegated y/n; what the target and what the source
// say; who is asked, and the result.
func TestDecideParkedAtSource(t *testing.T) {
	const table = `
*            held    * * *           -  await
failed       *       n * yes         sr source
waiting      *       n * yes         sr source
*            *       * * yes         s  source
*            *       * * miss        s  miss
*            *       * * refused     s  refused
*            *       * * unavailable s  unavailable
`
	for _, state := range []store.State{store.Provisioning, store.Copying, store.Failed, store.Waiting} {
		for _, origin := range []store.Origin{store.OriginUnknown, store.OriginFree, store.OriginCreated} {
			for _, flipping := range []store.Flipping{store.NotFlipping, store.FlipClosing, store.FlipHeld} {
				for _, delegated := range yesNo {
					for _, stale := range yesNo {
						for _, target := range everyAnswer {
							for _, source := range everyAnswer {
								wantAsked, want := expected(t, table, string(state), string(flipping), delegated, target, source)
								f := facts{works: true, stale: stale == "y", delegated: delegated == "y", creates: true,
									account: &store.Account{State: state, Origin: origin, Flipping: flipping, Mode: config.ModeAccounts}}
								if asked, got := play(t, f, target, source); asked != strings.Trim(wantAsked, "-") || got != want {
									t.Errorf("%s %s %q, delegated %s, stale %s, target %s, source %s: asked %s, %s; want %s, %s",
										state, origin, flipping, delegated, stale, target, source, asked, got, wantAsked, want)
								}
							}
						}
					}
				}
			}
		}
	}
}

// Nobody waits for the flip of an account that is not on its way there.
func TestDecideHeldByMistake(t *testing.T) {
	for _, a := range []store.Account{
		{State: store.Active}, {State: store.Excluded}, {State: store.Conflict}, {State: store.AtSource},
		{State: store.Copying, Origin: store.OriginAdopted}, {State: store.Waiting, FlippedAt: time.Unix(1, 0)},
	} {
		a.Flipping = store.FlipHeld
		if _, got := play(t, facts{works: true, account: &a}, "yes", "yes"); got != "target" && got != "source" {
			t.Errorf("%+v: %s", a, got)
		}
	}
}

// An account that flipped and then stopped (its catch-up failed) lives on the
// target all the same.
func TestDecideStoppedAfterFlip(t *testing.T) {
	for _, state := range []store.State{store.Waiting, store.Failed, store.Copying} {
		f := facts{account: &store.Account{State: state, Origin: store.OriginCreated, FlippedAt: time.Unix(1, 0)}, stale: true}
		for answer := range outcomes {
			want := answer
			if answer == "yes" {
				want = "target"
			}
			if asked, got := play(t, f, answer, "yes"); asked != "t" || got != want {
				t.Errorf("%s, target %s: asked %s, %s", state, answer, asked, got)
			}
		}
	}
}

// Nothing is begun or written for somebody who logs in with another's identity.
func TestDecideDelegated(t *testing.T) {
	const table = `
unknown      *       yes         *           t  target
unknown      *       miss        yes         ts source
unknown      *       miss        miss        ts miss
unknown      *       miss        refused     ts refused
unknown      *       miss        unavailable ts unavailable!
unknown      *       refused     *           t  refused
unknown      *       unavailable *           t  unavailable
provisioning -       *           *           -  held
provisioning free    *           *           -  held
provisioning created *           *           -  held
copying      -       *           *           -  held
copying      free    *           *           -  held
copying      created *           *           -  held
active       *       *           *           t  target's
finished     *       *           *           t  target's
native       *       *           *           t  target's
provisioning adopted *           *           t  target's
copying      adopted *           *           t  target's
failed       adopted *           *           t  target's
waiting      adopted *           *           t  target's
*            *       *           yes         s  source
*            *       *           miss        s  miss
*            *       *           refused     s  refused
*            *       *           unavailable s  unavailable
`
	for _, state := range everyState {
		for _, origin := range everyOrigin {
			for _, target := range everyAnswer {
				for _, source := range everyAnswer {
					wantAsked, want := expected(t, table, state, origin, target, source)
					switch {
					case want == "target's" && target == "yes":
						want = "target"
					case want == "target's":
						want = target
					}
					f := facts{may: true, adopt: true, delegated: true}
					if state != "unknown" {
						f.account = &store.Account{State: store.State(state), Origin: store.Origin(strings.Trim(origin, "-"))}
					}
					if asked, got := play(t, f, target, source); got != want || asked != strings.Trim(wantAsked, "-") {
						t.Errorf("%s %s, target %s, source %s: asked %s, %s; want %s, %s", state, origin, target, source, asked, got, wantAsked, want)
					}
				}
			}
		}
	}
}

func TestStale(t *testing.T) {
	now := time.Unix(100_000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, tt := range []struct {
		created, progress time.Time
		want              bool
	}{
		{ago(2 * time.Hour), time.Time{}, true},
		{ago(2 * time.Hour), ago(90 * time.Minute), true},
		{ago(2 * time.Hour), ago(time.Minute), false},
		{ago(time.Minute), time.Time{}, false},
	} {
		if got := isStale(store.Account{CreatedAt: tt.created, ProgressAt: tt.progress}, time.Hour, now); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// With the driver none nothing begins that would need an account to be created:
// the user goes on at the source. All else is as in the table.
func TestDecideWithoutADriver(t *testing.T) {
	for _, state := range everyState {
		for _, may := range yesNo {
			for _, adopt := range yesNo {
				for _, target := range everyAnswer {
					for _, source := range everyAnswer {
						given := []string{state, "created", may, adopt, "n", target, source}
						wantAsked, want := expected(t, decisions, given...)
						if want == "begin" {
							want = "at_source"
							if state == "at_source" {
								want = "source"
							}
						}
						f := facts{may: may == "y", adopt: adopt == "y", mode: config.ModeAccounts}
						if state != "unknown" {
							f.account = &store.Account{State: store.State(state), Origin: store.OriginCreated}
						}
						if asked, got := play(t, f, target, source); asked != wantAsked || got != want {
							t.Errorf("%v: asked %s, %s; want %s, %s", given, asked, got, wantAsked, want)
						}
					}
				}
			}
		}
	}
}

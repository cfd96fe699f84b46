package expect

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin/plugintest/soak"
)

// In random histories, a tracker that is restarted again and again from its records reports
// the same as a tracker that is never restarted. The events of each rule and each violation
// alternate between begin and end.
func TestRestartsChangeNoEvent(t *testing.T) {
	const rules = web + telnet + `
[[expect]]
name = "ssh"
port = 22
for = "0s"
[[forbid]]
name = "nc"
process = "nc"
for = "30s"
[[allow]]
port = "1-1023"
`
	for seed := range uint64(soak.Times(100)) {
		random := rand.New(rand.NewPCG(seed, 6))
		steady, restarted := simulate(t, rules), simulate(t, rules)
		both := []*simulation{steady, restarted}
		var steadyEvents, restartedEvents []string
		for range 60 {
			switch random.IntN(12) {
			case 0, 1:
				restarted.restart()
				restarted.whileDown = false // the only difference
			case 2: // the clock is set
				jump := time.Duration(random.IntN(48)-24) * time.Hour
				for _, s := range both {
					s.clock = s.clock.Add(jump)
				}
			case 3:
				uptime := time.Duration(random.IntN(600)) * time.Second
				for _, s := range both {
					s.clock, s.mono, s.boot = s.clock.Add(time.Minute+uptime), uptime, s.boot+"x"
				}
			}
			step := time.Duration(random.IntN(40)) * time.Second
			listeners := randomListeners(random)
			for _, s := range both {
				s.pass(step)
				s.scan(listeners...)
			}
			for _, e := range steady.last {
				steadyEvents = append(steadyEvents, fmt.Sprintf("%v %v %v", e.Time, e.Tags, e.Fields))
			}
			for _, e := range restarted.last {
				restartedEvents = append(restartedEvents, fmt.Sprintf("%v %v %v", e.Time, e.Tags, e.Fields))
			}
			if a, b := steady.tracker.Points(), restarted.tracker.Points(); !equalPoints(a, b) {
				t.Fatalf("seed %d: points (-steady +restarted):\n%s", seed, cmp.Diff(a, b, cmp.Comparer(samePoint)))
			}
			if !slices.Equal(steadyEvents, restartedEvents) {
				t.Fatalf("seed %d: events (-steady +restarted):\n%s", seed, cmp.Diff(steadyEvents, restartedEvents))
			}
		}
		alternate(t, seed, steady.events)
	}
}

// alternate checks that events alternate between begin and end.
func alternate(t *testing.T, seed uint64, events []string) {
	t.Helper()
	begun := make(map[string]bool)
	for _, e := range events {
		var kind, rest string
		fmt.Sscan(e, &kind)
		rest = e[len(kind):]
		switch kind {
		case "failed":
			if begun["rule"+rest] {
				t.Fatalf("seed %d: %q twice", seed, e)
			}
			begun["rule"+rest] = true
		case "restored":
			if !begun["rule"+rest] {
				t.Fatalf("seed %d: %q without a failure", seed, e)
			}
			begun["rule"+rest] = false
		}
	}
}

// randomListeners returns a random subset of a few listeners.
func randomListeners(random *rand.Rand) []*Listener {
	var all []*Listener
	for _, l := range []*Listener{
		nginx(80), nginx(443), nginx(22, by("sshd")), nginx(23, by("telnetd")), nginx(2000, by("nc")), nginx(2001), nginx(2001, at("::1"), by("x")),
	} {
		switch random.IntN(6) {
		case 0:
			continue
		case 1:
			owned := *l
			unreadable(&owned)
			owned.Tags = tags(&owned)
			l = &owned
		case 2:
			owned := *l
			pending(&owned)
			owned.Tags = tags(&owned)
			l = &owned
		}
		all = append(all, l)
	}
	return all
}

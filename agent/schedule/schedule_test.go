package schedule

import (
	"fmt"
	"testing"
	"time"

	"sockwatch/agent/plugin"
)

// A wallClock is set now and then, while the monotonic clock runs on.
type wallClock struct {
	monotonic time.Duration
	sets      []clockSet // in order
}

type clockSet struct{ at, by time.Duration }

func (c *wallClock) now() time.Time {
	wall := time.Date(2026, 11, 22, 10, 0, 3, 0, time.UTC).Add(c.monotonic)
	for _, s := range c.sets {
		if s.at <= c.monotonic {
			wall = wall.Add(s.by)
		}
	}
	return wall
}

// However the clock is set, two gathers are never closer than a quarter of the interval,
// nor further apart than one and a quarter.
func TestSettingTheClockCausesNoBurst(t *testing.T) {
	const interval = 10 * time.Second
	tests := []struct {
		name string
		sets []clockSet
	}{
		{"never", nil},
		{"back by milliseconds at the tick", []clockSet{{6999 * time.Millisecond, -3 * time.Millisecond}, {27 * time.Second, -3 * time.Millisecond}}},
		{"back by seconds", []clockSet{{15 * time.Second, -4 * time.Second}}},
		{"forward by seconds", []clockSet{{15 * time.Second, 4 * time.Second}}},
		{"back by a day", []clockSet{{15 * time.Second, -24*time.Hour - 3*time.Second}}},
		{"forward by a day", []clockSet{{15 * time.Second, 24*time.Hour + 3*time.Second}}},
		{"a suspended night", []clockSet{{19 * time.Second, 8*time.Hour + 1234*time.Millisecond}}},
		{"again and again", []clockSet{{12 * time.Second, -7 * time.Second}, {33 * time.Second, 5 * time.Second}, {34 * time.Second, -time.Minute}, {57 * time.Second, time.Hour}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &wallClock{sets: tt.sets}
			s := Gathers{Interval: interval, Round: true}
			c.monotonic += s.Next(c.now())
			c.monotonic += s.Next(c.now()) // from the gather at the start to the first tick: any time
			for range 20 {
				wait := s.Next(c.now())
				if wait < interval/4 || wait >= interval+interval/4 {
					t.Fatalf("at %v %v to the next gather", c.monotonic, wait)
				}
				c.monotonic += wait
			}
			if wall := c.now(); !wall.Equal(wall.Truncate(interval)) {
				t.Errorf("in the end gathers are at %v", wall)
			}
		})
	}
}

// Jitter delays each gather separately: over a long time none is skipped, and the
// average interval stays the same.
func TestJitterDoesNotAddUp(t *testing.T) {
	for _, round := range []bool{true, false} {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			c := &wallClock{}
			s := Gathers{Interval: 10 * time.Second, Jitter: plugin.Duration(9 * time.Second), Round: round}
			c.monotonic += s.Next(c.now())
			begin := c.monotonic - s.delay
			const ticks = 1000
			for range ticks {
				c.monotonic += s.Next(c.now())
			}
			took := c.monotonic - s.delay - begin
			if want := ticks * s.Interval; took > want || took < want-s.Interval {
				t.Errorf("%d intervals of %v took %v", ticks, s.Interval, took)
			}
		})
	}
}

func TestUntilTick(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.TimeOnly, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	tests := []struct {
		now             string
		interval, phase time.Duration
		round           bool
		want            time.Duration
	}{
		{now: "10:00:03", interval: 10 * time.Second, phase: 0, round: true, want: 7 * time.Second},
		{now: "10:00:10", interval: 10 * time.Second, phase: 0, round: true, want: 10 * time.Second},
		{now: "10:00:03", interval: 10 * time.Second, phase: 4 * time.Second, round: true, want: time.Second},
		{now: "10:00:05", interval: 10 * time.Second, phase: 4 * time.Second, round: true, want: 9 * time.Second},
		{now: "10:00:03", interval: 10 * time.Second, phase: 0, round: false, want: 10 * time.Second},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.now, tt.interval, tt.phase, tt.round), func(t *testing.T) {
			if got := UntilTick(at(tt.now), tt.interval, tt.phase, tt.round); got != tt.want {
				t.Errorf("untilTick = %v, want %v", got, tt.want)
			}
		})
	}
}

// The hosts of a fleet flush at different times, and each host at the same time after a
// restart.
func TestFlushesOfAFleetAreSpread(t *testing.T) {
	const hosts, interval = 10_000, 10 * time.Second
	var seconds [10]int
	for i := range hosts {
		phase := HostPhase(fmt.Sprintf("web-%05d.example.org", i), "influxdb", interval)
		if again := HostPhase(fmt.Sprintf("web-%05d.example.org", i), "influxdb", interval); again != phase {
			t.Fatalf("phases of one host: %v, %v", phase, again)
		}
		seconds[phase/time.Second]++
	}
	for i, n := range seconds {
		if n < 900 || n > 1100 {
			t.Errorf("%d of %d hosts flush in second %d of 10", n, hosts, i)
		}
	}
	if HostPhase("web", "influxdb", interval) == HostPhase("web", "influxdb-2", interval) {
		t.Error("two outputs of a host have the same phase")
	}
	if got := HostPhase("web", "influxdb", 0); got != 0 {
		t.Errorf("without an interval the phase is %v", got)
	}
}

// Package schedule says when instances act: inputs gather, outputs flush.
package schedule

import (
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"sockwatch/agent/plugin"
)

// Gathers says when one input gathers: at once, then at each tick, each delayed by
// a random jitter. Each wait is computed from the wall clock and measured on the
// monotonic clock. If the clock is set, one tick moves by less than an interval; ticks
// neither bunch nor leave a gap.
type Gathers struct {
	Interval time.Duration
	Jitter   plugin.Duration
	Round    bool
	Prompt   bool // the first gather is not delayed

	ticks int           // so far
	delay time.Duration // jitter of the last tick
}

// Next returns the wait from now until the next tick. It is called at the start and at
// each tick.
func (s *Gathers) Next(now time.Time) time.Duration {
	wait := time.Duration(0)
	if s.ticks > 0 {
		wait = UntilTick(now.Add(-s.delay), s.Interval, 0, s.Round)
	}
	if s.ticks > 1 && wait < s.Interval/4 { // the clock was set back: that tick has just passed
		wait += s.Interval
	}
	wait -= s.delay
	s.ticks++
	s.delay = 0
	if s.ticks > 1 || !s.Prompt {
		s.delay = Jitter(s.Jitter)
	}
	return wait + s.delay
}

// UntilTick returns the wait from now until the next tick: one interval or, if round,
// the time until the clock shows a whole multiple of it plus phase.
func UntilTick(now time.Time, interval, phase time.Duration, round bool) time.Duration {
	if !round {
		return interval
	}
	return now.Add(-phase).Truncate(interval).Add(interval + phase).Sub(now)
}

// HostPhase returns when within an interval an instance acts. It depends on the host, so
// that the hosts of a fleet do not act at the same time, and is the same after a restart. An
// empty host is the system's hostname.
func HostPhase(host, instance string, interval time.Duration) time.Duration {
	if interval <= 0 {
		return 0
	}
	if host == "" {
		host, _ = os.Hostname() // without one, the hosts just act together
	}
	sum := fnv.New64a()
	io.WriteString(sum, host+"\x00"+instance)
	return time.Duration(sum.Sum64() % uint64(interval))
}

// Jitter returns a random time up to limit.
func Jitter(limit plugin.Duration) time.Duration {
	if limit <= 0 {
		return 0
	}
	return rand.N(time.Duration(limit))
}

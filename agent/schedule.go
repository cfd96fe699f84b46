package agent

import (
	"math/rand/v2"
	"time"

	"sockwatch/agent/plugin"
)

// A schedule says when an input gathers: at once, then at each tick, each put off
// by a jitter of its own. Waits are measured on the monotonic clock, and begin
// again from the wall clock at each tick: a clock that is set moves one tick, by less
// than an interval, and neither bunches ticks nor leaves a gap.
type schedule struct {
	interval time.Duration
	jitter   plugin.Duration
	round    bool
	prompt   bool // the first gather is not put off

	ticks  int           // so far
	putOff time.Duration // the last of them, by jitter
}

// next returns how long after now the next tick is due. It is called at the
// beginning and at each tick.
func (s *schedule) next(now time.Time) time.Duration {
	wait := time.Duration(0)
	if s.ticks > 0 {
		wait = untilTick(now.Add(-s.putOff), s.interval, 0, s.round)
	}
	if s.ticks > 1 && wait < s.interval/4 { // the clock was set back: this tick was that one
		wait += s.interval
	}
	wait -= s.putOff
	s.ticks++
	s.putOff = 0
	if s.ticks > 1 || !s.prompt {
		s.putOff = jitter(s.jitter)
	}
	return wait + s.putOff
}

// untilTick returns how long the next tick after now is away: one interval, or,
// rounded, what is left until the clock shows a whole multiple of it plus phase.
func untilTick(now time.Time, interval, phase time.Duration, round bool) time.Duration {
	if !round {
		return interval
	}
	return now.Add(-phase).Truncate(interval).Add(interval + phase).Sub(now)
}

// jitter returns a random time up to limit.
func jitter(limit plugin.Duration) time.Duration {
	if limit <= 0 {
		return 0
	}
	return rand.N(time.Duration(limit))
}

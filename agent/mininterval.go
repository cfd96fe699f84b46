package agent

import "time"

// A slot is the span of min_interval in which points last passed. The zero slot is none.
type slot struct {
	input  *runningInput // whose points passed
	began  time.Time     // when the first points of this input passed
	number int64
}

// next returns the slot of a batch, and whether its points pass. That are the first ones
// in each slot, and the first ones of an input after a start, a reload or a failure. The
// slots of an input that gathers at whole multiples of its interval begin at multiples of
// min_interval plus a phase that differs from host to host, the others when the first
// points passed. They begin a little early, so that neither a slow clock nor jitter moves a
// gather to the slot before.
func (s slot) next(in *runningInput, at time.Time, minInterval, phase time.Duration) (slot, bool) {
	if minInterval == 0 {
		return s, true
	}
	first := s.began.IsZero() || s.input != in || at.Before(s.began)
	if first {
		s.input, s.began = in, at
	}
	number := s.number
	if in == nil || in.RoundInterval {
		if in != nil {
			phase = phase.Truncate(time.Duration(in.Options.Interval))
		}
		s.number = at.Add(min(minInterval/20, time.Second/4)-phase).UnixNano() / int64(minInterval)
	} else {
		s.number = int64((at.Sub(s.began) + minInterval/10) / minInterval)
	}
	return s, first || s.number != number
}

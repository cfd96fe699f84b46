package encode

import "time"

// A minInterval decides which points of an input pass: the first ones in each slot of
// min_interval, and the first ones of an input after a start, a reload or a failure.
type minInterval struct {
	length time.Duration // 0: all points pass
	phase  time.Duration // when slots begin; it differs from host to host, and is less than length
}

// A slot is the span in which points of an input last passed. The zero slot is none.
type slot struct {
	input  *Source   // whose points passed
	began  time.Time // when the first points of this input passed
	number int64
}

// next returns the slot of a batch, and whether its points pass. The slots of an input that
// gathers at multiples of its interval begin at one of these, the others when its first
// points pass. They begin a little early, so that neither the clock nor jitter moves a
// gather to the slot before.
func (m minInterval) next(last slot, in *Source, at time.Time) (slot, bool) {
	if m.length == 0 {
		return last, true
	}
	first := last.began.IsZero() || last.input != in || at.Before(last.began)
	next := slot{input: in, began: last.began}
	if first {
		next.began = at
	}
	switch {
	case in == nil:
	case in.Round:
		phase := m.phase.Truncate(in.Interval)
		early := min(m.length/20, time.Second/4)
		next.number = at.Add(early-phase).UnixNano() / int64(m.length)
	default:
		next.number = int64((at.Sub(next.began) + m.length/10) / m.length)
	}
	return next, first || next.number != last.number
}

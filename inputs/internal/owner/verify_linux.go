package owner

import (
	"context"
	"time"
)

// A verifier visits part of a list at each Update, so that each element is visited once
// within a period.
type verifier[T any] struct {
	period time.Duration
	last   time.Time // the last Update
	next   int       // index in the list
}

// visit visits the elements that are due, until ctx is done.
func (v *verifier[T]) visit(ctx context.Context, now time.Time, all []T, visit func(T)) {
	due := share(len(all), now.Sub(v.last), v.period)
	v.last = now
	for i := range due {
		if i%64 == 63 && !more(ctx) {
			return
		}
		v.next = (v.next + 1) % len(all)
		visit(all[v.next])
	}
}

// A schedule decides in which Updates to verify everything at once, so that this happens within
// each period, if Updates are not farther apart than they were.
type schedule struct {
	last, done      time.Time     // the last Update, and the last verification
	longest, before time.Duration // between two Updates since then, and before it
}

// due reports whether the next Update may be too late.
func (s *schedule) due(now time.Time, period time.Duration) bool {
	first, elapsed := s.last.IsZero(), now.Sub(s.last)
	s.last = now
	if first || elapsed <= 0 {
		return first
	}
	s.longest = max(s.longest, elapsed)
	return now.Add(max(s.longest, s.before)).After(s.done.Add(period))
}

func (s *schedule) finish(now time.Time) { s.done, s.before, s.longest = now, s.longest, 0 }

// share returns how many of n elements are due, if all of them are visited once per period
// and elapsed is the time since the last visit.
func share(n int, elapsed, period time.Duration) int {
	if elapsed <= 0 {
		return 0
	}
	rounds := max(int(period/elapsed), 1)
	return (n + rounds - 1) / rounds
}

// compact removes elements from a list, in place. It also returns the new index of the
// element at index next, or of the one before it.
func compact[T any](list []T, next int, keep func(T) bool) ([]T, int) {
	kept, moved := list[:0], 0
	for i, v := range list {
		if keep(v) {
			kept = append(kept, v)
		}
		if i == next {
			moved = max(len(kept)-1, 0)
		}
	}
	clear(list[len(kept):])
	return kept, moved
}

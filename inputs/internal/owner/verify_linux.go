package owner

import (
	"context"
	"time"
)

// A verifier visits a share of some list at each Update, so that all of it is visited
// once within a period.
type verifier[T any] struct {
	period time.Duration
	last   time.Time // the last Update
	next   int       // in the list
}

// visit visits what is due, as long as ctx allows.
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

// share returns how many of n are due when a round over all of them takes a
// period and the last share was taken that long ago.
func share(n int, elapsed, period time.Duration) int {
	if elapsed <= 0 {
		return 0
	}
	rounds := max(int(period/elapsed), 1)
	return (n + rounds - 1) / rounds
}

// compact keeps some of a list, in place, and returns where the element at index
// next, or the one before it, went.
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

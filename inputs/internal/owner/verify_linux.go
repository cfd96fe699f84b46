package owner

import (
	"context"
	"time"
)

// A verifier looks at a share of what is known at each Update, so that all is looked
// at once within the period: a process that lives may have closed a socket, or become
// another program.
type verifier struct {
	period                  time.Duration
	last                    time.Time
	nextSocket, nextProcess int // in the lists of the Finder
}

// sockets calls verify for the sockets that are due.
func (v *verifier) sockets(ctx context.Context, now time.Time, all []*Socket, verify func(*Socket)) {
	for i := range share(len(all), now.Sub(v.last), v.period) {
		if i%64 == 63 && !more(ctx) {
			return
		}
		v.nextSocket = (v.nextSocket + 1) % len(all)
		verify(all[v.nextSocket])
	}
}

// processes calls verify for the processes that are due.
func (v *verifier) processes(ctx context.Context, now time.Time, all []*Process, verify func(*Process)) {
	for i := range share(len(all), now.Sub(v.last), v.period) {
		if i%64 == 63 && !more(ctx) {
			return
		}
		v.nextProcess = (v.nextProcess + 1) % len(all)
		verify(all[v.nextProcess])
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

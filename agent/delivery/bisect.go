package delivery

import (
	"errors"
	"math"

	"sockwatch/agent/plugin"
)

// An outcome says what happens to the records of one Push.
type outcome int

const (
	failed   outcome = iota // they stay queued and are retried
	stored                  // they leave the queue: all are stored except those named or counted as rejected
	split                   // they stay queued, and the next Push takes fewer
	rejected                // they leave the queue: they can never be stored
)

// A bisect finds the records that a destination rejects without naming them: it halves
// a rejected block until a record is rejected alone. The block is the records of the
// first rejected Push.
type bisect struct {
	atMost   int  // most records in one Push, after ErrTooLarge; 0: no bound
	streak   int  // Pushes of atMost records that were stored since
	left     int  // records of the block not decided yet; 0: no search
	suspects int  // how many of these, oldest first, contain a rejected one
	probes   int  // rejections in this block
	giveUp   bool // the next rejection applies to all that are left
}

// maxProbes bounds the search in a block whose good records are already stored. After
// that many rejections the next one counts for all records that are left: a longer search
// would cost more requests than it is worth.
const maxProbes = 64

// growAfter is how many stored Pushes in a row it takes to try more records again.
const growAfter = 16

// size returns how many records the next Push takes at most.
func (b *bisect) size() int {
	n := math.MaxInt
	switch {
	case b.giveUp:
		n = b.left
	case b.suspects > 0:
		n = max(1, b.suspects/2)
	case b.left > 0:
		n = b.left
	}
	if b.atMost > 0 {
		n = min(n, b.atMost)
	}
	return n
}

// classify returns the outcome for n records whose Push returned err.
func (b *bisect) classify(n int, err error) outcome {
	if _, partial := errors.AsType[*plugin.PartialError](err); partial {
		return stored
	}
	switch {
	case err == nil:
		return stored
	case errors.Is(err, plugin.ErrTooLarge):
		if b.atMost, b.streak = n/2, 0; n > 1 {
			return split
		}
		return rejected // one record was too large by itself: the bound, now 0, is lifted for the others
	case errors.Is(err, plugin.ErrRejected):
		if b.left == 0 {
			b.left = n
		}
		b.probes++
		unnamed, ok := errors.AsType[*plugin.RejectedError](err)
		othersStored := ok && unnamed.OthersStored
		if n == 1 || b.giveUp && othersStored {
			return rejected
		}
		b.suspects = n
		b.giveUp = b.probes >= maxProbes && othersStored
		return split
	default:
		return failed
	}
}

// commit is called when the oldest n records have left the queue, stored or rejected.
func (b *bisect) commit(n int, o outcome) {
	b.left = max(0, b.left-n)
	b.suspects = max(0, b.suspects-n)
	if o == rejected {
		b.suspects = 0
	}
	b.grow(n)
	if b.left == 0 {
		b.probes, b.suspects, b.giveUp = 0, 0, false
	}
}

// grow doubles the bound after growAfter stored Pushes: the records may be smaller now,
// or another server with a larger limit may answer.
func (b *bisect) grow(n int) {
	if b.atMost == 0 || n < b.atMost {
		return
	}
	if b.streak++; b.streak == growAfter {
		b.atMost, b.streak = 2*b.atMost, 0
	}
}

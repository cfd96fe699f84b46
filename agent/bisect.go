package agent

import (
	"errors"
	"math"

	"sockwatch/agent/plugin"
)

// An outcome is what becomes of the records of one Push.
type outcome int

const (
	failed   outcome = iota // they stay, and are tried again
	stored                  // they leave the queue: all but those that were named are stored
	split                   // they stay, and fewer are tried next
	rejected                // they can never be stored
)

// A bisect finds the records that a destination rejects without naming them: those
// that were rejected together are tried in halves until one fails alone. The block
// that it searches are the records of the first Push that was rejected.
type bisect struct {
	atMost   int  // records in one Push after ErrTooLarge; 0: no bound
	streak   int  // Pushes of so many that were stored since
	left     int  // records of the block not decided yet; 0: nothing is searched
	suspects int  // the oldest so many of them hold one that is rejected
	probes   int  // rejections in this block
	giveUp   bool // the next rejection counts for all that is left
}

// maxProbes bounds the search in one block whose good records are stored
// already, so that it costs no more requests than it can save.
const maxProbes = 64

// growAfter is how many Pushes in a row prove that more records may be tried than
// were too large once.
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

// classify returns what becomes of n records whose Push ended in err.
func (b *bisect) classify(n int, err error) outcome {
	switch {
	case err == nil:
		return stored
	case errors.Is(err, plugin.ErrTooLarge):
		if b.atMost, b.streak = n/2, 0; n > 1 {
			return split
		}
		return rejected // the other records may not have been too large, so the bound is dropped
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

// commit notes that the oldest n records have left the queue, stored or rejected.
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

// grow doubles the bound if it has held for a while: what was too large may have been
// larger records, or another server's opinion.
func (b *bisect) grow(n int) {
	if b.atMost == 0 || n < b.atMost {
		return
	}
	if b.streak++; b.streak == growAfter {
		b.atMost, b.streak = 2*b.atMost, 0
	}
}

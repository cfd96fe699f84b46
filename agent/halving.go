package agent

import (
	"errors"
	"math"

	"sockwatch/agent/plugin"
)

// A verdict is what becomes of the records of one Push.
type verdict int

const (
	failed   verdict = iota // they stay, and are tried again
	stored                  // they are delivered
	halved                  // they stay, and fewer are tried next
	rejected                // they can never be stored
)

// A halving finds the records that a destination rejects: those that were
// rejected together are tried in halves until one fails alone. The block that it
// searches are the records of the first Push that was rejected.
type halving struct {
	atMost   int  // records in one Push after ErrTooLarge; 0: no bound
	streak   int  // Pushes of so many that were stored since
	left     int  // records of the block not decided yet; 0: nothing is searched
	suspects int  // the oldest so many of them hold one that is rejected
	probes   int  // rejections in this block
	give     bool // up: the next rejection is meant for all that is left
}

// maxProbes bounds the search in one block whose good records are stored
// already, so that it costs no more requests than it can save.
const maxProbes = 64

// growAfter is how many Pushes in a row prove that more records may be tried than
// were too large once.
const growAfter = 16

// size returns how many records the next Push takes at most.
func (h *halving) size() int {
	n := math.MaxInt
	switch {
	case h.give:
		n = h.left
	case h.suspects > 0:
		n = max(1, h.suspects/2)
	case h.left > 0:
		n = h.left
	}
	if h.atMost > 0 {
		n = min(n, h.atMost)
	}
	return n
}

// judge tells what becomes of n records whose Push ended in err.
func (h *halving) judge(n int, err error) verdict {
	named, isNamed := errors.AsType[*plugin.RejectedError](err)
	switch {
	case err == nil:
		return stored
	case errors.Is(err, plugin.ErrTooLarge):
		if h.atMost, h.streak = n/2, 0; n > 1 {
			return halved
		}
		return rejected // perhaps it alone was what was too large: there is no bound again
	case errors.Is(err, plugin.ErrRejected) || isNamed:
		if h.left == 0 {
			h.left = n
		}
		h.probes++
		othersStored := errors.Is(err, plugin.ErrOthersStored) || isNamed && named.OthersStored
		if n == 1 || isNamed && len(named.Records) == n || h.give && othersStored || errors.Is(err, plugin.ErrAllRejected) {
			return rejected
		}
		h.suspects = n
		h.give = h.probes >= maxProbes && othersStored
		return halved
	default:
		return failed
	}
}

// settle notes that the oldest n records have left the queue, stored or rejected.
func (h *halving) settle(n int, v verdict) {
	h.left = max(0, h.left-n)
	h.suspects = max(0, h.suspects-n)
	if v == rejected {
		h.suspects = 0
	}
	h.grow(n)
	if h.left == 0 {
		h.probes, h.suspects, h.give = 0, 0, false
	}
}

// grow doubles the bound where it has held for a while: what was too large may
// have been larger records, or another server's opinion.
func (h *halving) grow(n int) {
	if h.atMost == 0 || n < h.atMost {
		return
	}
	if h.streak++; h.streak == growAfter {
		h.atMost, h.streak = 2*h.atMost, 0
	}
}

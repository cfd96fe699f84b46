package agent

import (
	"slices"
	"sync"
	"sync/atomic"

	"sockwatch/agent/buffer"
)

// A receipt confirms to an input that the events of a batch are stored: when everybody
// who holds it has released it. What loses an event never releases it. A nil receipt is
// for a batch whose input does not ask.
type receipt struct {
	holds  atomic.Int64
	stored func()
}

// newReceipt returns a receipt that the caller holds; nil if stored is.
func newReceipt(stored func()) *receipt {
	if stored == nil {
		return nil
	}
	r := &receipt{stored: stored}
	r.hold()
	return r
}

func (r *receipt) hold() {
	if r != nil {
		r.holds.Add(1)
	}
}

func (r *receipt) release() {
	if r != nil && r.holds.Add(-1) == 0 {
		r.stored()
	}
}

// A ledger follows the records of a queue in memory, and releases the receipts of events
// that have left it because they were delivered or rejected. It knows of each record how
// it left, since the queue drops the oldest records that are not handed out.
type ledger struct {
	mu    sync.Mutex // held during each call of the queue, which does not wait
	spans []span     // oldest first
	out   int        // records that are handed out
}

// A span is a number of records in a row: a block of events, or any points.
type span struct {
	records int
	receipt *receipt // nil: points
	lost    bool     // some of them were dropped
}

// append appends a block to the queue.
func (l *ledger) append(q buffer.Queue, records [][]byte, r *receipt) (dropped int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if dropped, err = q.Append(records); err != nil {
		return dropped, err
	}
	l.lockedDrop(dropped)
	r.hold()
	if last := len(l.spans) - 1; r == nil && last >= 0 && l.spans[last].receipt == nil {
		l.spans[last].records += len(records)
	} else {
		l.spans = append(l.spans, span{records: len(records), receipt: r})
	}
	return dropped, nil
}

// lockedDrop notes that the queue has dropped n records, the oldest that are not handed
// out.
func (l *ledger) lockedDrop(n int) {
	out := l.out
	for i := range l.spans {
		s := &l.spans[i]
		held := min(out, s.records)
		victims := min(n, s.records-held)
		out, n = out-held, n-victims
		s.records -= victims
		s.lost = s.lost || victims > 0
	}
	l.lockedRemove(0)
}

// peek hands out records of the queue.
func (l *ledger) peek(q buffer.Queue, maxRecords, maxBytes int) ([][]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	records, err := q.Peek(maxRecords, maxBytes)
	l.out = len(records)
	return records, err
}

// ack removes the first n records that were handed out from the queue.
func (l *ledger) ack(q buffer.Queue, n int) error {
	l.mu.Lock()
	err := q.Ack(n)
	l.out = 0
	gone := l.lockedRemove(n)
	l.mu.Unlock()
	for _, r := range gone { // an input may take its time
		r.release()
	}
	return err
}

// lockedRemove removes the first n records, and returns the receipts of those spans of
// which none is left.
func (l *ledger) lockedRemove(n int) (gone []*receipt) {
	l.spans = slices.DeleteFunc(l.spans, func(s span) bool { return s.records == 0 && s.lost })
	for len(l.spans) > 0 {
		s := &l.spans[0]
		k := min(n, s.records)
		s.records, n = s.records-k, n-k
		if s.records > 0 {
			break
		}
		if s.receipt != nil && !s.lost {
			gone = append(gone, s.receipt)
		}
		l.spans = l.spans[1:]
	}
	return gone
}

// releaseAll releases all receipts.
func (l *ledger) releaseAll() {
	l.mu.Lock()
	spans := l.spans
	l.spans = nil
	l.mu.Unlock()
	for _, s := range spans {
		s.receipt.release()
	}
}

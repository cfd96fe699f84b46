package delivery

import (
	"slices"
	"sync"
	"sync/atomic"

	"sockwatch/agent/buffer"
)

// A Receipt confirms to an input that the events of a batch are stored, once every holder
// has released it. A holder that loses an event never releases it. A receipt is nil if the
// input does not ask for confirmation.
type Receipt struct {
	holds  atomic.Int64
	stored func()
}

// NewReceipt returns a receipt that the caller holds, or nil if stored is nil.
func NewReceipt(stored func()) *Receipt {
	if stored == nil {
		return nil
	}
	r := &Receipt{stored: stored}
	r.Hold()
	return r
}

// Hold adds a holder.
func (r *Receipt) Hold() {
	if r != nil {
		r.holds.Add(1)
	}
}

// Release removes a holder. The last one confirms the events.
func (r *Receipt) Release() {
	if r != nil && r.holds.Add(-1) == 0 {
		r.stored()
	}
}

// A ledger tracks the records of a queue in memory, and releases the receipts of events
// that were delivered or rejected. It knows which records were dropped, because the queue
// always drops the oldest records that Peek has not returned.
type ledger struct {
	mu    sync.Mutex // held during each call to the queue, which does not block
	spans []span     // oldest first
	out   int        // records that Peek returned
}

// A span is a run of consecutive records: a block of events, or any number of points.
type span struct {
	records int
	receipt *Receipt // nil: points
	lost    bool     // some of them were dropped
}

// append appends a block of records to the queue.
func (l *ledger) append(q buffer.Queue, records [][]byte, r *Receipt) (dropped int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if dropped, err = q.Append(records); err != nil {
		return dropped, err
	}
	l.lockedDrop(dropped)
	r.Hold()
	if last := len(l.spans) - 1; r == nil && last >= 0 && l.spans[last].receipt == nil {
		l.spans[last].records += len(records)
	} else {
		l.spans = append(l.spans, span{records: len(records), receipt: r})
	}
	return dropped, nil
}

// lockedDrop records that the queue has dropped the oldest n records that Peek has not
// returned.
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

// peek returns records of the queue.
func (l *ledger) peek(q buffer.Queue, maxRecords, maxBytes int) ([][]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	records, err := q.Peek(maxRecords, maxBytes)
	l.out = len(records)
	return records, err
}

// ack removes the first n records that peek returned.
func (l *ledger) ack(q buffer.Queue, n int) error {
	l.mu.Lock()
	err := q.Ack(n)
	l.out = 0
	gone := l.lockedRemove(n)
	l.mu.Unlock()
	for _, r := range gone { // without the lock, since the input may take a while
		r.Release()
	}
	return err
}

// lockedRemove removes the first n records. It returns the receipts of the spans that have
// no records left and lost none.
func (l *ledger) lockedRemove(n int) (gone []*Receipt) {
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
		s.receipt.Release()
	}
}

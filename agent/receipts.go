package agent

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/metric"
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

// An eventInbox holds the events of one output until its queue has taken them. A batch
// that finds the inbox of batches full, or a disk that is full, costs points but no
// events.
type eventInbox struct {
	mu     sync.Mutex
	blocks []*eventBlock // oldest first
	count  int           // of events in them
	log    throttle
}

// An eventBlock holds the events of one batch that pass the filter of one output.
type eventBlock struct {
	events  []metric.Point
	time    time.Time // of the batch
	records [][]byte  // of the events; nil: not encoded yet
	receipt *receipt
}

// maxWaitingEvents is how many events wait for a queue that does not take them.
const maxWaitingEvents = 10_000

// add adds a block. It returns how many events had to go instead, the oldest.
func (in *eventInbox) add(b *eventBlock) (dropped int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.blocks = append(in.blocks, b)
	in.count += len(b.events)
	for in.count > maxWaitingEvents && len(in.blocks) > 1 {
		dropped += in.lockedRemoveFirst()
	}
	return dropped
}

func (in *eventInbox) lockedRemoveFirst() (events int) {
	events = len(in.blocks[0].events)
	in.blocks = slices.Delete(in.blocks, 0, 1)
	in.count -= events
	return events
}

// first returns the oldest block, nil if there is none.
func (in *eventInbox) first() *eventBlock {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.blocks) == 0 {
		return nil
	}
	return in.blocks[0]
}

// remove removes a block that first has returned, unless it was dropped meanwhile.
func (in *eventInbox) remove(b *eventBlock) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.blocks) > 0 && in.blocks[0] == b {
		in.lockedRemoveFirst()
	}
}

// take removes and returns all blocks.
func (in *eventInbox) take() []*eventBlock {
	in.mu.Lock()
	defer in.mu.Unlock()
	blocks := in.blocks
	in.blocks, in.count = nil, 0
	return blocks
}

// takeOver takes over the blocks of the output that this one replaces. They are older
// than its own.
func (in *eventInbox) takeOver(from *eventInbox) {
	blocks := from.take()
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, b := range blocks {
		in.count += len(b.events)
	}
	in.blocks = append(blocks, in.blocks...)
}

// offerEvents puts the events of a batch that the output takes into its inbox.
func (o *runningOutput) offerEvents(b *metric.Batch, r *receipt) {
	events := o.filter.Points(b.Events)
	if len(events) == 0 {
		return
	}
	r.hold()
	dropped := o.events.add(&eventBlock{events: events, time: b.Time, receipt: r})
	o.queue.drop(dropped, errQueueHangs)
}

// fillEvents moves events from the inbox to the queue, and leaves there what the queue
// does not take.
func (o *runningOutput) fillEvents() {
	for b := o.events.first(); b != nil; b = o.events.first() {
		if b.records == nil {
			b.records = encodeEvents(o, b)
		}
		if err := o.enqueueEvents(b.records, b.receipt); err != nil {
			if n := o.events.log.add(len(b.events)); n > 0 {
				o.log.Error("the queue does not take events, will retry", "events", n, "error", err)
			}
			return
		}
		o.events.remove(b)
		b.receipt.release()
	}
}

// encodeEvents returns the records of a block. It is not nil. Events that cannot be
// encoded are rejected.
func encodeEvents(o *runningOutput, b *eventBlock) [][]byte {
	var e encoding
	e.fill(o, nil, b.events, b.time, &encoding{})
	return e.appendRecords([][]byte{})
}

// enqueueEvents appends records to the queue, in several blocks if one is larger than
// the whole limit. A single record that is too large is dropped.
func (o *runningOutput) enqueueEvents(records [][]byte, r *receipt) error {
	if len(records) == 0 {
		return nil
	}
	err := o.enqueue(records, r)
	if _, tooLarge := errors.AsType[*buffer.TooLargeError](err); !tooLarge {
		return err
	}
	half := len(records) / 2
	if half == 0 {
		r.hold() // for ever: it is lost
		o.queue.drop(1, err)
		return nil
	}
	if err := o.enqueueEvents(records[:half], r); err != nil {
		return err
	}
	return o.enqueueEvents(records[half:], r)
}

// closeEvents ends the inbox of an output that is removed, or whose program stops. A
// removed output no longer counts for any receipt.
func (o *runningOutput) closeEvents(removed bool) {
	lost := 0
	for _, b := range o.events.take() {
		lost += len(b.events)
		if removed {
			b.receipt.release()
		}
	}
	o.queue.drop(lost, errQueueHangs)
	if removed && o.queue.ledger != nil {
		o.queue.ledger.releaseAll()
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

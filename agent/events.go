package agent

import (
	"errors"
	"slices"
	"sync"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/calls"
	"sockwatch/agent/delivery"
	"sockwatch/agent/metric"
)

// offerEvents puts the events of a batch that pass the output's filter into its inbox, and
// returns the batch's turn.
func (o *runningOutput) offerEvents(b *metric.Batch, r *delivery.Receipt) (turn int) {
	block := &eventBlock{events: o.encoder.Filter.Points(b.Events), descs: b.Descs, time: b.Time, receipt: r}
	if len(block.events) > 0 {
		r.Hold()
	}
	turn, dropped := o.events.add(block)
	o.queue.Drop(dropped, errNotQueued)
	return turn
}

// fillEvents moves the events of the batches up to a turn from the inbox to the queue.
// Events that the queue does not accept stay in the inbox.
func (o *runningOutput) fillEvents(turn int) {
	for b := o.events.first(turn); b != nil; b = o.events.first(turn) {
		if b.records == nil {
			b.records = o.encoder.EncodeEvents(b.events, b.descs, b.time)
		}
		if err := o.enqueueEvents(b); err != nil {
			if n := o.events.log.Add(len(b.events)); n > 0 {
				o.log.Error("queueing events failed, will retry", "events", n, "error", err)
			}
			return
		}
		o.events.remove(b)
		b.receipt.Release()
	}
}

// enqueueEvents moves the records of a block to the queue, in several parts if all at once would
// exceed the whole limit. A single record that is too large is dropped. After an error the records
// that are not queued remain in the block.
func (o *runningOutput) enqueueEvents(b *eventBlock) error {
	for n := len(b.records); len(b.records) > 0; n = min(n, len(b.records)) {
		err := o.queue.Append(b.records[:n], b.receipt)
		_, tooLarge := errors.AsType[*buffer.TooLargeError](err)
		switch {
		case tooLarge && n > 1:
			n /= 2
			continue
		case tooLarge:
			b.receipt.Hold() // forever: the event is lost
			o.queue.Drop(1, err)
		case err != nil:
			return err
		}
		b.records = b.records[n:]
	}
	return nil
}

// closeEvents empties the inbox of an output when the output is removed or the program stops.
// Receipts no longer wait for a removed output.
func (o *runningOutput) closeEvents(removed bool) {
	lost := 0
	for _, b := range o.events.take() {
		lost += len(b.events)
		if removed {
			b.receipt.Release()
		}
	}
	o.queue.Drop(lost, errNotQueued)
	if removed {
		o.queue.ConfirmAll()
	}
}

// errNotQueued is the reason of events that are dropped before the queue has accepted them.
var errNotQueued = errors.New("the queue does not accept them")

// An eventInbox holds the events of one output until its queue has accepted them. If the
// inbox of batches or the disk is full, a batch loses its points but not its events.
type eventInbox struct {
	mu     sync.Mutex
	blocks []*eventBlock // oldest first
	count  int           // of events in the blocks
	turn   int           // of the last batch
	log    calls.Throttle
}

// An eventBlock holds the events of one batch that pass the filter of one output.
type eventBlock struct {
	events  []metric.Point
	descs   []metric.Desc // of the batch
	time    time.Time     // of the batch
	turn    int           // batches are queued in order of turn
	records [][]byte      // of the events that are not queued yet; nil: not encoded yet
	receipt *delivery.Receipt
}

// maxWaitingEvents is the maximum number of events that wait for a queue to accept them.
const maxWaitingEvents = 10_000

// add adds a block, unless it is empty. It returns the block's turn, and how many of the
// oldest events were dropped to make room.
func (in *eventInbox) add(b *eventBlock) (turn, dropped int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.turn++
	b.turn = in.turn
	if len(b.events) == 0 {
		return in.turn, 0
	}
	in.blocks = append(in.blocks, b)
	in.count += len(b.events)
	for in.count > maxWaitingEvents && len(in.blocks) > 1 {
		dropped += in.lockedRemoveFirst()
	}
	return in.turn, dropped
}

func (in *eventInbox) lockedRemoveFirst() (events int) {
	events = len(in.blocks[0].events)
	in.blocks = slices.Delete(in.blocks, 0, 1)
	in.count -= events
	return events
}

// first returns the oldest block up to a turn, or nil if there is none.
func (in *eventInbox) first(turn int) *eventBlock {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.blocks) == 0 || in.blocks[0].turn > turn {
		return nil
	}
	return in.blocks[0]
}

// remove removes a block that first returned, unless it has been dropped since.
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

// takeOver takes over the blocks of the output that is being replaced. They are older than
// its own.
func (in *eventInbox) takeOver(from *eventInbox) {
	blocks := from.take()
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, b := range blocks {
		b.turn = 0 // before all its own
		in.count += len(b.events)
	}
	in.blocks = append(blocks, in.blocks...)
}

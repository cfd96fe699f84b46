package delivery

import (
	"context"
	"errors"
	"log/slog"
	"math"

	"sockwatch/agent/buffer"
	"sockwatch/agent/calls"
	"sockwatch/agent/health"
	"sockwatch/agent/plugin"
)

// A Queue is the queue of one output. It counts and logs dropped records, and wakes the delivery.
type Queue struct {
	Buffer buffer.Queue // nil until it is opened or taken over
	Dir    string       // the directory of a queue on disk; "": in memory

	limit   plugin.Size
	ledger  *ledger // of a queue in memory; nil: it is on disk
	signals *signals
	name    string // of the output, for the watchdog's message
	calls   *calls.Pending
	health  *health.Output
	log     *slog.Logger

	dropLog, ackLog calls.Throttle
}

// newQueue prepares a queue. request is the size of a full Push in bytes.
func newQueue(c Config, request int) *Queue {
	return &Queue{
		Dir: c.QueueDir, limit: c.BufferLimit, signals: newSignals(int64(request)), name: "outputs." + c.Name, calls: c.Calls, health: c.Health, log: c.Log,
	}
}

// OpenMemory opens a new queue in memory.
func (q *Queue) OpenMemory() { q.Buffer, q.ledger = buffer.NewMemory(int64(q.limit)), &ledger{} }

// OpenDisk opens the queue in its directory.
func (q *Queue) OpenDisk() error {
	opened, err := buffer.OpenDisk(q.Dir, int64(q.limit), q.log)
	if err == nil {
		q.Buffer = opened
	}
	return err
}

// AppendPoints appends one block of records, and counts those that the queue drops. It reports
// false if it has dropped the whole block.
func (q *Queue) AppendPoints(records [][]byte) bool {
	err := q.Append(records, nil)
	switch {
	case errors.Is(err, buffer.ErrFull):
		q.Drop(len(records), nil)
	case err != nil:
		q.Drop(len(records), err)
	}
	return err == nil
}

// Append appends one block of records, and wakes the delivery. It counts older records that the
// queue drops for them. A queue in memory holds the receipt, which may be nil, until the records
// are delivered; a queue on disk has synced them when Append returns. On an error none of the block is
// queued, and nothing is counted as dropped.
func (q *Queue) Append(records [][]byte, r *Receipt) error {
	defer q.calls.Begin(q.name + ": appending to its queue")()
	var dropped int
	var err error
	if q.ledger != nil {
		dropped, err = q.ledger.append(q.Buffer, records, r)
	} else {
		dropped, err = q.Buffer.Append(records)
	}
	q.Drop(dropped, nil)
	if err != nil {
		return err
	}
	n := len(records)
	for _, r := range records {
		n += len(r)
	}
	q.signals.appendedBytes(int64(n), q.Stats().Bytes >= int64(q.limit)/2)
	return nil
}

// Stats returns the state of the queue.
func (q *Queue) Stats() buffer.Stats { return q.Buffer.Stats() }

// peek returns records, as buffer.Queue does.
func (q *Queue) peek(maxRecords, maxBytes int) ([][]byte, error) {
	if q.ledger != nil {
		return q.ledger.peek(q.Buffer, maxRecords, maxBytes)
	}
	return q.Buffer.Peek(maxRecords, maxBytes)
}

// ack removes the first n records that peek returned.
func (q *Queue) ack(n int) {
	var err error
	if q.ledger != nil {
		err = q.ledger.ack(q.Buffer, n)
	} else {
		err = q.Buffer.Ack(n)
	}
	if err != nil && q.ackLog.Add(1) > 0 {
		q.log.Error("queue write failed, delivered points may be sent again", "error", err)
	}
}

// Drop counts and logs dropped records.
func (q *Queue) Drop(n int, err error) {
	if n == 0 {
		return
	}
	q.health.Dropped.Add(int64(n))
	switch n := q.dropLog.Add(n); {
	case n == 0:
	case err != nil:
		q.log.Error("points dropped", "points", n, "error", err)
	default:
		q.log.Error("queue is full, points dropped", "points", n, "buffer_limit", q.limit)
	}
}

// TakeOver takes over the queue of another output.
func (q *Queue) TakeOver(from *Queue) {
	q.Buffer, q.ledger = from.Buffer, from.ledger
	q.Buffer.SetLimit(int64(q.limit))
}

// MoveFrom moves the records of another queue into this one, until ctx is done or an
// error occurs.
func (q *Queue) MoveFrom(ctx context.Context, from *Queue) {
	for ctx.Err() == nil {
		records, err := from.peek(math.MaxInt, int(min(maxPushBytes, q.limit/4)))
		if len(records) == 0 && err == nil {
			return
		}
		if err == nil {
			var dropped int
			dropped, err = q.Buffer.Append(records)
			q.Drop(dropped, nil)
		}
		if err != nil {
			q.log.Error("moving the previous queue failed, the rest stays in it", "error", err)
			return
		}
		from.ack(len(records))
	}
}

// Close closes the queue and logs the points that are left in it.
func (q *Queue) Close() {
	switch n := q.Stats().Records; {
	case n > 0 && q.Dir != "":
		q.log.Info("undelivered points stay queued on disk", "points", n, "queue", q.Dir)
	case n > 0:
		q.health.Dropped.Add(int64(n))
		q.log.Error("undelivered points lost with the queue in memory", "points", n)
	}
	q.health.SetQueue(nil)
	calls.Close(q.Buffer, q.log)
}

// CloseUnused closes the queue of an output that has not started.
func (q *Queue) CloseUnused() {
	if q.Buffer != nil {
		calls.Close(q.Buffer, q.log)
	}
}

// ConfirmAll confirms the events in a queue in memory, although they are not delivered: the output
// was removed, and inputs no longer wait for it.
func (q *Queue) ConfirmAll() {
	if q.ledger != nil {
		q.ledger.releaseAll()
	}
}

// started is called when the delivery begins. If the queue has records already, it wakes it.
func (q *Queue) started() {
	q.health.SetQueue(q.Buffer)
	if q.Stats().Records > 0 {
		put(q.signals.appended)
	}
}

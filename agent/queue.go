package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/calls"
	"sockwatch/agent/health"
	"sockwatch/agent/plugin"
	"sockwatch/agent/schedule"
)

// An outputQueue is the queue of one output. It counts and logs dropped records and
// wakes the delivery.
type outputQueue struct {
	buffer.Queue        // nil until it is opened or taken over
	dir          string // the directory of a queue on disk; "": in memory
	limit        plugin.Size
	request      int64   // bytes of records in a full Push
	ledger       *ledger // of a queue in memory; nil: it is on disk
	health       *health.Output
	log          *slog.Logger

	unsent   atomic.Int64  // bytes appended since the last flush
	appended chan struct{} // holds a token if a record was appended
	full     chan struct{} // holds a token if the queue is half full or has a full request

	dropLog, ackLog calls.Throttle
}

func newOutputQueue(dir string, limit plugin.Size, request int, h *health.Output, log *slog.Logger) *outputQueue {
	return &outputQueue{
		dir: dir, limit: limit, request: int64(request), health: h, log: log,
		appended: make(chan struct{}, 1), full: make(chan struct{}, 1),
	}
}

// openMemory opens a new queue in memory.
func (q *outputQueue) openMemory() { q.Queue, q.ledger = buffer.NewMemory(int64(q.limit)), &ledger{} }

// openDisk opens the queue in its directory.
func (q *outputQueue) openDisk() error {
	opened, err := buffer.OpenDisk(q.dir, int64(q.limit), q.log)
	if err == nil {
		q.Queue = opened
	}
	return err
}

// appendPoints appends one block of records. It reports false if all of them were dropped.
func (q *outputQueue) appendPoints(records [][]byte) bool {
	_, err := q.append(records, nil)
	switch {
	case errors.Is(err, buffer.ErrFull):
		q.drop(len(records), nil)
	case err != nil:
		q.drop(len(records), err)
	}
	return err == nil
}

// append appends one block of records, and wakes the delivery. It counts those that the
// queue has dropped instead. A queue on disk has the events of a receipt when it has
// appended them. On an error nothing of the block is queued.
func (q *outputQueue) append(records [][]byte, r *receipt) (dropped int, err error) {
	if q.ledger != nil {
		dropped, err = q.ledger.append(q.Queue, records, r)
	} else {
		dropped, err = q.Append(records)
	}
	q.drop(dropped, nil)
	if err != nil {
		return dropped, err
	}
	n := len(records)
	for _, r := range records {
		n += len(r)
	}
	q.wake()
	if q.unsent.Add(int64(n)) >= q.request || q.Stats().Bytes >= int64(q.limit)/2 {
		put(q.full)
	}
	return dropped, nil
}

// Peek returns records, as buffer.Queue does.
func (q *outputQueue) Peek(maxRecords, maxBytes int) ([][]byte, error) {
	if q.ledger != nil {
		return q.ledger.peek(q.Queue, maxRecords, maxBytes)
	}
	return q.Queue.Peek(maxRecords, maxBytes)
}

// Ack removes records that Peek returned, as buffer.Queue does.
func (q *outputQueue) Ack(n int) error {
	if q.ledger != nil {
		return q.ledger.ack(q.Queue, n)
	}
	return q.Queue.Ack(n)
}

// drop counts and logs dropped records.
func (q *outputQueue) drop(n int, err error) {
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

// ack removes the first n records that Peek returned.
func (q *outputQueue) ack(n int) {
	if err := q.Ack(n); err != nil && q.ackLog.Add(1) > 0 {
		q.log.Error("queue write failed, delivered points may be sent again", "error", err)
	}
}

// takeOver takes over the queue of another output.
func (q *outputQueue) takeOver(from *outputQueue) {
	q.Queue, q.ledger = from.Queue, from.ledger
	q.SetLimit(int64(q.limit))
}

// moveFrom moves the records of another queue into this one, until ctx is done or an
// error occurs.
func (q *outputQueue) moveFrom(ctx context.Context, from *outputQueue) {
	for ctx.Err() == nil {
		records, err := from.Peek(math.MaxInt, int(min(maxPushBytes, q.limit/4)))
		if len(records) == 0 && err == nil {
			return
		}
		if err == nil {
			var dropped int
			dropped, err = q.Append(records)
			q.drop(dropped, nil)
		}
		if err != nil {
			q.log.Error("moving the previous queue failed, the rest stays in it", "error", err)
			return
		}
		from.ack(len(records))
	}
}

// close closes the queue and logs the points that are left in it.
func (q *outputQueue) close() {
	switch n := q.Stats().Records; {
	case n > 0 && q.dir != "":
		q.log.Info("undelivered points stay queued on disk", "points", n, "queue", q.dir)
	case n > 0:
		q.health.Dropped.Add(int64(n))
		q.log.Error("undelivered points lost with the queue in memory", "points", n)
	}
	q.health.SetQueue(nil)
	calls.Close(q.Queue, q.log)
}

// wake wakes the delivery.
func (q *outputQueue) wake() { put(q.appended) }

// flushed is called when a flush begins.
func (q *outputQueue) flushed() {
	q.unsent.Store(0)
	select {
	case <-q.full:
	default:
	}
}

// put puts a token into a channel with room for one.
func put(token chan<- struct{}) {
	select {
	case token <- struct{}{}:
	default:
	}
}

// A flushSchedule says when an output drains its queue: at each tick of its interval,
// at once if that is 0 or the queue fills up, and when the output ends.
type flushSchedule struct {
	interval, phase time.Duration
	jitter          plugin.Duration
	queue           *outputQueue
	stopping        <-chan struct{} // closed when the program stops
	filled          <-chan struct{} // closed when nothing more will be queued
}

// await waits for the next flush. It reports false when nothing more will be queued.
func (f *flushSchedule) await(ctx context.Context) bool {
	if calls.IsClosed(f.stopping) {
		select {
		case <-f.queue.appended:
			return true
		case <-f.filled:
		case <-ctx.Done():
		}
		return false
	}
	var tick <-chan time.Time
	appended := f.queue.appended
	if f.interval > 0 {
		appended = nil
		t := time.NewTimer(schedule.UntilTick(time.Now(), f.interval, f.phase, true))
		defer t.Stop()
		tick = t.C
	}
	select {
	case <-tick:
	case <-appended:
	case <-f.queue.full:
		return true
	case <-f.stopping:
		return true
	case <-f.filled:
		return false
	case <-ctx.Done():
		return false
	}
	if f.jitter <= 0 {
		return true
	}
	t := time.NewTimer(schedule.Jitter(f.jitter))
	defer t.Stop()
	select {
	case <-t.C:
	case <-f.queue.full:
	case <-f.stopping:
	case <-f.filled:
	case <-ctx.Done():
		return false
	}
	return true
}

// makeStateDirectory creates the state directory if it does not exist, and checks that
// this user or root owns it (see buffer.MakeDirectory). It gives up when ctx is done.
func makeStateDirectory(ctx context.Context, c *calls.Pending, path string) error {
	if path == "" {
		return nil
	}
	var err error
	if !c.Within(ctx, "creating the state directory", func() { err = buffer.MakeDirectory(path) }) {
		return fmt.Errorf("agent.state_directory: %q: %w", path, calls.ErrDiskHangs)
	}
	if err != nil {
		return fmt.Errorf("agent.state_directory: %w", err)
	}
	return nil
}

// reportBacklogs logs the queues on disk that no configured output drains.
func reportBacklogs(a *Agent) {
	if a.Options.StateDirectory == "" {
		return
	}
	used := map[string]bool{}
	for _, p := range a.Push {
		used[queueDir(a, p)] = true
	}
	entries, err := os.ReadDir(a.Options.StateDirectory)
	if err != nil {
		a.Log.Warn("cannot look for queues without an output", "error", err)
	}
	for _, e := range entries {
		dir := filepath.Join(a.Options.StateDirectory, e.Name())
		if !e.IsDir() || used[dir] {
			continue
		}
		points, bytes, err := buffer.Backlog(dir)
		if err != nil {
			a.Log.Warn("cannot read a queue without an output", "error", err)
		} else if points > 0 {
			a.Log.Warn("queue without an output, its points wait for an output of that name", "queue", dir, "points", points, "bytes", bytes)
		}
	}
}

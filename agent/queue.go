package agent

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/plugin"
)

// An outputQueue is the queue of one output with its rules: what it drops is counted
// and logged, and it tells the delivery what to flush.
type outputQueue struct {
	buffer.Queue        // nil until it is opened or taken over
	dir          string // of a queue on disk; "": in memory
	limit        plugin.Size
	request      int64 // bytes of records in a full Push
	health       *outputHealth
	log          *slog.Logger

	unsent   atomic.Int64  // bytes of records appended since the last flush
	appended chan struct{} // holds a token if something was appended
	full     chan struct{} // holds a token if the queue is half full, or holds a full request

	dropLog, ackLog throttle
}

func newOutputQueue(dir string, limit plugin.Size, request int, h *outputHealth, log *slog.Logger) *outputQueue {
	return &outputQueue{
		dir: dir, limit: limit, request: int64(request), health: h, log: log,
		appended: make(chan struct{}, 1), full: make(chan struct{}, 1),
	}
}

// openMemory opens a new queue in memory.
func (q *outputQueue) openMemory() { q.Queue = buffer.NewMemory(int64(q.limit)) }

// openDisk opens the queue in its directory.
func (q *outputQueue) openDisk() error {
	opened, err := buffer.OpenDisk(q.dir, int64(q.limit), q.log)
	if err == nil {
		q.Queue = opened
	}
	return err
}

// append appends one block of records. It reports whether nothing was dropped.
func (q *outputQueue) append(records [][]byte) bool {
	dropped, err := q.Append(records)
	if err != nil {
		dropped += len(records)
	}
	q.drop(dropped, err)
	n := len(records)
	for _, r := range records {
		n += len(r)
	}
	q.wake()
	if q.unsent.Add(int64(n)) >= q.request || q.Stats().Bytes >= int64(q.limit)/2 {
		put(q.full)
	}
	return dropped == 0
}

// drop counts records that the queue did not take or keep.
func (q *outputQueue) drop(n int, err error) {
	if n == 0 {
		return
	}
	q.health.dropped.Add(int64(n))
	switch n := q.dropLog.add(n); {
	case n == 0:
	case err != nil:
		q.log.Error("points dropped", "points", n, "error", err)
	default:
		q.log.Error("points dropped: the queue is full", "points", n, "buffer_limit", q.limit)
	}
}

// ack removes the first n of the records that were handed out.
func (q *outputQueue) ack(n int) {
	if err := q.Ack(n); err != nil && q.ackLog.add(1) > 0 {
		q.log.Error("queue: delivered points may be sent again", "error", err)
	}
}

// takeOver takes over the very queue of another output.
func (q *outputQueue) takeOver(from *outputQueue) {
	q.Queue = from.Queue
	q.SetLimit(int64(q.limit))
}

// moveFrom moves what another queue holds into this one, as far as it goes.
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
			q.log.Error("the previous queue is not taken over completely", "error", err)
			return
		}
		from.ack(len(records))
	}
}

// close closes the queue and reports what it holds.
func (q *outputQueue) close() {
	switch n := q.Stats().Records; {
	case n > 0 && q.dir != "":
		q.log.Info("not delivered, kept in its queue", "points", n, "queue", q.dir)
	case n > 0:
		q.health.dropped.Add(int64(n))
		q.log.Error("not delivered, lost with the queue in memory", "points", n)
	}
	q.health.watch(nil)
	closeIf(q.Queue, q.log)
}

// wake tells the delivery that there is something to deliver.
func (q *outputQueue) wake() { put(q.appended) }

// flushed is called when a flush begins.
func (q *outputQueue) flushed() {
	q.unsent.Store(0)
	select {
	case <-q.full:
	default:
	}
}

// put puts a token into a channel that has place for one.
func put(token chan<- struct{}) {
	select {
	case token <- struct{}{}:
	default:
	}
}

// A flushSchedule says when an output delivers what it has queued: at each tick of
// its interval, at once if that is 0 or the queue fills up, and when the output ends.
type flushSchedule struct {
	interval, phase time.Duration
	jitter          plugin.Duration
	queue           *outputQueue
	stopping        <-chan struct{} // closed when the program stops
	filled          <-chan struct{} // closed when nothing more will be queued
}

// await waits for the next flush. It reports false when nothing more will be queued.
func (f *flushSchedule) await(ctx context.Context) bool {
	if isClosed(f.stopping) {
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
		t := time.NewTimer(untilTick(time.Now(), f.interval, f.phase, true))
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
	t := time.NewTimer(jitter(f.jitter))
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

// makeStateDirectory makes the state directory if its parent does not have it, and
// checks that it is this user's or root's (see buffer.MakeDirectory). It gives up when
// ctx is done.
func makeStateDirectory(ctx context.Context, c *calls, path string) error {
	if path == "" {
		return nil
	}
	var err error
	if !c.callWithin(ctx, "making the state directory", func() { err = buffer.MakeDirectory(path) }) {
		return fmt.Errorf("agent.state_directory: %q: %w", path, errDiskHangs)
	}
	if err != nil {
		return fmt.Errorf("agent.state_directory: %w", err)
	}
	return nil
}

// reportBacklogs logs the queues on disk that no output of the configuration empties.
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
		a.Log.Warn("state directory", "error", err)
	}
	for _, e := range entries {
		dir := filepath.Join(a.Options.StateDirectory, e.Name())
		if !e.IsDir() || used[dir] {
			continue
		}
		points, bytes, err := buffer.Backlog(dir)
		if err != nil {
			a.Log.Warn("a queue without an output", "error", err)
		} else if points > 0 {
			a.Log.Warn("a queue without an output: an output of its name would deliver it", "queue", dir, "points", points, "bytes", bytes)
		}
	}
}

// A throttle lets a repeated message through once a minute.
type throttle struct {
	mu    sync.Mutex
	last  time.Time
	count int
}

// add counts n and returns the count since the last message if one is due, else 0.
func (t *throttle) add(n int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count += n
	if t.count == 0 || !t.last.IsZero() && time.Since(t.last) < time.Minute {
		return 0
	}
	n, t.count, t.last = t.count, 0, time.Now()
	return n
}

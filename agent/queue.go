package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/plugin"
)

// An outputQueue is the queue of one output, which tells the delivery of what was
// appended.
type outputQueue struct {
	buffer.Queue       // nil until it is opened or taken over
	limit        int64 // bytes, as the Queue counts them
	request      int64 // bytes of records in a full Push
	unsent       atomic.Int64
	appended     chan struct{} // holds a token if something was appended
	full         chan struct{} // holds a token if the queue is half full, or holds a full request
}

func newOutputQueue(limit, request int64) *outputQueue {
	return &outputQueue{limit: limit, request: request, appended: make(chan struct{}, 1), full: make(chan struct{}, 1)}
}

// append appends one block of records. dropped counts all records that are lost, those
// of the block too.
func (q *outputQueue) append(records [][]byte) (dropped int, err error) {
	dropped, err = q.Queue.Append(records)
	if err != nil {
		dropped += len(records)
	}
	n := len(records)
	for _, r := range records {
		n += len(r)
	}
	q.wake()
	if q.unsent.Add(int64(n)) >= q.request || q.Stats().Bytes >= q.limit/2 {
		put(q.full)
	}
	return dropped, err
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

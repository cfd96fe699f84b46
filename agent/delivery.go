package agent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"sockwatch/agent/buffer"
	"sockwatch/agent/plugin"
)

// A retry says how long to wait after failures in a row: exponentially longer
// with full jitter, so that a fleet does not come back to its server as one herd.
type retry struct{ *backoff.ExponentialBackOff }

func newRetry() retry {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.Multiplier, b.MaxInterval = time.Second, 2, 30*time.Second
	b.RandomizationFactor = 1
	return retry{b}
}

// maxRetryAfter caps what a destination may ask for.
const maxRetryAfter = 10 * time.Minute

func (r retry) wait(err error) time.Duration {
	if after, ok := errors.AsType[*plugin.RetryAfterError](err); ok && after.Wait > 0 {
		return min(after.Wait, maxRetryAfter)
	}
	return r.NextBackOff()
}

// settle lets the records of a Push leave the queue, or stay in it, as its error
// says. It returns the error after which they are to be pushed again.
func (p *livePush) settle(h *halving, records [][]byte, err error) error {
	p.settling.Lock()
	defer p.settling.Unlock()
	if p.disowned.Load() {
		return context.Canceled
	}
	done, verdict := len(records), h.judge(len(records), err)
	switch verdict {
	case stored:
		p.health.written.Add(int64(done))
	case rejected:
		if kerr := p.reject(records, err); kerr != nil {
			verdict, err = failed, kerr
		}
	}
	switch verdict {
	case stored, rejected:
		h.settle(done, verdict)
		err = nil
	case halved:
		done, err = 0, nil
	case failed:
		p.health.errors.Add(1)
		p.health.retried.Add(int64(done))
		done = 0
	}
	if p.disowned.Load() { // while a disk hung
		return context.Canceled
	}
	if aerr := p.queue.Ack(done); aerr != nil && p.ackLog.add(1) > 0 {
		p.log.Error("queue: delivered points may be sent again", "error", aerr)
	}
	return err
}

// setUp notes the outcome of an attempt and logs where an outage begins and ends;
// within it other errors too, once a minute: some tell each attempt from the last.
func (p *livePush) setUp(err error, wait time.Duration) {
	p.health.up.Store(err == nil)
	before := p.downWith
	switch {
	case err == nil && before == nil:
		return
	case err == nil:
		p.log.Info("delivers again", "queued", p.queue.Stats().Records)
		p.downWith = nil
		return
	case before == nil:
		p.downLog = throttle{}
	case err.Error() == before.Error():
		return
	}
	if p.downLog.add(1) > 0 {
		p.log.Warn("not delivered, queued", "error", err, "queued", p.queue.Stats().Records, "retry_in", wait.Round(time.Millisecond))
		p.downWith = err
	}
}

// reject keeps records that can never be stored in the dead letter file, where
// there is one, and counts them. On an error they are neither kept nor counted.
func (p *livePush) reject(records [][]byte, cause error) error {
	letters := make([]buffer.DeadLetter, len(records))
	for i, r := range records {
		letters[i] = buffer.DeadLetter{Record: r, Reason: cause}
	}
	if err := p.letters.Add(letters); err != nil {
		return fmt.Errorf("rejected points cannot be kept: %w (they were rejected by: %v)", err, cause)
	}
	p.health.rejected.Add(int64(len(records)))
	n := p.rejectLog.add(len(records))
	switch {
	case n == 0:
	case p.letters.Path() == "":
		p.log.Warn("points rejected; without a state directory they are not kept", "points", n, "error", cause, "first", firstOf(records))
	default:
		p.log.Warn("points rejected", "points", n, "error", cause, "kept_in", p.letters.Path())
	}
	return nil
}

// rejectUnencoded is for a point that the output cannot encode: there is no
// record that could wait in the queue until the dead letter file takes it.
func (p *livePush) rejectUnencoded(series string, cause error) {
	cause = fmt.Errorf("encode: %w", cause)
	if err := p.reject([][]byte{[]byte(series)}, cause); err != nil {
		p.health.rejected.Add(1)
		if n := p.rejectLog.add(1); n > 0 {
			p.log.Error("points rejected and not kept", "points", n, "error", err)
		}
	}
}

func firstOf(records [][]byte) string { return string(records[0][:min(len(records[0]), 300)]) }

// drop counts records that had no place in the queue.
func (p *livePush) drop(n int, err error) {
	p.health.dropped.Add(int64(n))
	if n = p.dropLog.add(n); n > 0 {
		if err != nil {
			p.log.Error("points dropped", "points", n, "error", err)
		} else {
			p.log.Error("points dropped: the queue is full", "points", n, "buffer_limit", p.Options.BufferLimit)
		}
	}
}

// deadLetterPath returns the dead-letter file of an output; "" keeps none.
func deadLetterPath(stateDir, output string) string {
	if stateDir == "" {
		return ""
	}
	return filepath.Join(stateDir, output+".rejected.jsonl")
}

// queueDir returns where the output's queue lives; "" for memory.
func queueDir(a *Agent, p *Push) string {
	state := a.Options.StateDirectory
	if state == "" || p.Options.Buffer == "memory" || p.Options.Buffer == "auto" && p.Plugin.MemoryOnly {
		return ""
	}
	return filepath.Join(state, p.Name)
}

// openQueue opens the output's own queue, and gives up when ctx is done.
func (p *livePush) openQueue(ctx context.Context) error {
	if p.queueDir != "" {
		var q buffer.Queue
		var err error
		if !unlessHung(ctx, func() { q, err = buffer.OpenDisk(p.queueDir, int64(p.Options.BufferLimit), p.log) }) {
			return fmt.Errorf("queue %q: %w", p.queueDir, errDiskHangs)
		}
		p.queue = q
		return err
	}
	p.queue = buffer.NewMemory(int64(p.Options.BufferLimit))
	if p.Options.Buffer == "auto" && !p.Plugin.MemoryOnly {
		p.log.Warn("the queue is in memory: a restart loses what is not delivered; agent.state_directory keeps it")
	}
	return nil
}

var errDiskHangs = errors.New("the disk hangs")

// makeStateDirectory makes the state directory, which must be this user's or
// root's, and gives up when ctx is done.
func makeStateDirectory(ctx context.Context, path string) error {
	if path == "" {
		return nil
	}
	var err error
	if !unlessHung(ctx, func() { err = buffer.MakeDirectory(path) }) {
		return fmt.Errorf("agent.state_directory: %q: %w", path, errDiskHangs)
	}
	if err != nil {
		return fmt.Errorf("agent.state_directory: %w", err)
	}
	return nil
}

// reportBacklogs logs the queues on disk that no output of the configuration
// empties.
func (r *run) reportBacklogs(a *Agent) {
	if a.Options.StateDirectory == "" {
		return
	}
	used := map[string]bool{}
	for _, p := range a.Push {
		used[queueDir(a, p)] = true
	}
	entries, err := os.ReadDir(a.Options.StateDirectory)
	if err != nil {
		r.log.Warn("state directory", "error", err)
	}
	for _, e := range entries {
		dir := filepath.Join(a.Options.StateDirectory, e.Name())
		if !e.IsDir() || used[dir] {
			continue
		}
		points, bytes, err := buffer.Backlog(dir)
		if err != nil {
			r.log.Warn("a queue without an output", "error", err)
		} else if points > 0 {
			r.log.Warn("a queue without an output: an output of its name would deliver it", "queue", dir, "points", points, "bytes", bytes)
		}
	}
}

// handsOver reports whether next takes over the very queue of p.
func (p *livePush) handsOver(next *livePush) bool {
	return p.queueDir == next.queueDir
}

// inherit takes over what the output of the same name before has queued. What
// is on disk does not move to memory: it stays, and is reported.
func (p *livePush) inherit(cut context.Context, old *livePush, wait time.Duration) {
	if p.queue == nil {
		p.queue = old.queue
		p.queue.SetLimit(int64(p.Options.BufferLimit))
		return
	}
	if p.queueDir != "" || old.queueDir == "" {
		unlessHung(cut, func() { p.takeOver(cut, old.queue) })
	}
	old.closeQueue(wait)
}

// takeOver moves what old holds into the queue of p, as far as it goes.
func (p *livePush) takeOver(cut context.Context, old buffer.Queue) {
	for cut.Err() == nil {
		records, err := old.Peek(math.MaxInt, maxPushBytes)
		if len(records) == 0 && err == nil {
			return
		}
		if err == nil {
			var dropped int
			if dropped, err = p.queue.Append(records); dropped > 0 {
				p.drop(dropped, nil)
			}
		}
		if err != nil {
			p.log.Error("not all of the queue before is taken over", "error", err)
			return
		}
		if err := old.Ack(len(records)); err != nil {
			p.log.Error("queue: points may be sent again", "error", err)
		}
	}
}

// closeQueue closes the queue of an output that is gone and reports what it
// holds. It leaves a disk alone that hangs for longer than the wait.
func (p *livePush) closeQueue(wait time.Duration) {
	switch n := p.queue.Stats().Records; {
	case n > 0 && p.persistent:
		p.log.Info("not delivered, kept in its queue", "points", n, "queue", p.queueDir)
	case n > 0:
		p.health.dropped.Add(int64(n))
		p.log.Error("not delivered, lost with the queue in memory", "points", n)
	}
	p.health.watch(nil)
	last, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if !unlessHung(last, func() { closeIf(p.queue, p.log) }) {
		p.log.Error("the queue is not closed: its disk hangs", "queue", p.queueDir)
	}
}

// A throttle lets a repeated message through once a minute.
type throttle struct {
	mu    sync.Mutex
	last  time.Time
	count int
}

// add counts n and returns the count since the last message where one is due,
// else 0.
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

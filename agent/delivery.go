package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"sockwatch/agent/buffer"
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
	left     int  // records of the block not decided yet; 0: nothing is searched
	suspects int  // the oldest so many of them hold one that is rejected
	probes   int  // rejections in this block
	give     bool // up: the next rejection is meant for all that is left
}

// maxProbes bounds the search in one block whose good records are stored
// already, so that it costs no more requests than it can save.
const maxProbes = 64

// size returns how many records the next Push takes at most.
func (h *halving) size() int {
	n := math.MaxInt
	switch {
	case h.give:
		return h.left
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
	switch {
	case err == nil:
		h.decided(n, max(0, h.suspects-n))
		return stored
	case errors.Is(err, plugin.ErrTooLarge):
		if n == 1 {
			h.decided(1, 0)
			return rejected
		}
		h.atMost, h.give = n/2, false
		return halved
	case errors.Is(err, plugin.ErrRejected):
		if h.left == 0 {
			h.left = n
		}
		h.probes++
		if n == 1 || h.give || errors.Is(err, plugin.ErrAllRejected) {
			h.decided(n, 0)
			return rejected
		}
		h.suspects = n
		h.give = h.probes >= maxProbes && errors.Is(err, plugin.ErrOthersStored)
		return halved
	default:
		return failed
	}
}

// decided notes that the oldest n records are stored or rejected.
func (h *halving) decided(n, suspects int) {
	h.left, h.suspects = max(0, h.left-n), suspects
	if h.left == 0 {
		h.probes, h.suspects, h.give = 0, 0, false
	}
}

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
	if after, ok := errors.AsType[*plugin.RetryAfterError](err); ok {
		return min(max(after.Wait, 0), maxRetryAfter)
	}
	return r.NextBackOff()
}

// setUp notes the outcome of an attempt and logs each change of it.
func (p *livePush) setUp(err error, wait time.Duration) {
	p.health.up.Store(err == nil)
	switch {
	case err == nil && p.downWith != nil:
		p.log.Info("delivers again", "queued", p.queue.Stats().Records)
	case err != nil && (p.downWith == nil || err.Error() != p.downWith.Error()):
		p.log.Warn("not delivered, queued", "error", err, "queued", p.queue.Stats().Records, "retry_in", wait.Round(time.Millisecond))
	}
	p.downWith = err
}

// reject counts records that can never be stored and keeps them in the dead
// letter file.
func (p *livePush) reject(records [][]byte, err error) {
	p.health.rejected.Add(int64(len(records)))
	kept := p.letters.add(records, err)
	if n := p.rejectLog.add(len(records)); n > 0 {
		log := p.log.With("points", n, "error", err)
		switch {
		case kept != nil:
			log.Error("points rejected and not kept", "because", kept)
		case p.letters.path == "":
			log.Warn("points rejected; without a state directory they are not kept", "first", firstOf(records))
		default:
			log.Warn("points rejected", "kept_in", p.letters.path)
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

// queueDir returns where the output's queue lives; "" for memory.
func queueDir(a *Agent, p *Push) string {
	state := a.Options.StateDirectory
	if state == "" || p.Options.Buffer == "memory" || p.Options.Buffer == "auto" && p.Plugin.MemoryOnly {
		return ""
	}
	return filepath.Join(state, p.Name)
}

// openQueue opens the output's own queue.
func (p *livePush) openQueue() (err error) {
	if p.queueDir != "" {
		p.queue, err = buffer.OpenDisk(p.queueDir, int64(p.Options.BufferLimit), p.log)
		return err
	}
	p.queue = buffer.NewMemory(int64(p.Options.BufferLimit))
	if p.Options.Buffer == "auto" && !p.Plugin.MemoryOnly {
		p.log.Warn("the queue is in memory: a restart loses what is not delivered; agent.state_directory keeps it")
	}
	return nil
}

// makeStateDirectory makes the state directory where its parent lacks it.
func makeStateDirectory(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
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
	entries, err := os.ReadDir(a.Options.StateDirectory)
	if err != nil {
		r.log.Warn("state directory", "error", err)
	}
	for _, e := range entries {
		if p := r.pushes[e.Name()]; !e.IsDir() || p != nil && p.queueDir != "" {
			continue
		}
		dir := filepath.Join(a.Options.StateDirectory, e.Name())
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

// inherit takes over what the output of the same name before has queued.
func (p *livePush) inherit(old *livePush) {
	switch {
	case p.queue == nil && old.abandoned:
		p.queue = buffer.NewMemory(int64(p.Options.BufferLimit))
		p.log.Error("the queue is still in use by the output that the reload replaced: a new one in memory")
	case p.queue == nil:
		p.queue = old.queue
		p.queue.SetLimit(int64(p.Options.BufferLimit))
	case !old.abandoned:
		p.takeOver(old.queue)
	}
}

// takeOver moves what old holds into the queue of p.
func (p *livePush) takeOver(old buffer.Queue) {
	for {
		records, err := old.Peek(math.MaxInt, maxPushBytes)
		if len(records) == 0 || err != nil {
			closeIf(old, p.log)
			return
		}
		dropped, err := p.queue.Append(records)
		if err != nil {
			dropped += len(records)
		}
		if dropped > 0 {
			p.drop(dropped, err)
		}
		if err := old.Ack(len(records)); err != nil {
			p.log.Error("queue: points may be sent again", "error", err)
		}
	}
}

// closeQueue closes the queue of an output that is gone and reports what it
// holds.
func (p *livePush) closeQueue() {
	if p.abandoned {
		return
	}
	switch n := p.queue.Stats().Records; {
	case n > 0 && p.persistent:
		p.log.Info("not delivered, kept in its queue", "points", n, "queue", p.queueDir)
	case n > 0:
		p.health.dropped.Add(int64(n))
		p.log.Error("not delivered, lost with the queue in memory", "points", n)
	}
	closeIf(p.queue, p.log)
	p.health.watch(nil)
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

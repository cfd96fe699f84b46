package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// calls lists the calls into plugins, queues and disks that have not returned.
type calls struct {
	log *slog.Logger

	mu   sync.Mutex
	open map[*string]struct{}
}

// begin lists a call until end is called.
func (c *calls) begin(what string) (end func()) {
	key := &what
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[*string]struct{}{}
	}
	c.open[key] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.open, key)
	}
}

// slowCall is how long callWithin waits before it logs what it waits for.
const slowCall = 10 * time.Second

// callWithin calls f and waits until f returns or ctx is done. It reports whether f has
// returned. If not, f keeps running, and the caller must not read what f writes.
func (c *calls) callWithin(ctx context.Context, what string, f func()) bool {
	slow := time.AfterFunc(slowCall, func() { c.log.Warn("still waiting, perhaps for a disk that is not responding", "call", what) })
	defer slow.Stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer c.begin(what)()
		f()
	}()
	return await(ctx, done)
}

// list returns the calls that have not returned, sorted.
func (c *calls) list() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for what := range maps.Keys(c.open) {
		list = append(list, *what)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// A HungError says that something did not stop in time.
type HungError struct {
	After time.Duration // the grace period
	Calls []string      // calls that have not returned, such as "outputs.influxdb: Push"
}

// Error lists the calls that have not returned.
func (e *HungError) Error() string {
	if len(e.Calls) == 0 {
		return fmt.Sprintf("not stopped within %v", e.After)
	}
	return fmt.Sprintf("not stopped within %v, not returned: %s", e.After, strings.Join(e.Calls, ", "))
}

// await waits until done is closed. It reports false if ctx ends first.
func await(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	return isClosed(done) // select picks at random if both are ready
}

// awaitFor is await with a timeout.
func awaitFor(ctx context.Context, d time.Duration, done <-chan struct{}) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return await(ctx, done)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// sleep waits for d. It reports false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// closeIf closes v if it is an io.Closer.
func closeIf(v any, log *slog.Logger) {
	if c, ok := v.(io.Closer); ok {
		if err := c.Close(); err != nil {
			log.Warn("close failed", "error", err)
		}
	}
}

// recover turns a panic into an error, counts it and logs its stack.
func (c *counter) recover(err *error, log *slog.Logger) {
	if v := recover(); v != nil {
		c.Add(1)
		*err = fmt.Errorf("panic: %v", v)
		log.Error("panic", "value", v, "stack", string(debug.Stack()))
	}
}

var (
	errQueueHangs = errors.New("the disk of the queue is not responding")
	errNotQueued  = errors.New("the queue does not accept them")
	errDiskHangs  = errors.New("the disk is not responding")
	errAbandoned  = errors.New("abandoned")
)

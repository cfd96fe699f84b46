// Package calls makes calls that may hang, panic, or fail again and again: calls of plugins,
// queues and disks.
package calls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Pending lists the calls that have not returned. It is safe for concurrent use.
type Pending struct {
	Log *slog.Logger // used by Within

	mu   sync.Mutex
	open map[*string]struct{}
}

// Begin lists a call until end is called.
func (c *Pending) Begin(what string) (end func()) {
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

// slowCall is how long Within waits before it logs what it waits for.
const slowCall = 10 * time.Second

// Within calls f and waits until f returns or ctx is done. It reports whether f has
// returned. If not, f keeps running, and the caller must not read what f writes.
func (c *Pending) Within(ctx context.Context, what string, f func()) bool {
	slow := time.AfterFunc(slowCall, func() { c.Log.Warn("still waiting, perhaps for a disk that is not responding", "call", what) })
	defer slow.Stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer c.Begin(what)()
		f()
	}()
	return Await(ctx, done)
}

// ErrDiskHangs is the error of a disk that does not respond in time.
var ErrDiskHangs = errors.New("the disk is not responding")

// List returns the calls that have not returned, sorted.
func (c *Pending) List() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for what := range maps.Keys(c.open) {
		list = append(list, *what)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Await waits until done is closed. It reports false if ctx ends first.
func Await(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	return IsClosed(done) // select picks at random if both are ready
}

// AwaitFor is Await with a timeout.
func AwaitFor(ctx context.Context, d time.Duration, done <-chan struct{}) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return Await(ctx, done)
}

// IsClosed reports whether a channel on which nothing is sent is closed.
func IsClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Sleep waits for d. It reports false if ctx ends first.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// Close closes v if it is an io.Closer.
func Close(v any, log *slog.Logger) {
	if c, ok := v.(io.Closer); ok {
		if err := c.Close(); err != nil {
			log.Warn("close failed", "error", err)
		}
	}
}

// Panics counts the panics that were recovered.
type Panics struct{ atomic.Int64 }

// Recover turns a panic into an error, counts it and logs its stack. It is deferred around
// each call of a plugin's method.
func (p *Panics) Recover(err *error, log *slog.Logger) {
	if v := recover(); v != nil {
		p.Add(1)
		*err = fmt.Errorf("panic: %v", v)
		log.Error("panic", "value", v, "stack", string(debug.Stack()))
	}
}

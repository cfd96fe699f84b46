// Package lookup keeps names that a slow service knows, and asks for them in the
// background.
package lookup

import (
	"context"
	"maps"
	"sync"
	"time"
)

// Options says how a Cache asks. It is plain data.
type Options struct {
	Workers int           // lookups at the same time
	Timeout time.Duration // of one round of lookups, however many keys it has
	Wait    time.Duration // longest time that Update waits for names
	Again   time.Duration // when all keys are looked up again
	Retry   time.Duration // when keys whose lookup failed are looked up again
}

// A Cache holds the names of keys. Update and Close are called by one goroutine at a
// time.
type Cache[K comparable] struct {
	lookup  func(ctx context.Context, key K) (string, error)
	options Options

	all    time.Time          // when all keys are due
	retry  time.Time          // when those whose lookup failed are due
	cancel context.CancelFunc // ends the last round
	done   chan struct{}      // closed when the last round has ended; nil before the first

	mu      sync.Mutex
	entries map[K]entry
	changed bool // since the last Update
	slow    bool // the last round took longer than Update waits
}

type entry struct {
	name   string
	failed bool // the last lookup failed; name is older
}

// New returns an empty cache. Its lookup returns "" for a key that has no name, and
// an error if it cannot know; it returns soon after its context has ended. Several
// lookups run at the same time.
func New[K comparable](lookup func(ctx context.Context, key K) (string, error), o Options) *Cache[K] {
	return &Cache[K]{lookup: lookup, options: o, entries: make(map[K]entry)}
}

// Update starts to look up those keys whose names are not known or due again, unless
// an earlier round still runs, and forgets all other keys. It waits a moment for their
// names, but not if the service was slow the last time. It reports whether a name has
// changed since the last call.
func (c *Cache[K]) Update(ctx context.Context, keys map[K]bool, now time.Time) (changed bool) {
	if !c.running() {
		if due := c.due(keys, now); len(due) > 0 {
			c.start(ctx, due)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	changed, c.changed = c.changed, false
	return changed
}

// Name returns the name of a key, or "" if it has none or none is known yet.
func (c *Cache[K]) Name(key K) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries[key].name
}

// Answered reports whether the last lookup of a key has said what its name is, or that it
// has none.
func (c *Cache[K]) Answered(key K) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, asked := c.entries[key]
	return asked && !e.failed
}

// Close cancels the lookups that run and waits for them.
func (c *Cache[K]) Close() {
	if c.done != nil {
		c.cancel()
		<-c.done
	}
}

func (c *Cache[K]) running() bool {
	if c.done == nil {
		return false
	}
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// due returns the keys to look up.
func (c *Cache[K]) due(keys map[K]bool, now time.Time) (due []K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.entries, func(key K, _ entry) bool { return !keys[key] })
	all, retry := !now.Before(c.all), !now.Before(c.retry)
	if all {
		c.all = now.Add(c.options.Again)
	}
	if retry {
		c.retry = now.Add(c.options.Retry)
	}
	for key := range keys {
		e, known := c.entries[key]
		if !known || all || retry && e.failed {
			due = append(due, key)
		}
	}
	return due
}

// start looks keys up, several at a time, and waits a moment for their names.
func (c *Cache[K]) start(ctx context.Context, keys []K) {
	limited, cancel := context.WithTimeout(context.Background(), c.options.Timeout)
	done := make(chan struct{})
	c.cancel, c.done = cancel, done
	go func() {
		defer cancel()
		began := time.Now()
		c.run(limited, keys)
		c.mu.Lock()
		c.slow = time.Since(began) > c.options.Wait
		c.mu.Unlock()
		close(done)
	}()
	c.mu.Lock()
	slow := c.slow
	c.mu.Unlock()
	if slow {
		return
	}
	timer := time.NewTimer(c.options.Wait)
	defer timer.Stop()
	select {
	case <-done:
	case <-ctx.Done():
	case <-timer.C:
	}
}

// run looks up keys until its context ends; the rest fail.
func (c *Cache[K]) run(ctx context.Context, keys []K) {
	next := make(chan K, len(keys))
	for _, key := range keys {
		next <- key
	}
	close(next)
	var workers sync.WaitGroup
	for range min(c.options.Workers, len(keys)) {
		workers.Go(func() {
			for key := range next {
				name, err := "", ctx.Err()
				if err == nil {
					name, err = c.lookup(ctx, key)
				}
				c.store(key, name, err)
			}
		})
	}
	workers.Wait()
}

// store keeps the result of a lookup. After a failed one the name stays.
func (c *Cache[K]) store(key K, name string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.entries[key].name
	if err != nil {
		name = before
	}
	c.entries[key] = entry{name: name, failed: err != nil}
	c.changed = c.changed || name != before
}

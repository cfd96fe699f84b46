// Package lookup caches names from a slow service, and looks them up in the background.
package lookup

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"
)

// Options are the options of a Cache.
type Options struct {
	Workers int           // number of lookups at the same time
	Timeout time.Duration // of one round of lookups, however many keys it has
	Wait    time.Duration // how long Update waits for names at most
	Again   time.Duration // how often all keys are looked up again
	Retry   time.Duration // how often keys whose lookup failed are looked up again
}

// A Cache holds the names of keys. Update and Close must be called by one goroutine at a
// time; Name may be called concurrently.
type Cache[K comparable] struct {
	lookup  func(ctx context.Context, key K) (string, error)
	options Options

	all    time.Time          // when all keys are due again
	retry  time.Time          // when keys whose lookup failed are due again
	cancel context.CancelFunc // ends the last round
	done   chan struct{}      // closed when the last round has ended; nil before the first

	mu      sync.Mutex
	entries map[K]entry
	changed bool // a name has changed since the last Update
	slow    bool // the last round took longer than Options.Wait
}

type entry struct {
	name string
	err  error // of the last lookup, if it failed; name is then an older one
}

// New returns an empty cache. lookup returns "" for a key that has no name, and an error if
// the service did not answer. It must return soon after its context has ended, and may be
// called concurrently.
func New[K comparable](lookup func(ctx context.Context, key K) (string, error), o Options) *Cache[K] {
	return &Cache[K]{lookup: lookup, options: o, entries: make(map[K]entry)}
}

// Update starts a round of lookups for the keys whose names are not known or due again, unless
// an earlier round is still running. It waits for the names up to Options.Wait, but not at all
// if the last round was slow. Unless a round is running, it forgets all keys that are not in
// keys. It reports whether a name has changed since the last call.
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

// Err returns the error of the last lookup of a key, nil if that has said what its name is or that
// it has none, or ErrPending before the first lookup has ended.
func (c *Cache[K]) Err(key K) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, asked := c.entries[key]
	if !asked {
		return ErrPending
	}
	return e.err
}

// ErrPending is the error of a key whose first lookup has not ended.
var ErrPending = errors.New("lookup pending")

// Close cancels the running lookups and waits for them.
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
		if !known || all || retry && e.err != nil {
			due = append(due, key)
		}
	}
	return due
}

// start starts a round of lookups and waits for it, up to Options.Wait.
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

// run looks up keys until its context ends. Lookups that have not begun by then fail.
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

// store stores the result of a lookup. If the lookup failed, the old name stays.
func (c *Cache[K]) store(key K, name string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.entries[key].name
	if err != nil {
		name = before
	}
	c.entries[key] = entry{name: name, err: err}
	c.changed = c.changed || name != before
}

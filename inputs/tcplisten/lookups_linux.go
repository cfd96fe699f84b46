package tcplisten

import (
	"context"
	"maps"
	"sync"
	"time"
)

// lookupTimeout bounds a round of lookups over all that are due.
const lookupTimeout = 10 * time.Second

// lookups looks names up in the background, so that no gather waits long for a
// service that has them.
type lookups[K comparable] struct {
	lookup   func(ctx context.Context, key K) (string, error) // "": it has no name
	patience time.Duration                                    // for names that are at hand
	again    time.Duration                                    // when all are looked up again
	stop     context.CancelFunc                               // of the round under way
	done     chan struct{}                                    // closed when that has ended; nil before the first

	mu    sync.Mutex
	known map[K]string
	due   time.Time // when known is to be looked up again
	news  bool
}

// of returns the name of a key, or "".
func (n *lookups[K]) of(key K) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known[key]
}

// want begins to look up those of the keys that are not known, and all when their
// time has come. It waits a moment for names that are at hand, as those of a file
// are. It tells whether a name has changed since it was called last.
func (n *lookups[K]) want(ctx context.Context, keys map[K]bool, now time.Time) (news bool) {
	if n.idle() {
		if missing := n.missing(keys, now); len(missing) > 0 {
			round, stop := context.WithTimeout(context.Background(), lookupTimeout)
			n.stop, n.done = stop, make(chan struct{})
			go n.round(round, missing, n.done)
			select {
			case <-n.done:
			case <-ctx.Done():
			case <-time.After(n.patience):
			}
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	news, n.news = n.news, false
	return news
}

func (n *lookups[K]) idle() bool {
	if n.done == nil {
		return true
	}
	select {
	case <-n.done:
		n.stop()
		return true
	default:
		return false
	}
}

// missing returns the keys to look up, and forgets those that are not wanted any
// more.
func (n *lookups[K]) missing(keys map[K]bool, now time.Time) (missing []K) {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.known, func(key K, _ string) bool { return !keys[key] })
	all := !now.Before(n.due)
	if all {
		n.due = now.Add(n.again)
	}
	for key := range keys {
		if _, ok := n.known[key]; !ok || all {
			missing = append(missing, key)
		}
	}
	return missing
}

// round looks keys up, a few at a time.
func (n *lookups[K]) round(ctx context.Context, keys []K, done chan<- struct{}) {
	defer close(done)
	var workers sync.WaitGroup
	next := make(chan K)
	for range min(8, len(keys)) {
		workers.Go(func() {
			for key := range next {
				name, err := n.lookup(ctx, key)
				n.learn(key, name, err)
			}
		})
	}
	for _, key := range keys {
		next <- key
	}
	close(next)
	workers.Wait()
}

// learn keeps the name of a key. What was known stays true through an outage.
func (n *lookups[K]) learn(key K, name string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.known[key]
	if err != nil {
		name = before
	}
	if n.known == nil {
		n.known = make(map[K]string)
	}
	n.known[key] = name
	n.news = n.news || name != before
}

// close ends the round under way and waits for it.
func (n *lookups[K]) close() {
	if n.done != nil {
		n.stop()
		<-n.done
	}
}

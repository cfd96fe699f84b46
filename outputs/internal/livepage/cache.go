package livepage

import (
	"net/http"
	"sync"
	"time"

	"sockwatch/outputs/internal/respond"
)

// A cache holds what was made last from the board. The zero value is empty.
type cache[T any] struct {
	mu   sync.Mutex
	last *T
}

// get returns what was made last if it is current. Otherwise it makes it again, from what was
// made last or nil.
func (c *cache[T]) get(isCurrent func(*T) bool, fill func(last *T) *T) *T {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil || !isCurrent(c.last) {
		c.last = fill(c.last)
	}
	return c.last
}

// forget empties the cache.
func (c *cache[T]) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = nil
}

// Limits of a pageCache.
const (
	maxCachedPages = 8
	maxCachedQuery = 2 * maxSearch // bytes
)

// A pageCache holds the last pages of listeners as they were sent, until something on the
// board changes.
type pageCache struct {
	mu         sync.Mutex
	generation <-chan struct{} // of Board.Changed
	pages      map[pageKey]*respond.Response
}

// A pageKey is what a page of listeners depends on, besides the board.
type pageKey struct {
	query         string
	trusted, gzip bool
}

// get returns the page of a key from the cache, or else renders it. generation is the channel
// of Board.Changed before the call.
func (c *pageCache) get(key pageKey, generation <-chan struct{}, render func() (*respond.Response, error)) (*respond.Response, error) {
	if page := c.lookUp(key, generation); page != nil {
		return page, nil
	}
	page, err := render()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation == generation && len(c.pages) < maxCachedPages && len(key.query) <= maxCachedQuery {
		c.pages[key] = page
	}
	return page, nil
}

func (c *pageCache) lookUp(key pageKey, generation <-chan struct{}) *respond.Response {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation != generation {
		c.generation, c.pages = generation, map[pageKey]*respond.Response{}
	}
	return c.pages[key]
}

// forget empties the cache.
func (c *pageCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation, c.pages = nil, nil
}

// keepFor is how long a page keeps what it has made without a reader.
const keepFor = time.Minute

// forget drops what was made for earlier readers. Nobody looks at most hosts most of the
// time.
func (p *Page) forget() {
	p.cached.forget()
	p.snapshots.forget()
	p.timelines.forget()
}

// listenersPage returns the page of listeners.
func (p *Page) listenersPage(r *http.Request, trusted bool) (*respond.Response, error) {
	key := pageKey{query: r.URL.RawQuery, trusted: trusted, gzip: acceptsGzip(r)}
	return p.cached.get(key, p.board.Changed(), compressed(r, func() (*respond.Response, error) {
		return p.html("page", "Listeners", http.StatusOK, p.view(parseQuery(r.URL.Query()), trusted))
	}))
}

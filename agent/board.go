package agent

import (
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sockwatch/agent/filter"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A board holds the latest batch of every source and signals changes. Readers never
// wait.
type board struct {
	mu     sync.Mutex // held by writers
	isOpen atomic.Bool
	latest atomic.Pointer[[]*metric.Batch] // sorted by source; never changed, only replaced
	change atomic.Pointer[chan struct{}]   // closed and replaced at each change
}

func newBoard() *board {
	b := &board{}
	b.changed()
	return b
}

// set replaces the batches of several sources at once. A nil batch removes its source.
func (b *board) set(batches map[string]*metric.Batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := make([]*metric.Batch, 0, len(b.all())+len(batches))
	for _, old := range b.all() {
		if _, replaced := batches[old.Source]; !replaced {
			next = append(next, old)
		}
	}
	for _, batch := range batches {
		if batch != nil {
			next = append(next, batch)
		}
	}
	slices.SortFunc(next, func(a, b *metric.Batch) int { return strings.Compare(a.Source, b.Source) })
	b.latest.Store(&next)
}

// changed wakes everything that waits for a change.
func (b *board) changed() {
	next := make(chan struct{})
	if before := b.change.Swap(&next); before != nil {
		close(*before)
	}
}

// next returns a channel that is closed at the next change.
func (b *board) next() <-chan struct{} { return *b.change.Load() }

// open lets endpoints read the board. It reports whether this was the first call.
func (b *board) open() bool { return b.isOpen.CompareAndSwap(false, true) }

func (b *board) opened() bool { return b.isOpen.Load() }

// forever is the age of a source without a batch.
const forever = time.Duration(math.MaxInt64)

// age returns the time since the source's batch was taken, or forever if it has none.
func (b *board) age(source string) time.Duration {
	for _, batch := range b.all() {
		if batch.Source == source {
			return time.Since(batch.Time)
		}
	}
	return forever
}

func (b *board) all() []*metric.Batch {
	if p := b.latest.Load(); p != nil {
		return *p
	}
	return nil
}

// An eventLog holds the last plugin.MaxEvents events. The zero value is empty.
type eventLog struct {
	mu       sync.Mutex
	events   []metric.Point // at most twice MaxEvents; elements never change
	recalled int            // how many of them, the first, are from before the start
}

// add appends events, oldest first. It does not keep the slice.
func (l *eventLog) add(events []metric.Point) {
	l.mu.Lock()
	defer l.mu.Unlock()
	events = events[max(0, len(events)-plugin.MaxEvents):]
	if len(l.events)+len(events) > 2*plugin.MaxEvents {
		last := slices.Clone(l.last())
		l.recalled = max(0, l.recalled-len(l.events)+len(last))
		l.events = last
	}
	l.events = append(l.events, events...)
}

// recall adds events from before the start, oldest first, before all others. Those of several
// inputs are ordered by time.
func (l *eventLog) recall(events []metric.Point) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := slices.Concat(l.events[:l.recalled], events)
	if l.recalled > 0 {
		slices.SortStableFunc(before, func(a, b metric.Point) int { return a.Time.Compare(b.Time) })
	}
	all := append(before, l.events[l.recalled:]...)
	l.events = slices.Clip(all[max(0, len(all)-plugin.MaxEvents):])
	l.recalled = max(0, len(before)-len(all)+len(l.events))
}

// copyFrom adds the events of another log that pass a filter to an empty log.
func (l *eventLog) copyFrom(from *eventLog, f filter.Filter) {
	from.mu.Lock()
	recalled, events := from.events[:from.recalled:from.recalled], from.events[from.recalled:]
	from.mu.Unlock()
	l.recall(f.Points(recalled))
	l.add(f.Points(events))
}

// all returns the last events, oldest first.
func (l *eventLog) all() []metric.Point {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last()
}

func (l *eventLog) last() []metric.Point {
	n := len(l.events)
	return l.events[max(0, n-plugin.MaxEvents):n:n]
}

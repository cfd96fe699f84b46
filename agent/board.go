package agent

import (
	"context"
	"maps"
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

// A board holds the latest batch of every source. Readers never wait.
type board struct {
	mu     sync.Mutex // of those who change it
	isOpen atomic.Bool
	latest atomic.Pointer[[]*metric.Batch] // sorted by source; never changed, only replaced
}

// set replaces the batches of sources, all at once; a nil batch takes its
// source's off.
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

func (b *board) remove(source string) { b.set(map[string]*metric.Batch{source: nil}) }

// open shows the board to endpoints; true the first time.
func (b *board) open() bool { return b.isOpen.CompareAndSwap(false, true) }

func (b *board) opened() bool { return b.isOpen.Load() }

// forever is the age of what never was.
const forever = time.Duration(math.MaxInt64)

// age returns how long ago the source's batch was begun; forever where it has
// none.
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

// A view is the board as one endpoint sees it: a plugin.Board.
type view struct {
	run    *run
	filter filter.Filter

	mu       sync.Mutex
	filtered map[*metric.Batch]*metric.Batch // of what Latest returned last
}

// Latest returns the latest batches, filtered, ordered by source.
func (v *view) Latest() []*metric.Batch {
	if !v.run.board.opened() {
		return nil
	}
	all := v.run.board.all()
	if v.filter.PassesAll() {
		return all
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.filtered == nil {
		v.filtered = map[*metric.Batch]*metric.Batch{}
	}
	latest := make([]*metric.Batch, len(all))
	for i, b := range all {
		if v.filtered[b] == nil {
			f := *b
			f.Points, f.Events = v.filter.Points(b.Points), nil
			v.filtered[b] = &f
		}
		latest[i] = v.filtered[b]
	}
	maps.DeleteFunc(v.filtered, func(b, _ *metric.Batch) bool { return !slices.Contains(all, b) })
	return latest
}

// Sources returns the state of every input, ordered by name.
func (v *view) Sources() []plugin.SourceState {
	v.run.mu.RLock()
	defer v.run.mu.RUnlock()
	states := make([]plugin.SourceState, 0, len(v.run.inputs))
	for _, name := range slices.Sorted(maps.Keys(v.run.inputs)) {
		in := v.run.inputs[name]
		state := in.health.state(name)
		if tags := in.Plugin.Tags; tags != nil {
			state.Tags = slices.AppendSeq(slices.Clone(tags), maps.Keys(in.Options.Tags))
			slices.Sort(state.Tags)
			state.Tags = slices.Compact(state.Tags)
		}
		states = append(states, state)
	}
	return states
}

// Refresh gathers the inputs whose batch is older than maxAge.
func (v *view) Refresh(ctx context.Context, maxAge time.Duration) error {
	return v.run.refresh(ctx, maxAge)
}

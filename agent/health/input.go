package health

import (
	"sync"
	"sync/atomic"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// An Input counts the gathers of one input.
type Input struct {
	Skipped atomic.Int64 // ticks while a gather was in flight
	Panics  calls.Panics

	gathers, errors, partial atomic.Int64
	added                    time.Time // since when all of these count

	mu       sync.Mutex
	gathered bool      // a gather has ended
	err      error     // of the last gather
	since    time.Time // of the last change of err from or to nil
	failing  bool      // no gather has ended in time since one failed
	duration time.Duration
	points   int
}

// Succeeded records a gather that returned a batch. A late one has already been counted
// as failed. changed: the input was down before. resumed: this is the first gather in
// time after a failure.
func (i *Input) Succeeded(took time.Duration, b *metric.Batch, late bool) (changed, resumed bool) {
	if !late {
		i.gathers.Add(1)
	}
	if b.Partial != "" {
		i.partial.Add(1)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if !late {
		resumed, i.failing = i.failing, false
	}
	return i.lockedEnd(nil, took, len(b.Points)), resumed
}

// Failed records a gather that returned no batch in time. changed: the input was not
// down before. first: this is the first failure after a gather in time.
func (i *Input) Failed(took time.Duration, err error) (changed, first bool) {
	i.gathers.Add(1)
	i.errors.Add(1)
	i.mu.Lock()
	defer i.mu.Unlock()
	first, i.failing = !i.failing, true
	return i.lockedEnd(err, took, 0), first
}

func (i *Input) lockedEnd(err error, took time.Duration, points int) (changed bool) {
	changed = (i.err == nil) != (err == nil)
	if changed || !i.gathered {
		i.since = time.Now()
	}
	i.gathered, i.err, i.duration, i.points = true, err, took, points
	return changed
}

// State returns the result of the last gather and the counters, for a plugin.Board.
func (i *Input) State(name string) plugin.SourceState {
	i.mu.Lock()
	defer i.mu.Unlock()
	return plugin.SourceState{
		Name: name, Gathered: i.gathered, Err: i.err, Since: i.since, Duration: i.duration, Points: i.points,
		Gathers: i.gathers.Load(), FailedGathers: i.errors.Load(), SkippedGathers: i.Skipped.Load(), PartialGathers: i.partial.Load(),
	}
}

func (i *Input) point(name string) metric.Point {
	i.mu.Lock()
	defer i.mu.Unlock()
	return metric.Point{
		Name:  "sockwatch_input",
		Tags:  metric.NewTags("input", name),
		Start: i.added,
		Fields: []metric.Field{
			{Key: "up", Value: metric.Bool(i.gathered && i.err == nil)},
			{Key: "gathers_total", Value: metric.Int(i.gathers.Load())},
			{Key: "gather_errors_total", Value: metric.Int(i.errors.Load())},
			{Key: "gathers_skipped_total", Value: metric.Int(i.Skipped.Load())},
			{Key: "gathers_partial_total", Value: metric.Int(i.partial.Load())},
			{Key: "panics_total", Value: metric.Int(i.Panics.Load())},
			{Key: "gather_duration_seconds", Value: metric.Float(i.duration.Seconds())},
			{Key: "points", Value: metric.Int(int64(i.points))},
		},
	}
}

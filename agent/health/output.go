package health

import (
	"sync"
	"sync/atomic"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/calls"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// An Output counts the points of one output. For an endpoint it holds only the state
// and the panics.
type Output struct {
	Written, Rejected, Dropped, Retried atomic.Int64 // points
	Errors                              atomic.Int64 // failed attempts
	Panics                              calls.Panics
	Endpoint                            atomic.Bool // it serves instead of pushing

	added   time.Time // since when all of these count
	changed func()

	mu    sync.Mutex
	err   error        // of the last attempt; nil if it delivers or serves
	since time.Time    // of the last change of err from or to nil
	queue buffer.Queue // nil: none
}

// NewOutput returns the counters of an output. changed is called when it goes down or up, unless it
// is nil.
func NewOutput(changed func()) *Output {
	now := time.Now()
	return &Output{changed: changed, since: now, added: now}
}

// SetState records the error of an attempt to deliver or to serve, nil if it succeeded.
// It reports whether the output has gone down or up.
func (o *Output) SetState(err error) (changed bool) {
	o.mu.Lock()
	changed = (o.err == nil) != (err == nil)
	if changed {
		o.since = time.Now()
	}
	o.err = err
	o.mu.Unlock()
	if changed && o.changed != nil {
		o.changed()
	}
	return changed
}

// State returns the state of the output, for a plugin.Board.
func (o *Output) State(name string) plugin.OutputState {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := plugin.OutputState{
		Name: name, Endpoint: o.Endpoint.Load(), Err: o.err, Since: o.since, WrittenPoints: o.Written.Load(),
		RejectedPoints: o.Rejected.Load(), DroppedPoints: o.Dropped.Load(), RetriedPoints: o.Retried.Load(),
	}
	if o.queue != nil {
		q := o.queue.Stats()
		s.QueuedPoints, s.QueuedBytes, s.OldestQueued, s.DamagedPoints = q.Records, q.Bytes, q.Oldest, int64(q.Damaged)
	}
	return s
}

// SetQueue sets the queue whose Stats are reported.
func (o *Output) SetQueue(q buffer.Queue) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = q
}

func (o *Output) point(name string, now time.Time) metric.Point {
	s := o.State(name)
	p := metric.Point{
		Name:  "sockwatch_output",
		Tags:  metric.NewTags("output", name),
		Start: o.added,
		Fields: []metric.Field{
			{Key: "up", Value: metric.Bool(s.Err == nil)},
			{Key: "panics_total", Value: metric.Int(o.Panics.Load())},
		},
	}
	if s.Endpoint {
		return p
	}
	age := 0.0
	if !s.OldestQueued.IsZero() {
		age = max(0, now.Sub(s.OldestQueued).Seconds())
	}
	p.Fields = append(p.Fields,
		metric.Field{Key: "written_points_total", Value: metric.Int(s.WrittenPoints)},
		metric.Field{Key: "rejected_points_total", Value: metric.Int(s.RejectedPoints)},
		metric.Field{Key: "dropped_points_total", Value: metric.Int(s.DroppedPoints)},
		metric.Field{Key: "damaged_points_total", Value: metric.Int(s.DamagedPoints)},
		metric.Field{Key: "retried_points_total", Value: metric.Int(s.RetriedPoints)},
		metric.Field{Key: "write_errors_total", Value: metric.Int(o.Errors.Load())},
		metric.Field{Key: "queue_points", Value: metric.Int(int64(s.QueuedPoints))},
		metric.Field{Key: "queue_bytes", Value: metric.Int(s.QueuedBytes)},
		metric.Field{Key: "oldest_queued_seconds", Value: metric.Float(age)},
	)
	return p
}

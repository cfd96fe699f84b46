package agent

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"sockwatch/agent/calls"
	"sync"
	"sync/atomic"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// agentSource is the source of the agent's own points.
const agentSource = "sockwatch"

// health counts what the agent does. It is an input itself: its points take the same
// path as all others.
type health struct {
	version string
	started time.Time

	mu      sync.Mutex
	inputs  map[string]*inputHealth
	outputs map[string]*outputHealth

	config         plugin.ConfigState
	reloadFailures atomic.Int64

	changed func() // called when an output goes down or up, and after a reload
}

// inputHealth counts the gathers of one input.
type inputHealth struct {
	gathers, errors, skipped, partial atomic.Int64
	panics                            calls.Panics
	added                             time.Time // since when they count

	mu       sync.Mutex
	gathered bool      // a gather has ended
	err      error     // of the last gather
	since    time.Time // of the last change of err from or to nil
	failing  bool      // no gather has ended in time since one failed
	duration time.Duration
	points   int
}

// outputHealth counts the points of one output. For an endpoint it holds only the state
// and the panics.
type outputHealth struct {
	written, rejected, dropped, retried, errors atomic.Int64
	panics                                      calls.Panics
	added                                       time.Time // since when they count

	endpoint atomic.Bool
	changed  func()

	mu    sync.Mutex
	err   error        // of the last attempt; nil if it delivers or serves
	since time.Time    // of the last change of err from or to nil
	queue buffer.Queue // nil: none
}

func newHealth(version string, changed func()) *health {
	now := time.Now()
	return &health{
		version: version, started: now, changed: changed, inputs: map[string]*inputHealth{}, outputs: map[string]*outputHealth{},
		config: plugin.ConfigState{Loaded: now},
	}
}

func newOutputHealth(changed func()) *outputHealth {
	now := time.Now()
	return &outputHealth{changed: changed, since: now, added: now}
}

// input returns the counters of an input; they survive its reload.
func (h *health) input(name string) *inputHealth {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inputs[name] == nil {
		h.inputs[name] = &inputHealth{added: time.Now()}
	}
	return h.inputs[name]
}

// output returns the counters of an output; they survive its reload.
func (h *health) output(name string) *outputHealth {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.outputs[name] == nil {
		h.outputs[name] = newOutputHealth(h.changed)
	}
	return h.outputs[name]
}

// forget drops the counters of instances that a reload has removed.
func (h *health) forget(input, output func(name string) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.inputs, func(name string, _ *inputHealth) bool { return input(name) })
	maps.DeleteFunc(h.outputs, func(name string, _ *outputHealth) bool { return output(name) })
}

// reloaded records the result of a reload.
func (h *health) reloaded(err error) {
	h.mu.Lock()
	h.config.Err = err
	if err != nil {
		h.reloadFailures.Add(1)
		h.config.Failed = time.Now()
	} else {
		h.config.Loaded = time.Now()
	}
	h.mu.Unlock()
	h.changed()
}

// state returns the state of the program, its outputs and its configuration.
func (h *health) state() plugin.Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := plugin.Health{Version: h.version, Started: h.started, Config: h.config}
	for _, name := range slices.Sorted(maps.Keys(h.outputs)) {
		s.Outputs = append(s.Outputs, h.outputs[name].state(name))
	}
	return s
}

// succeeded records a gather that returned a batch. A late one has already been counted
// as failed. changed: the input was down before. resumed: this is the first gather in
// time after a failure.
func (i *inputHealth) succeeded(took time.Duration, b *metric.Batch, late bool) (changed, resumed bool) {
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

// failed records a gather that returned no batch in time. changed: the input was not
// down before. first: this is the first failure after a gather in time.
func (i *inputHealth) failed(took time.Duration, err error) (changed, first bool) {
	i.gathers.Add(1)
	i.errors.Add(1)
	i.mu.Lock()
	defer i.mu.Unlock()
	first, i.failing = !i.failing, true
	return i.lockedEnd(err, took, 0), first
}

func (i *inputHealth) lockedEnd(err error, took time.Duration, points int) (changed bool) {
	changed = (i.err == nil) != (err == nil)
	if changed || !i.gathered {
		i.since = time.Now()
	}
	i.gathered, i.err, i.duration, i.points = true, err, took, points
	return changed
}

// state returns the result of the last gather and the counters, for a plugin.Board.
func (i *inputHealth) state(name string) plugin.SourceState {
	i.mu.Lock()
	defer i.mu.Unlock()
	return plugin.SourceState{
		Name: name, Gathered: i.gathered, Err: i.err, Since: i.since, Duration: i.duration, Points: i.points,
		Gathers: i.gathers.Load(), FailedGathers: i.errors.Load(), SkippedGathers: i.skipped.Load(), PartialGathers: i.partial.Load(),
	}
}

// setState records the error of an attempt to deliver or to serve, nil if it succeeded.
// It reports whether the output has gone down or up.
func (o *outputHealth) setState(err error) (changed bool) {
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

// state returns the state of the output, for a plugin.Board.
func (o *outputHealth) state(name string) plugin.OutputState {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := plugin.OutputState{
		Name: name, Endpoint: o.endpoint.Load(), Err: o.err, Since: o.since, WrittenPoints: o.written.Load(),
		RejectedPoints: o.rejected.Load(), DroppedPoints: o.dropped.Load(), RetriedPoints: o.retried.Load(),
	}
	if o.queue != nil {
		q := o.queue.Stats()
		s.QueuedPoints, s.QueuedBytes, s.OldestQueued, s.DamagedPoints = q.Records, q.Bytes, q.Oldest, int64(q.Damaged)
	}
	return s
}

// watch sets the queue whose Stats are reported.
func (o *outputHealth) watch(q buffer.Queue) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = q
}

// asInput returns the input that gathers the agent's own points.
func (h *health) asInput(a *Agent) *Input {
	o := InputOptions{
		Interval: a.Options.Interval, CollectionJitter: a.Options.CollectionJitter,
		Timeout: a.Options.Interval, Tags: a.Tags,
	}
	return &Input{
		Name: agentSource, Options: o, RoundInterval: a.Options.RoundInterval,
		Plugin: plugin.Plugin{Name: agentSource, Descs: Descs}, Input: h,
	}
}

// Gather implements plugin.Input.
func (h *health) Gather(context.Context) (metric.Batch, error) { return h.batch(), nil }

func (h *health) batch() metric.Batch {
	now := time.Now()
	b := metric.Batch{Time: now}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(h.inputs)) {
		if name != agentSource {
			b.Points = append(b.Points, h.inputs[name].point(name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(h.outputs)) {
		b.Points = append(b.Points, h.outputs[name].point(name, now))
	}
	b.Points = append(b.Points, metric.Point{
		Name:  "sockwatch_config",
		Start: h.started,
		Fields: []metric.Field{
			{Key: "last_reload_successful", Value: metric.Bool(h.config.Err == nil)},
			{Key: "last_reload_success_time_seconds", Value: metric.Float(float64(h.config.Loaded.UnixNano()) / 1e9)},
			{Key: "reload_failures_total", Value: metric.Int(h.reloadFailures.Load())},
		},
	}, metric.Point{
		Name:   "sockwatch_build_info",
		Tags:   metric.NewTags("version", h.version, "goversion", runtime.Version()),
		Fields: []metric.Field{{Key: "value", Value: metric.Int(1)}},
	})
	return b
}

func (i *inputHealth) point(name string) metric.Point {
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
			{Key: "gathers_skipped_total", Value: metric.Int(i.skipped.Load())},
			{Key: "gathers_partial_total", Value: metric.Int(i.partial.Load())},
			{Key: "panics_total", Value: metric.Int(i.panics.Load())},
			{Key: "gather_duration_seconds", Value: metric.Float(i.duration.Seconds())},
			{Key: "points", Value: metric.Int(int64(i.points))},
		},
	}
}

func (o *outputHealth) point(name string, now time.Time) metric.Point {
	s := o.state(name)
	p := metric.Point{
		Name:  "sockwatch_output",
		Tags:  metric.NewTags("output", name),
		Start: o.added,
		Fields: []metric.Field{
			{Key: "up", Value: metric.Bool(s.Err == nil)},
			{Key: "panics_total", Value: metric.Int(o.panics.Load())},
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
		metric.Field{Key: "write_errors_total", Value: metric.Int(o.errors.Load())},
		metric.Field{Key: "queue_points", Value: metric.Int(int64(s.QueuedPoints))},
		metric.Field{Key: "queue_bytes", Value: metric.Int(s.QueuedBytes)},
		metric.Field{Key: "oldest_queued_seconds", Value: metric.Float(age)},
	)
	return p
}

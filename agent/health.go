package agent

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// agentSource is the source of the agent's own points.
const agentSource = "sockwatch"

// A counter only grows.
type counter struct{ atomic.Int64 }

// health counts what the agent does, and is an input itself: its points take the
// path of every other.
type health struct {
	version string

	mu      sync.Mutex
	inputs  map[string]*inputHealth
	outputs map[string]*outputHealth

	reloadFailed   atomic.Bool
	loaded         atomic.Int64 // Unix nanoseconds of the last configuration that was taken
	reloadFailures counter
}

// inputHealth counts the gathers of one input.
type inputHealth struct {
	gathers, errors, skipped, partial, panics counter

	mu       sync.Mutex
	known    bool // a gather has ended
	up       bool
	err      error // of the last gather
	duration time.Duration
	points   int
}

// outputHealth counts the points of one output; of an endpoint only up.
type outputHealth struct {
	written, rejected, dropped, retried, errors, panics counter

	up       atomic.Bool
	endpoint atomic.Bool
	mu       sync.Mutex
	queue    buffer.Queue // nil: none
}

func newHealth(version string) *health {
	h := &health{version: version, inputs: map[string]*inputHealth{}, outputs: map[string]*outputHealth{}}
	h.loaded.Store(time.Now().UnixNano())
	return h
}

// input returns the counters of an input; they survive its reload.
func (h *health) input(name string) *inputHealth {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inputs[name] == nil {
		h.inputs[name] = &inputHealth{}
	}
	return h.inputs[name]
}

// output returns the counters of an output; they survive its reload.
func (h *health) output(name string) *outputHealth {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.outputs[name] == nil {
		h.outputs[name] = &outputHealth{}
		h.outputs[name].up.Store(true)
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

// reloaded notes the outcome of a reload.
func (h *health) reloaded(err error) {
	h.reloadFailed.Store(err != nil)
	if err != nil {
		h.reloadFailures.Add(1)
		return
	}
	h.loaded.Store(time.Now().UnixNano())
}

// succeeded notes a gather; true where the input was down before.
func (i *inputHealth) succeeded(took time.Duration, b *metric.Batch) (turned bool) {
	i.gathers.Add(1)
	if b.Partial != "" {
		i.partial.Add(1)
	}
	return i.end(nil, took, len(b.Points))
}

// failed notes a gather without a batch; true where the input was not down before.
func (i *inputHealth) failed(took time.Duration, err error) (turned bool) {
	i.gathers.Add(1)
	i.errors.Add(1)
	return i.end(err, took, 0) || i.gathers.Load() == 1
}

func (i *inputHealth) end(err error, took time.Duration, points int) (turned bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	up := err == nil
	turned = i.known && i.up != up
	i.known, i.up, i.err, i.duration, i.points = true, up, err, took, points
	return turned
}

// state returns the outcome of the last gather, as a Board shows it.
func (i *inputHealth) state(name string) plugin.SourceState {
	i.mu.Lock()
	defer i.mu.Unlock()
	return plugin.SourceState{Name: name, Gathered: i.known, Err: i.err}
}

// watch names the queue whose Stats are shown.
func (o *outputHealth) watch(q buffer.Queue) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = q
}

// asInput returns the instance that gathers the agent's own points.
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

// Gather is plugin.Input's.
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
		Name: "sockwatch_config",
		Fields: []metric.Field{
			{Key: "last_reload_successful", Value: metric.Bool(!h.reloadFailed.Load())},
			{Key: "last_reload_success_time_seconds", Value: metric.Float(float64(h.loaded.Load()) / 1e9)},
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
		Name: "sockwatch_input",
		Tags: metric.NewTags("input", name),
		Fields: []metric.Field{
			{Key: "up", Value: metric.Bool(i.up)},
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
	p := metric.Point{
		Name: "sockwatch_output",
		Tags: metric.NewTags("output", name),
		Fields: []metric.Field{
			{Key: "up", Value: metric.Bool(o.up.Load())},
			{Key: "panics_total", Value: metric.Int(o.panics.Load())},
		},
	}
	if o.endpoint.Load() {
		return p
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var s buffer.Stats
	if o.queue != nil {
		s = o.queue.Stats()
	}
	age := 0.0
	if !s.Oldest.IsZero() {
		age = max(0, now.Sub(s.Oldest).Seconds())
	}
	p.Fields = append(p.Fields,
		metric.Field{Key: "written_points_total", Value: metric.Int(o.written.Load())},
		metric.Field{Key: "rejected_points_total", Value: metric.Int(o.rejected.Load())},
		metric.Field{Key: "dropped_points_total", Value: metric.Int(o.dropped.Load())},
		metric.Field{Key: "damaged_points_total", Value: metric.Int(int64(s.Damaged))},
		metric.Field{Key: "retried_points_total", Value: metric.Int(o.retried.Load())},
		metric.Field{Key: "write_errors_total", Value: metric.Int(o.errors.Load())},
		metric.Field{Key: "queue_points", Value: metric.Int(int64(s.Records))},
		metric.Field{Key: "queue_bytes", Value: metric.Int(s.Bytes)},
		metric.Field{Key: "oldest_queued_seconds", Value: metric.Float(age)},
	)
	return p
}

// Package health counts what the agent does, and returns it as points: the agent's own input.
package health

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// Source is the source of the agent's own points.
const Source = "sockwatch"

// A Registry has the counters of all inputs and outputs, and the state of the program. It is a
// plugin.Input: its points take the same path as all others.
type Registry struct {
	version string
	started time.Time

	mu      sync.Mutex
	inputs  map[string]*Input
	outputs map[string]*Output

	config         plugin.ConfigState
	reloadFailures atomic.Int64

	changed func() // called when an output goes down or up, and after a reload
}

// New returns a Registry without inputs and outputs. changed is called when an output goes down or
// up, and after a reload.
func New(version string, changed func()) *Registry {
	now := time.Now()
	return &Registry{
		version: version, started: now, changed: changed, inputs: map[string]*Input{}, outputs: map[string]*Output{},
		config: plugin.ConfigState{Loaded: now},
	}
}

// Input returns the counters of an input; they survive its reload.
func (h *Registry) Input(name string) *Input {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inputs[name] == nil {
		h.inputs[name] = &Input{added: time.Now()}
	}
	return h.inputs[name]
}

// Output returns the counters of an output; they survive its reload.
func (h *Registry) Output(name string) *Output {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.outputs[name] == nil {
		h.outputs[name] = NewOutput(h.changed)
	}
	return h.outputs[name]
}

// Forget drops the counters of instances that a reload has removed.
func (h *Registry) Forget(input, output func(name string) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.inputs, func(name string, _ *Input) bool { return input(name) })
	maps.DeleteFunc(h.outputs, func(name string, _ *Output) bool { return output(name) })
}

// Reloaded records the result of a reload.
func (h *Registry) Reloaded(err error) {
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

// State returns the state of the program, its outputs and its configuration.
func (h *Registry) State() plugin.Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := plugin.Health{Version: h.version, Started: h.started, Config: h.config}
	for _, name := range slices.Sorted(maps.Keys(h.outputs)) {
		s.Outputs = append(s.Outputs, h.outputs[name].State(name))
	}
	return s
}

// Gather implements plugin.Input.
func (h *Registry) Gather(context.Context) (metric.Batch, error) { return h.Batch(), nil }

// Batch returns the metrics as they are now.
func (h *Registry) Batch() metric.Batch {
	now := time.Now()
	b := metric.Batch{Time: now}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(h.inputs)) {
		if name != Source {
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

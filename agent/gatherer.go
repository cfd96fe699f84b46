package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/health"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A Gatherer gathers one input on demand, for commands without an interval. The input
// stays open between gathers, so that only the first one costs a full scan.
type Gatherer struct {
	in   *runningInput
	idle chan struct{} // holds a token while no gather is in flight
}

// Gatherers returns a Gatherer for each input, in the order of the configuration. It must
// not be combined with Run, or with anything else that gathers the inputs.
func (a *Agent) Gatherers() ([]*Gatherer, error) {
	var all []*Gatherer
	for _, in := range a.Inputs {
		r, err := newInput(a, in, &health.Input{}, &calls.Pending{Log: a.Log})
		if err != nil {
			return nil, err
		}
		g := &Gatherer{in: r, idle: make(chan struct{}, 1)}
		g.idle <- struct{}{}
		all = append(all, g)
	}
	return all, nil
}

// errInFlight is returned by Gather while an earlier gather still hangs.
var errInFlight = errors.New("the previous gather has not ended")

// Name returns the name of the input, as in metrics and logs.
func (g *Gatherer) Name() string { return g.in.Name }

// Gather gathers once and returns the batch as it would be published. It returns at the
// timeout of the input, or when ctx is done, even if the plugin hangs. Until the plugin
// returns, further gathers fail. Errors name the input.
func (g *Gatherer) Gather(ctx context.Context) (*metric.Batch, error) {
	b, err := g.gather(ctx)
	if err != nil {
		return nil, fmt.Errorf("inputs.%s: %w", g.in.Name, err)
	}
	return b, nil
}

func (g *Gatherer) gather(ctx context.Context) (*metric.Batch, error) {
	select {
	case <-g.idle:
	default:
		return nil, errInFlight
	}
	timeout := time.Duration(g.in.Options.Timeout)
	gctx, cancel := context.WithTimeout(ctx, timeout-timeout/10)
	defer cancel()
	type result struct {
		batch *metric.Batch
		err   error
	}
	gathered := make(chan result, 1)
	go func() {
		b, err := g.in.callGather(gctx)
		g.idle <- struct{}{} // before the result: Close and the next Gather may follow at once
		gathered <- result{b, err}
	}()
	overdue := time.NewTimer(timeout)
	defer overdue.Stop()
	select {
	case r := <-gathered:
		return r.batch, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-overdue.C:
		return nil, fmt.Errorf("timed out after %v", timeout)
	}
}

// Limits returns what the last Gather could not see, if the input can say that.
func (g *Gatherer) Limits() []string { return g.in.limits() }

// Watch runs the Watch of the input, if it has one, until ctx is done: changed is called
// when the input asks for a gather, from another goroutine than Gather and without
// waiting for one. It is called after the first Gather, and has to return before Close
// is called.
func (g *Gatherer) Watch(ctx context.Context, changed func()) {
	watcher, ok := g.in.Input.Input.(plugin.Watcher)
	if !ok {
		return
	}
	var err error // logged by Recover
	defer g.in.health.Panics.Recover(&err, g.in.log)
	watcher.Watch(ctx, changed)
}

// Close closes the input, unless a hanging gather still uses it. It is called once, after
// the last Gather has returned.
func (g *Gatherer) Close() {
	select {
	case <-g.idle:
		calls.Close(g.in.Input.Input, g.in.log)
	default:
	}
}

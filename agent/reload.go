package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/filter"
	"sockwatch/agent/health"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// reload adopts the configuration that load returns. If that fails, the running one
// stays.
func (s *supervisor) reload(ctx, haltCtx context.Context, load func() (*Agent, error)) {
	loadCtx, cancel := withGrace(ctx, openGrace)
	defer cancel()
	var next *Agent
	var loadErr error // must not be read, like next, unless load has returned
	c, err := changes{}, errors.New("the program is stopping")
	if s.calls.Within(loadCtx, "reading the configuration", func() { next, loadErr = load() }) {
		if err = loadErr; err == nil {
			c, err = s.adopt(ctx, haltCtx, next)
		}
	}
	s.reloaded(c, err)
}

// openGrace is how long reading or opening a configuration may go on after SIGTERM.
const openGrace = time.Second

// adopt switches to the configuration next. It opens everything new before anything old
// stops; if that fails, nothing changes. It does not wait for replaced instances: the
// new ones do, each in its own goroutine. Inputs and endpoints run until ctx is done,
// outputs until haltCtx is done.
func (s *supervisor) adopt(ctx, haltCtx context.Context, next *Agent) (changes, error) {
	next.Inputs = append(slices.Clip(next.Inputs), next.ownInput(s.health))
	t, err := s.open(ctx, next)
	if err != nil {
		t.undo()
		s.forget()
		return changes{}, err
	}
	defer s.firsts.hold()() // keep the board closed between the old inputs and the new
	switched := time.Now()
	s.switchTo(next, instances{t.inputs.next, t.outputs.next, t.endpoints.next})
	if next.InForce != nil {
		next.InForce()
	}
	s.launch(ctx, haltCtx, t)
	s.retire(haltCtx, t, switched)
	s.retiring.Go(func() {
		s.calls.Within(ctx, "reading the state directory", func() { reportBacklogs(next) })
	})
	return t.changes(), nil
}

// A transition holds what changes from one configuration to the next.
type transition struct {
	inputs    exchange[*runningInput]
	outputs   exchange[*runningOutput] // a new one has no queue yet if it takes over that of the replaced one
	endpoints exchange[*runningEndpoint]
}

// An exchange is the part of a transition for instances of one kind.
type exchange[R configured] struct {
	next map[string]R // all of the next configuration
	new  map[string]R // the part of next that is to be launched
	old  map[string]R // to be retired; replaced if new has the same name
}

// plan compares the running instances with the configured ones, and opens those that
// are new or have changed. alike is false if all have changed, because an option of
// [agent] that they depend on has.
func plan[C, R configured](running map[string]R, next []C, alike bool, open func(c C, old R) (R, error)) (exchange[R], error) {
	x := exchange[R]{next: map[string]R{}, new: map[string]R{}, old: maps.Clone(running)}
	for _, c := range next {
		name := c.name()
		old, ok := running[name]
		if ok && alike && reflect.DeepEqual(old.settings(), c.settings()) {
			x.next[name] = old
			delete(x.old, name)
			continue
		}
		r, err := open(c, old)
		if err != nil {
			return x, fmt.Errorf("%s: %w", c.title(), err)
		}
		x.next[name], x.new[name] = r, r
	}
	return x, nil
}

// open prepares the new and changed instances of next. If a disk is not responding, it
// gives up when ctx has been done for openGrace.
func (s *supervisor) open(ctx context.Context, next *Agent) (t transition, err error) {
	openCtx, cancel := withGrace(ctx, openGrace)
	defer cancel()
	prev := s.config.Options
	if prev.StateDirectory != next.Options.StateDirectory { // if the disk hangs, so does the mkdir of an existing directory
		if err := makeStateDirectory(openCtx, s.calls, next.Options.StateDirectory); err != nil {
			return t, err
		}
	}
	alike := prev.Hostname == next.Options.Hostname && prev.StateDirectory == next.Options.StateDirectory
	t.inputs, err = plan(s.running.inputs, next.Inputs, alike, func(c *Input, _ *runningInput) (*runningInput, error) {
		return s.newInput(next, c)
	})
	if err != nil {
		return t, err
	}
	t.endpoints, err = plan(s.running.endpoints, next.Pull, alike, func(c *Pull, _ *runningEndpoint) (*runningEndpoint, error) {
		e, err := newEndpoint(next, c, s.health.Output(c.Name), s.calls, s)
		if err == nil {
			err = c.Endpoint.Listen(ctx)
		}
		return e, err
	})
	if err != nil {
		return t, err
	}
	inputs := map[string]bool{}
	for _, in := range next.Inputs {
		inputs[in.Name] = true
	}
	t.outputs, err = plan(s.running.outputs, next.Push, alike, func(c *Push, old *runningOutput) (*runningOutput, error) {
		o, err := newOutput(next, c, s.health.Output(c.Name), s.calls, s.stopping)
		if err == nil && (old == nil || old.queue.Dir != o.queue.Dir) {
			err = o.openQueue(openCtx, s.leaving[c.Name])
		}
		if err == nil {
			o.encoder.OpenSeries(openCtx, stateFile(next, c, seriesFile), inputs, old == nil)
		}
		return o, err
	})
	return t, err
}

// newInput prepares an input that publishes on the board and to the outputs.
func (s *supervisor) newInput(a *Agent, c *Input) (*runningInput, error) {
	in, err := newInput(a, c, s.health.Input(c.Name), s.calls)
	if err != nil {
		return nil, err
	}
	in.supervisor = s
	if in.Name == health.Source {
		in.startAfter = s.firsts.opened // when the first gather of every other input has ended
	}
	return in, nil
}

// undo closes what was opened for a transition that failed.
func (t *transition) undo() {
	for _, e := range t.endpoints.new {
		calls.Close(e.Endpoint, e.log)
	}
	for _, o := range t.outputs.new {
		o.queue.CloseUnused()
	}
}

// switchTo replaces the running instances. From here on batches go to the inboxes of
// the new outputs, and batches of the old inputs are no longer shown.
func (s *supervisor) switchTo(config *Agent, running instances) {
	s.mu.Lock()
	for name, e := range running.endpoints {
		switch old := s.running.endpoints[name]; {
		case old == e:
		case old != nil && reflect.DeepEqual(old.Options.Options, e.Options.Options): // the same filter
			e.view.events.copyFrom(&old.view.events, filter.Filter{})
		default:
			e.view.events.copyFrom(&s.events, e.view.filter)
		}
	}
	s.config, s.running = config, running
	s.mu.Unlock()
	s.forget()
}

// forget drops the counters of instances that are not running.
func (s *supervisor) forget() {
	s.health.Forget(
		func(input string) bool { return s.running.inputs[input] == nil },
		func(output string) bool {
			return s.running.outputs[output] == nil && s.running.endpoints[output] == nil
		})
}

// launch starts the new instances, each with the one that it replaces, if any.
func (s *supervisor) launch(ctx, haltCtx context.Context, t transition) {
	for name, e := range t.endpoints.next {
		if t.endpoints.new[name] != e {
			if kept, ok := e.Endpoint.(plugin.Reloader); ok {
				kept.Reload()
			}
			continue
		}
		var live context.Context
		live, e.cancel = context.WithCancel(ctx)
		go e.serve(live, t.endpoints.old[name])
	}
	for name, o := range t.outputs.new {
		replaced := t.outputs.old[name]
		if replaced == nil {
			replaced = s.leaving[name]
		}
		if replaced != nil && !replaced.handOver() {
			replaced = nil // it has ended
		}
		o.start(haltCtx, replaced)
	}
	for _, in := range t.inputs.new {
		if !s.board.opened() && in.startAfter == nil {
			in.firstDone = s.firsts.hold()
		}
	}
	for name, in := range t.inputs.new {
		var live context.Context
		live, in.cancel = context.WithCancel(ctx)
		go in.gatherEvery(live, t.inputs.old[name], s.gracePeriod())
	}
}

// retire ends the old instances, which were replaced or removed at a time. It does not wait
// for them.
func (s *supervisor) retire(haltCtx context.Context, t transition, switched time.Time) {
	wait := s.gracePeriod()
	gone := map[string]*metric.Batch{} // of removed inputs; a replaced one's batch stays until the new one's
	for name, in := range t.inputs.old {
		in.cancel()
		s.retiring.Go(func() { in.retire(haltCtx, wait) })
		if t.inputs.new[name] == nil {
			gone[name] = nil
			for _, o := range s.running.outputs {
				o.offerWithdrawal(in.source, switched, true)
			}
		}
	}
	s.board.set(gone)
	for _, e := range t.endpoints.old {
		e.cancel()
		s.retiring.Go(func() { e.retire(haltCtx, wait) })
	}
	maps.DeleteFunc(s.leaving, func(_ string, o *runningOutput) bool { return calls.IsClosed(o.left) })
	for name, o := range t.outputs.old {
		if t.outputs.new[name] != nil {
			continue // the new one takes over its queue
		}
		s.leaving[name] = o
		drainCtx, cancel := context.WithTimeout(haltCtx, wait)
		o.cutDrain = cancel
		s.retiring.Go(func() {
			defer cancel()
			o.leave(drainCtx, true)
		})
	}
}

// changes are the titles of the instances that a reload has changed.
type changes struct{ added, removed, replaced []string }

func (t *transition) changes() (c changes) {
	note(&c, t.inputs)
	note(&c, t.outputs)
	note(&c, t.endpoints)
	return c
}

func note[R configured](c *changes, x exchange[R]) {
	for _, name := range slices.Sorted(maps.Keys(x.new)) {
		if x.new[name].title() == "inputs."+health.Source {
			continue // no file has it
		}
		if _, ok := x.old[name]; ok {
			c.replaced = append(c.replaced, x.new[name].title())
		} else {
			c.added = append(c.added, x.new[name].title())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(x.old)) {
		if _, ok := x.new[name]; !ok {
			c.removed = append(c.removed, x.old[name].title())
		}
	}
}

// attrs returns the changes as log attributes.
func (c changes) attrs() (attrs []any) {
	for _, kind := range []struct {
		name   string
		titles []string
	}{{"added", c.added}, {"removed", c.removed}, {"replaced", c.replaced}} {
		if len(kind.titles) > 0 {
			attrs = append(attrs, kind.name, kind.titles)
		}
	}
	return attrs
}

// withGrace returns a context that outlives ctx by wait.
func withGrace(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	unused := context.AfterFunc(ctx, func() {
		calls.Sleep(later, wait)
		cancel()
	})
	return later, func() { unused(); cancel() }
}

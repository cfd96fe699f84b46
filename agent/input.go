package agent

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/encode"
	"sockwatch/agent/health"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A runningInput is a running Input.
type runningInput struct {
	*Input
	log        *slog.Logger
	health     *health.Input
	calls      *calls.Pending
	transform  *transform
	source     *encode.Source                // as encoders see it
	supervisor *supervisor                   // takes the results; nil for a Gatherer
	firstDone  func()                        // called when the first gather has ended
	startAfter <-chan struct{}               // the first gather waits for it; nil: it does not wait
	demand     chan chan<- (<-chan struct{}) // asks for a gather; the reply is closed when it is published
	watch      watch
	requests   requests
	cancel     context.CancelFunc
	done       chan struct{} // closed when gatherEvery has returned

	mu       sync.Mutex
	inFlight *inFlight // the gather that has not ended, or nil
}

// newInput prepares an input. The caller sets its supervisor, if any.
func newInput(a *Agent, in *Input, h *health.Input, c *calls.Pending) (*runningInput, error) {
	t, err := newTransform(in)
	if err != nil {
		return nil, err
	}
	return &runningInput{
		Input: in, log: a.Log.With("plugin", "inputs."+in.Name), health: h, calls: c, transform: t,
		source:    &encode.Source{Name: in.Name, Interval: time.Duration(in.Options.Interval), Round: in.RoundInterval},
		firstDone: func() {}, demand: make(chan chan<- (<-chan struct{})), watch: watch{changed: make(chan struct{}, 1)},
		requests: requests{stopped: make(chan struct{})}, done: make(chan struct{}),
	}, nil
}

// An inFlight is a gather that has not ended.
type inFlight struct {
	began     time.Time
	once      sync.Once
	published chan struct{} // closed when the board shows the result
	done      chan struct{} // closed when Gather has returned
}

func newInFlight() *inFlight {
	return &inFlight{began: time.Now(), published: make(chan struct{}), done: make(chan struct{})}
}

// publish is called when the board shows the gather's result, perhaps twice.
func (g *inFlight) publish() { g.once.Do(func() { close(g.published) }) }

func (in *runningInput) current() *inFlight {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.inFlight
}

// takeOver waits until the replaced input has ended, then lets this one inherit its
// state. It gives up only after wait, even if this input has been replaced meanwhile:
// the next one inherits from this one.
func (in *runningInput) takeOver(replaced *runningInput, wait time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	inheritor, ok := in.Input.Input.(plugin.Inheritor)
	if !in.await(ctx, replaced.done) || !ok {
		return
	}
	var err error // logged by Recover
	defer in.health.Panics.Recover(&err, in.log)
	inheritor.InheritFrom(replaced.Input.Input)
}

// await waits until ready is closed. It reports false if ctx ends first. Requests for a
// gather are answered at once without one meanwhile: the board still shows the last
// batch, if there is one.
func (in *runningInput) await(ctx context.Context, ready <-chan struct{}) bool {
	for {
		select {
		case <-ready:
			return true
		case reply := <-in.demand:
			published := make(chan struct{})
			close(published)
			reply <- published
		case <-ctx.Done():
			return calls.IsClosed(ready)
		}
	}
}

// gatherNow starts or joins a gather. It waits until the result is published, the input
// has stopped, or ctx is done.
func (in *runningInput) gatherNow(ctx context.Context) {
	reply := make(chan (<-chan struct{}), 1)
	select {
	case in.demand <- reply:
	case <-in.done:
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-<-reply:
	case <-ctx.Done():
	}
}

// guardStored returns a Batch.EventsStored that does not panic and that the watchdog can
// name; nil for nil.
func (in *runningInput) guardStored(stored func()) func() {
	if stored == nil {
		return nil
	}
	return func() {
		defer in.calls.Begin(in.title() + ": EventsStored")()
		var err error // logged by Recover
		defer in.health.Panics.Recover(&err, in.log)
		stored()
	}
}

// state returns the state of the input, for a plugin.Board.
func (in *runningInput) state() plugin.SourceState {
	s := in.health.State(in.Name)
	if tags := in.Plugin.Tags; tags != nil {
		s.Tags = slices.AppendSeq(slices.Clone(tags), maps.Keys(in.Options.Tags))
		if l, ok := in.Input.Input.(plugin.TagLister); ok {
			s.Tags = append(s.Tags, l.ExtraTags()...)
		}
		slices.Sort(s.Tags)
		s.Tags = slices.Compact(s.Tags)
	}
	s.Limits = in.limits()
	return s
}

// limits returns what the input cannot see.
func (in *runningInput) limits() []string {
	r, ok := in.Input.Input.(plugin.LimitReporter)
	if !ok {
		return nil
	}
	var err error // logged by Recover
	defer in.health.Panics.Recover(&err, in.log)
	return r.Limits()
}

// recalled returns the events from before the start.
func (in *runningInput) recalled(r plugin.EventRecaller) []metric.Point {
	var err error // logged by Recover
	defer in.health.Panics.Recover(&err, in.log)
	events := r.RecallEvents()
	b := metric.Batch{Time: time.Now(), Events: events[max(0, len(events)-plugin.MaxEvents):]}
	if err := b.Check(); err != nil {
		in.log.Error("events from before the start are invalid, not showing them", "error", err)
		return nil
	}
	return in.transform.points(b.Events) // not batch: the raw points of the last one are still needed
}

// retire waits until the input has ended, but no longer than wait.
func (in *runningInput) retire(ctx context.Context, wait time.Duration) {
	if !calls.AwaitFor(ctx, wait, in.done) {
		in.log.Warn("input abandoned, Gather has not returned")
	}
}

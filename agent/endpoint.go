package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/filter"
	"sockwatch/agent/health"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A runningEndpoint is a running Pull.
type runningEndpoint struct {
	*Pull
	log    *slog.Logger
	health *health.Output
	calls  *calls.Pending
	view   *view
	cancel context.CancelFunc
	done   chan struct{} // closed when Serve has returned
}

func newEndpoint(a *Agent, p *Pull, h *health.Output, c *calls.Pending, s *supervisor) (*runningEndpoint, error) {
	f, err := filter.New(p.Options.Options)
	if err != nil {
		return nil, err
	}
	h.Endpoint.Store(true)
	return &runningEndpoint{
		Pull: p, log: a.Log.With("plugin", "outputs."+p.Name), health: h, calls: c,
		view: &view{supervisor: s, filter: f}, done: make(chan struct{}),
	}, nil
}

// serve answers requests until ctx is done. First it gives the replaced endpoint, if
// any, a moment to end, so that clients do not get answers from the old one.
func (e *runningEndpoint) serve(ctx context.Context, replaced *runningEndpoint) {
	defer close(e.done)
	if replaced != nil {
		calls.AwaitFor(ctx, handOverWait, replaced.done)
	}
	e.health.SetState(nil)
	if h, ok := e.Endpoint.(plugin.HealthReporter); ok {
		h.ReportHealth(e.report)
	}
	err := func() (err error) {
		defer e.calls.Begin(e.title() + ": Serve")()
		defer e.health.Panics.Recover(&err, e.log)
		return e.Endpoint.Serve(ctx, e.view)
	}()
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		err = errors.New("serving ended unexpectedly")
	}
	e.report(err)
}

// report records whether the endpoint is up and logs a change.
func (e *runningEndpoint) report(err error) {
	switch changed := e.health.SetState(err); {
	case !changed:
	case err != nil:
		e.log.Error("endpoint is down", "error", err)
	default:
		e.log.Info("endpoint is up again")
	}
}

// retire waits until Serve has returned, but no longer than wait.
func (e *runningEndpoint) retire(ctx context.Context, wait time.Duration) {
	if !calls.AwaitFor(ctx, wait, e.done) {
		e.log.Error("endpoint abandoned, Serve has not returned")
	}
}

// A view is the board as one endpoint sees it: a plugin.Board.
type view struct {
	supervisor *supervisor
	filter     filter.Filter
	events     eventLog // that passed the filter

	mu       sync.Mutex
	filtered map[*metric.Batch]*metric.Batch // the last result of Latest, by unfiltered batch
}

// Latest returns the latest batches, filtered, ordered by source.
func (v *view) Latest() []*metric.Batch {
	board := v.supervisor.board
	if !board.opened() {
		return nil
	}
	if v.filter.PassesAll() {
		return board.all()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	all := board.all() // with the lock, so that no earlier call removes what a later one has added
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

// Events returns the last events that passed the filter.
func (v *view) Events() []metric.Point { return v.events.all() }

// Sources returns the state of every input, ordered by name.
func (v *view) Sources() []plugin.SourceState { return v.supervisor.sources() }

// Health returns the state of the program, its outputs and its configuration.
func (v *view) Health() plugin.Health { return v.supervisor.health.State() }

// Changed returns a channel that is closed at the next change.
func (v *view) Changed() <-chan struct{} { return v.supervisor.board.next() }

// Refresh gathers the inputs whose batch is older than maxAge.
func (v *view) Refresh(ctx context.Context, maxAge time.Duration) error {
	return v.supervisor.refresh(ctx, maxAge)
}

// addEvents adds the events that pass the filter.
func (v *view) addEvents(events []metric.Point) { v.events.add(v.filter.Points(events)) }

// recallEvents adds the events from before the start that pass the filter.
func (v *view) recallEvents(events []metric.Point) { v.events.recall(v.filter.Points(events)) }

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/delivery"
	"sockwatch/agent/health"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A supervisor runs the instances of a configuration. It stays when a reload replaces
// them.
type supervisor struct {
	log    *slog.Logger
	health *health.Registry
	board  *board
	events eventLog // of all inputs
	calls  *calls.Pending
	ready  func()

	firsts   *gate                     // held by inputs whose first gather has not ended
	stopping chan struct{}             // closed when the program stops
	leaving  map[string]*runningOutput // removed by reloads, perhaps still draining; only Run's goroutine uses it
	retiring sync.WaitGroup            // for removed and replaced instances

	// Only Run's goroutine changes these, with mu held. It reads them without mu.
	mu      sync.RWMutex
	config  *Agent
	running instances

	recalled map[string]bool // the inputs whose events from before the start are in events; guarded by mu
}

// instances are the running ones, by name.
type instances struct {
	inputs    map[string]*runningInput
	outputs   map[string]*runningOutput
	endpoints map[string]*runningEndpoint
}

func newSupervisor(a *Agent, ready func()) *supervisor {
	b := newBoard()
	return &supervisor{
		log: a.Log, health: health.New(a.Version, b.changed), board: b, calls: &calls.Pending{Log: a.Log}, ready: ready,
		firsts: &gate{opened: make(chan struct{})}, stopping: make(chan struct{}), leaving: map[string]*runningOutput{},
		recalled: map[string]bool{},
		config:   &Agent{Log: a.Log, Options: Options{ShutdownTimeout: a.Options.ShutdownTimeout}}, // until adopt
	}
}

// watchdog returns a context that ends a grace period after ctx, and a channel that is
// closed a second later, when everything must have stopped.
func (s *supervisor) watchdog(ctx context.Context) (haltCtx context.Context, overdue <-chan struct{}, end func()) {
	watchCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	haltCtx, halt := context.WithCancel(watchCtx)
	over := make(chan struct{})
	unused := context.AfterFunc(ctx, func() {
		defer halt()
		if !calls.Sleep(watchCtx, s.gracePeriod()) {
			return
		}
		halt()
		if calls.Sleep(watchCtx, time.Second) {
			close(over)
		}
	})
	return haltCtx, over, func() { unused(); cancel() }
}

// A HungError says that something did not stop in time.
type HungError struct {
	After time.Duration // the grace period
	Calls []string      // calls that have not returned, such as "outputs.influxdb: Push"
}

// Error lists the calls that have not returned.
func (e *HungError) Error() string {
	if len(e.Calls) == 0 {
		return fmt.Sprintf("not stopped within %v", e.After)
	}
	return fmt.Sprintf("not stopped within %v, not returned: %s", e.After, strings.Join(e.Calls, ", "))
}

// gracePeriod is how long an output may drain after SIGTERM or its removal.
func (s *supervisor) gracePeriod() time.Duration {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return time.Duration(s.config.Options.ShutdownTimeout)
}

// stop ends everything. Outputs drain, the last batches included, until haltCtx ends.
// If something ignores that, the watchdog ends the program.
func (s *supervisor) stop(haltCtx context.Context) {
	close(s.stopping)
	last := s.running
	for _, in := range last.inputs {
		in.cancel()
	}
	for _, e := range last.endpoints {
		e.cancel()
	}
	s.log.Info("stopping") // after the cancels: writing the log may block
	for _, in := range last.inputs {
		calls.Await(haltCtx, in.done)
	}
	s.switchTo(s.config, instances{}) // so that nothing is offered to a closed inbox
	for _, o := range last.outputs {
		s.retiring.Go(func() { o.leave(haltCtx, false) })
	}
	s.retiring.Wait()
	for _, in := range last.inputs {
		<-in.done
	}
	for _, e := range last.endpoints {
		<-e.done
	}
}

// A gate opens when its last hold is released, and stays open.
type gate struct {
	mu     sync.Mutex
	holds  int
	opened chan struct{} // closed when the gate opens
}

// hold keeps the gate closed until release is called.
func (g *gate) hold() (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holds++
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.holds--; g.holds == 0 && !calls.IsClosed(g.opened) {
			close(g.opened)
		}
	})
}

// show puts an input's batch on the board, or removes it if b is nil. If the input has
// gone up or down, it updates the agent's own batch at the same time. The first batch of
// the agent's own input opens the board: all others have gathered by then.
func (s *supervisor) show(in *runningInput, b *metric.Batch, changed bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.running.inputs[in.Name] != in {
		return // a reload has removed it meanwhile
	}
	batches := map[string]*metric.Batch{in.Name: b}
	if own := s.running.inputs[health.Source]; changed && own != nil && own != in {
		if counters, err := own.transform.batch(s.health.Batch()); err == nil {
			batches[health.Source] = counters
		}
	}
	s.board.set(batches)
	if in.Name == health.Source && s.board.open() && s.ready != nil {
		go s.ready() // it may block
	}
	s.board.changed()
}

// offer hands a batch to every output, and its events to every endpoint. Of an input that a
// reload has replaced or removed meanwhile, only the events count.
func (s *supervisor) offer(in *runningInput, b *metric.Batch, r *delivery.Receipt) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	isRunning := s.running.inputs[in.Name] == in
	for _, o := range s.running.outputs {
		switch {
		case isRunning:
			o.offer(in.source, b, r)
		case len(b.Events) > 0:
			o.offerOnlyEvents(b, r)
		}
	}
	if len(s.running.outputs) == 0 && len(s.config.Push) > 0 {
		r.Hold() // forever: the program stops, and no output accepts events any longer
	}
	if len(b.Events) == 0 {
		return
	}
	s.events.add(b.Events)
	for _, e := range s.running.endpoints {
		e.view.addEvents(b.Events)
	}
	s.board.changed()
}

// recall hands an input's events from before the start to every endpoint, before its first batch
// is published, unless an input with that name has done so already.
func (s *supervisor) recall(in *runningInput) {
	recaller, ok := in.Input.Input.(plugin.EventRecaller)
	if !ok {
		return
	}
	wanted := func() bool { return s.running.inputs[in.Name] == in && !s.recalled[in.Name] }
	s.mu.RLock()
	ask := wanted()
	s.mu.RUnlock()
	if !ask {
		return
	}
	events := in.recalled(recaller)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !wanted() { // a reload has replaced it meanwhile
		return
	}
	s.recalled[in.Name] = true
	s.events.recall(events)
	for _, e := range s.running.endpoints {
		e.view.recallEvents(events)
	}
}

// offerWithdrawal tells every output that an input has failed.
func (s *supervisor) offerWithdrawal(in *runningInput, at time.Time) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.running.inputs[in.Name] != in {
		return // a reload has replaced or removed it meanwhile
	}
	for _, o := range s.running.outputs {
		o.offerWithdrawal(in.source, at, false)
	}
}

// sources returns the state of every input, ordered by name.
func (s *supervisor) sources() []plugin.SourceState {
	s.mu.RLock()
	defer s.mu.RUnlock()
	states := make([]plugin.SourceState, 0, len(s.running.inputs))
	for _, name := range slices.Sorted(maps.Keys(s.running.inputs)) {
		states = append(states, s.running.inputs[name].state())
	}
	return states
}

// refresh gathers the inputs whose batch is older than maxAge, then the agent's own
// input. It waits for them until ctx is done.
func (s *supervisor) refresh(ctx context.Context, maxAge time.Duration) error {
	if !s.board.opened() {
		return nil // the first gathers are in flight
	}
	s.mu.RLock()
	var inputs []*runningInput
	own := s.running.inputs[health.Source]
	for _, in := range s.running.inputs {
		if in != own && s.board.age(in.Name) > maxAge {
			inputs = append(inputs, in)
		}
	}
	s.mu.RUnlock()
	if len(inputs) == 0 {
		return nil
	}
	var wg sync.WaitGroup
	for _, in := range inputs {
		wg.Go(func() { in.gatherNow(ctx) })
	}
	wg.Wait()
	if own != nil {
		own.gatherNow(ctx)
	}
	return ctx.Err()
}

// reloaded records and logs the result of a reload. An error of several lines becomes
// as many log lines.
func (s *supervisor) reloaded(c changes, err error) {
	s.health.Reloaded(err)
	if err == nil {
		s.log.Info("reloaded", c.attrs()...)
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		s.log.Error("reload failed, keeping the running configuration", "error", line)
	}
}

package agent

import (
	"context"
	"fmt"
	"math"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/delivery"
	"sockwatch/agent/encode"
	"sockwatch/agent/metric"
	"sockwatch/agent/schedule"
)

// Run gathers and delivers until ctx is done. It then drains the queues for at most
// the grace period, which is the shutdown timeout, and cancels what is still running.
// An error says why it could not start; a stop is not an error. If something is still
// running a second after the grace period, Run returns a HungError and leaves
// goroutines behind: the program must exit.
//
// After each receive from reload it calls load and adopts the configuration that load
// returns. If loading or opening fails, the running configuration stays. ready, if not
// nil, is called once, in its own goroutine, when the endpoints are bound and the first
// gather of every input has ended.
func (a *Agent) Run(ctx context.Context, reload <-chan struct{}, load func() (*Agent, error), ready func()) error {
	s := newSupervisor(a, ready)
	haltCtx, overdue, end := s.watchdog(ctx)
	defer end()
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, haltCtx, a, reload, load) }()
	select {
	case err := <-ended:
		return err
	case <-overdue:
		return &HungError{After: s.gracePeriod(), Calls: s.calls.List()}
	}
}

func (s *supervisor) run(ctx, haltCtx context.Context, first *Agent, reload <-chan struct{}, load func() (*Agent, error)) error {
	defer s.keepAlive(first.Keepalive)()
	if _, err := s.adopt(ctx, haltCtx, first); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			s.stop(haltCtx)
			return nil
		case <-reload:
			if ctx.Err() == nil { // select picks at random if both are ready
				s.reload(ctx, haltCtx, load)
			}
		}
	}
}

// gatherEvery takes over from the replaced input, if any. It gathers at once, then at
// each tick of the interval and whenever Refresh or the input's Watch asks, until ctx is
// done. A tick during a gather is skipped and counted. Before it returns it waits for the
// gather in flight and closes the input.
func (in *runningInput) gatherEvery(ctx context.Context, replaced *runningInput, wait time.Duration) {
	defer close(in.done)
	defer in.firstDone()
	if replaced != nil {
		in.takeOver(replaced, wait)
	}
	if in.startAfter != nil {
		in.await(ctx, in.startAfter)
	}
	ticks := schedule.Gathers{
		Interval: time.Duration(in.Options.Interval), Jitter: in.Options.CollectionJitter, Round: in.RoundInterval, Prompt: replaced != nil,
	}
	tick := time.NewTimer(ticks.Next(time.Now()))
	defer tick.Stop()
	var next <-chan struct{} // closed when the gather has ended that came too early for a change
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			if _, joined := in.gather(ctx); joined {
				in.health.Skipped.Add(1)
				in.log.Debug("gather skipped, the previous one is still in flight")
			}
			tick.Reset(ticks.Next(time.Now()))
		case reply := <-in.demand:
			g, _ := in.gather(ctx)
			reply <- g.published
		case <-in.watch.changed:
			if g, joined := in.gather(ctx); joined {
				next = g.done
			}
		case <-next:
			next = nil
			in.gather(ctx) // or join another one, which has begun since
		case <-ctx.Done():
		}
	}
	in.requests.stop()
	if g := in.current(); g != nil {
		<-g.done
	}
	in.watch.running.Wait()
	defer in.calls.Begin(in.title() + ": Close")()
	calls.Close(in.Input.Input, in.log)
}

// gather starts a gather, or joins the one in flight. It does not wait.
func (in *runningInput) gather(ctx context.Context) (g *inFlight, joined bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.inFlight != nil {
		return in.inFlight, true
	}
	in.inFlight = newInFlight()
	go in.runGather(ctx, in.inFlight)
	return in.inFlight, false
}

// runGather gathers once. It publishes the batch, or withdraws the last one if Gather
// fails or exceeds its timeout. The plugin's ctx ends when a tenth of the timeout is
// left, so that the plugin can still return what it has. A late batch is published, too.
func (in *runningInput) runGather(ctx context.Context, g *inFlight) {
	timeout := time.Duration(in.Options.Timeout)
	gctx, cancel := context.WithTimeout(ctx, timeout-timeout/10)
	defer cancel()
	began := time.Now()
	overdue := time.AfterFunc(timeout, func() {
		if ctx.Err() == nil { // else the input is stopped or replaced
			in.failed(began, fmt.Errorf("timed out after %v", timeout))
		}
		g.publish()
		in.firstDone()
	})
	batch, err := in.callGather(gctx)
	late := !overdue.Stop()
	if late {
		<-g.published
	}
	switch {
	case err == nil && ctx.Err() == nil:
		in.succeeded(began, batch, late)
	case err == nil: // stopped or replaced: the counters may be those of its successor
		in.supervisor.publish(in, batch, false)
	case ctx.Err() != nil: // likewise: the error says nothing about the input
	case late: // withdrawn, counted and logged already
		in.log.Debug("late gather failed", "error", err)
	default:
		in.failed(began, err)
	}
	in.watch.start(ctx, in)
	in.mu.Lock()
	in.inFlight = nil
	in.mu.Unlock()
	g.publish()
	in.firstDone()
	close(g.done)
}

// callGather calls Gather and returns its batch ready to be published.
func (in *runningInput) callGather(ctx context.Context) (b *metric.Batch, err error) {
	defer in.calls.Begin(in.title() + ": Gather")()
	defer in.health.Panics.Recover(&err, in.log)
	raw, err := in.Input.Input.Gather(ctx)
	if err != nil {
		return nil, err
	}
	raw.EventsStored = in.guardStored(raw.EventsStored)
	return in.transform.batch(raw)
}

// failed withdraws the input's batch and counts the failed gather.
func (in *runningInput) failed(began time.Time, err error) {
	changed, first := in.health.Failed(time.Since(began), err)
	if first {
		in.log.Error("gather failed, withdrawing its series", "error", err)
	} else {
		in.log.Debug("gather failed", "error", err)
	}
	in.supervisor.withdraw(in, began, changed)
}

// succeeded publishes a batch. A late one has already been counted as failed.
func (in *runningInput) succeeded(began time.Time, batch *metric.Batch, late bool) {
	changed, resumed := in.health.Succeeded(time.Since(began), batch, late)
	if resumed {
		in.log.Info("gathering resumed")
	}
	if batch.Partial != "" {
		in.log.Debug("partial batch", "missing", batch.Partial)
	}
	in.supervisor.publish(in, batch, changed)
}

// publish puts a batch on the board and offers it to every output. changed: the input was down
// before. The input learns when all outputs have the events of the batch.
func (s *supervisor) publish(in *runningInput, b *metric.Batch, changed bool) {
	s.recall(in)
	s.show(in, b, changed)
	r := delivery.NewReceipt(b.EventsStored)
	s.offer(in, b, r)
	r.Release()
}

// withdraw removes the batch of an input that has failed from the board, and ends its series.
// changed: the input was not down before.
func (s *supervisor) withdraw(in *runningInput, at time.Time, changed bool) {
	s.show(in, nil, changed)
	s.offerWithdrawal(in, at)
}

// offer puts a batch of an input into the output's inbox. The inbox is full only if the queue
// hangs, because its disk is not responding. Then the points are dropped; the events
// wait for the queue.
func (o *runningOutput) offer(in *encode.Source, b *metric.Batch, r *delivery.Receipt) {
	turn := o.offerEvents(b, r)
	if len(o.inbox) < inboxBatches {
		select {
		case o.inbox <- offered{encode.Entry{Source: in, Batch: b}, turn}:
			return
		default:
		}
	}
	o.queue.Drop(len(o.encoder.Filter.Points(b.Points)), errQueueHangs)
}

// offerOnlyEvents puts the events of a batch into the output's inbox, but not its points: a reload
// has replaced or removed the input.
func (o *runningOutput) offerOnlyEvents(b *metric.Batch, r *delivery.Receipt) {
	turn := o.offerEvents(b, r)
	if len(o.inbox) >= inboxBatches {
		return // the events wait for the next entry
	}
	select {
	case o.inbox <- offered{turn: turn}:
	default:
	}
}

// offerWithdrawal ends the series of an input that has failed or was removed. If the inbox
// is full, only a removal is certain to fit: a failed input fails again.
func (o *runningOutput) offerWithdrawal(in *encode.Source, at time.Time, removed bool) {
	if !removed && len(o.inbox) >= inboxBatches {
		return
	}
	select {
	case o.inbox <- offered{Entry: encode.Entry{Source: in, At: at}}:
	default:
	}
}

// start fills and empties the queue until the inbox is closed or haltCtx ends. First it
// takes over the queue of the replaced output, if any. Batches wait in the inbox
// meanwhile.
func (o *runningOutput) start(haltCtx context.Context, replaced *runningOutput) {
	ctx, cancel := context.WithCancel(haltCtx)
	o.cancel = cancel
	go func() {
		if replaced != nil {
			o.takeOver(ctx, replaced)
		}
		go o.fill()
		o.delivery.Run(ctx)
	}()
}

// fill encodes and queues what is in the inbox, until it is closed.
func (o *runningOutput) fill() {
	defer close(o.filled)
	o.encoder.Start()
	for next := range o.inbox {
		o.fillEvents(next.turn)
		if next.onlyEvents() {
			continue
		}
		records := o.encoder.Encode(next.Entry)
		if len(records) > 0 && !o.queue.AppendPoints(records) {
			continue
		}
		o.encoder.Queued()
		if b := next.Batch; len(records) > 0 && b != nil {
			o.log.Debug("queued", "points", len(records), "input", b.Source, "batch_time", b.Time)
		}
	}
	o.fillEvents(math.MaxInt) // events that the queue has not accepted yet
}

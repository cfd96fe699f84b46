package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// Run gathers and delivers until ctx is done, then drains what is queued within
// the shutdown timeout. Its error says why it could not start; a stop is none.
// After each receive from reload it calls load and goes over to what that
// returns; a configuration that does not load or open leaves the running one
// untouched. ready, if not nil, is called once: when the endpoints are bound and
// every input has gathered or failed to.
func (a *Agent) Run(ctx context.Context, reload <-chan struct{}, load func() (*Agent, error), ready func()) error {
	r := newRun(a, ready)
	cut, cancel := r.cutAfter(ctx)
	defer cancel()
	if err := r.adopt(ctx, cut, a); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			r.stop(cut)
			return nil
		case <-reload:
			next, err := load()
			if err == nil {
				err = r.adopt(ctx, cut, next)
			}
			r.reloaded(err)
		}
	}
}

// gatherEvery gathers at once and then at each tick of the input's interval, and
// whenever a Refresh asks, until ctx is done. A tick that finds the last gather
// under way is skipped and counted. It awaits the last gather until cut, and
// closes the input.
func (in *liveInput) gatherEvery(ctx, cut context.Context) {
	defer close(in.done)
	defer in.first()
	if in.startAfter != nil {
		select {
		case <-in.startAfter:
		case <-ctx.Done():
		}
	}
	s := schedule{interval: time.Duration(in.Options.Interval), jitter: in.Options.CollectionJitter, round: in.RoundInterval, prompt: in.successor}
	tick := time.NewTimer(s.next(time.Now()))
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			if _, joined := in.gather(ctx); joined {
				in.health.skipped.Add(1)
				in.log.Debug("gather skipped: the last one is under way")
			}
			tick.Reset(s.next(time.Now()))
		case reply := <-in.demand:
			f, _ := in.gather(ctx)
			reply <- f
		case <-ctx.Done():
		}
	}
	if f := in.underWay(); f != nil {
		select {
		case <-f.over:
		case <-cut.Done():
			return
		}
	}
	closeIf(in.Input.Input, in.log)
}

// gather starts a gather, or joins the one under way. It does not wait.
func (in *liveInput) gather(ctx context.Context) (f *flight, joined bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.flight != nil {
		return in.flight, true
	}
	f = &flight{shown: make(chan struct{}), over: make(chan struct{})}
	in.flight = f
	go in.fly(ctx, f)
	return f, false
}

// fly is one gather: it calls Gather, and publishes its batch or withdraws the
// last one where it fails or outlasts its timeout. The plugin's ctx ends a tenth
// earlier, which leaves it time to return what it has.
func (in *liveInput) fly(ctx context.Context, f *flight) {
	timeout := time.Duration(in.Options.Timeout)
	gctx, cancel := context.WithTimeout(ctx, timeout-timeout/10)
	defer cancel()
	began := time.Now()
	overdue := time.AfterFunc(timeout, func() {
		in.withdraw(began, fmt.Errorf("not done after %v", timeout))
		f.show()
		in.first()
	})
	raw, err := in.callGather(gctx)
	var batch *metric.Batch
	if err == nil {
		batch, err = in.dress.batch(raw)
	}
	late := !overdue.Stop()
	if late {
		<-f.shown
	}
	switch {
	case err == nil:
		in.publish(began, batch)
	case ctx.Err() != nil: // stopped: that it was cut short says nothing of the input
	case late: // withdrawn, counted and logged already
		in.log.Debug("the late gather failed", "error", err)
	default:
		in.withdraw(began, err)
	}
	in.mu.Lock()
	in.flight = nil
	in.mu.Unlock()
	f.show()
	in.first()
	close(f.over)
}

func (in *liveInput) callGather(ctx context.Context) (b metric.Batch, err error) {
	defer in.health.panics.recover(&err, in.log)
	return in.Input.Input.Gather(ctx)
}

// withdraw takes the input's batch from the board and counts the failed gather.
func (in *liveInput) withdraw(began time.Time, err error) {
	turned := in.health.failed(time.Since(began), err)
	if turned {
		in.log.Error("gather: its series are withdrawn", "error", err)
	} else {
		in.log.Debug("gather", "error", err)
	}
	in.run.show(in, nil, turned)
}

// publish shows a batch on the board and hands it to every push output.
func (in *liveInput) publish(began time.Time, batch *metric.Batch) {
	turned := in.health.succeeded(time.Since(began), batch)
	if turned {
		in.log.Info("gathers again")
	}
	if batch.Partial != "" {
		in.log.Debug("partial batch", "missing", batch.Partial)
	}
	in.run.show(in, batch, turned)
	in.run.offer(batch)
}

// offer puts a batch into the output's inbox. The inbox is full only where
// the queue itself hangs (a disk that does not answer): then it is dropped.
func (p *livePush) offer(b *metric.Batch) {
	select {
	case p.inbox <- b:
	default:
		p.drop(len(p.filter.Points(b.Points))+len(p.filter.Points(b.Events)), errQueueHangs)
	}
}

// push encodes and queues batches until the inbox is closed.
func (p *livePush) push() {
	defer close(p.closing)
	var e encoder
	for b := range p.inbox {
		records := e.encode(p, b)
		if len(records) > 0 && p.enqueue(records) {
			p.log.Debug("queued", "points", len(records), "input", b.Source, "batch_time", b.Time)
		}
	}
}

// enqueue appends one block of records to the queue; false where that or
// another block had no place.
func (p *livePush) enqueue(records [][]byte) bool {
	dropped, err := p.queue.Append(records)
	if err != nil {
		dropped += len(records)
	}
	if dropped > 0 {
		p.drop(dropped, err)
	}
	select {
	case p.appended <- struct{}{}:
	default:
	}
	return dropped == 0
}

// deliver sends what is queued at every flush, and once more when nothing comes
// any more, until ctx cuts it off.
func (p *livePush) deliver(ctx context.Context) {
	defer close(p.done)
	for p.awaitFlush(ctx) {
		p.drain(ctx)
	}
	p.drain(ctx)
	closeIf(p.Pusher, p.log)
}

// drain sends records, the oldest first, until the queue is empty, ctx is done or
// the output is replaced; a queue that keeps its records is left alone after the
// first failure once the output is closing. Records that are rejected are halved
// until what fails stands alone, and dead-lettered; they wait for a dead letter
// file that cannot be written as all wait for a destination.
func (p *livePush) drain(ctx context.Context) {
	var h halving
	retry := newRetry()
	for ctx.Err() == nil && !p.replaced.Load() {
		records, err := p.queue.Peek(h.size(), p.maxBytes)
		if len(records) == 0 && err == nil {
			return
		}
		if err == nil {
			err = p.callPush(ctx, records)
		}
		err = p.settle(&h, records, err)
		if err == nil {
			p.setUp(nil, 0)
			retry.Reset()
			continue
		}
		if ctx.Err() != nil {
			return
		}
		wait := retry.wait(err)
		p.setUp(err, wait)
		if !p.pause(ctx, wait, errors.Is(err, plugin.ErrGone)) {
			return
		}
	}
}

func (p *livePush) callPush(ctx context.Context, records [][]byte) (err error) {
	defer p.health.panics.recover(&err, p.log)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(p.Options.Timeout))
	defer cancel()
	return p.Pusher.Push(ctx, records)
}

// awaitFlush waits for the next flush; false once the output is closing.
func (p *livePush) awaitFlush(ctx context.Context) bool {
	var tick <-chan time.Time
	appended := p.appended
	if interval := time.Duration(p.Options.FlushInterval); interval > 0 {
		appended = nil
		t := time.NewTimer(untilTick(time.Now(), interval, p.phase, true) + jitter(p.Options.FlushJitter))
		defer t.Stop()
		tick = t.C
	}
	select {
	case <-tick:
		return true
	case <-appended:
	case <-p.closing:
		return false
	case <-ctx.Done():
		return false
	}
	select {
	case <-time.After(jitter(p.Options.FlushJitter)):
	case <-p.closing:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// pause waits before the next attempt. It ends early when the output begins to
// close; false where nothing is to be tried any more.
func (p *livePush) pause(ctx context.Context, wait time.Duration, gone bool) bool {
	closing := p.closing
	select {
	case <-closing:
		if p.persistent || gone {
			return false
		}
		closing = nil
	default:
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-closing:
	case <-ctx.Done():
		return false
	}
	return true
}

// serve answers until ctx is done.
func (p *livePull) serve(ctx context.Context, board plugin.Board) {
	defer close(p.done)
	p.health.up.Store(true)
	if h, ok := p.Endpoint.(plugin.HealthReporter); ok {
		h.ReportHealth(p.report)
	}
	err := func() (err error) {
		defer p.health.panics.recover(&err, p.log)
		return p.Endpoint.Serve(ctx, board)
	}()
	p.health.up.Store(false)
	if ctx.Err() == nil {
		p.log.Error("the endpoint is down", "error", err)
	}
}

// report takes over what the endpoint says of itself while it serves.
func (p *livePull) report(err error) {
	switch was := p.health.up.Swap(err == nil); {
	case err != nil && was:
		p.log.Error("endpoint is down", "error", err)
	case err == nil && !was:
		p.log.Info("endpoint answers again")
	}
}

// A flight is one gather.
type flight struct {
	once  sync.Once
	shown chan struct{} // closed when the board shows what came of it
	over  chan struct{} // closed when Gather has returned
}

func (f *flight) show() { f.once.Do(func() { close(f.shown) }) }

// sleep waits, and reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// closeIf closes what is an io.Closer.
func closeIf(v any, log *slog.Logger) {
	if c, ok := v.(io.Closer); ok {
		if err := c.Close(); err != nil {
			log.Warn("close", "error", err)
		}
	}
}

var errQueueHangs = errors.New("the queue does not take them: its disk hangs")

// recover turns a panic into an error, counts it and logs where it arose.
func (c *counter) recover(err *error, log *slog.Logger) {
	if v := recover(); v != nil {
		c.Add(1)
		*err = fmt.Errorf("panic: %v", v)
		log.Error("panic", "value", v, "stack", string(debug.Stack()))
	}
}

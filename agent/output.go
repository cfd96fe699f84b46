package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/delivery"
	"sockwatch/agent/encode"
	"sockwatch/agent/filter"
	"sockwatch/agent/health"
	"sockwatch/agent/schedule"
)

// A runningOutput is a running Push: fill moves batches from the inbox to the queue,
// delivery from the queue to the destination.
type runningOutput struct {
	*Push
	log      *slog.Logger
	health   *health.Output
	calls    *calls.Pending
	encoder  *encode.Encoder
	inbox    chan offered
	events   eventInbox
	queue    *delivery.Queue // of the delivery
	delivery *delivery.Delivery

	stage    atomic.Int32
	cancel   context.CancelFunc // ends the delivery
	cutDrain context.CancelFunc // ends the drain after a reload has removed the output
	filled   chan struct{}      // closed when the inbox is closed and all of it is queued
	left     chan struct{}      // closed when leave has returned
}

// The stages of an output.
const (
	stageRunning    int32 = iota
	stageLeaving          // it drains its queue and accepts nothing new
	stageHandedOver       // another output takes over its queue
	stageClosed
)

// An offered is an entry in the inbox of an output.
type offered struct {
	encode.Entry     // zero: only events
	turn         int // of the batch's events (see eventInbox)
}

// onlyEvents reports whether the entry has neither a batch nor a withdrawal.
func (o *offered) onlyEvents() bool { return o.Batch == nil && o.Source == nil }

// inboxBatches is how many batches wait for a queue that hangs. inboxWithdrawals is how
// many inputs can be removed while the inbox is full.
const (
	inboxBatches     = 64
	inboxWithdrawals = 64
)

// errQueueHangs is the reason of points that are dropped because the inbox is full.
var errQueueHangs = errors.New("the disk of the queue is not responding")

// newOutput prepares an output. Its queue has yet to be opened or taken over.
func newOutput(a *Agent, p *Push, h *health.Output, c *calls.Pending, stopping <-chan struct{}) (*runningOutput, error) {
	f, err := filter.New(p.Options.Options)
	if err != nil {
		return nil, err
	}
	o := &runningOutput{
		Push: p, log: a.Log.With("plugin", "outputs."+p.Name), health: h, calls: c,
		inbox:  make(chan offered, inboxBatches+inboxWithdrawals),
		filled: make(chan struct{}), left: make(chan struct{}),
	}
	minInterval := time.Duration(p.Options.MinInterval)
	o.delivery = delivery.New(delivery.Config{
		Name: p.Name, Pusher: p.Pusher, Timeout: time.Duration(p.Options.Timeout), MinInterval: minInterval,
		FlushEvery: time.Duration(p.Options.FlushInterval), FlushJitter: p.Options.FlushJitter, Host: a.Options.Hostname,
		BufferLimit: p.Options.BufferLimit, QueueDir: queueDir(a, p), DeadLetters: stateFile(a, p, deadLetterFile),
		Stopping: stopping, Filled: o.filled, HandedOver: func() bool { return o.stage.Load() == stageHandedOver },
		Health: h, Calls: c, Log: o.log,
	})
	o.queue = o.delivery.Queue
	o.encoder = encode.New(encode.Config{
		Name: p.Name, Pusher: p.Pusher, Filter: f, MinInterval: minInterval, Phase: schedule.HostPhase(a.Options.Hostname, p.Name, minInterval),
		Reject: o.delivery.RejectUnencoded, Panics: &h.Panics, Calls: c, Log: o.log,
	})
	return o, nil
}

// openQueue opens the output's queue, and gives up when ctx is done. If leaving, an
// output that an earlier reload removed, still uses the directory, openQueue makes it
// close its queue first.
func (o *runningOutput) openQueue(ctx context.Context, leaving *runningOutput) error {
	if o.queue.Dir == "" {
		o.queue.OpenMemory()
		if o.Options.Buffer == "auto" && !o.Plugin.MemoryOnly {
			o.log.Warn("queue is in memory, a restart loses undelivered points; set agent.state_directory to keep them")
		}
		return nil
	}
	var err error
	opened := o.calls.Within(ctx, o.title()+": opening its queue", func() {
		if leaving != nil && leaving.queue.Dir == o.queue.Dir {
			leaving.cutDrain()
			<-leaving.left
		}
		err = o.queue.OpenDisk()
	})
	if !opened {
		return fmt.Errorf("queue %q: %w", o.queue.Dir, calls.ErrDiskHangs)
	}
	return err
}

// handOver closes the inbox and leaves the queue to another output. It reports false if
// the queue is already closed.
func (o *runningOutput) handOver() bool {
	if o.stage.CompareAndSwap(stageRunning, stageHandedOver) {
		close(o.inbox)
		return true
	}
	return o.stage.CompareAndSwap(stageLeaving, stageHandedOver)
}

// handOverWait is how long a new instance waits for the Push or Serve of the replaced
// one, and again for a Push after it has canceled it.
const handOverWait = time.Second

// takeOver takes the queue of the replaced output, or moves its records to the new
// queue. It blocks while a disk hangs. Records do not move from disk to memory: they
// stay on disk, and the log says so.
func (o *runningOutput) takeOver(ctx context.Context, replaced *runningOutput) {
	defer o.calls.Begin(o.title() + ": taking over its queue")()
	<-replaced.filled
	if !calls.AwaitFor(ctx, handOverWait, replaced.delivery.Done()) { // let the Push in flight end, else its records may be sent twice
		replaced.abandonDelivery()
	}
	replaced.delivery.PassOn(o.delivery)
	o.events.takeOver(&replaced.events)
	o.encoder.TakeOver(replaced.encoder)
	if o.queue.Buffer == nil {
		o.queue.TakeOver(replaced.queue)
		return
	}
	if o.queue.Dir != "" || replaced.queue.Dir == "" {
		o.queue.MoveFrom(ctx, replaced.queue)
	}
	replaced.queue.Close()
}

// leave closes the inbox, drains the queue until drainCtx is done, and closes it. It
// blocks while a disk hangs, and, unless a reload has removed the output, while Push does
// not return.
func (o *runningOutput) leave(drainCtx context.Context, removed bool) {
	defer close(o.left)
	o.stage.CompareAndSwap(stageRunning, stageLeaving)
	close(o.inbox)
	drained := calls.Await(drainCtx, o.delivery.Done())
	if !o.stage.CompareAndSwap(stageLeaving, stageClosed) {
		return // handed over
	}
	<-o.filled
	switch {
	case drained:
	case removed:
		o.abandonDelivery()
	default:
		o.cancel()
		<-o.delivery.Done()
	}
	o.encoder.End()
	defer o.calls.Begin(o.title() + ": closing its queue")()
	o.queue.Close()
	o.closeEvents(removed)
}

// abandonDelivery ends the delivery. If Push or Close does not return in time, the
// delivery loses its queue.
func (o *runningOutput) abandonDelivery() {
	o.cancel()
	if !calls.AwaitFor(context.Background(), handOverWait, o.delivery.Done()) {
		o.delivery.Abandon()
		o.log.Error("delivery abandoned, it has not ended")
	}
}

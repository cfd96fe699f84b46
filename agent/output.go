package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/calls"
	"sockwatch/agent/filter"
	"sockwatch/agent/health"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/schedule"
)

// A runningOutput is a running Push: fill moves batches from the inbox to the queue,
// delivery from the queue to the destination.
type runningOutput struct {
	*Push
	log      *slog.Logger
	health   *health.Output
	calls    *calls.Pending
	encoder  *encoder
	inbox    chan offered
	events   eventInbox
	queue    *outputQueue
	rejects  *rejects
	delivery *delivery

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

// An offered is an entry in the inbox of an output: a batch, or the withdrawal of an input
// that has failed or was removed.
type offered struct {
	input *runningInput // nil in Once
	batch *metric.Batch // nil: a withdrawal
	turn  int           // of its events (see eventInbox)
	at    time.Time     // of the withdrawal
}

// inboxBatches is how many batches wait for a queue that hangs. inboxWithdrawals is how
// many inputs can be removed while the inbox is full.
const (
	inboxBatches     = 64
	inboxWithdrawals = 64
)

// errQueueHangs is the reason of points that are dropped because the inbox is full.
var errQueueHangs = errors.New("the disk of the queue is not responding")

// maxPushBytes bounds one Push of an output that is not a plugin.Bounded.
const maxPushBytes = 1 << 20

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
	flush, minInterval := time.Duration(p.Options.FlushInterval), time.Duration(p.Options.MinInterval)
	period := time.Duration(0) // what is sent at once has no server that a fleet could overload
	if flush > 0 {
		period = max(flush, minInterval)
	}
	phase := func(interval time.Duration) time.Duration {
		return schedule.HostPhase(a.Options.Hostname, p.Name, interval)
	}
	o.encoder = newEncoder(p, f, &h.Panics, o.log, o.rejectUnencoded)
	o.encoder.minInterval.phase = phase(minInterval)
	maxBytes := maxPushBytes
	if b, ok := p.Pusher.(plugin.Bounded); ok {
		maxBytes = b.MaxBytes()
	}
	o.queue = newOutputQueue(queueDir(a, p), p.Options.BufferLimit, maxBytes, h, o.log)
	o.rejects = &rejects{file: buffer.NewDeadLetters(deadLetterPath(a, p)), health: h, log: o.log}
	o.delivery = &delivery{
		sender: sender{name: p.title(), pusher: p.Pusher, timeout: time.Duration(p.Options.Timeout), health: h, calls: c, log: o.log},
		queue:  o.queue, rejects: o.rejects, health: h, maxBytes: maxBytes, persistent: o.queue.dir != "",
		flush: flushSchedule{
			interval: flush, jitter: p.Options.FlushJitter, phase: phase(flush),
			queue: o.queue, stopping: stopping, filled: o.filled,
		},
		period: period, catchUp: catchUp{period: period, phase: phase(period)},
		outage:     outage{log: o.log, health: h, queue: o.queue},
		handedOver: func() bool { return o.stage.Load() == stageHandedOver },
		using:      make(chan struct{}, 1), done: make(chan struct{}),
	}
	o.delivery.sender.overdue = func() { // deliver is waiting for Push, so the outage is not in use
		o.delivery.outage.failed(fmt.Errorf("Push has not returned after %v", p.Options.Timeout), 0)
	}
	return o, nil
}

// queueDir returns the directory of the output's queue, or "" for memory.
func queueDir(a *Agent, p *Push) string {
	state := a.Options.StateDirectory
	if state == "" || p.Options.Buffer == "memory" || p.Options.Buffer == "auto" && p.Plugin.MemoryOnly {
		return ""
	}
	return filepath.Join(state, p.Name)
}

// deadLetterPath returns the path of the output's dead-letter file, or "" for none.
func deadLetterPath(a *Agent, p *Push) string {
	if a.Options.StateDirectory == "" {
		return ""
	}
	return filepath.Join(a.Options.StateDirectory, p.Name+".rejected.jsonl")
}

// openQueue opens the output's queue, and gives up when ctx is done. If leaving, an
// output that an earlier reload removed, still uses the directory, openQueue makes it
// close its queue first.
func (o *runningOutput) openQueue(ctx context.Context, leaving *runningOutput) error {
	if o.queue.dir == "" {
		o.queue.openMemory()
		if o.Options.Buffer == "auto" && !o.Plugin.MemoryOnly {
			o.log.Warn("queue is in memory, a restart loses undelivered points; set agent.state_directory to keep them")
		}
		return nil
	}
	var err error
	opened := o.calls.Within(ctx, o.title()+": opening its queue", func() {
		if leaving != nil && leaving.queue.dir == o.queue.dir {
			leaving.cutDrain()
			<-leaving.left
		}
		err = o.queue.openDisk()
	})
	if !opened {
		return fmt.Errorf("queue %q: %w", o.queue.dir, calls.ErrDiskHangs)
	}
	return err
}

// openSeries prepares the live series of an output that has to be told what has ended. If
// load, they are those of the last run, unless the disk hangs.
func (o *runningOutput) openSeries(ctx context.Context, a *Agent, load bool) {
	live := o.encoder.live
	if live == nil {
		return
	}
	live.inputs = map[string]bool{}
	for _, in := range a.Inputs {
		live.inputs[in.Name] = true
	}
	path := seriesPath(a, o.Push)
	if path == "" {
		return
	}
	live.file, live.changed = &seriesFile{path: path, title: o.title(), calls: o.calls, log: o.log}, true
	if load {
		live.load(ctx)
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
		o.health.SetQueue(o.queue.Queue)
		if o.queue.Stats().Records > 0 {
			o.queue.wake() // do not wait for a new record
		}
		go o.fill()
		o.delivery.deliver(ctx)
	}()
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
	if !calls.AwaitFor(ctx, handOverWait, replaced.delivery.done) { // let the Push in flight end, else its records may be sent twice
		replaced.abandonDelivery()
	}
	replaced.delivery.passOn(o.delivery)
	o.events.takeOver(&replaced.events)
	if o.encoder.live != nil && replaced.encoder.live != nil {
		o.encoder.live.takeOver(replaced.encoder.live)
	}
	if o.queue.Queue == nil {
		o.queue.takeOver(replaced.queue)
		return
	}
	if o.queue.dir != "" || replaced.queue.dir == "" {
		o.queue.moveFrom(ctx, replaced.queue)
	}
	replaced.queue.close()
}

// leave closes the inbox, drains the queue until drainCtx is done, and closes it. It
// blocks while a disk hangs, and, unless a reload has removed the output, while Push does
// not return.
func (o *runningOutput) leave(drainCtx context.Context, removed bool) {
	defer close(o.left)
	o.stage.CompareAndSwap(stageRunning, stageLeaving)
	close(o.inbox)
	drained := calls.Await(drainCtx, o.delivery.done)
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
		<-o.delivery.done
	}
	if o.encoder.live != nil {
		o.encoder.live.end()
	}
	defer o.calls.Begin(o.title() + ": closing its queue")()
	o.queue.close()
	o.closeEvents(removed)
}

// abandonDelivery ends the delivery. If Push or Close does not return in time, the
// delivery loses its queue.
func (o *runningOutput) abandonDelivery() {
	o.cancel()
	if !calls.AwaitFor(context.Background(), handOverWait, o.delivery.done) {
		o.delivery.abandon()
		o.log.Error("delivery abandoned, Push has not returned")
	}
}

// rejectUnencoded rejects a point that cannot be encoded. It has no record that could
// stay queued, so the point is lost if the dead-letter file cannot be written.
func (o *runningOutput) rejectUnencoded(series string, cause error) {
	defer o.calls.Begin(o.title() + ": writing the dead-letter file")()
	dead := []buffer.DeadLetter{{Record: []byte(series), Reason: fmt.Errorf("encode: %w", cause)}}
	if err := o.rejects.keep(dead); err != nil {
		o.rejects.lost(1, err)
	}
}

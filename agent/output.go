package agent

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/filter"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A runningOutput is a Push at work: fill puts what is offered into its queue,
// delivery empties that.
type runningOutput struct {
	*Push
	log      *slog.Logger
	health   *outputHealth
	calls    *calls
	filter   filter.Filter
	inbox    chan *metric.Batch
	queue    *outputQueue
	rejects  *rejects
	delivery *delivery

	stage    atomic.Int32
	cancel   context.CancelFunc // of the delivery
	cutDrain context.CancelFunc // of the delivery after a reload has removed the output
	filled   chan struct{}      // closed when the inbox was closed and everything of it is queued
	left     chan struct{}      // closed when leave has returned
}

// The stages of an output.
const (
	stageRunning    int32 = iota
	stageLeaving          // it delivers what it has queued, and takes nothing new
	stageHandedOver       // another takes over its queue
	stageClosed
)

// inboxBatches is how many batches wait for an output whose queue hangs.
const inboxBatches = 64

// maxPushBytes bounds one Push of an output that names no bound of its own.
const maxPushBytes = 1 << 20

// newOutput prepares an output. Its queue is to be opened or taken over.
func newOutput(a *Agent, p *Push, h *outputHealth, c *calls, stopping <-chan struct{}) (*runningOutput, error) {
	f, err := filter.New(p.Options.Options)
	if err != nil {
		return nil, err
	}
	o := &runningOutput{
		Push: p, log: a.Log.With("plugin", "outputs."+p.Name), health: h, calls: c, filter: f,
		inbox:  make(chan *metric.Batch, inboxBatches),
		filled: make(chan struct{}), left: make(chan struct{}),
	}
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
			interval: time.Duration(p.Options.FlushInterval), jitter: p.Options.FlushJitter, phase: flushPhase(p),
			queue: o.queue, stopping: stopping, filled: o.filled,
		},
		outage:     outage{log: o.log, health: h, queue: o.queue},
		handedOver: func() bool { return o.stage.Load() == stageHandedOver },
		using:      make(chan struct{}, 1), done: make(chan struct{}),
	}
	o.delivery.sender.overdue = func() { // while deliver waits for Push
		o.delivery.outage.failed(fmt.Errorf("Push has not returned after %v", p.Options.Timeout), 0)
	}
	return o, nil
}

// flushPhase tells when within its interval an output flushes, so that those of a
// fleet do not flush all at once.
func flushPhase(p *Push) time.Duration {
	interval := uint64(p.Options.FlushInterval)
	if interval == 0 {
		return 0
	}
	sum := fnv.New64a()
	host, _ := os.Hostname() // without one all are in phase, no worse
	fmt.Fprint(sum, host, p.Name)
	return time.Duration(sum.Sum64() % interval)
}

// queueDir returns where the output's queue lives; "" for memory.
func queueDir(a *Agent, p *Push) string {
	state := a.Options.StateDirectory
	if state == "" || p.Options.Buffer == "memory" || p.Options.Buffer == "auto" && p.Plugin.MemoryOnly {
		return ""
	}
	return filepath.Join(state, p.Name)
}

// deadLetterPath returns where the output's rejected records are kept; "": nowhere.
func deadLetterPath(a *Agent, p *Push) string {
	if a.Options.StateDirectory == "" {
		return ""
	}
	return filepath.Join(a.Options.StateDirectory, p.Name+".rejected.jsonl")
}

// openQueue opens the output's own queue, and gives up when ctx is done. An output of
// the name that a reload has removed before, if there is one, gives its queue up first.
func (o *runningOutput) openQueue(ctx context.Context, leaving *runningOutput) error {
	if o.queue.dir == "" {
		o.queue.openMemory()
		if o.Options.Buffer == "auto" && !o.Plugin.MemoryOnly {
			o.log.Warn("the queue is in memory: a restart loses what is not delivered; agent.state_directory keeps it")
		}
		return nil
	}
	var err error
	opened := o.calls.callWithin(ctx, o.title()+": opening its queue", func() {
		if leaving != nil && leaving.queue.dir == o.queue.dir {
			leaving.cutDrain()
			<-leaving.left
		}
		err = o.queue.openDisk()
	})
	if !opened {
		return fmt.Errorf("queue %q: %w", o.queue.dir, errDiskHangs)
	}
	return err
}

// start fills and empties the queue until the inbox is closed, or haltCtx ends. The
// queue is first taken over from the output that this one replaces, if any, which may
// take a while: what is offered meanwhile waits in the inbox.
func (o *runningOutput) start(haltCtx context.Context, replaced *runningOutput) {
	ctx, cancel := context.WithCancel(haltCtx)
	o.cancel = cancel
	go func() {
		if replaced != nil {
			o.takeOver(ctx, replaced)
		}
		o.health.watch(o.queue.Queue)
		if o.queue.Stats().Records > 0 {
			o.queue.wake() // before anything new comes
		}
		go o.fill()
		o.delivery.deliver(ctx)
	}()
}

// handOver closes the inbox and leaves what is queued to another output. It reports
// false if the output has closed its queue already.
func (o *runningOutput) handOver() bool {
	if o.stage.CompareAndSwap(stageRunning, stageHandedOver) {
		close(o.inbox)
		return true
	}
	return o.stage.CompareAndSwap(stageLeaving, stageHandedOver)
}

// handOverWait is how long a new instance waits for a Push or Serve of the one that it
// replaces, and for a Push again when it has ended its context.
const handOverWait = time.Second

// takeOver takes the queue of the output that this one replaces, or what is in it. It
// waits for a disk that hangs. What is on disk does not move to memory: it stays, and
// is reported.
func (o *runningOutput) takeOver(ctx context.Context, replaced *runningOutput) {
	defer o.calls.begin(o.title() + ": taking over its queue")()
	<-replaced.filled
	if !awaitFor(ctx, handOverWait, replaced.delivery.done) { // what is in flight may arrive, else it is sent again
		replaced.abandonDelivery()
	}
	replaced.delivery.bequeath(o.delivery)
	if o.queue.Queue == nil {
		o.queue.takeOver(replaced.queue)
		return
	}
	if o.queue.dir != "" || replaced.queue.dir == "" {
		o.queue.moveFrom(ctx, replaced.queue)
	}
	replaced.queue.close()
}

// leave closes the inbox, lets the output deliver what is queued until drainCtx is
// done, and closes the queue. It waits for a disk that hangs, and unless it may abandon
// it for a Push that does not return.
func (o *runningOutput) leave(drainCtx context.Context, abandon bool) {
	defer close(o.left)
	o.stage.CompareAndSwap(stageRunning, stageLeaving)
	close(o.inbox)
	drained := await(drainCtx, o.delivery.done)
	if !o.stage.CompareAndSwap(stageLeaving, stageClosed) {
		return // handed over
	}
	<-o.filled
	switch {
	case drained:
	case abandon:
		o.abandonDelivery()
	default:
		o.cancel()
		<-o.delivery.done
	}
	defer o.calls.begin(o.title() + ": closing its queue")()
	o.queue.close()
}

// abandonDelivery ends the delivery. If Push or Close do not return, they find the
// queue taken away when they do.
func (o *runningOutput) abandonDelivery() {
	o.cancel()
	if !awaitFor(context.Background(), handOverWait, o.delivery.done) {
		o.delivery.abandon()
		o.log.Error("abandoned: Push has not returned")
	}
}

// rejectUnencoded is for a point that the output cannot encode: there is no record
// that could wait in the queue until the dead-letter file can be written.
func (o *runningOutput) rejectUnencoded(series string, cause error) {
	defer o.calls.begin(o.title() + ": writing the dead-letter file")()
	dead := []buffer.DeadLetter{{Record: []byte(series), Reason: fmt.Errorf("encode: %w", cause)}}
	if err := o.rejects.keep(dead); err != nil {
		o.rejects.lost(1, err)
	}
}

package agent

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/filter"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A liveInput is an Input at work.
type liveInput struct {
	*Input
	run        *run
	log        *slog.Logger
	health     *inputHealth
	dress      *dresser
	startAfter <-chan struct{} // the first gather waits for it, unless nil
	successor  bool            // of an input whose batch still stands: no jitter before the first gather
	first      func()          // to be called when the first gather is over
	demand     chan chan *flight
	cancel     context.CancelFunc
	done       chan struct{} // closed when gatherEvery has returned

	mu     sync.Mutex
	flight *flight // the gather under way, or nil
}

// A livePush is a Push at work: push fills its queue, deliver empties it.
type livePush struct {
	*Push
	log        *slog.Logger
	health     *outputHealth
	filter     filter.Filter
	queue      buffer.Queue
	queueDir   string        // of a queue on disk; "": in memory
	persistent bool          // what is queued outlives the output: no last minute retries
	maxBytes   int           // of records in one Push
	phase      time.Duration // of its flushes
	letters    *buffer.DeadLetters
	inbox      chan *metric.Batch
	appended   chan struct{} // holds a token when something was queued
	closing    chan struct{} // closed when nothing will be queued any more
	cancel     context.CancelFunc
	done       chan struct{} // closed when deliver has returned

	replaced atomic.Bool // by a reload: deliver leaves what is queued to its successor
	settling sync.Mutex  // held while what was pushed leaves the queue
	disowned atomic.Bool // deliver, which does not return, must leave the queue alone

	dropLog, rejectLog, ackLog throttle
	downLog                    throttle // of an outage; a new one begins anew
	downWith                   error    // what setUp logged last; nil when up
}

// A livePull is a Pull at work.
type livePull struct {
	*Pull
	log    *slog.Logger
	health *outputHealth
	cancel context.CancelFunc
	done   chan struct{} // closed when Serve has returned
}

func (r *run) newInput(a *Agent, in *Input) (*liveInput, error) {
	d, err := newDresser(in)
	if err != nil {
		return nil, err
	}
	l := &liveInput{
		Input: in, run: r, log: a.Log.With("plugin", "inputs."+in.Name), health: r.health.input(in.Name),
		dress: d, first: func() {}, demand: make(chan chan *flight), done: make(chan struct{}),
	}
	if in.Name == agentSource {
		l.startAfter = r.firsts.opened // when every other has gathered once, or failed to
	}
	return l, nil
}

func (r *run) newPull(a *Agent, p *Pull) *livePull {
	l := &livePull{
		Pull: p, log: a.Log.With("plugin", "outputs."+p.Name), health: r.health.output(p.Name),
		done: make(chan struct{}),
	}
	l.health.endpoint.Store(true)
	return l
}

// inboxBatches is how many batches wait for an output whose queue hangs.
const inboxBatches = 64

func newPush(a *Agent, p *Push, h *outputHealth) (*livePush, error) {
	f, err := filter.New(p.Options.Options)
	if err != nil {
		return nil, err
	}
	l := &livePush{
		Push: p, log: a.Log.With("plugin", "outputs."+p.Name), health: h, filter: f,
		queueDir: queueDir(a, p), maxBytes: maxPushBytes,
		letters: buffer.NewDeadLetters(deadLetterPath(a.Options.StateDirectory, p.Name)),
		inbox:   make(chan *metric.Batch, inboxBatches), appended: make(chan struct{}, 1),
		closing: make(chan struct{}), done: make(chan struct{}),
	}
	l.persistent = l.queueDir != ""
	if b, ok := p.Pusher.(plugin.Bounded); ok {
		l.maxBytes = b.MaxBytes()
	}
	if interval := uint64(p.Options.FlushInterval); interval > 0 {
		sum := fnv.New64a()
		host, _ := os.Hostname() // without one all are in phase, no worse
		fmt.Fprint(sum, host, p.Name)
		l.phase = time.Duration(sum.Sum64() % interval)
	}
	return l, nil
}

// maxPushBytes bounds one Push of an output that names no bound of its own.
const maxPushBytes = 1 << 20

func (p *livePush) start(cut context.Context) {
	ctx, cancel := context.WithCancel(cut)
	p.cancel = cancel
	p.health.watch(p.queue)
	if p.queue.Stats().Records > 0 {
		p.appended <- struct{}{} // before anything new comes
	}
	go p.push()
	go p.deliver(ctx)
}

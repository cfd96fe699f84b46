package agent

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"sockwatch/agent/metric"
)

// A run is an agent at work: what stays when a reload exchanges instances.
type run struct {
	log    *slog.Logger
	health *health
	board  *board
	ready  func()

	firsts  *gate          // held by inputs whose first gather is not over
	leaving sync.WaitGroup // of outputs that the last reload has removed

	// Only Run's goroutine changes what follows, with mu held; it reads without.
	mu     sync.RWMutex
	config *Agent
	inputs map[string]*liveInput
	pushes map[string]*livePush
	pulls  map[string]*livePull
}

func newRun(a *Agent, ready func()) *run {
	return &run{
		log: a.Log, health: newHealth(a.Version), board: &board{}, ready: ready,
		firsts: &gate{opened: make(chan struct{})},
		config: &Agent{Log: a.Log, Options: Options{ShutdownTimeout: a.Options.ShutdownTimeout}}, // before the first is adopted
		inputs: map[string]*liveInput{}, pushes: map[string]*livePush{}, pulls: map[string]*livePull{},
	}
}

// cutAfter returns a context that ends when all draining must: after ctx by the
// shutdown timeout, but for a tenth of it. That is for what hangs: one lastWait for
// a Push that does not return, one for a queue that is not closed.
func (r *run) cutAfter(ctx context.Context) (context.Context, context.CancelFunc) {
	cut, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timeout := r.shutdownTimeout()
		sleep(cut, timeout-timeout/10)
		cancel()
	})
	return cut, func() { stop(); cancel() }
}

func (r *run) shutdownTimeout() time.Duration {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return time.Duration(r.config.Options.ShutdownTimeout)
}

// lastWait is how long what hangs is waited for when its time is over.
func (r *run) lastWait() time.Duration { return r.shutdownTimeout() / 20 }

// reloaded notes the outcome of a reload, an error of several lines as so many.
func (r *run) reloaded(err error) {
	r.health.reloaded(err)
	if err == nil {
		r.log.Info("reloaded")
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		r.log.Error("not reloaded: the running configuration stays", "error", line)
	}
}

// A gate opens when nobody holds it any more, and stays open.
type gate struct {
	mu     sync.Mutex
	holds  int
	opened chan struct{} // closed
}

// hold keeps the gate shut until release is called.
func (g *gate) hold() (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holds++
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.holds--; g.holds > 0 {
			return
		}
		select {
		case <-g.opened:
		default:
			close(g.opened)
		}
	})
}

// show puts an input's batch on the board, nil to take it off; together with the
// agent's own where the input went up or down. The first batch of the agent's
// own input opens the board: all others have gathered by then.
func (r *run) show(in *liveInput, b *metric.Batch, turned bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.inputs[in.Name] != in {
		return // a reload has removed it meanwhile
	}
	batches := map[string]*metric.Batch{in.Name: b}
	if own := r.inputs[agentSource]; turned && own != nil && own != in {
		if health, err := own.dress.batch(r.health.batch()); err == nil {
			batches[agentSource] = health
		}
	}
	r.board.set(batches)
	if in.Name == agentSource && r.board.open() && r.ready != nil {
		r.ready()
	}
}

// offer hands a batch to every push output.
func (r *run) offer(b *metric.Batch) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, p := range r.pushes {
		p.offer(b)
	}
}

// refresh gathers the inputs whose batch is older than maxAge, then the agent's
// own, and waits for them until ctx is done.
func (r *run) refresh(ctx context.Context, maxAge time.Duration) error {
	if !r.board.opened() {
		return nil // the first gathers are under way
	}
	r.mu.RLock()
	var inputs []*liveInput
	own := r.inputs[agentSource]
	for _, in := range r.inputs {
		if in != own && r.board.age(in.Name) > maxAge {
			inputs = append(inputs, in)
		}
	}
	r.mu.RUnlock()
	if len(inputs) == 0 {
		return nil
	}
	shown := make(chan struct{}, len(inputs))
	for _, in := range inputs {
		go func() {
			in.gatherNow(ctx)
			shown <- struct{}{}
		}()
	}
	for range inputs {
		<-shown
	}
	if own != nil {
		own.gatherNow(ctx)
	}
	return ctx.Err()
}

// gatherNow starts or joins a gather and waits until its result is shown, the
// input has stopped, or ctx is done.
func (in *liveInput) gatherNow(ctx context.Context) {
	reply := make(chan *flight, 1)
	select {
	case in.demand <- reply:
	case <-in.done:
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-(<-reply).shown:
	case <-ctx.Done():
	}
}

func (in *liveInput) underWay() *flight {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.flight
}

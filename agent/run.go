package agent

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"reflect"
	"sync"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/filter"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A run is an agent at work: what stays when a reload exchanges instances.
type run struct {
	log    *slog.Logger
	health *health
	board  *board
	ready  func()

	firsts    sync.WaitGroup // inputs whose first gather is not over
	firstOver chan struct{}  // closed when those of the start are

	// Only Run's goroutine changes what follows, with mu held; it reads without.
	mu     sync.RWMutex
	config *Agent
	inputs map[string]*liveInput
	pushes map[string]*livePush
	pulls  map[string]*livePull
}

// A liveInput is an Input at work.
type liveInput struct {
	*Input
	run        *run
	log        *slog.Logger
	health     *inputHealth
	dress      *dresser
	startAfter <-chan struct{} // the first gather waits for it, unless nil
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
	letters    *deadLetters
	inbox      chan *metric.Batch
	appended   chan struct{} // holds a token when something was queued
	closing    chan struct{} // closed when nothing will be queued any more
	cancel     context.CancelFunc
	done       chan struct{} // closed when deliver has returned

	abandoned bool // deliver has not returned and still uses the queue

	dropLog, rejectLog throttle
	downWith           error // what setUp logged last; nil when up
}

// A livePull is a Pull at work.
type livePull struct {
	*Pull
	log    *slog.Logger
	health *outputHealth
	cancel context.CancelFunc
	done   chan struct{} // closed when Serve has returned
}

func newRun(a *Agent, ready func()) *run {
	return &run{
		log: a.Log, health: newHealth(a.Version), board: &board{}, ready: ready,
		firstOver: make(chan struct{}),
		config:    &Agent{Log: a.Log},
		inputs:    map[string]*liveInput{}, pushes: map[string]*livePush{}, pulls: map[string]*livePull{},
	}
}

// cutAfter returns a context that ends when all draining must: the shutdown
// timeout after ctx.
func (r *run) cutAfter(ctx context.Context) (context.Context, context.CancelFunc) {
	cut, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		sleep(cut, r.shutdownTimeout())
		cancel()
	})
	return cut, func() { stop(); cancel() }
}

func (r *run) shutdownTimeout() time.Duration {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return time.Duration(r.config.Options.ShutdownTimeout)
}

// A change is the way from one configuration to the next.
type change struct {
	kept   map[any]bool // the live instances that go on
	inputs []*liveInput // to be launched
	pushes []*livePush  // to be launched; without a queue where an old one's is handed over
	pulls  []*livePull  // to be launched, listening
}

// adopt goes over to the configuration next: everything new is opened before
// anything old stops, and an error of that leaves the run as it was. Inputs and
// endpoints live until live is done, the delivery of outputs until cut is.
func (r *run) adopt(live, cut context.Context, next *Agent) error {
	next.Inputs = append(next.Inputs[:len(next.Inputs):len(next.Inputs)], r.health.asInput(next))
	c, err := r.open(live, next)
	if err != nil {
		return err
	}
	retired := r.exchange(next, c)
	r.retire(cut, retired)
	r.launch(live, cut, c, retired)
	r.reportBacklogs(next)
	return nil
}

// open prepares what next has and the run does not.
func (r *run) open(ctx context.Context, next *Agent) (c *change, err error) {
	c = &change{kept: map[any]bool{}}
	defer func() {
		if err != nil {
			c.undo(r.log)
		}
	}()
	if err := makeStateDirectory(next.Options.StateDirectory); err != nil {
		return c, err
	}
	prev := r.config.Options
	alike := prev.Hostname == next.Options.Hostname && prev.StateDirectory == next.Options.StateDirectory
	for _, in := range next.Inputs {
		if old := r.inputs[in.Name]; old != nil && alike && in.equal(old.Input) {
			c.kept[old] = true
			continue
		}
		l, err := r.newInput(next, in)
		if err != nil {
			return c, fmt.Errorf("inputs.%s: %w", in.Name, err)
		}
		c.inputs = append(c.inputs, l)
	}
	for _, p := range next.Pull {
		if old := r.pulls[p.Name]; old != nil && alike && p.equal(old.Pull) {
			c.kept[old] = true
			continue
		}
		l := r.newPull(next, p)
		if err := p.Endpoint.Listen(ctx); err != nil {
			return c, fmt.Errorf("outputs.%s: %w", p.Name, err)
		}
		c.pulls = append(c.pulls, l)
	}
	for _, p := range next.Push {
		old := r.pushes[p.Name]
		if old != nil && alike && p.equal(old.Push) {
			c.kept[old] = true
			continue
		}
		l, err := newPush(next, p, r.health.output(p.Name))
		if err == nil && (old == nil || !old.handsOver(l)) {
			err = l.openQueue()
		}
		if err != nil {
			return c, fmt.Errorf("outputs.%s: %w", p.Name, err)
		}
		c.pushes = append(c.pushes, l)
	}
	return c, nil
}

// undo closes what was opened for a change that does not come.
func (c *change) undo(log *slog.Logger) {
	for _, p := range c.pulls {
		closeIf(p.Endpoint, log)
	}
	for _, p := range c.pushes {
		if p.queue != nil {
			closeIf(p.queue, log)
		}
	}
}

// exchange puts the new instances in the places of the old and returns those
// that are to stop. From here on batches go to the inboxes of the new outputs.
func (r *run) exchange(next *Agent, c *change) (retired *change) {
	retired = &change{}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.config = next
	for name, in := range r.inputs {
		if !c.kept[in] {
			retired.inputs = append(retired.inputs, in)
			delete(r.inputs, name)
		}
	}
	for name, p := range r.pushes {
		if !c.kept[p] {
			retired.pushes = append(retired.pushes, p)
			delete(r.pushes, name)
		}
	}
	for name, p := range r.pulls {
		if !c.kept[p] {
			retired.pulls = append(retired.pulls, p)
			delete(r.pulls, name)
		}
	}
	for _, in := range c.inputs {
		r.inputs[in.Name] = in
	}
	for _, p := range c.pushes {
		r.pushes[p.Name] = p
	}
	for _, p := range c.pulls {
		r.pulls[p.Name] = p
	}
	r.health.forget(
		func(input string) bool { return r.inputs[input] == nil },
		func(output string) bool { return r.pushes[output] == nil && r.pulls[output] == nil })
	return retired
}

// stop retires everything.
func (r *run) stop(cut context.Context) {
	r.log.Info("stopping")
	inputs := &change{kept: map[any]bool{}}
	for _, p := range r.pushes {
		inputs.kept[p] = true // they take what the inputs still publish
	}
	r.retire(cut, r.exchange(r.config, inputs))
	r.retire(cut, r.exchange(r.config, &change{}))
}

// retire stops instances and waits for them as long as the shutdown timeout and
// cut let it; half of that for inputs, so that outputs have time to drain.
func (r *run) retire(cut context.Context, c *change) {
	timeout := r.shutdownTimeout()
	patience, cancel := context.WithTimeout(cut, timeout)
	defer cancel()
	brief, cancelBrief := context.WithTimeout(cut, timeout/2)
	defer cancelBrief()
	for _, in := range c.inputs {
		in.cancel()
	}
	for _, p := range c.pulls {
		p.cancel()
	}
	for _, in := range c.inputs {
		if !await(brief, in.done) {
			in.log.Warn("not waited for: its gather has not returned")
		}
		r.board.remove(in.Name)
	}
	for _, p := range c.pulls {
		if !await(brief, p.done) {
			p.log.Error("stopped, though Serve has not returned")
		}
	}
	for _, p := range c.pushes {
		close(p.inbox)
		if next := r.pushes[p.Name]; next != nil && p.handsOver(next) {
			await(patience, p.closing)
			p.cancel()
		}
	}
	for _, p := range c.pushes {
		p.awaitDrained(patience)
	}
	for _, p := range c.pushes {
		if r.pushes[p.Name] == nil {
			p.closeQueue()
		}
	}
}

// await waits for done to be closed; false where ctx ends first.
func await(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// awaitDrained waits for deliver to return, and cuts it off when ctx is done.
func (p *livePush) awaitDrained(ctx context.Context) {
	if await(ctx, p.done) {
		return
	}
	p.cancel()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if !await(last, p.done) {
		p.log.Error("stopped, though Push has not returned")
		p.abandoned = true
	}
}

// launch starts the goroutines of the new instances, the outputs first.
func (r *run) launch(live, cut context.Context, c *change, retired *change) {
	for _, p := range c.pushes {
		for _, old := range retired.pushes {
			if old.Name == p.Name {
				p.inherit(old)
			}
		}
		p.start(cut)
	}
	for _, p := range c.pulls {
		ctx, cancel := context.WithCancel(live)
		p.cancel = cancel
		f, _ := filter.New(p.Options.Options) // config has validated it
		go p.serve(ctx, &view{run: r, filter: f})
	}
	for _, in := range c.inputs {
		if !r.board.opened() && in.startAfter == nil {
			r.firsts.Add(1)
			in.first = sync.OnceFunc(r.firsts.Done)
		}
	}
	for _, in := range c.inputs {
		ctx, cancel := context.WithCancel(live)
		in.cancel = cancel
		go in.gatherEvery(ctx, cut)
	}
}

// awaitFirstGathers lets the agent's own input begin when every other has
// gathered once, or failed to.
func (r *run) awaitFirstGathers() {
	r.firsts.Wait()
	close(r.firstOver)
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
		l.startAfter = r.firstOver
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
		letters: newDeadLetters(a.Options.StateDirectory, p.Name),
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
	go p.push()
	go p.deliver(ctx)
}

// equal reports whether two instances are configured alike.
func (in *Input) equal(other *Input) bool {
	return in.RoundInterval == other.RoundInterval && reflect.DeepEqual(in.Options, other.Options) &&
		reflect.DeepEqual(in.Settings, other.Settings)
}

func (p *Push) equal(other *Push) bool {
	return reflect.DeepEqual(p.Options, other.Options) && reflect.DeepEqual(p.Settings, other.Settings)
}

func (p *Pull) equal(other *Pull) bool {
	return reflect.DeepEqual(p.Options, other.Options) && reflect.DeepEqual(p.Settings, other.Settings)
}

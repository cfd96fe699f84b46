package agent

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"sockwatch/agent/filter"
	"sockwatch/agent/plugin"
)

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
	r.leaving.Wait() // a queue that is to be opened may still be theirs
	c, err := r.open(live, cut, next)
	if err != nil {
		r.forget()
		return err
	}
	defer r.firsts.hold()() // the board does not open between the old inputs and the new
	retired := r.exchange(next, c)
	r.handOver(cut, c, retired)
	if next.InForce != nil {
		next.InForce()
	}
	r.halt(cut, retired)
	r.launch(live, cut, c)
	r.leaving.Go(func() {
		r.finish(cut, retired.pushes)
		unlessHung(cut, func() { r.reportBacklogs(next) })
	})
	return nil
}

// open prepares what next has and the run does not. A disk that hangs holds it up
// until cut.
func (r *run) open(live, cut context.Context, next *Agent) (c *change, err error) {
	c = &change{kept: map[any]bool{}}
	defer func() {
		if err != nil {
			c.undo(r.log)
		}
	}()
	prev := r.config.Options
	if prev.StateDirectory != next.Options.StateDirectory { // a disk that hangs keeps even the mkdir of what is there
		if err := makeStateDirectory(cut, next.Options.StateDirectory); err != nil {
			return c, err
		}
	}
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
		if err := p.Endpoint.Listen(live); err != nil {
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
			err = l.openQueue(cut)
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
	r.forget()
	return retired
}

// forget drops the counters of instances that are not at work.
func (r *run) forget() {
	r.health.forget(
		func(input string) bool { return r.inputs[input] == nil },
		func(output string) bool { return r.pushes[output] == nil && r.pulls[output] == nil })
}

// stop ends everything.
func (r *run) stop(cut context.Context) {
	r.log.Info("stopping")
	inputs := &change{kept: map[any]bool{}}
	for _, p := range r.pushes {
		inputs.kept[p] = true // they take what the inputs still publish
	}
	r.halt(cut, r.exchange(r.config, inputs))
	r.finish(cut, r.exchange(r.config, &change{}).pushes)
	r.leaving.Wait()
}

// handOver starts the new outputs. One that replaces another of its name takes
// over what that has queued; that one is none of the retired any more.
func (r *run) handOver(cut context.Context, c, retired *change) {
	brief, cancel := context.WithTimeout(cut, r.shutdownTimeout()/2)
	defer cancel()
	replaced := map[string]*livePush{}
	retired.pushes = slices.DeleteFunc(retired.pushes, func(old *livePush) bool {
		if r.pushes[old.Name] == nil {
			return false
		}
		replaced[old.Name] = old
		old.replaced.Store(true)
		close(old.inbox)
		return true
	})
	moment, cancelMoment := context.WithTimeout(brief, time.Second) // for what is being sent: else it is sent again
	defer cancelMoment()
	for _, p := range c.pushes {
		if old := replaced[p.Name]; old != nil {
			await(brief, old.closing)
			await(moment, old.done)
			old.cutOff(r.lastWait())
			p.inherit(cut, old, r.lastWait())
		}
		p.start(cut)
	}
}

// succeed lets an input go on with what the one knew that it replaces.
func (in *liveInput) succeed(old *liveInput) {
	s, ok := in.Input.Input.(plugin.Inheritor)
	if !ok || old.underWay() != nil {
		return
	}
	var err error // logged by recover
	defer in.health.panics.recover(&err, in.log)
	s.InheritFrom(old.Input.Input)
}

// halt stops inputs and endpoints. It waits for half the shutdown timeout, so that
// outputs have time to drain what these publish.
func (r *run) halt(cut context.Context, c *change) {
	brief, cancel := context.WithTimeout(cut, r.shutdownTimeout()/2)
	defer cancel()
	for _, in := range c.inputs {
		in.cancel()
	}
	for _, p := range c.pulls {
		p.cancel()
	}
	for _, in := range c.inputs {
		stopped := await(brief, in.done)
		if !stopped {
			in.log.Warn("not waited for: its gather has not returned")
		}
		if next := r.inputs[in.Name]; next == nil { // else its batch stands until that of next
			r.board.remove(in.Name)
		} else if stopped {
			next.succeed(in)
		}
	}
	for _, p := range c.pulls {
		if !await(brief, p.done) {
			p.log.Error("stopped, though Serve has not returned")
		}
	}
}

// finish lets outputs deliver what they have queued, as long as the shutdown
// timeout and cut let it, and closes their queues.
func (r *run) finish(cut context.Context, pushes []*livePush) {
	patience, cancel := context.WithTimeout(cut, r.shutdownTimeout())
	defer cancel()
	var wg sync.WaitGroup
	for _, p := range pushes {
		close(p.inbox)
		wg.Go(func() {
			if !await(patience, p.closing) || !await(patience, p.done) {
				p.cutOff(r.lastWait())
			}
			p.closeQueue(r.lastWait())
		})
	}
	wg.Wait()
}

// await waits for done to be closed; false where ctx ends first.
func await(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	select {
	case <-done: // both: nothing is said to hang that is over
		return true
	default:
		return false
	}
}

// unlessHung does what a disk that hangs would keep, and waits for it until ctx is
// done; false: it goes on alone, and nothing that it writes may be read.
func unlessHung(ctx context.Context, do func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	return await(ctx, done)
}

// cutOff ends the delivery. Where Push and Close have not returned when the wait is
// over, they find the queue taken away when they do.
func (p *livePush) cutOff(wait time.Duration) {
	p.cancel()
	last, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if await(last, p.done) {
		return
	}
	p.disowned.Store(true)
	if !p.settling.TryLock() {
		p.log.Error("stopped, though the disk of its queue or of its dead letters hangs")
		return
	}
	p.settling.Unlock()
	p.log.Error("stopped, though Push has not returned")
}

// launch starts the new inputs and endpoints.
func (r *run) launch(live, cut context.Context, c *change) {
	for _, p := range c.pulls {
		ctx, cancel := context.WithCancel(live)
		p.cancel = cancel
		f, _ := filter.New(p.Options.Options) // config has validated it
		go p.serve(ctx, &view{run: r, filter: f})
	}
	for _, p := range r.pulls {
		if l, ok := p.Endpoint.(plugin.Reloader); ok && c.kept[p] {
			l.Reload()
		}
	}
	for _, in := range c.inputs {
		if !r.board.opened() && in.startAfter == nil {
			in.first = r.firsts.hold()
		}
	}
	for _, in := range c.inputs {
		ctx, cancel := context.WithCancel(live)
		in.cancel = cancel
		in.successor = r.board.age(in.Name) < forever
		go in.gatherEvery(ctx, cut)
	}
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

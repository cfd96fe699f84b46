package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sockwatch/agent/buffer"
	"sockwatch/agent/delivery"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// An eventInput has one event "count N" and some points in the N-th gather, and records
// which events are confirmed.
type eventInput struct {
	points int
	most   int64 // number of events; 0: unlimited

	mu     sync.Mutex
	n      int64
	stored []string
}

func (in *eventInput) Gather(context.Context) (metric.Batch, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	b := batchOf()
	for i := range in.points {
		b.Points = append(b.Points, pointOf("point", int64(i), "n", fmt.Sprint(i)))
	}
	if in.n == in.most && in.most > 0 {
		return b, nil
	}
	in.n++
	event := pointOf("count", in.n)
	event.Time = b.Time
	record := fmt.Sprint("count ", in.n)
	b.Events = append(b.Events, event)
	b.EventsStored = func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.stored = append(in.stored, record)
	}
	return b, nil
}

func (in *eventInput) want(t *testing.T, when string, want ...string) {
	t.Helper()
	in.mu.Lock()
	defer in.mu.Unlock()
	if diff := cmp.Diff(want, in.stored, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("confirmed %s (-want +got):\n%s", when, diff)
	}
}

var errDown = errors.New("down")

func TestEventsAreConfirmedWhenEveryOutputHasThem(t *testing.T) {
	type output struct {
		err      error // at first
		disk     bool
		nameDrop string
	}
	tests := []struct {
		name    string
		outputs []output
		first   []string // confirmed while the destinations answer with err
		then    []string // confirmed after they have taken everything
	}{
		{name: "no output", first: counts(1, 1), then: counts(1, 1)},
		{name: "in memory, stored", outputs: []output{{}}, first: counts(1, 1), then: counts(1, 1)},
		{name: "in memory, down", outputs: []output{{err: errDown}}, then: counts(1, 1)},
		{name: "in memory, rejected", outputs: []output{{err: plugin.ErrRejected}}, first: counts(1, 1), then: counts(1, 1)},
		{name: "on disk, down", outputs: []output{{err: errDown, disk: true}}, first: counts(1, 1), then: counts(1, 1)},
		{name: "dropped by the filter of one that is down", outputs: []output{{err: errDown, nameDrop: "count"}}, first: counts(1, 1), then: counts(1, 1)},
		{name: "one of two is down", outputs: []output{{}, {err: errDown}}, then: counts(1, 1)},
		{name: "one on disk, one that takes no events", outputs: []output{{err: errDown, disk: true}, {err: errDown, nameDrop: "count"}}, first: counts(1, 1), then: counts(1, 1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.agent.Options.StateDirectory = t.TempDir()
				in := &eventInput{points: 3, most: 1}
				r.agent.input("a", in)
				var pushers []*switchedPusher
				for i, o := range tt.outputs {
					p := newSwitchedPusher(o.err)
					push := r.agent.push(fmt.Sprint("out", i), p)
					push.Options.NameDrop = []string{"sockwatch*"}
					if o.nameDrop != "" {
						push.Options.NameDrop = append(push.Options.NameDrop, o.nameDrop)
					}
					if o.disk {
						push.Options.Buffer = "disk"
					}
					pushers = append(pushers, p)
				}
				r.start()
				after(time.Second)
				in.want(t, "at first", tt.first...)
				for _, p := range pushers {
					p.set(nil)
				}
				after(time.Minute)
				in.want(t, "then", tt.then...)
				if err := r.end(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Events that a stop leaves undelivered in memory are not confirmed: the input returns
// them again after a start.
func TestUndeliveredEventsAreNotConfirmedAtAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		in := &eventInput{points: 3}
		r.agent.input("a", in)
		r.agent.push("out", newSwitchedPusher(errDown))
		r.start()
		after(time.Minute)
		if err := r.end(); err != nil {
			t.Error(err)
		}
		in.want(t, "after the stop")
	})
}

func TestEventsAreConfirmedThroughReloads(t *testing.T) {
	tests := []struct {
		name   string
		reload func(next *Agent, in *eventInput, p *switchedPusher)
		first  []string // confirmed after the reload
		then   []string // confirmed when the destination is back
	}{
		{name: "with other options of the output", then: counts(1, 1), reload: func(next *Agent, in *eventInput, p *switchedPusher) {
			next.input("a", in)
			next.push("out", p).Settings = &fakeSettings{Version: 2}
		}},
		{name: "from memory to disk", first: counts(1, 1), then: counts(1, 1), reload: func(next *Agent, in *eventInput, p *switchedPusher) {
			next.input("a", in)
			onDisk(next.push("out", p))
		}},
		{name: "that removes the output", first: counts(1, 1), then: counts(1, 1), reload: func(next *Agent, in *eventInput, p *switchedPusher) {
			next.input("a", in)
		}},
		{name: "that removes the input", then: counts(1, 1), reload: func(next *Agent, in *eventInput, p *switchedPusher) {
			next.push("out", p)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.agent.Options.StateDirectory = t.TempDir()
				in := &eventInput{points: 3, most: 1}
				r.agent.input("a", in)
				p := newSwitchedPusher(errDown)
				r.agent.push("out", p)
				r.start()
				after(time.Second)
				in.want(t, "before the reload")
				next := r.sibling()
				tt.reload(next, in, p)
				r.reloadTo(next, nil)
				after(10 * time.Second)
				in.want(t, "after the reload", tt.first...)
				p.set(nil)
				after(2 * time.Minute)
				in.want(t, "then", tt.then...)
				if err := r.end(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestOnceConfirmsWhatItHasDelivered(t *testing.T) {
	for _, err := range []error{nil, errDown} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			in := &eventInput{points: 3}
			r.agent.input("a", in)
			r.agent.push("one", &fakePusher{})
			r.agent.push("two", newSwitchedPusher(err))
			if got := r.agent.Once(t.Context()); (got == nil) != (err == nil) {
				t.Error(got)
			}
			if err == nil {
				in.want(t, "after the delivery", "count 1")
			} else {
				in.want(t, "without a delivery")
			}
		})
	}
}

// An event that a queue in memory has dropped at its limit is never confirmed; later
// ones are.
func TestEventsThatAreDroppedAreNotConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		in := &eventInput{points: 10}
		r.agent.input("a", in)
		p := newSwitchedPusher(errDown)
		push := r.agent.push("out", p)
		push.Options.NameDrop = []string{"sockwatch*"}
		push.Options.BufferLimit = 2000
		r.start()
		after(10 * time.Minute)
		p.set(nil)
		after(2 * time.Minute)
		if err := r.end(); err != nil {
			t.Error(err)
		}
		got := p.got("count")
		if len(got) == 0 || len(got) == int(in.n) {
			t.Fatalf("%d of %d events delivered, want some", len(got), in.n)
		}
		in.want(t, "in the end", got...)
	})
}

// A flakyQueue is a queue whose Append fails.
type flakyQueue struct {
	buffer.Queue
	mu  sync.Mutex
	err error
}

func (q *flakyQueue) Append(block [][]byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return 0, q.err
	}
	return q.Queue.Append(block)
}

func (q *flakyQueue) set(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.err = err
}

// newFilledOutput returns a running output that delivers the records of its queue.
func newFilledOutput(t *testing.T, r *rig, q buffer.Queue, p plugin.Pusher) *runningOutput {
	s := newSupervisor(r.agent, nil)
	push := (&Agent{}).push("out", p)
	o, err := newOutput(r.agent, push, s.health.Output("out"), s.calls, s.stopping)
	if err != nil {
		t.Fatal(err)
	}
	o.queue.Buffer = q
	o.start(t.Context(), nil)
	return o
}

// gatherInto offers batches to an output, with their receipts.
func (in *eventInput) gatherInto(o *runningOutput, batches int) {
	for range batches {
		b, _ := in.Gather(context.Background())
		r := delivery.NewReceipt(b.EventsStored)
		o.offer(nil, &b, r)
		r.Release()
		synctest.Wait()
	}
}

// A disk that is full for a while costs points, but no events: these are queued first
// when there is space again.
func TestEventsWaitForADiskThatIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		in, p := &eventInput{points: 3}, &fakePusher{}
		q := &flakyQueue{Queue: buffer.NewMemory(1 << 20), err: syscall.ENOSPC}
		o := newFilledOutput(t, r, q, p)
		in.gatherInto(o, 3)
		in.want(t, "while the disk is full")
		if got := o.health.Dropped.Load(); got != 9 {
			t.Errorf("%d points dropped, want 9", got)
		}
		q.set(nil)
		in.gatherInto(o, 1)
		in.want(t, "when there is space", counts(1, 4)...)
		go o.leave(t.Context(), false)
		after(time.Minute)
		want := append(counts(1, 4), "point 0", "point 1", "point 2")
		if diff := cmp.Diff(want, p.stored); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		if got := o.health.Dropped.Load(); got != 9 {
			t.Errorf("%d points dropped, want 9", got)
		}
	})
}

// A reload while the disk is full passes the events on.
func TestEventsThatWaitAreHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := newSupervisor(r.agent, nil)
		in, p := &eventInput{points: 3}, &fakePusher{}
		q := &flakyQueue{Queue: buffer.NewMemory(1 << 20), err: syscall.ENOSPC}
		old := newFilledOutput(t, r, q, p)
		in.gatherInto(old, 2)
		old.handOver()
		o, err := newOutput(r.agent, (&Agent{}).push("out", p), s.health.Output("out"), s.calls, s.stopping)
		if err != nil {
			t.Fatal(err)
		}
		o.start(t.Context(), old)
		in.gatherInto(o, 1)
		q.set(nil)
		in.gatherInto(o, 1)
		go o.leave(t.Context(), false)
		after(time.Minute)
		in.want(t, "in the end", counts(1, 4)...)
		if diff := cmp.Diff(counts(1, 4), p.got("count")); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
	})
}

func TestAtMost10000EventsWaitForAQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		in, p := &eventInput{}, &fakePusher{}
		q := &flakyQueue{Queue: buffer.NewMemory(16 << 20), err: syscall.ENOSPC}
		o := newFilledOutput(t, r, q, p)
		in.gatherInto(o, maxWaitingEvents+5)
		if got := o.health.Dropped.Load(); got != 5 {
			t.Errorf("%d dropped, want 5", got)
		}
		q.set(nil)
		go o.leave(t.Context(), false)
		after(time.Minute)
		in.want(t, "in the end", counts(6, maxWaitingEvents+5)...)
	})
}

// A disk that hangs until the inbox is full costs points, but no events.
func TestEventsWaitForADiskThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		in, p := &eventInput{points: 3}, &fakePusher{}
		q := &hangingQueue{Queue: buffer.NewMemory(1 << 20), release: make(chan struct{}), appending: true}
		o := newFilledOutput(t, r, q, p)
		const batches = 2 * inboxBatches
		in.gatherInto(o, batches)
		in.want(t, "while the disk hangs")
		close(q.release)
		go o.leave(t.Context(), false)
		after(time.Minute)
		in.want(t, "in the end", counts(1, batches)...)
		if diff := cmp.Diff(counts(1, batches), p.got("count")); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
	})
}

// Events that are larger than the whole queue are queued in parts; one that is too large
// alone is dropped and not confirmed.
func TestEventsLargerThanTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		p := &fakePusher{}
		o := newFilledOutput(t, r, buffer.NewMemory(100), p)
		confirmed := []string{}
		offer := func(name string, events ...metric.Point) {
			r := delivery.NewReceipt(func() { confirmed = append(confirmed, name) })
			o.offer(nil, &metric.Batch{Time: time.Now(), Events: events}, r)
			r.Release()
			after(time.Minute)
		}
		offer("three", pointOf("count", 1), pointOf("count", 2), pointOf("count", 3))
		offer("too large", pointOf(string(make([]byte, 200)), 1))
		offer("last", pointOf("count", 4))
		go o.leave(t.Context(), false)
		after(time.Minute)
		if diff := cmp.Diff([]string{"three", "last"}, confirmed); diff != "" {
			t.Errorf("confirmed (-want +got):\n%s", diff)
		}
		if got := o.health.Dropped.Load(); got != 1 {
			t.Errorf("%d dropped, want 1", got)
		}
	})
}

// If the queue has accepted only the first part of such events, the rest waits, and no event is
// queued twice.
func TestPartOfTheEventsWaitsForAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		release := make(chan struct{})
		p := &fakePusher{}
		p.push = func(context.Context, []string) error { <-release; return nil }
		o := newFilledOutput(t, r, buffer.NewMemory(140), p)
		offer := func(lengths ...int) {
			b := &metric.Batch{Time: time.Now()}
			for i, n := range lengths {
				b.Events = append(b.Events, pointOf(strings.Repeat("e", n), int64(i)))
			}
			o.offer(nil, b, nil)
			after(time.Second)
		}
		offer(54) // 80 bytes of 140, which the queue cannot drop during the Push
		offer(1, 35, 35)
		offer()
		close(release)
		after(time.Second)
		offer()
		go o.leave(t.Context(), false)
		after(time.Minute)
		got := []int{}
		for _, record := range p.stored {
			got = append(got, strings.Index(record, " "))
		}
		if diff := cmp.Diff([]int{54, 1, 35, 35}, got); diff != "" {
			t.Errorf("lengths of the delivered events (-want +got):\n%s", diff)
		}
	})
}

// An eventPusher writes events in a form of their own, and leaves out every second one and
// every point.
type eventPusher struct{ fakePusher }

func (e *eventPusher) Encode(dst []byte, _ *metric.Point) ([]byte, error) { return dst, nil }

func (e *eventPusher) EncodeEvent(dst []byte, p *metric.Point) ([]byte, error) {
	if v, _ := p.Field("value"); v.AsInt()%2 == 0 {
		return dst, nil
	}
	return e.fakePusher.Encode(append(dst, "event "...), p)
}

// An event that the output leaves out has nothing to wait for, and is neither written nor
// rejected.
func TestEventsAreEncodedByAnEventEncoder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		in := &eventInput{points: 3, most: 4}
		out, page := &eventPusher{}, newFakeEndpoint()
		r.agent.input("a", in)
		r.agent.push("out", out)
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		after(time.Minute)
		in.want(t, "after a minute", counts(1, 4)...)
		if diff := cmp.Diff([]string{"event count 1", "event count 3"}, out.got("event")); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		if o := board.Health().Outputs[0]; o.WrittenPoints != 2 || o.RejectedPoints != 0 {
			t.Errorf("written %d, rejected %d, want 2 and 0", o.WrittenPoints, o.RejectedPoints)
		}
		r.end()
	})
}

func TestEventsDoNotWaitForMinInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		p, n := &fakePusher{}, int64(0)
		r.agent.input("in", fakeInput(func(context.Context) (metric.Batch, error) {
			n++
			b := batchOf(pointOf("point", n))
			event := pointOf("event", n)
			event.Time = b.Time
			b.Events = []metric.Point{event}
			return b, nil
		}))
		r.agent.push("out", p).Options.MinInterval = plugin.Duration(time.Minute)
		r.start()
		after(65 * time.Second)
		want := []string{"event 1", "event 2", "event 3", "event 4", "event 5", "event 6", "event 7"}
		if diff := cmp.Diff(want, p.got("event")); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if got := p.got("point"); len(got) != 2 || got[0] != "point 1" {
			t.Errorf("points %q, want the first and one later", got)
		}
		r.end()
	})
}

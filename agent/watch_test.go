package agent

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sockwatch/agent/metric"
)

// A watchedInput counts its gathers, each of which takes some time.
type watchedInput struct {
	takes   time.Duration
	gathers atomic.Int64
	watch   func(ctx context.Context, changed func())
	closed  atomic.Bool
}

func (in *watchedInput) Gather(context.Context) (metric.Batch, error) {
	b := batchOf(pointOf("count", in.gathers.Add(1)))
	time.Sleep(in.takes)
	return b, nil
}

func (in *watchedInput) Watch(ctx context.Context, changed func()) { in.watch(ctx, changed) }

func (in *watchedInput) Close() error {
	in.closed.Store(true)
	return nil
}

func (in *watchedInput) want(t *testing.T, when string, gathers int64) {
	t.Helper()
	if got := in.gathers.Load(); got != gathers {
		t.Errorf("%d gathers %s, want %d", got, when, gathers)
	}
}

func TestChangeCausesAGatherAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		changes := make(chan struct{})
		var first int64
		in := &watchedInput{takes: 500 * time.Millisecond}
		in.watch = func(ctx context.Context, changed func()) {
			first = in.gathers.Load()
			for {
				select {
				case <-changes:
					changed()
				case <-ctx.Done():
					changed() // has no effect any more
					return
				}
			}
		}
		r.agent.input("a", in)
		r.start()
		in.want(t, "at the start", 1)
		after(time.Second)
		if first != 1 {
			t.Errorf("Watch was called after %d gathers, want 1", first)
		}
		changes <- struct{}{}
		synctest.Wait()
		in.want(t, "after a change", 2)
		for range 5 { // in flight: that gather may have missed a change now
			changes <- struct{}{}
			synctest.Wait()
		}
		in.want(t, "with one in flight", 2)
		after(500 * time.Millisecond)
		in.want(t, "after that", 3)
		after(5 * time.Second)
		in.want(t, "before the next tick", 3)
		after(10 * time.Second)
		in.want(t, "after the next tick", 4)
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if !in.closed.Load() {
			t.Error("not closed")
		}
	})
}

// An input whose Watch panics keeps running without it.
func TestWatchThatPanicsIsRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		in := &watchedInput{watch: func(context.Context, func()) { panic("a fault of the plugin") }}
		r.agent.input("a", in)
		r.start()
		after(35 * time.Second)
		if got := in.gathers.Load(); got < 4 {
			t.Errorf("%d gathers, want 4", got)
		}
		if got := strings.Count(r.log.String(), "a fault of the plugin"); got != 1 {
			t.Errorf("the panic is logged %d times, want once:\n%s", got, r.log)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// The watchdog names a Watch that does not return, and the input stays open.
func TestWatchThatHangsIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		release := make(chan struct{})
		in := &watchedInput{watch: func(context.Context, func()) { <-release }}
		r.agent.input("a", in)
		r.start()
		err := r.end()
		if want := "inputs.a: Watch"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run: %v, want %s", err, want)
		}
		if in.closed.Load() {
			t.Error("closed while Watch runs")
		}
		close(release)
	})
}

// A reload that replaces the input ends its Watch before the new one begins.
func TestReloadEndsWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		running := atomic.Int64{}
		newInput := func() *watchedInput {
			return &watchedInput{watch: func(ctx context.Context, changed func()) {
				if n := running.Add(1); n != 1 {
					t.Errorf("%d run at once", n)
				}
				<-ctx.Done()
				running.Add(-1)
			}}
		}
		r.agent.input("a", newInput())
		r.start()
		after(time.Second)
		next := r.sibling()
		next.input("a", newInput()).Settings = &fakeSettings{Version: 2}
		r.reloadTo(next, nil)
		after(time.Second)
		if got := running.Load(); got != 1 {
			t.Errorf("%d run after the reload, want 1", got)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if got := running.Load(); got != 0 {
			t.Errorf("%d run after the stop", got)
		}
	})
}

package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

// A closableInput records whether it has been closed.
type closableInput struct {
	fakeInput
	closed bool
}

func (c *closableInput) Close() error {
	c.closed = true
	return nil
}

// gathererOf returns the Gatherer of an agent with one input.
func gathererOf(t *testing.T, in *closableInput) *Gatherer {
	t.Helper()
	r := newRig(t)
	r.agent.input("in", in)
	all, err := r.agent.Gatherers()
	if err != nil || len(all) != 1 {
		t.Fatalf("%d gatherers, %v", len(all), err)
	}
	return all[0]
}

func TestGathererKeepsItsInputOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &closableInput{fakeInput: counting()}
		g := gathererOf(t, in)
		var got []int64
		for range 3 {
			b, err := g.Gather(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			v, _ := b.Points[0].Field("value")
			got = append(got, v.AsInt())
			if b.Source != "in" || in.closed {
				t.Errorf("source %q, closed %v", b.Source, in.closed)
			}
		}
		if diff := cmp.Diff([]int64{1, 2, 3}, got); diff != "" {
			t.Errorf("values of one input (-want +got):\n%s", diff)
		}
		if g.Close(); !in.closed {
			t.Error("not closed")
		}
	})
}

func TestGathererDoesNotWaitForAnInputThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		in := &closableInput{fakeInput: func(context.Context) (metric.Batch, error) {
			<-release
			return batchOf(pointOf("late", 1)), nil
		}}
		g := gathererOf(t, in)
		gather := func(ctx context.Context) string {
			_, err := g.Gather(ctx)
			if err == nil {
				return ""
			}
			return err.Error()
		}
		if got, want := gather(t.Context()), "inputs.in: timed out after 10s"; got != want {
			t.Errorf("error %q, want %q", got, want)
		}
		if got, want := gather(t.Context()), "inputs.in: the previous gather has not ended"; got != want {
			t.Errorf("error %q, want %q", got, want)
		}
		close(release)
		synctest.Wait()
		if got := gather(t.Context()); got != "" {
			t.Errorf("error %q after the input has returned", got)
		}
	})
}

func TestGathererReturnsWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		in := &closableInput{fakeInput: func(context.Context) (metric.Batch, error) {
			<-release
			return metric.Batch{}, nil
		}}
		g := gathererOf(t, in)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		if _, err := g.Gather(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("returned after %v", took)
		}
		if g.Close(); in.closed {
			t.Error("closed while a gather uses it")
		}
		close(release)
	})
}

// A watchedClosable is an input with a Watch that can be closed.
type watchedClosable struct {
	closableInput
	watch func(ctx context.Context, changed func())
}

func (w *watchedClosable) Watch(ctx context.Context, changed func()) { w.watch(ctx, changed) }

// A Gatherer runs the Watch of its input until the context ends, and survives its panic.
func TestGathererRunsTheWatchOfItsInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &watchedClosable{closableInput: closableInput{fakeInput: counting()}}
		r := newRig(t)
		r.agent.input("in", in)
		all, err := r.agent.Gatherers()
		if err != nil {
			t.Fatal(err)
		}
		in.watch = func(ctx context.Context, changed func()) {
			changed()
			<-ctx.Done()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		asked := 0
		all[0].Watch(ctx, func() { asked++ })
		if asked != 1 || ctx.Err() == nil {
			t.Errorf("asked %d times, ended by %v", asked, ctx.Err())
		}
		in.watch = func(context.Context, func()) { panic("a fault of the plugin") }
		all[0].Watch(t.Context(), func() {})
		if got := strings.Count(r.log.String(), "a fault of the plugin"); got != 1 {
			t.Errorf("the panic is logged %d times, want once:\n%s", got, r.log)
		}
	})
}

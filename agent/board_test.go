package agent

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

func TestSourcesTellsFailedFromEmpty(t *testing.T) {
	h := newHealth("test", func() {})
	failure := errors.New("no such file")
	h.input("failed").failed(0, failure)
	h.input("empty").succeeded(0, &metric.Batch{}, false)
	want := map[string]plugin.SourceState{
		"failed":  {Name: "failed", Gathered: true, Err: failure},
		"empty":   {Name: "empty", Gathered: true},
		"pending": {Name: "pending"},
	}
	for name, want := range want {
		got := h.input(name).state(name)
		if got.Since.IsZero() == got.Gathered {
			t.Errorf("%s: since %v", name, got.Since)
		}
		got.Since = time.Time{}
		if diff := cmp.Diff(want, got, cmpopts.EquateErrors()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestSourcesNamesTagsOfDefinitionAndConfiguration(t *testing.T) {
	r := newRig(t)
	s := newSupervisor(r.agent, nil)
	s.running.inputs = map[string]*runningInput{}
	for name, tags := range map[string][]string{"undeclared": nil, "declared": {"port", "address", "host"}} {
		in, err := s.newInput(r.agent, &Input{Name: name, Plugin: plugin.Plugin{Tags: tags}, Options: InputOptions{Tags: map[string]string{"host": "h", "site": "s"}}})
		if err != nil {
			t.Fatal(err)
		}
		s.running.inputs[name] = in
	}
	want := []plugin.SourceState{{Name: "declared", Tags: []string{"address", "host", "port", "site"}}, {Name: "undeclared"}}
	if diff := cmp.Diff(want, s.sources()); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}

func eventOf(name string, value int64) metric.Point {
	e := pointOf(name, value)
	e.Time = time.Now()
	return e
}

// eventsOf returns events "NAME 1" to "NAME n".
func eventsOf(name string, n int) metric.Batch {
	b := batchOf()
	for i := range n {
		b.Events = append(b.Events, eventOf(name, int64(i+1)))
	}
	return b
}

func TestEventLogKeepsTheLast(t *testing.T) {
	var log eventLog
	seen := log.all()
	if len(seen) > 0 {
		t.Errorf("%d events of an empty log", len(seen))
	}
	n := int64(0)
	for range 50 {
		var events []metric.Point
		for range 301 {
			n++
			events = append(events, pointOf("e", n))
		}
		log.add(events)
		got := log.all()
		first, _ := got[0].Field("value")
		last, _ := got[len(got)-1].Field("value")
		if want := max(1, n-plugin.MaxEvents+1); first.AsInt() != want || last.AsInt() != n || int64(len(got)) != n-want+1 {
			t.Fatalf("after %d events: %v to %v, want %d to %d", n, first, last, want, n)
		}
		if len(seen) > 0 {
			if again, _ := seen[len(seen)-1].Field("value"); again.AsInt() != n-301 {
				t.Fatalf("what was returned before has changed to %v", again)
			}
		}
		seen = got
	}
	log.add(eventsOf("e", 3*plugin.MaxEvents).Events)
	if got := log.all(); len(got) != plugin.MaxEvents {
		t.Errorf("%d events after more than it keeps at once", len(got))
	}
}

func TestEventsPassTheFilterOfTheirEndpointAndOutliveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		configure := func(a *Agent, version int, names ...string) *fakeEndpoint {
			page := newFakeEndpoint()
			a.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
				b := eventsOf("opened", 2)
				b.Events = append(b.Events, eventOf("closed", 3))
				b.Events[0].Time = b.Time.Add(-time.Minute)
				return b, nil
			}))
			pull := a.pull("page", page)
			pull.Options.NamePass, pull.Settings = names, &fakeSettings{Version: version}
			return page
		}
		page := configure(r.agent, 1, "opened")
		r.start()
		board := <-page.board
		got := func(b plugin.Board) (got []string) {
			for _, e := range b.Events() {
				v, _ := e.Field("value")
				got = append(got, fmt.Sprint(e.Name, " ", v, " ", e.Time.Unix()))
			}
			return got
		}
		began := time.Now().Unix()
		opened := []string{fmt.Sprint("opened 1 ", began-60), fmt.Sprint("opened 2 ", began)}
		if diff := cmp.Diff(opened, got(board)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		next := r.sibling()
		page = configure(next, 2)
		r.reloadTo(next, nil)
		all := append(opened, fmt.Sprint("closed 3 ", began))
		if diff := cmp.Diff(all, got(<-page.board)); diff != "" {
			t.Errorf("events of an endpoint that was added later (-want +got):\n%s", diff)
		}
		r.end()
	})
}

func TestBoardTellsOfChangesAndHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		page, down, fails := newFakeEndpoint(), atomic.Bool{}, atomic.Bool{}
		r.agent.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
			if fails.Load() {
				return metric.Batch{}, errors.New("no /proc")
			}
			return batchOf(pointOf("x", 1)), nil
		}))
		r.agent.push("out", &fakePusher{push: func(context.Context, []string) error {
			if down.Load() {
				return errors.New("refused")
			}
			return nil
		}}).Options.NamePass = []string{"x"}
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		start := time.Now()
		change := func(what string, within time.Duration) {
			t.Helper()
			changed := board.Changed()
			after(within)
			if !isClosed(changed) {
				t.Errorf("no change: %s", what)
			}
		}
		quiet := board.Changed()
		after(9 * time.Second)
		if isClosed(quiet) {
			t.Error("a change though nothing has happened")
		}
		change("a gather", time.Second)
		down.Store(true)
		after(10 * time.Second) // after the failed delivery a gather is the next change, else
		fails.Store(true)
		change("a failed gather", 10*time.Second)
		changed := board.Changed()
		r.reloadTo(nil, errors.New("bad"))
		if !isClosed(changed) {
			t.Error("no change: a failed reload")
		}

		ignored := cmpopts.IgnoreFields(plugin.SourceState{}, "Tags")
		wantSources := []plugin.SourceState{
			{Name: "a", Gathered: true, Err: errors.New("no /proc"), Since: start.Add(30 * time.Second)},
			{Name: agentSource, Gathered: true, Since: start},
		}
		if diff := cmp.Diff(wantSources, board.Sources(), equalErrorTexts, ignored); diff != "" {
			t.Errorf("sources (-want +got):\n%s", diff)
		}
		got := board.Health()
		wantHealth := plugin.Health{
			Outputs: []plugin.OutputState{
				{Name: "out", Err: errors.New("refused"), Since: start.Add(20 * time.Second), QueuedPoints: 1, QueuedBytes: 27, OldestQueued: start.Add(20 * time.Second),
					WrittenPoints: 2, RetriedPoints: got.Outputs[0].RetriedPoints},
				{Name: "page", Endpoint: true, Since: start},
			},
			Config: plugin.ConfigState{Loaded: start, Err: errors.New("bad"), Failed: start.Add(30 * time.Second)},
		}
		if diff := cmp.Diff(wantHealth, got, equalErrorTexts); diff != "" {
			t.Errorf("health (-want +got):\n%s", diff)
		}
		down.Store(false)
		after(5 * time.Minute)
		if got := board.Health().Outputs[0]; got.Err != nil || !got.Since.After(start.Add(30*time.Second)) {
			t.Errorf("after the outage: %+v", got)
		}
		r.end()
	})
}

// An output that goes down or up is a change, too.
func TestOutputsDownAndUpAreChanges(t *testing.T) {
	b := newBoard()
	h := newHealth("test", b.changed)
	o := h.output("out")
	for _, tt := range []struct {
		err    error
		change bool
	}{{nil, false}, {errors.New("down"), true}, {errors.New("still down"), false}, {nil, true}, {nil, false}} {
		changed := b.next()
		o.setState(tt.err)
		if isClosed(changed) != tt.change {
			t.Errorf("%v: change %v, want %v", tt.err, isClosed(changed), tt.change)
		}
	}
}

// equalErrorTexts compares errors by their texts.
var equalErrorTexts = cmp.Comparer(func(a, b error) bool { return fmt.Sprint(a) == fmt.Sprint(b) })

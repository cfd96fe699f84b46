package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sockwatch/agent/calls"
	"sockwatch/agent/filter"
	"sockwatch/agent/health"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

func TestSourcesTellsFailedFromEmpty(t *testing.T) {
	h := health.New("test", func() {})
	failure := errors.New("no such file")
	h.Input("failed").Failed(time.Second, failure)
	h.Input("empty").Succeeded(time.Minute, &metric.Batch{Partial: "deadline"}, false)
	want := map[string]plugin.SourceState{
		"failed":  {Name: "failed", Gathered: true, Err: failure, Duration: time.Second, Gathers: 1, FailedGathers: 1},
		"empty":   {Name: "empty", Gathered: true, Duration: time.Minute, Gathers: 1, PartialGathers: 1},
		"pending": {Name: "pending"},
	}
	for name, want := range want {
		got := h.Input(name).State(name)
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

func TestBoardReportsChangesAndHealth(t *testing.T) {
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
			if !calls.IsClosed(changed) {
				t.Errorf("no change: %s", what)
			}
		}
		quiet := board.Changed()
		after(9 * time.Second)
		if calls.IsClosed(quiet) {
			t.Error("a change though nothing has happened")
		}
		change("a gather", time.Second)
		down.Store(true)
		after(10 * time.Second) // after the failed delivery a gather is the next change, else
		fails.Store(true)
		change("a failed gather", 10*time.Second)
		changed := board.Changed()
		r.reloadTo(nil, errors.New("bad"))
		if !calls.IsClosed(changed) {
			t.Error("no change: a failed reload")
		}

		ignored := cmpopts.IgnoreFields(plugin.SourceState{}, "Tags")
		wantSources := []plugin.SourceState{
			{Name: "a", Gathered: true, Err: errors.New("no /proc"), Since: start.Add(30 * time.Second), Gathers: 4, FailedGathers: 1},
			{Name: health.Source, Gathered: true, Since: start, Points: 5, Gathers: 4},
		}
		if diff := cmp.Diff(wantSources, board.Sources(), equalErrorTexts, ignored); diff != "" {
			t.Errorf("sources (-want +got):\n%s", diff)
		}
		got := board.Health()
		wantHealth := plugin.Health{
			Version: "test", Started: start,
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
	h := health.New("test", b.changed)
	o := h.Output("out")
	for _, tt := range []struct {
		err    error
		change bool
	}{{nil, false}, {errors.New("down"), true}, {errors.New("still down"), false}, {nil, true}, {nil, false}} {
		changed := b.next()
		o.SetState(tt.err)
		if calls.IsClosed(changed) != tt.change {
			t.Errorf("%v: change %v, want %v", tt.err, calls.IsClosed(changed), tt.change)
		}
	}
}

// equalErrorTexts compares errors by their texts.
var equalErrorTexts = cmp.Comparer(func(a, b error) bool { return fmt.Sprint(a) == fmt.Sprint(b) })

// A rememberingInput has events from before the start.
type rememberingInput struct {
	fakeInput
	recall func() []metric.Point
}

func (r rememberingInput) RecallEvents() []metric.Point { return r.recall() }

// eventTexts returns the names and values of events.
func eventTexts(events []metric.Point) []string {
	texts := []string{}
	for _, e := range events {
		v, _ := e.Field("value")
		texts = append(texts, fmt.Sprint(e.Name, " ", v))
	}
	return texts
}

func TestEventsFromBeforeTheStartComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		page, closed := newFakeEndpoint(), newFakeEndpoint()
		began := time.Now()
		old := func(name string, age time.Duration, n int64) metric.Point {
			e := eventOf(name, n)
			e.Time = began.Add(-age)
			return e
		}
		recalls, gathered := 0, 0
		configure := func(a *Agent, interval time.Duration) {
			in := a.input("a", rememberingInput{
				fakeInput: func(context.Context) (metric.Batch, error) {
					gathered++
					if gathered == 1 {
						return metric.Batch{}, errors.New("not yet")
					}
					b := batchOf()
					b.Events = []metric.Point{eventOf("new", int64(gathered))}
					return b, nil
				},
				recall: func() []metric.Point {
					recalls++
					return []metric.Point{old("opened", 3*time.Hour, 1), old("closed", time.Hour, 2)}
				},
			})
			in.Options.Interval, in.Options.NameSuffix = plugin.Duration(interval), "_event"
			a.input("b", rememberingInput{
				fakeInput: func(context.Context) (metric.Batch, error) { return batchOf(), nil },
				recall:    func() []metric.Point { return []metric.Point{old("other", 2*time.Hour, 1)} },
			})
		}
		configure(r.agent, 10*time.Second)
		r.agent.pull("page", page)
		r.agent.pull("closed", closed).Options.NamePass = []string{"closed_event"}
		out := &fakePusher{}
		r.agent.push("out", out)
		r.start()
		board, closedBoard := <-page.board, <-closed.board
		after(10 * time.Second) // the second gather is the first that succeeds
		all := []string{"opened_event 1", "other 1", "closed_event 2", "new_event 2"}
		if diff := cmp.Diff(all, eventTexts(board.Events())); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"closed_event 2"}, eventTexts(closedBoard.Events())); diff != "" {
			t.Errorf("events that pass a filter (-want +got):\n%s", diff)
		}
		next := r.sibling()
		configure(next, 20*time.Second) // replaces a
		added := newFakeEndpoint()
		next.pull("page", newFakeEndpoint())
		next.pull("added", added)
		next.Push = r.agent.Push
		r.reloadTo(next, nil)
		all = append(all, "new_event 3")
		if diff := cmp.Diff(all, eventTexts((<-added.board).Events())); diff != "" {
			t.Errorf("events of an endpoint that was added by a reload (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(all, eventTexts(board.Events())); diff != "" {
			t.Errorf("events after a reload has replaced the input (-want +got):\n%s", diff)
		}
		removed := r.sibling()
		removed.pull("page", newFakeEndpoint())
		r.reloadTo(removed, nil)
		again := r.sibling()
		configure(again, 20*time.Second)
		again.pull("page", newFakeEndpoint())
		r.reloadTo(again, nil)
		all = append(all, "new_event 4")
		if diff := cmp.Diff(all, eventTexts(board.Events())); diff != "" || recalls != 1 {
			t.Errorf("%d recalls, events after a reload has added the input again (-want +got):\n%s", recalls, diff)
		}
		r.end()
		if got := out.got("opened_event"); got != nil {
			t.Errorf("an output has got %q, though it had them before the start", got)
		}
	})
}

func TestEventLogRecallsTheLast(t *testing.T) {
	var log eventLog
	log.add([]metric.Point{pointOf("new", 1), pointOf("new", 2)})
	log.recall(eventsOf("old", 3*plugin.MaxEvents).Events)
	got := eventTexts(log.all())
	want := []string{fmt.Sprint("old ", 2*plugin.MaxEvents+3), "new 1", "new 2"}
	if diff := cmp.Diff(want, []string{got[0], got[len(got)-2], got[len(got)-1]}); diff != "" || len(got) != plugin.MaxEvents {
		t.Errorf("%d events, first and last two (-want +got):\n%s", len(got), diff)
	}
	for range 5 {
		log.add(eventsOf("newer", 999).Events)
	}
	earlier := pointOf("earlier", 1)
	earlier.Time = time.Unix(1, 0)
	log.recall([]metric.Point{earlier}) // none of the old events is left
	got = eventTexts(log.all())
	if len(got) != plugin.MaxEvents || got[0] != "newer 998" || got[len(got)-1] != "newer 999" {
		t.Errorf("%d events, %q to %q", len(got), got[0], got[len(got)-1])
	}
}

// An endpoint whose filter passes few events has them from longer ago than the log of all.
func TestReplacedEndpointKeepsItsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		n := 0
		r.agent.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
			n++
			if n == 1 {
				return eventsOf("rare", 3), nil
			}
			return eventsOf("frequent", 1500), nil
		}))
		configure := func(a *Agent, version int, names ...string) *fakeEndpoint {
			page := newFakeEndpoint()
			pull := a.pull("page", page)
			pull.Options.NamePass, pull.Settings = names, &fakeSettings{Version: version}
			return page
		}
		configure(r.agent, 1, "rare")
		r.start()
		after(time.Minute)
		next := r.sibling()
		next.Inputs = r.agent.Inputs[:1]
		page := configure(next, 2, "rare")
		r.reloadTo(next, nil)
		if diff := cmp.Diff([]string{"rare 1", "rare 2", "rare 3"}, eventTexts((<-page.board).Events())); diff != "" {
			t.Errorf("events after a reload (-want +got):\n%s", diff)
		}
		next = r.sibling()
		next.Inputs = r.agent.Inputs[:1]
		page = configure(next, 3, "frequent")
		r.reloadTo(next, nil)
		if got := len((<-page.board).Events()); got != plugin.MaxEvents {
			t.Errorf("%d events with another filter, want %d", got, plugin.MaxEvents)
		}
		r.end()
	})
}

func TestEachGatherPublishesAnotherBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		points := batchOf(pointOf("x", 1), pointOf("y", 1)).Points
		r.agent.input("a", fakeInput(func(context.Context) (metric.Batch, error) { return batchOf(points...), nil }))
		all, filtered := newFakeEndpoint(), newFakeEndpoint()
		r.agent.pull("all", all)
		r.agent.pull("filtered", filtered).Options.NamePass = []string{"x"}
		r.start()
		for _, board := range []plugin.Board{<-all.board, <-filtered.board} {
			first, changed := board.Latest()[0], board.Changed()
			if again := board.Latest()[0]; again != first {
				t.Error("another batch though there was no gather")
			}
			after(10 * time.Second)
			if next := board.Latest()[0]; next == first || !calls.IsClosed(changed) || &next.Points[0] != &points[0] && len(next.Points) == 2 {
				t.Errorf("same batch %v, change %v after a gather that found nothing new", next == first, calls.IsClosed(changed))
			}
		}
		r.end()
	})
}

// A batch is the same pointer for all requests, also for those that come while it is replaced.
func TestConcurrentRequestsGetTheSameBatch(t *testing.T) {
	r := newRig(t)
	f, err := filter.New(filter.Options{NamePass: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	s := newSupervisor(r.agent, nil)
	v := &view{supervisor: s, filter: f}
	s.board.open()
	var known sync.Map // the results of Latest, by time of the batch
	stopped := make(chan struct{})
	var requests sync.WaitGroup
	for range 4 {
		requests.Go(func() {
			for !calls.IsClosed(stopped) {
				for _, b := range v.Latest() {
					if first, _ := known.LoadOrStore(b.Time, b); first != b {
						t.Errorf("two results for the batch of %v", b.Time)
						return
					}
				}
			}
		})
	}
	for i := range 20_000 {
		s.board.set(map[string]*metric.Batch{"in": {Source: "in", Time: time.Unix(int64(i), 0), Points: []metric.Point{pointOf("x", 1)}}})
	}
	close(stopped)
	requests.Wait()
}

// A limitedInput cannot see everything.
type limitedInput struct {
	fakeInput
	limits func() []string
}

func (l limitedInput) Limits() []string { return l.limits() }

func TestSourcesSayWhatTheyCannotSee(t *testing.T) {
	r := newRig(t)
	s := newSupervisor(r.agent, nil)
	s.running.inputs = map[string]*runningInput{}
	for name, limits := range map[string]func() []string{
		"limited": func() []string { return []string{"no capabilities: grant them"} },
		"broken":  func() []string { panic("bug") },
		"all":     func() []string { return nil },
	} {
		in, err := s.newInput(r.agent, &Input{Name: name, Input: limitedInput{limits: limits}})
		if err != nil {
			t.Fatal(err)
		}
		s.running.inputs[name] = in
	}
	want := []plugin.SourceState{{Name: "all"}, {Name: "broken"}, {Name: "limited", Limits: []string{"no capabilities: grant them"}}}
	if diff := cmp.Diff(want, s.sources()); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	if n := s.health.Input("broken").Panics.Load(); n != 1 {
		t.Errorf("%d panics counted, want 1", n)
	}
}

func TestReloadThatRemovesAnInputIsAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		page := newFakeEndpoint()
		r.agent.input("a", counting())
		r.agent.input("b", counting())
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		next := r.sibling()
		next.input("a", counting())
		next.pull("page", newFakeEndpoint())
		changed := board.Changed()
		r.reloadTo(next, nil) // nothing gathers
		var sources []string
		for _, b := range board.Latest() {
			sources = append(sources, b.Source)
		}
		if diff := cmp.Diff([]string{"a", health.Source}, sources); diff != "" || !calls.IsClosed(changed) {
			t.Errorf("change %v, sources (-want +got):\n%s", calls.IsClosed(changed), diff)
		}
		r.end()
	})
}

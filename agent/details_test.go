package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/health"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A detailedInput answers by calling details.
type detailedInput struct {
	fakeInput
	details func(ctx context.Context, p *metric.Point) ([]plugin.DetailSection, error)
	closed  func()
}

func (d *detailedInput) Details(ctx context.Context, p *metric.Point) ([]plugin.DetailSection, error) {
	return d.details(ctx, p)
}

func (d *detailedInput) Close() error {
	if d.closed != nil {
		d.closed()
	}
	return nil
}

// series returns a section that has the series of a point, and one of its fields.
func series(_ context.Context, p *metric.Point) ([]plugin.DetailSection, error) {
	v, _ := p.Field("value")
	return []plugin.DetailSection{{Title: p.Series() + " " + v.String()}}, nil
}

func TestDetailsAreAskedForThePointThatTheInputGave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		in := r.agent.input("a", &detailedInput{
			fakeInput: func(context.Context) (metric.Batch, error) {
				return batchOf(
					pointOf("listen", 1, "port", "80", "process", "nginx", "secret", "a"),
					pointOf("listen", 2, "port", "80", "process", "nginx", "secret", "b"),
					pointOf("listen", 3, "port", "22", "process", "sshd"),
					pointOf("listen", 4, "port", "25", "process", "hidden"),
				), nil
			},
			details: series,
		})
		in.Options.NameOverride = "renamed"
		in.Options.Tags = map[string]string{"site": "s", "port": "ignored"}
		in.Options.TagExclude = []string{"secret"}
		page := newFakeEndpoint()
		pull := r.agent.pull("page", page)
		pull.Options.TagExclude, pull.Options.TagDrop = []string{"process"}, map[string][]string{"process": {"hidden"}}
		r.start()
		board := <-page.board
		var got []string
		for _, p := range board.Latest()[0].Points {
			p := p // another copy: identity is name and tags
			sections, err := board.Details(t.Context(), "a", &p)
			got = append(got, fmt.Sprint(p.Series(), " is ", sections, err))
		}
		want := []string{
			`renamed{port="80",site="s"} is [{listen{port="80",process="nginx",secret="a"} 1 []}] <nil>`,
			`renamed{port="80",site="s"} is [{listen{port="80",process="nginx",secret="b"} 2 []}] <nil>`,
			`renamed{port="22",site="s"} is [{listen{port="22",process="sshd"} 3 []}] <nil>`,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("details (-want +got):\n%s", diff)
		}
		for _, absent := range []struct {
			source string
			point  metric.Point
		}{
			{source: "a", point: pointOf("renamed", 1, "port", "443", "site", "s")},
			{source: "a", point: pointOf("renamed", 4, "port", "25", "site", "s")}, // does not pass the filter of the endpoint
			{source: "a", point: pointOf("other", 3, "port", "22", "site", "s")},
			{source: "none", point: pointOf("renamed", 3, "port", "22", "site", "s")},
			{source: health.Source, point: board.Latest()[1].Points[0]}, // not a Detailer
		} {
			sections, err := board.Details(t.Context(), absent.source, &absent.point)
			if sections != nil || err != nil {
				t.Errorf("%s of %s: %v, %v", absent.point.Series(), absent.source, sections, err)
			}
		}
		r.end()
	})
}

// A rememberingDetailedInput has details, and events from before the start.
type rememberingDetailedInput struct {
	detailedInput
	recall func() []metric.Point
}

func (r *rememberingDetailedInput) RecallEvents() []metric.Point { return r.recall() }

// An input that remembers events has details from its first batch on.
func TestDetailsAfterEventsWereRecalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		event := pointOf("opened", 1)
		event.Time = time.Now().Add(-time.Hour)
		in := r.agent.input("a", &rememberingDetailedInput{
			detailedInput: detailedInput{
				fakeInput: func(context.Context) (metric.Batch, error) { return batchOf(pointOf("listen", 1, "port", "80")), nil },
				details:   series,
			},
			recall: func() []metric.Point { return []metric.Point{event} },
		})
		in.Options.NamePrefix = "x_"
		page := newFakeEndpoint()
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		if got := board.Events(); len(got) != 1 || got[0].Name != "x_opened" {
			t.Errorf("events %v, want x_opened", got)
		}
		sections, err := board.Details(t.Context(), "a", &board.Latest()[0].Points[0])
		if got, want := fmt.Sprint(sections, err), `[{listen{port="80"} 1 []}] <nil>`; got != want {
			t.Errorf("details %s, want %s", got, want)
		}
		r.end()
	})
}

func TestDetailsPassTheFilterOfTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		given := []plugin.DetailSection{
			{Title: "Socket", Details: []plugin.Detail{{Name: "user", Value: "root"}, {Name: "inode", Value: "5"}}},
			{Title: "Holder", Details: []plugin.Detail{{Name: "exe", Value: "/bin/a", Sensitive: true}}},
		}
		r.agent.input("a", &detailedInput{
			fakeInput: func(context.Context) (metric.Batch, error) { return batchOf(pointOf("listen", 1, "user", "root")), nil },
			details:   func(context.Context, *metric.Point) ([]plugin.DetailSection, error) { return given, nil },
		})
		page := newFakeEndpoint()
		options := &r.agent.pull("page", page).Options
		options.TagExclude, options.FieldExclude = []string{"user"}, []string{"exe"}
		r.start()
		board := <-page.board
		got, err := board.Details(t.Context(), "a", &board.Latest()[0].Points[0])
		want := []plugin.DetailSection{{Title: "Socket", Details: []plugin.Detail{{Name: "inode", Value: "5"}}}, {Title: "Holder", Details: []plugin.Detail{}}}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("details (-want +got), %v:\n%s", err, diff)
		}
		if given[0].Details[0].Name != "user" || given[1].Details[0].Name != "exe" {
			t.Errorf("the answer of the input was changed: %v", given)
		}
		r.end()
	})
}

func TestDetailsDelayNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		gathers, running, closed := 0, 0, 0
		configure := func(a *Agent, version int, details func(context.Context, *metric.Point) ([]plugin.DetailSection, error)) *fakeEndpoint {
			in := a.input("a", &detailedInput{
				fakeInput: func(context.Context) (metric.Batch, error) {
					gathers++
					return batchOf(pointOf("x", 1)), nil
				},
				details: func(ctx context.Context, p *metric.Point) ([]plugin.DetailSection, error) {
					running++
					defer func() { running-- }()
					return details(ctx, p)
				},
				closed: func() {
					closed++
					if running > 0 {
						t.Error("closed during Details")
					}
				},
			})
			in.Settings = &fakeSettings{Version: version}
			page := newFakeEndpoint()
			a.pull("page", page).Settings = &fakeSettings{Version: version}
			return page
		}
		slow := func(ctx context.Context, _ *metric.Point) ([]plugin.DetailSection, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		page := configure(r.agent, 1, slow)
		r.start()
		board := <-page.board
		ask := func(ctx context.Context) <-chan error {
			failed := make(chan error, 1)
			go func() {
				p := pointOf("x", 1)
				_, err := board.Details(ctx, "a", &p)
				failed <- err
			}()
			synctest.Wait()
			return failed
		}
		answer := func(failed <-chan error) error {
			t.Helper()
			select {
			case err := <-failed:
				return err
			case <-time.After(time.Minute):
				t.Fatal("no answer within a minute")
				return nil
			}
		}
		first := ask(t.Context())
		after(20 * time.Second)
		if gathers != 3 {
			t.Errorf("%d gathers during Details, want 3", gathers)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := answer(ask(ctx)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want that of its context", err)
		}
		next := r.sibling()
		deaf := make(chan struct{}) // a plugin that ignores its context
		page = configure(next, 2, func(context.Context, *metric.Point) ([]plugin.DetailSection, error) {
			<-deaf
			return nil, nil
		})
		r.reloadTo(next, nil)
		if err := answer(first); err != errInputStops || closed != 1 {
			t.Errorf("after a reload: error %v, %d inputs closed, want %v and 1", err, closed, errInputStops)
		}
		board = <-page.board
		began := time.Now()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := answer(ask(short)); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("error %v after %v from a plugin that hangs, want the deadline after 1s", err, time.Since(began))
		}
		third := r.sibling()
		page = configure(third, 3, func(context.Context, *metric.Point) ([]plugin.DetailSection, error) { panic("bug") })
		r.reloadTo(third, nil) // does not wait for the hanging call
		board = <-page.board
		close(deaf)
		after(time.Minute)
		if err := answer(ask(t.Context())); fmt.Sprint(err) != "panic: bug" {
			t.Errorf("error %v after a panic", err)
		}
		began = time.Now()
		if err := r.end(); err != nil || time.Since(began) > 0 {
			t.Errorf("stopped after %v: %v", time.Since(began), err)
		}
		if closed != 3 {
			t.Errorf("%d inputs closed, want 3", closed)
		}
	})
}

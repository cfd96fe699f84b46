package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

func TestRunGathersAtOnceAndShowsAndDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		out, page := &fakePusher{}, newFakeEndpoint()
		in := r.agent.input("a", counting())
		in.Options.Tags = map[string]string{"host": "h"}
		r.agent.push("out", out)
		r.agent.pull("page", page)
		time.Sleep(3 * time.Second) // the rounded ticks are at :10, :20
		r.start()
		board := <-page.board
		if !r.ready.Load() {
			t.Error("not ready after the first gathers")
		}
		if got := value(t, board, "count", "value", "host", "h"); got.AsInt() != 1 {
			t.Errorf("board shows gather %v, want 1", got)
		}
		after(7 * time.Second)
		if got := value(t, board, "count", "value", "host", "h"); got.AsInt() != 2 {
			t.Errorf("at the round second the board shows gather %v, want 2", got)
		}
		if got := value(t, board, "sockwatch_output", "written_points_total", "output", "out"); got.AsInt() < 2 {
			t.Errorf("written_points_total = %v, want 2 and the agent's own", got)
		}
		if diff := cmp.Diff([]string{"count 1", "count 2"}, out.got("count")); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

func TestBoardIsEmptyUntilEveryInputHasGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		page := newFakeEndpoint()
		r.agent.input("fast", counting())
		r.agent.input("slow", fakeInput(func(ctx context.Context) (metric.Batch, error) {
			time.Sleep(3 * time.Second)
			return batchOf(pointOf("slow", 1)), nil
		}))
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		after(2 * time.Second)
		if got := board.Latest(); len(got) > 0 || r.ready.Load() {
			t.Errorf("before the slow input the board shows %v, ready = %v", names(board), r.ready.Load())
		}
		after(2 * time.Second)
		want := []string{"count", "slow", "sockwatch_input", "sockwatch_input", "sockwatch_output", "sockwatch_config", "sockwatch_build_info"}
		if diff := cmp.Diff(want, names(board)); diff != "" {
			t.Errorf("board (-want +got):\n%s", diff)
		}
		r.end()
	})
}

func TestFailedGatherWithdrawsAndSaysSoAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		page := newFakeEndpoint()
		var fail atomic.Bool
		r.agent.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
			if fail.Load() {
				return metric.Batch{}, errors.New("no such thing")
			}
			return batchOf(pointOf("x", 1)), nil
		}))
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		for _, broken := range []bool{true, false, true} {
			fail.Store(broken)
			after(10 * time.Second)
			shown := strings.Contains(strings.Join(names(board), " "), "x")
			up := value(t, board, "sockwatch_input", "up", "input", "a").AsBool()
			if shown == broken || up == broken {
				t.Errorf("broken = %v: series shown = %v, up = %v", broken, shown, up)
			}
		}
		if got := value(t, board, "sockwatch_input", "gather_errors_total", "input", "a").AsInt(); got != 2 {
			t.Errorf("gather_errors_total = %d, want 2", got)
		}
		if n := strings.Count(r.log.String(), "no such thing"); n != 2 {
			t.Errorf("logged %d times, want once for each time it went down:\n%s", n, r.log)
		}
		r.end()
	})
}

func TestSlowAndHangingGathersAreSkippedAndWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		page, out := newFakeEndpoint(), &fakePusher{}
		n := int64(0)
		in := r.agent.input("a", fakeInput(func(ctx context.Context) (metric.Batch, error) {
			n++
			if n == 2 {
				time.Sleep(35 * time.Second) // ignores ctx
			}
			return batchOf(pointOf("x", n)), nil
		}))
		in.Options.Timeout = plugin.Duration(15 * time.Second)
		r.agent.pull("page", page)
		r.agent.push("out", out)
		r.start()
		board := <-page.board
		after(10*time.Second + 14*time.Second)
		if got := value(t, board, "x", "value").AsInt(); got != 1 {
			t.Errorf("before the timeout the board shows %d, want 1", got)
		}
		after(2 * time.Second)
		if got := strings.Join(names(board), " "); strings.Contains(got, "x") {
			t.Errorf("after the timeout the board shows %s", got)
		}
		if value(t, board, "sockwatch_input", "up", "input", "a").AsBool() {
			t.Error("up after the timeout")
		}
		after(24*time.Second + time.Second/2) // the late batch at 45 s, and new ones of both inputs at 50 s
		if got := value(t, board, "x", "value").AsInt(); got != 3 {
			t.Errorf("the board shows %d, want 3", got)
		}
		if got := value(t, board, "sockwatch_input", "gathers_skipped_total", "input", "a").AsInt(); got != 3 {
			t.Errorf("gathers_skipped_total = %d, want 3 (at 20, 30 and 40 s)", got)
		}
		if diff := cmp.Diff([]string{"x 1", "x 2", "x 3"}, out.got("x")); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		r.end()
	})
}

// An input that fails late at every gather is logged once, when it goes down.
func TestLateFailuresAreLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
			time.Sleep(15 * time.Second)
			return metric.Batch{}, errors.New("no")
		}))
		r.start()
		after(10 * time.Minute)
		log := r.log.String()
		r.end()
		after(15 * time.Second) // for the last gather
		var got []string
		for line := range strings.Lines(log) {
			if strings.Contains(line, "plugin=inputs.a") && !strings.Contains(line, "level=DEBUG") {
				_, text, _ := strings.Cut(line, " level=")
				got = append(got, text)
			}
		}
		want := []string{"ERROR msg=\"gather failed, withdrawing its series\" plugin=inputs.a error=\"timed out after 10s\"\n"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("logged (-want +got):\n%s", diff)
		}
	})
}

func TestPanicsAreRecoveredAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		page, out := newFakeEndpoint(), &fakePusher{}
		var panics atomic.Bool
		panics.Store(true)
		r.agent.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
			if panics.Load() {
				panic("input")
			}
			return batchOf(pointOf("x", 1)), nil
		}))
		out.push = func(context.Context, []string) error {
			if panics.Load() {
				panic("output")
			}
			return nil
		}
		r.agent.pull("page", page)
		r.agent.push("out", out)
		r.start()
		board := <-page.board
		if up := value(t, board, "sockwatch_input", "up", "input", "a").AsBool(); up {
			t.Error("input up after its panic")
		}
		after(time.Second)
		panics.Store(false)
		after(60 * time.Second)
		for _, name := range []string{"sockwatch_input", "sockwatch_output"} {
			tag, id := "input", "a"
			if name == "sockwatch_output" {
				tag, id = "output", "out"
			}
			if got := value(t, board, name, "panics_total", tag, id).AsInt(); got < 1 {
				t.Errorf("%s panics_total = %d", name, got)
			}
		}
		if len(out.got("x")) == 0 {
			t.Error("nothing delivered after the panics")
		}
		if !strings.Contains(r.log.String(), "agent_test.go") {
			t.Error("the log does not say where it panicked")
		}
		r.end()
	})
}

func TestDuplicatePointsFailTheGatherByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
			return batchOf(pointOf("x", 1, "k", "v"), pointOf("x", 2, "k", "v")), nil
		}))
		r.agent.pull("page", newFakeEndpoint())
		r.start()
		if want := `error="two points with the same name and tags: x{k=\"v\"}"`; !strings.Contains(r.log.String(), want) {
			t.Errorf("want %s in the log:\n%s", want, r.log)
		}
		r.end()
	})
}

func TestRefreshJoinsOneGatherForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		page := newFakeEndpoint()
		n := int64(0)
		r.agent.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
			time.Sleep(time.Second)
			n++
			return batchOf(pointOf("x", n)), nil
		}))
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		after(4 * time.Second) // the batch is 3 s old
		impatient, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		done := make(chan error, 3)
		for _, ctx := range []context.Context{t.Context(), t.Context(), impatient} {
			go func() { done <- board.Refresh(ctx, 2*time.Second) }()
		}
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the impatient one got %v", err)
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if got := value(t, board, "x", "value").AsInt(); got != 2 {
			t.Errorf("three refreshes made gather %d, want 2", got)
		}
		if err := board.Refresh(t.Context(), 2*time.Second); err != nil || n != 2 {
			t.Errorf("a fresh batch was gathered again (%d, %v)", n, err)
		}
		r.end()
	})
}

func TestViewIsTheSamePointersUntilASourcePublishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		page := newFakeEndpoint()
		r.agent.input("a", counting())
		slow := r.agent.input("b", counting())
		slow.Options.Interval = plugin.Duration(time.Hour)
		pull := r.agent.pull("page", page)
		pull.Options.NamePass = []string{"count"}
		r.start()
		board := <-page.board
		first, second := board.Latest(), board.Latest()
		if len(first) != 3 || first[0] != second[0] || first[1] != second[1] {
			t.Errorf("Latest gives other pointers: %p, %p", first, second)
		}
		if len(first[2].Points) != 0 {
			t.Errorf("namepass lets %v through", first[2].Points)
		}
		after(10 * time.Second)
		third := board.Latest()
		if third[0] == first[0] || third[1] != first[1] {
			t.Error("after a gather of a: want a's batch new and b's the same pointer")
		}
		r.end()
	})
}

func TestTransformRenamesTagsAndFilters(t *testing.T) {
	in := &Input{Name: "a", Plugin: plugin.Plugin{Descs: []metric.Desc{{Name: "x", Field: "value", Help: "h"}}}}
	in.Options.NamePrefix, in.Options.NameSuffix = "p_", "_s"
	in.Options.NamePass = []string{"x"} // selects by the plugin's own name
	in.Options.TagExclude = []string{"secret"}
	in.Options.Tags = map[string]string{"b": "instance", "k": "instance"}
	d, err := newTransform(in)
	if err != nil {
		t.Fatal(err)
	}
	raw := batchOf(pointOf("x", 1, "a", "1", "k", "own", "secret", "s"), pointOf("y", 2))
	b, err := d.batch(raw)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := d.batch(raw); err != nil || !metric.Same(again.Points, b.Points) {
		t.Error("unchanged points were transformed again")
	}
	want := []metric.Point{pointOf("p_x_s", 1, "a", "1", "b", "instance", "k", "own")}
	if diff := cmp.Diff(want, b.Points, cmp.AllowUnexported(metric.Value{})); diff != "" {
		t.Errorf("points (-want +got):\n%s", diff)
	}
	if b.Descs[0].Name != "p_x_s" || in.Plugin.Descs[0].Name != "x" {
		t.Errorf("descs: %v; the plugin's: %v", b.Descs, in.Plugin.Descs)
	}
	if len(raw.Points[0].Tags) != 3 {
		t.Error("the plugin's own batch was changed")
	}
}

// A troubledEndpoint reports that it fails when the test asks for it.
type troubledEndpoint struct {
	*fakeEndpoint
	report  func(error)
	reloads atomic.Int32
}

func (e *troubledEndpoint) ReportHealth(report func(error)) { e.report = report }

func (e *troubledEndpoint) Reload() { e.reloads.Add(1) }

func TestEndpointReportsItsHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		page := &troubledEndpoint{fakeEndpoint: newFakeEndpoint()}
		r.agent.input("a", counting())
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		for _, step := range []struct {
			err  error
			up   bool
			down int // number of log lines that say so
		}{
			{err: nil, up: true, down: 0},
			{err: errors.New("no certificate"), up: false, down: 1},
			{err: errors.New("still no certificate"), up: false, down: 1},
			{err: nil, up: true, down: 1},
			{err: errors.New("no certificate"), up: false, down: 2},
		} {
			page.report(step.err)
			after(time.Duration(r.agent.Options.Interval))
			if up := value(t, board, "sockwatch_output", "up", "output", "page").AsBool(); up != step.up {
				t.Errorf("after the report of %v up is %v", step.err, up)
			}
			if down := strings.Count(r.log.String(), `level=ERROR msg="endpoint is down" plugin=outputs.page error="no certificate"`); down != step.down {
				t.Errorf("after the report of %v the log says %d times that it is down, want %d", step.err, down, step.down)
			}
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// TestReloadIsPassedToKeptEndpoints: replaced and new ones have just been opened.
func TestReloadIsPassedToKeptEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		kept, replaced, successor := &troubledEndpoint{fakeEndpoint: newFakeEndpoint()}, &troubledEndpoint{fakeEndpoint: newFakeEndpoint()}, &troubledEndpoint{fakeEndpoint: newFakeEndpoint()}
		r.agent.input("a", counting())
		r.agent.pull("kept", kept)
		r.agent.pull("replaced", replaced)
		r.start()
		next := r.sibling()
		next.input("a", counting())
		next.pull("kept", newFakeEndpoint())
		next.pull("replaced", successor).Settings = &fakeSettings{Version: 2}
		for range 2 {
			r.reloadTo(next, nil)
		}
		got := []int32{kept.reloads.Load(), replaced.reloads.Load(), successor.reloads.Load()}
		if diff := cmp.Diff([]int32{2, 0, 1}, got); diff != "" {
			t.Errorf("reloads of the kept, the replaced and the new endpoint (-want +got):\n%s", diff)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// A gather that succeeds after its timeout counts as one failed gather, and its batch is
// published. The log says when the input begins to fail, and when a gather is in time
// again.
func TestLateGathersCountAndAreLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		page, out := newFakeEndpoint(), &fakePusher{}
		n, slow := int64(0), atomic.Bool{}
		slow.Store(true)
		in := r.agent.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
			n++
			if slow.Load() {
				time.Sleep(15 * time.Second)
			}
			return batchOf(pointOf("x", n)), nil
		}))
		in.Options.Interval = plugin.Duration(20 * time.Second)
		r.agent.pull("page", page)
		r.agent.push("out", out)
		r.start()
		board := <-page.board
		after(199 * time.Second)
		counts := func(gathers, errors int64) {
			t.Helper()
			got := []int64{
				value(t, board, "sockwatch_input", "gathers_total", "input", "a").AsInt(),
				value(t, board, "sockwatch_input", "gather_errors_total", "input", "a").AsInt(),
			}
			if diff := cmp.Diff([]int64{gathers, errors}, got); diff != "" {
				t.Errorf("gathers and errors (-want +got):\n%s", diff)
			}
		}
		counts(10, 10)
		slow.Store(false)
		after(40 * time.Second)
		counts(12, 10)
		if got := out.got("x"); len(got) != 12 {
			t.Errorf("delivered %v, want 12 points", got)
		}
		for _, message := range []string{"gather failed, withdrawing its series", "gathering resumed"} {
			if n := strings.Count(r.log.String(), fmt.Sprintf("msg=%q plugin=inputs.a", message)) + strings.Count(r.log.String(), fmt.Sprintf("msg=%s plugin=inputs.a", message)); n != 1 {
				t.Errorf("%d times in the log, want once: %s\n%s", n, message, r.log)
			}
		}
		r.end()
	})
}

// ready may wait for ever for others: nothing waits for it.
func TestNothingWaitsForReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		out := &fakePusher{}
		r.agent.input("a", counting())
		r.agent.push("out", out)
		ctx, stop := context.WithCancel(t.Context())
		release := make(chan struct{})
		go func() { r.ended <- r.agent.Run(ctx, r.reload, nil, func() { <-release }) }()
		after(25 * time.Second)
		if diff := cmp.Diff([]string{"count 1", "count 2", "count 3"}, out.got("count")); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		stop()
		synctest.Wait()
		select {
		case err := <-r.ended:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("the stop waits for ready")
		}
		close(release)
	})
}

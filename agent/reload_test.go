package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// sibling returns an empty agent with the options and the log of the rig's.
func (r *rig) sibling() *Agent {
	return &Agent{Options: r.agent.Options, Log: r.agent.Log, Version: "test"}
}

func TestBrokenReloadLeavesTheRunningConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		page, taken := newFakeEndpoint(), newFakeEndpoint()
		r.agent.input("a", counting())
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		r.reloadTo(nil, errors.New("sockwatch.toml:3: bad"))
		next := r.sibling()
		next.input("b", counting())
		taken.listen = func() error { return errors.New("address already in use") }
		next.pull("other", taken)
		r.reloadTo(next, nil)
		after(10 * time.Second)
		if got := value(t, board, "count", "value").AsInt(); got != 2 {
			t.Errorf("the old input made gather %d, want 2", got)
		}
		if value(t, board, "sockwatch_config", "last_reload_successful").AsBool() {
			t.Error("last_reload_successful after two broken reloads")
		}
		for _, want := range []string{"sockwatch.toml:3: bad", "outputs.other: address already in use"} {
			if !strings.Contains(r.log.String(), want) {
				t.Errorf("want %q in the log:\n%s", want, r.log)
			}
		}
		r.end()
	})
}

func TestReloadKeepsEqualInstancesAndReplacesTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		kept, changed, page := &fakePusher{}, &fakePusher{}, newFakeEndpoint()
		var closed atomic.Int32
		r.agent.input("same", counting())
		r.agent.input("gone", closing{fakeInput(func(context.Context) (metric.Batch, error) {
			return batchOf(pointOf("gone", 1)), nil
		}), &closed})
		r.agent.push("kept", kept)
		r.agent.push("changed", changed)
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		after(15 * time.Second)

		next := r.sibling()
		unused := next.input("same", counting())
		next.input("new", fakeInput(func(context.Context) (metric.Batch, error) {
			return batchOf(pointOf("new", 1)), nil
		}))
		next.push("kept", &fakePusher{})
		successor := &fakePusher{}
		next.push("changed", successor).Settings = &fakeSettings{Version: 2}
		next.pull("page", newFakeEndpoint())
		r.reloadTo(next, nil)
		if closed.Load() != 1 {
			t.Error("the input that is gone was not closed")
		}
		got := strings.Join(names(board), " ")
		if strings.Contains(got, "gone") || !strings.Contains(got, "new") {
			t.Errorf("board after the reload: %s", got)
		}
		after(20 * time.Second)
		if got := value(t, board, "count", "value").AsInt(); got != 4 {
			t.Errorf("the kept input made gather %d by 35 s, want 4: none twice, none skipped", got)
		}
		if diff := cmp.Diff([]string{"count 1", "count 2", "count 3", "count 4"}, kept.got("count")); diff != "" {
			t.Errorf("kept output (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"count 1", "count 2", "count 3", "count 4"}, append(changed.got("count"), successor.got("count")...)); diff != "" {
			t.Errorf("changed output, then its successor (-want +got):\n%s", diff)
		}
		if len(successor.got("count")) != 2 {
			t.Errorf("the successor delivered %v", successor.got("count"))
		}
		if unused.Input == nil {
			t.Error("the unused instance was touched")
		}
		r.end()
	})
}

// A closing is an input with a Close.
type closing struct {
	plugin.Input
	closed *atomic.Int32
}

func (c closing) Close() error { c.closed.Add(1); return nil }

func TestHundredReloadsLoseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var down atomic.Bool
		down.Store(true)
		var stored []string
		pusher := func() *fakePusher {
			return &fakePusher{push: func(_ context.Context, records []string) error {
				if down.Load() {
					return errors.New("down")
				}
				stored = append(stored, records...)
				return nil
			}}
		}
		n := int64(0)
		in := fakeInput(func(context.Context) (metric.Batch, error) {
			n++
			return batchOf(pointOf("count", n)), nil
		})
		configure := func(a *Agent, version int) {
			a.input("a", in)
			push := a.push("out", pusher())
			push.Options.NamePass = []string{"count"}
			push.Options.BufferLimit += plugin.Size(version)
		}
		configure(r.agent, 0)
		r.start()
		for i := range 100 {
			next := r.sibling()
			configure(next, i+1)
			r.reloadTo(next, nil)
			after(time.Second)
		}
		down.Store(false)
		after(100 * time.Second)
		r.end()
		for i, s := range stored {
			if s != fmt.Sprint("count ", i+1) {
				t.Fatalf("point %d is %q", i+1, s)
			}
		}
		if len(stored) != int(n) {
			t.Errorf("%d points gathered, %d delivered", n, len(stored))
		}
	})
}

func TestRemovedOutputWithABacklogIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.input("a", counting())
		r.agent.push("out", &fakePusher{push: func(context.Context, []string) error { return errors.New("down") }})
		r.start()
		after(20 * time.Second)
		next := r.sibling()
		next.input("a", counting())
		go r.reloadTo(next, nil)
		after(15 * time.Second)
		if want := "undelivered points lost with the queue in memory"; !strings.Contains(r.log.String(), want) {
			t.Errorf("want %q in the log:\n%s", want, r.log)
		}
		r.end()
	})
}

func TestOnceDeliversOrSaysWhatFailed(t *testing.T) {
	tests := []struct {
		name string
		in   fakeInput
		push func(context.Context, []string) error
		want string
		got  []string
	}{
		{name: "delivered", in: counting(), got: []string{"count 1"}},
		{name: "output down", in: counting(), push: func(context.Context, []string) error { return errors.New("refused") },
			want: "outputs.out: 1 point not delivered: refused"},
		{name: "rejected", in: counting(), push: rejecting(plugin.ErrRejected, "count 1"), want: "outputs.out: 1 point rejected"},
		{name: "input failed", in: func(context.Context) (metric.Batch, error) { return metric.Batch{}, errors.New("no /proc") },
			want: "inputs.a: no /proc"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				out := &fakePusher{push: tt.push}
				r.agent.input("a", tt.in)
				r.agent.push("out", out)
				err := r.agent.Once(t.Context())
				if got := fmt.Sprint(err); got != tt.want && (err != nil || tt.want != "") {
					t.Errorf("error %q, want %q", got, tt.want)
				}
				if diff := cmp.Diff(tt.got, out.got("count")); diff != "" {
					t.Errorf("delivered (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// The errors of several outputs are in the order of the configuration, whichever comes first.
func TestOnceSortsItsErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.input("a", counting())
		for i, wait := range []time.Duration{2, 3, 1} {
			r.agent.push(fmt.Sprint("out", i), &fakePusher{push: func(context.Context, []string) error {
				time.Sleep(wait * time.Second)
				return errors.New("refused")
			}})
		}
		want := "outputs.out0: 1 point not delivered: refused\noutputs.out1: 1 point not delivered: refused\noutputs.out2: 1 point not delivered: refused"
		if err := r.agent.Once(t.Context()); fmt.Sprint(err) != want {
			t.Errorf("error %v, want %s", err, want)
		}
	})
}

// Once saves rejected records in the same place as Run, even if Run was never started.
func TestOnceKeepsRejectedPoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.Options.StateDirectory = filepath.Join(t.TempDir(), "state")
		r.agent.input("a", counting())
		r.agent.push("out", &fakePusher{push: rejecting(plugin.ErrRejected, "count 1")})
		if err, want := r.agent.Once(t.Context()), "outputs.out: 1 point rejected"; fmt.Sprint(err) != want {
			t.Errorf("error %v, want %s", err, want)
		}
		entries := readDeadLetters(t, filepath.Join(r.agent.Options.StateDirectory, "out.rejected.jsonl"))
		if len(entries) != 1 || entries[0].Record != "count 1" {
			t.Errorf("kept: %v", entries)
		}
	})
}

func TestReloadShowsTheOldBatchUntilItsSuccessors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		page := newFakeEndpoint()
		r.agent.input("a", counting())
		r.agent.push("out", &fakePusher{push: func(context.Context, []string) error { return errors.New("down") }})
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		after(time.Second)
		next := r.sibling()
		next.Options.CollectionJitter = plugin.Duration(8 * time.Second)
		successor := next.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
			time.Sleep(2 * time.Second)
			return batchOf(pointOf("count", 100)), nil
		}))
		successor.Settings, successor.Options.CollectionJitter = &fakeSettings{Version: 2}, next.Options.CollectionJitter
		next.pull("page", newFakeEndpoint())
		r.reloadTo(next, nil)
		if got := value(t, board, "count", "value").AsInt(); got != 1 {
			t.Errorf("while the successor gathers the board shows %d", got)
		}
		after(2 * time.Second)
		if got := value(t, board, "count", "value").AsInt(); got != 100 {
			t.Errorf("after its gather the board shows %d", got)
		}
		r.end()
	})
}

// An heir is an input that records its calls and from whom it inherits.
type heir struct {
	name string
	note func(string)
	hang chan struct{} // Gather returns when it is closed, unless nil
}

func (h *heir) Gather(context.Context) (metric.Batch, error) {
	h.note(h.name + " gathers")
	if h.hang != nil {
		<-h.hang
	}
	return batchOf(pointOf("count", 1)), nil
}

func (h *heir) Close() error {
	h.note(h.name + " is closed")
	return nil
}

func (h *heir) InheritFrom(predecessor plugin.Input) {
	h.note(h.name + " inherits from " + predecessor.(*heir).name)
}

func TestReloadLetsInputsInherit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var notes notes
		hang := make(chan struct{})
		r.agent.input("a", &heir{"first", notes.add, nil})
		r.agent.push("out", &fakePusher{})
		r.start()
		after(time.Second)
		for i, h := range []*heir{{"second", notes.add, hang}, {"third", notes.add, nil}} {
			next := r.sibling()
			next.input("a", h).Settings = &fakeSettings{Version: i + 2}
			r.reloadTo(next, nil)
			after(20 * time.Second) // even if it does not wait for a hanging instance
		}
		close(hang)
		synctest.Wait() // nobody else waits for the one that hung
		r.end()
		got := slices.Compact(notes.all())
		want := []string{
			"first gathers", "first is closed", "second inherits from first", "second gathers",
			"third gathers", "second is closed", "third is closed",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// The state of an input reaches the last of several that replace it in a row, while its
// gather is in flight.
func TestReloadsInARowHandOnWhatTheFirstKnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var notes notes
		hang := make(chan struct{})
		r.agent.input("a", &heir{"first", notes.add, hang})
		r.agent.push("out", &fakePusher{})
		r.start()
		after(time.Second)
		for i, name := range []string{"second", "third"} {
			next := r.sibling()
			next.input("a", &heir{name, notes.add, nil}).Settings = &fakeSettings{Version: i + 2}
			r.reloadTo(next, nil)
		}
		after(time.Second)
		close(hang)
		after(time.Second)
		r.end()
		want := []string{
			"first gathers", "first is closed", "second inherits from first", "second is closed", "third inherits from second", "third gathers", "third is closed",
		}
		if diff := cmp.Diff(want, notes.all()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestRefusedReloadLeavesNoTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		page, taken := newFakeEndpoint(), newFakeEndpoint()
		r.agent.input("a", counting())
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		next := r.sibling()
		next.InForce = func() { t.Error("InForce of the refused configuration was called") }
		next.input("ghost", counting())
		taken.listen = func() error { return errors.New("address already in use") }
		next.pull("ghost", taken)
		r.reloadTo(next, nil)
		after(20 * time.Second)
		for _, b := range board.Latest() {
			for _, p := range b.Points {
				if strings.Contains(p.Series(), "ghost") {
					t.Errorf("the board shows %s", p.Series())
				}
			}
		}
		adopted := false
		next = r.sibling()
		next.InForce = func() { adopted = true }
		next.input("a", counting())
		r.reloadTo(next, nil)
		if !adopted {
			t.Error("InForce was not called")
		}
		r.end()
	})
}

func TestStopDoesNotWaitForWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.input("a", counting())
		r.agent.push("out", &fakePusher{push: func(context.Context, []string) error {
			return fmt.Errorf("the reader is %w", plugin.ErrGone)
		}})
		r.start()
		after(time.Minute)
		began := time.Now()
		r.end()
		if took := time.Since(began); took > 0 {
			t.Errorf("stopped after %v", took)
		}
	})
}

func TestReloadSaysWhatHasChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.input("same", counting())
		r.agent.input("old", counting())
		r.agent.push("same", &fakePusher{})
		r.agent.push("changed", &fakePusher{})
		r.agent.pull("old", newFakeEndpoint())
		r.start()
		next := r.sibling()
		next.Options.Interval = plugin.Duration(time.Minute) // also that of the agent's own input, which no file has
		next.input("same", counting()).Options = r.agent.Inputs[0].Options
		next.input("new", counting())
		next.push("same", &fakePusher{})
		next.push("changed", &fakePusher{}).Settings = &fakeSettings{Version: 2}
		next.pull("new", newFakeEndpoint())
		r.reloadTo(next, nil)
		r.end()
		want := `msg=reloaded added="[inputs.new outputs.new]" removed="[inputs.old outputs.old]" replaced=[outputs.changed]`
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("want %q in the log:\n%s", want, r.log)
		}
	})
}

// A hanging gather of an old input delays only its successor: changed
// endpoints serve at once, a scrape that asks for a gather is answered with the last
// batch, other inputs gather, and the next reload is adopted at once.
func TestHungGatherOfAnOldInputDelaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		release := make(chan struct{})
		n := 0
		r.agent.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
			if n++; n > 1 {
				<-release
			}
			return batchOf(pointOf("x", int64(n))), nil
		})).Options.Timeout = plugin.Duration(time.Hour)
		r.agent.pull("page", newFakeEndpoint())
		r.start()
		after(15 * time.Second)

		began := time.Now()
		configure := func(version int) *fakeEndpoint {
			next := r.sibling()
			next.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
				return batchOf(pointOf("x", 100)), nil
			})).Settings = &fakeSettings{Version: version}
			next.input("other", counting()).Settings = &fakeSettings{Version: version}
			page := newFakeEndpoint()
			next.pull("page", page).Settings = &fakeSettings{Version: version}
			r.reloadTo(next, nil)
			return page
		}
		page := configure(2)
		board := <-page.board
		if err := board.Refresh(t.Context(), 0); err != nil {
			t.Error(err)
		}
		page = configure(3)
		board = <-page.board
		if err := board.Refresh(t.Context(), 0); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("two reloads with their scrapes took %v", took)
		}
		if got := value(t, board, "x", "value").AsInt(); got != 1 {
			t.Errorf("the board shows gather %d of the old input, want 1", got)
		}
		if got := value(t, board, "count", "value").AsInt(); got < 1 {
			t.Errorf("the other input made gather %d", got)
		}
		after(21 * time.Second)
		if got := value(t, board, "x", "value").AsInt(); got != 100 {
			t.Errorf("after the wait for the old gather the board shows %d", got)
		}
		if want := `level=WARN msg="input abandoned, Gather has not returned" plugin=inputs.a`; !strings.Contains(r.log.String(), want) {
			t.Errorf("want %q in the log:\n%s", want, r.log)
		}
		if err := r.end(); err != nil {
			t.Errorf("an abandoned gather holds up the stop: %v", err)
		}
		close(release)
	})
}

// A removed output in memory whose destination is dead delays no later reload. If it
// is added again, its remaining records go to its successor, before anything new.
func TestRemovedOutputDelaysNoReload(t *testing.T) {
	for _, onDisk := range []bool{false, true} {
		t.Run(fmt.Sprint("on disk ", onDisk), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.agent.Options.StateDirectory = t.TempDir()
				in := counting()
				configure := func(a *Agent, out *fakePusher) *Agent {
					a.input("a", in)
					if out == nil {
						return a
					}
					push := a.push("out", out)
					push.Options.NamePass = []string{"count"}
					push.Options.Timeout = plugin.Duration(time.Hour)
					if onDisk {
						push.Options.Buffer = "disk"
					}
					return a
				}
				configure(r.agent, &fakePusher{push: func(ctx context.Context, _ []string) error { // a black hole
					<-ctx.Done()
					return ctx.Err()
				}})
				r.start()
				after(25 * time.Second)
				began := time.Now()
				r.reloadTo(configure(r.sibling(), nil), nil)
				r.reloadTo(configure(r.sibling(), nil), nil)
				out := &fakePusher{}
				r.reloadTo(configure(r.sibling(), out), nil)
				if took := time.Since(began); took > 0 {
					t.Errorf("three reloads took %v", took)
				}
				if n := strings.Count(r.log.String(), "msg=reloaded"); n != 3 {
					t.Errorf("%d of 3 reloads are adopted:\n%s", n, r.log)
				}
				after(6 * time.Second)
				if diff := cmp.Diff(counts(1, 4), out.got("count")); diff != "" {
					t.Errorf("delivered (-want +got):\n%s", diff)
				}
				if strings.Contains(r.log.String(), "lost") || strings.Contains(r.log.String(), "dropped") {
					t.Errorf("lost or dropped:\n%s", r.log)
				}
				r.end()
			})
		})
	}
}

// What becomes of a hanging gather of an old input says nothing about its successor: neither its
// timeout nor its late batch.
func TestHungGatherOfAnOldInputIsNotThatOfItsSuccessor(t *testing.T) {
	for _, test := range []struct {
		name string
		late time.Duration // when the old gather returns
		err  error         // of the successor
	}{
		{name: "timeout", late: time.Hour},
		{name: "late batch", late: 40 * time.Second, err: errDown},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				n := 0
				r.agent.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
					if n++; n > 1 {
						time.Sleep(test.late)
					}
					return batchOf(pointOf("x", 1)), nil
				})).Options.Timeout = plugin.Duration(time.Minute)
				page := newFakeEndpoint()
				r.agent.pull("page", page)
				r.start()
				board := <-page.board
				after(15 * time.Second) // the second gather hangs from the tenth second on
				next := r.sibling()
				next.input("a", fakeInput(func(context.Context) (metric.Batch, error) { return batchOf(pointOf("x", 2)), test.err })).Options.Interval = plugin.Duration(time.Hour)
				next.Inputs[0].Options.Timeout = plugin.Duration(time.Minute)
				next.Pull = r.agent.Pull
				r.reloadTo(next, nil)
				after(2 * time.Minute)
				state := board.Sources()[0]
				if state.Name != "a" || !errors.Is(state.Err, test.err) {
					t.Errorf("the state of %s is %v, want %v", state.Name, state.Err, test.err)
				}
				want := 0
				if test.err != nil {
					want = 1
				}
				if got := strings.Count(r.log.String(), "gather failed"); got != want {
					t.Errorf("%d failed gathers in the log, want %d:\n%s", got, want, r.log)
				}
				r.end()
				after(test.late) // until the old gather has returned
			})
		})
	}
}

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// manyPoints returns an input that gathers n points "x 0" to "x n-1", once.
func manyPoints(n int) fakeInput {
	first := true
	return func(context.Context) (metric.Batch, error) {
		if !first {
			return batchOf(), nil
		}
		first = false
		var points []metric.Point
		for i := range n {
			points = append(points, pointOf("x", int64(i), "i", fmt.Sprint(i)))
		}
		return batchOf(points...), nil
	}
}

func xs(from, to int, without ...int) []string {
	var want []string
	for i := from; i < to; i++ {
		if !slices.Contains(without, i) {
			want = append(want, fmt.Sprint("x ", i))
		}
	}
	return want
}

// rejecting returns a Push that rejects requests with one of the bad records.
func rejecting(err error, bad ...string) func(context.Context, []string) error {
	return func(_ context.Context, records []string) error {
		for _, b := range bad {
			if slices.Contains(records, b) {
				return fmt.Errorf("server says: %w", err)
			}
		}
		return nil
	}
}

func TestBadRecordsAreFoundAndKept(t *testing.T) {
	tests := []struct {
		name     string
		push     func(context.Context, []string) error
		without  []int // of delivered records
		dead     []string
		atMost   int64 // pushes
		dropped  int
		rejected int64
	}{
		{name: "one bad of 1,000", push: rejecting(plugin.ErrRejected, "x 617"), without: []int{617}, dead: []string{"x 617"}, atMost: 30, dropped: 0, rejected: 1},
		{name: "the first and the last", push: rejecting(plugin.ErrRejected, "x 0", "x 999"), without: []int{0, 999}, dead: []string{"x 0", "x 999"}, atMost: 50, dropped: 0, rejected: 2},
		{name: "too large together", push: func(_ context.Context, r []string) error {
			if len(r) > 100 {
				return fmt.Errorf("server says: %w", plugin.ErrTooLarge)
			}
			return nil
		}, without: nil, dead: nil, atMost: 30, dropped: 0, rejected: 0},
		{name: "one too large alone", push: rejecting(plugin.ErrTooLarge, "x 3"), without: []int{3}, dead: []string{"x 3"}, atMost: 20, dropped: 0, rejected: 1},
		{name: "two too large alone", push: rejecting(plugin.ErrTooLarge, "x 3", "x 997"), without: []int{3, 997}, dead: []string{"x 3", "x 997"}, atMost: 120, dropped: 0, rejected: 2},
		{name: "all rejected", push: rejectingAll, without: []int{0, 1, 2}, dead: []string{"x 0", "x 1", "x 2"}, atMost: 3, dropped: 0, rejected: 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 1000
				if tt.name == "all rejected" {
					n = 3
				}
				r := newRig(t)
				r.agent.Options.StateDirectory = t.TempDir()
				out, page := &fakePusher{push: tt.push}, newFakeEndpoint()
				r.agent.input("a", manyPoints(n))
				r.agent.push("out", out).Options.NamePass = []string{"x"}
				r.agent.pull("page", page)
				r.start()
				board := <-page.board
				after(11 * time.Second)
				if diff := cmp.Diff(xs(0, n, tt.without...), out.got("x")); diff != "" {
					t.Errorf("delivered (-want +got):\n%s", diff)
				}
				if out.pushes.Load() > tt.atMost {
					t.Errorf("%d pushes, want at most %d", out.pushes.Load(), tt.atMost)
				}
				var dead []string
				for _, l := range readDeadLetters(t, filepath.Join(r.agent.Options.StateDirectory, "out.rejected.jsonl")) {
					dead = append(dead, l.Record)
					if !strings.HasPrefix(l.Error, "server says: ") {
						t.Errorf("entry without the server's words: %q", l.Error)
					}
				}
				if diff := cmp.Diff(tt.dead, dead); diff != "" {
					t.Errorf("dead letters (-want +got):\n%s", diff)
				}
				if got := value(t, board, "sockwatch_output", "rejected_points_total", "output", "out").AsInt(); got != tt.rejected {
					t.Errorf("rejected_points_total = %d, want %d", got, tt.rejected)
				}
				r.end()
			})
		})
	}
}

// rejectingAll is a Push whose destination rejects each record.
func rejectingAll(_ context.Context, records []string) error {
	return plugin.RejectAll(len(records), errors.New("server says: no"))
}

// A deadLetterEntry is a line of a dead-letter file.
type deadLetterEntry struct {
	Error  string
	Record string
}

func readDeadLetters(t *testing.T, path string) []deadLetterEntry {
	t.Helper()
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var entries []deadLetterEntry
	for line := range strings.Lines(string(text)) {
		var l deadLetterEntry
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, l)
	}
	return entries
}

func TestPartialWritesEndAfterBoundedProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var bad []string
		for i := range 1000 {
			if i%2 == 0 {
				bad = append(bad, fmt.Sprint("x ", i))
			}
		}
		out := &fakePusher{push: rejecting(&plugin.RejectedError{OthersStored: true}, bad...)}
		r.agent.input("a", manyPoints(1000))
		r.agent.push("out", out)
		r.start()
		after(11 * time.Second)
		if out.pushes.Load() > 100 {
			t.Errorf("%d pushes", out.pushes.Load())
		}
		if q := out.got("sockwatch_build_info"); len(q) == 0 {
			t.Error("what came after the bad block was not delivered")
		}
		r.end()
	})
}

func TestEncodeErrorRejectsThatPointAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		out := &fakePusher{}
		r.agent.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
			return batchOf(pointOf("x", 1), pointOf("bad", -1), pointOf("x", 2, "k", "v")), nil
		}))
		r.agent.push("out", out)
		r.start()
		if diff := cmp.Diff([]string{"x 1", "x 2"}, out.got("x")); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		if !strings.Contains(r.log.String(), "bad{}") || !strings.Contains(r.log.String(), "encode: negative") {
			t.Errorf("the log does not name the point:\n%s", r.log)
		}
		r.end()
	})
}

func TestAHangingOutputDelaysNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		hanging, deaf, failing, fine := &fakePusher{}, &fakePusher{}, &fakePusher{}, &fakePusher{}
		hanging.push = func(ctx context.Context, _ []string) error { <-ctx.Done(); return ctx.Err() }
		release := make(chan struct{})
		deaf.push = func(context.Context, []string) error { <-release; return errors.New("late") }
		failing.push = func(context.Context, []string) error { return errors.New("no") }
		r.agent.input("a", counting())
		for name, p := range map[string]*fakePusher{"hanging": hanging, "deaf": deaf, "failing": failing, "fine": fine} {
			r.agent.push(name, p)
		}
		r.start()
		for i := range 360 { // an hour
			if got := fine.got("count"); len(got) != i+1 {
				t.Fatalf("after %d intervals %d points are delivered", i, len(got))
			}
			after(10 * time.Second)
		}
		r.stop()
		after(11 * time.Second)
		select {
		case err := <-r.ended:
			if got, want := fmt.Sprint(err), "not stopped within 10s, not returned: outputs.deaf: Push"; got != want {
				t.Errorf("error %q, want %q", got, want)
			}
		default:
			t.Error("an output that is deaf to its context holds the stop up")
		}
		close(release)
	})
}

func TestFlushIntervalAndPhase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		out := &fakePusher{}
		r.agent.input("a", counting()).Options.Interval = plugin.Duration(time.Second)
		r.agent.push("out", out).Options.FlushInterval = plugin.Duration(10 * time.Second)
		r.start()
		after(95 * time.Second)
		if out.pushes.Load() < 9 || out.pushes.Load() > 10 {
			t.Errorf("%d pushes in 95 s, want one each 10 s", out.pushes.Load())
		}
		if got := len(out.got("count")); got < 85 {
			t.Errorf("%d of 95 points delivered", got)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if got := len(out.got("count")); got != 96 {
			t.Errorf("after the stop %d of 96 points are delivered", got)
		}
	})
}

func TestStopEndsInTimeInEveryState(t *testing.T) {
	tests := []struct {
		name    string
		state   string // directory
		push    func(context.Context, []string) error
		gather  time.Duration
		atMost  time.Duration
		wantErr string
		wantLog string
	}{
		{name: "idle", atMost: 0},
		{name: "gathering", gather: 4 * time.Second, atMost: 4 * time.Second},
		{name: "gather hangs", gather: time.Hour, atMost: 11 * time.Second,
			wantErr: "not stopped within 10s, not returned: inputs.a: Gather"},
		{name: "output down", push: func(context.Context, []string) error { return errors.New("no") }, atMost: 10 * time.Second,
			wantLog: "undelivered points lost with the queue in memory"},
		{name: "sending", push: func(ctx context.Context, _ []string) error {
			select {
			case <-time.After(4 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}, atMost: 8 * time.Second},
		{name: "sending, deaf to its context", push: func(context.Context, []string) error {
			time.Sleep(time.Hour)
			return nil
		}, gather: time.Second, atMost: 11 * time.Second, wantErr: "not stopped within 10s, not returned: outputs.out: Push"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				out := &fakePusher{push: tt.push}
				r.agent.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
					time.Sleep(tt.gather)
					return batchOf(pointOf("x", 1)), nil
				}))
				r.agent.push("out", out)
				r.start()
				after(time.Second)
				began := time.Now()
				if err := r.end(); (err != nil || tt.wantErr != "") && fmt.Sprint(err) != tt.wantErr {
					t.Errorf("error %q, want %q", fmt.Sprint(err), tt.wantErr)
				}
				if took := time.Since(began); took > tt.atMost {
					t.Errorf("stopped after %v, want %v at most", took, tt.atMost)
				}
				if tt.wantLog+tt.wantErr == "" && len(out.got("x")) != 1 {
					t.Error("what was gathered is not delivered")
				}
				if !strings.Contains(r.log.String(), tt.wantLog) {
					t.Errorf("want %q in the log:\n%s", tt.wantLog, r.log)
				}
				after(tt.gather + time.Hour) // what ignored ctx returns
			})
		})
	}
}

func TestFullQueueDropsTheOldestAndCountsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		out, page := newSwitchedPusher(errors.New("no")), newFakeEndpoint()
		r.agent.input("a", counting())
		push := r.agent.push("out", out)
		push.Options.BufferLimit = 1000 // about thirty records
		push.Options.NamePass = []string{"count"}
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		after(1000*time.Second + time.Second)
		out.set(nil)
		after(95 * time.Second)
		dropped := value(t, board, "sockwatch_output", "dropped_points_total", "output", "out").AsInt()
		written := value(t, board, "sockwatch_output", "written_points_total", "output", "out").AsInt()
		got := out.got("count")
		if dropped == 0 || int64(len(got))-written > 1 || got[len(got)-1] != fmt.Sprint("count ", dropped+int64(len(got))) {
			t.Errorf("dropped %d, written %d, delivered %d, the last %q", dropped, written, len(got), got[len(got)-1])
		}
		r.end()
	})
}

// Rejected records stay queued while the dead-letter file cannot be written, and
// are neither counted nor lost.
func TestRejectedPointsWaitForTheDeadLetterFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.Options.StateDirectory = t.TempDir()
		path := filepath.Join(r.agent.Options.StateDirectory, "out.rejected.jsonl")
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		out, page := &fakePusher{push: rejecting(plugin.ErrRejected, "x 617")}, newFakeEndpoint()
		r.agent.input("a", manyPoints(1000))
		r.agent.push("out", out).Options.NamePass = []string{"x"}
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		after(10 * time.Minute)
		health := func(field string) metric.Value { return value(t, board, "sockwatch_output", field, "output", "out") }
		if got := health("rejected_points_total").AsInt(); got != 0 {
			t.Errorf("%d counted as rejected before it is kept", got)
		}
		if health("up").AsBool() || health("queue_points").AsInt() != 1000-617 {
			t.Errorf("up %v with %d points queued", health("up"), health("queue_points").AsInt())
		}
		if want := "rejected points cannot be saved"; strings.Count(r.log.String(), want) != 1 {
			t.Errorf("want %q once in the log:\n%s", want, r.log)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		after(2 * time.Minute)
		if diff := cmp.Diff(xs(0, 1000, 617), out.got("x")); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		if entries := readDeadLetters(t, path); len(entries) != 1 || entries[0].Record != "x 617" {
			t.Errorf("dead letters %v", entries)
		}
		if got := health("rejected_points_total").AsInt(); got != 1 || !health("up").AsBool() {
			t.Errorf("rejected_points_total = %d, up %v", got, health("up"))
		}
		r.end()
	})
}

// Records that the destination names go to the dead-letter file, each with its own reason.
// The others are pushed again only if they are not stored.
func TestNamedRecordsAreRejectedEachForItsReason(t *testing.T) {
	reasons := map[string]string{"x 1": "bad tag", "x 3": "bad time"}
	for _, tt := range []struct {
		name         string
		othersStored bool
		alone        bool // only the first of those in a Push is named
		down         bool // after the first that names some, once
		want         [][]string
	}{
		{name: "others stored", othersStored: true, want: [][]string{xs(0, 5)}},
		{name: "others not stored", want: [][]string{xs(0, 5), xs(0, 5, 1, 3)}},
		{name: "one after the other", alone: true, want: [][]string{xs(0, 5), xs(0, 5, 1), xs(0, 5, 1, 3)}},
		{name: "an outage before the others are stored", down: true, want: [][]string{xs(0, 5), xs(0, 5, 1, 3), xs(0, 5), xs(0, 5, 1, 3)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.agent.Options.StateDirectory = t.TempDir()
				out, page := &fakePusher{}, newFakeEndpoint()
				var got [][]string
				out.push = func(_ context.Context, records []string) error {
					got = append(got, records)
					if tt.down && len(got) == 2 {
						return errors.New("down")
					}
					named := map[int]error{}
					for i, r := range records {
						if reasons[r] != "" && !(tt.alone && len(named) > 0) {
							named[i] = errors.New(reasons[r])
						}
					}
					if len(named) == 0 {
						return nil
					}
					if tt.othersStored {
						out.store(xs(0, 5, 1, 3))
					}
					return fmt.Errorf("server says: %w", &plugin.RejectedError{Records: named, OthersStored: tt.othersStored})
				}
				r.agent.input("a", manyPoints(5))
				r.agent.push("out", out).Options.NamePass = []string{"x"}
				r.agent.pull("page", page)
				r.start()
				board := <-page.board
				after(11 * time.Second)
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("pushes (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(xs(0, 5, 1, 3), out.got("x")); diff != "" {
					t.Errorf("delivered (-want +got):\n%s", diff)
				}
				want := []deadLetterEntry{{Error: "bad tag", Record: "x 1"}, {Error: "bad time", Record: "x 3"}}
				if diff := cmp.Diff(want, readDeadLetters(t, filepath.Join(r.agent.Options.StateDirectory, "out.rejected.jsonl"))); diff != "" {
					t.Errorf("dead letters (-want +got):\n%s", diff)
				}
				o := board.Health().Outputs[0]
				if o.WrittenPoints != 3 || o.RejectedPoints != 2 || o.QueuedPoints != 0 {
					t.Errorf("written %d, rejected %d, queued %d", o.WrittenPoints, o.RejectedPoints, o.QueuedPoints)
				}
				r.end()
			})
		})
	}
}

// Rejected points that the destination does not name are counted, and nothing is sent twice.
func TestUnnamedRejectedPointsAreCounted(t *testing.T) {
	for _, tt := range []struct {
		name                  string
		rejected              int
		wantWritten, wantLost int64
	}{
		{name: "none", rejected: 0, wantWritten: 5, wantLost: 0},
		{name: "some", rejected: 2, wantWritten: 3, wantLost: 2},
		{name: "more than there are", rejected: 9, wantWritten: 0, wantLost: 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.agent.Options.StateDirectory = t.TempDir()
				out, page := &fakePusher{}, newFakeEndpoint()
				out.push = func(_ context.Context, records []string) error {
					out.store(records)
					return fmt.Errorf("server says: %w", &plugin.PartialError{Rejected: tt.rejected, Err: errors.New("out of order")})
				}
				r.agent.input("a", manyPoints(5))
				r.agent.push("out", out).Options.NamePass = []string{"x"}
				r.agent.pull("page", page)
				r.start()
				board := <-page.board
				after(time.Minute)
				if diff := cmp.Diff(xs(0, 5), out.got("x")); diff != "" {
					t.Errorf("delivered (-want +got):\n%s", diff)
				}
				o := board.Health().Outputs[0]
				if o.WrittenPoints != tt.wantWritten || o.RejectedPoints != tt.wantLost || o.QueuedPoints != 0 || o.Err != nil {
					t.Errorf("written %d, rejected %d, queued %d, error %v, want %d, %d, 0, none", o.WrittenPoints, o.RejectedPoints, o.QueuedPoints, o.Err, tt.wantWritten, tt.wantLost)
				}
				want := 0
				if tt.wantLost > 0 {
					want = 1
				}
				if got := strings.Count(r.log.String(), "points rejected and not saved"); got != want {
					t.Errorf("logged %d times, want %d:\n%s", got, want, r.log.String())
				}
				r.end()
			})
		})
	}
}

// A Push whose records are only split, or only rejected, has delivered nothing: an
// outage lasts until something is stored.
func TestOutageLastsUntilSomethingIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		out, page := &fakePusher{}, newFakeEndpoint()
		var mu sync.Mutex
		stage := "down"
		pushes := map[string]int{}
		enter := func(next string) {
			mu.Lock()
			defer mu.Unlock()
			stage = next
		}
		out.push = func(_ context.Context, records []string) error {
			mu.Lock()
			defer mu.Unlock()
			pushes[stage]++
			switch {
			case stage == "down", stage == "too large" && len(records) == 1:
				return errors.New("refused")
			case stage == "too large":
				return plugin.ErrTooLarge
			case stage == "rejecting":
				return plugin.RejectAll(len(records), errors.New("bad"))
			}
			return nil
		}
		r.agent.input("a", counting()).Options.Interval = plugin.Duration(time.Second)
		r.agent.push("out", out).Options.NamePass = []string{"count"}
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		for _, s := range []string{"down", "too large", "rejecting"} {
			enter(s)
			after(5 * time.Minute)
			mu.Lock()
			n := pushes[s]
			mu.Unlock()
			if o := board.Health().Outputs[0]; o.Err == nil || n < 2 {
				t.Errorf("%s: up after %d pushes", s, n)
			}
			if value(t, board, "sockwatch_output", "up", "output", "out").AsBool() {
				t.Errorf("%s: up is 1", s)
			}
			if strings.Contains(r.log.String(), "delivery resumed") {
				t.Fatalf("%s: the log says that delivery has resumed:\n%s", s, r.log)
			}
		}
		enter("healthy")
		after(time.Minute)
		if o := board.Health().Outputs[0]; o.Err != nil {
			t.Errorf("down after it has stored records: %v", o.Err)
		}
		if n := strings.Count(r.log.String(), "delivery resumed"); n != 1 {
			t.Errorf("the log says %d times that delivery has resumed", n)
		}
		r.end()
	})
}

// A Push that does not return, and ignores its context, is reported and logged once while it
// hangs. When it has stored its records after all, the outage is over.
func TestPushThatDoesNotReturnIsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		release, page := make(chan struct{}), newFakeEndpoint()
		out := &fakePusher{push: func(context.Context, []string) error { <-release; return nil }}
		r.agent.input("a", counting())
		r.agent.push("out", out).Options.NamePass = []string{"count"}
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		after(10 * time.Second)
		if err := board.Health().Outputs[0].Err; err != nil {
			t.Errorf("down before the timeout is over: %v", err)
		}
		after(time.Hour)
		if got, want := fmt.Sprint(board.Health().Outputs[0].Err), "delivery has not ended after 10s"; got != want {
			t.Errorf("error %q, want %q", got, want)
		}
		if n := strings.Count(r.log.String(), "delivery has not ended"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, r.log)
		}
		close(release)
		after(time.Second)
		if err := board.Health().Outputs[0].Err; err != nil {
			t.Errorf("down after it has delivered: %v", err)
		}
		if n := strings.Count(r.log.String(), "delivery resumed"); n != 1 {
			t.Errorf("the log says %d times that delivery has resumed", n)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

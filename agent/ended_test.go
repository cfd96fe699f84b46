package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/buffer"
	"sockwatch/agent/calls"
	"sockwatch/agent/health"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// An endingPusher writes points as "SERIES FIELDS@SECONDS", and ended series as "end
// SERIES KEYS@SECONDS".
type endingPusher struct {
	restampingPusher
	endErr error
}

func (e *endingPusher) EncodeEnded(dst []byte, p *metric.Point, t time.Time) ([]byte, error) {
	if e.endErr != nil {
		return append(dst, "half a rec"...), e.endErr
	}
	var keys []string
	for _, f := range p.Fields {
		if f.Value != metric.Zero(f.Value.Kind()) {
			keys = append(keys, "not zero")
		}
		keys = append(keys, f.Key)
	}
	return fmt.Appendf(dst, "end %s %v@%s", p.Series(), keys, seconds(t)), nil
}

// seconds returns a time as "10" or "10.001".
func seconds(t time.Time) string {
	return strings.TrimSuffix(fmt.Sprintf("%d.%03d", t.Unix(), t.UnixMilli()%1000), ".000")
}

// step encodes a batch taken at a time, for a queue that accepts it, and returns the records.
func (e *encoder) step(at float64, points ...metric.Point) []string {
	records := texts(e.encode(offered{input: stepInput, batch: &metric.Batch{Source: "in", Time: at64(at), Points: points}}))
	e.queued()
	return records
}

// stepInput is the input of each step.
var stepInput = inputNamed("in")

func at64(seconds float64) time.Time { return time.UnixMilli(int64(seconds * 1000)) }

// fails encodes the failure of an input.
func (e *encoder) fails(name string, at float64) []string {
	records := texts(e.encode(offered{input: inputNamed(name), at: at64(at)}))
	e.queued()
	return records
}

func wantRecords(t *testing.T, when string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
		t.Errorf("%s: records (-want +got):\n%s", when, diff)
	}
}

func TestEndedSeriesPrecedeThePoints(t *testing.T) {
	p := func(name string, keysAndValues ...any) metric.Point {
		point := metric.Point{Name: name}
		for i := 0; i < len(keysAndValues); i += 2 {
			v := metric.Value{}
			switch value := keysAndValues[i+1].(type) {
			case int:
				v = metric.Int(int64(value))
			case float64:
				v = metric.Float(value)
			case string:
				v = metric.String(value)
			}
			point.Fields = append(point.Fields, metric.Field{Key: keysAndValues[i].(string), Value: v})
		}
		return point
	}
	numbered := func(from, to int) (points []metric.Point) {
		for i := from; i < to; i++ {
			points = append(points, p(fmt.Sprint("p", i), "v", 1))
		}
		return points
	}
	ends := func(from, to int) (records []string) {
		for i := from; i < to; i++ {
			records = append(records, fmt.Sprintf("end p%d{} [v]@20", i))
		}
		return records
	}
	reversed := numbered(0, 200)
	slices.Reverse(reversed)
	a, b, c := p("a", "v", 1), p("b", "v", 1), p("c", "v", 1)
	tests := []struct {
		name         string
		before, next []metric.Point
		filter       func(*PushOptions)
		want         []string // the records that end series
	}{
		{name: "nothing changed", before: []metric.Point{a, b}, next: []metric.Point{a, b}},
		{name: "a value changed", before: []metric.Point{a, b}, next: []metric.Point{p("a", "v", 2), b}},
		{name: "a point is missing", before: []metric.Point{a, b, c}, next: []metric.Point{a, c}, want: []string{"end b{} [v]@20"}},
		{name: "the last is missing", before: []metric.Point{a, b}, next: []metric.Point{a}, want: []string{"end b{} [v]@20"}},
		{name: "all are missing", before: []metric.Point{a, b}, next: nil, want: []string{"end a{} [v]@20", "end b{} [v]@20"}},
		{name: "a point was added", before: []metric.Point{b}, next: []metric.Point{a, b, c}},
		{name: "one replaces another", before: []metric.Point{a, b}, next: []metric.Point{a, c}, want: []string{"end b{} [v]@20"}},
		{name: "a tag changed", before: []metric.Point{pointOf("a", 1, "t", "1")}, next: []metric.Point{pointOf("a", 1, "t", "2")},
			want: []string{`end a{t="1"} [value]@20`}},
		{name: "points changed their order", before: []metric.Point{a, b, c}, next: []metric.Point{c, a, b}},
		{name: "many changed their order", before: numbered(0, 200), next: reversed},
		{name: "more are missing than are looked past", before: numbered(0, 200), next: numbered(150, 200), want: ends(0, 150)},
		{name: "a moved point has lost a field", before: []metric.Point{p("a", "v", 1, "w", 1), b, c}, next: []metric.Point{b, c, a},
			want: []string{"end a{} [w]@20"}},
		{name: "fields are missing", before: []metric.Point{p("a", "v", 1, "w", 1.5, "x", "y")}, next: []metric.Point{a}, want: []string{"end a{} [w x]@20"}},
		{name: "fields in another order", before: []metric.Point{p("a", "v", 1, "w", 1)}, next: []metric.Point{p("a", "w", 1, "v", 1)}},
		{name: "another kind of number", before: []metric.Point{a}, next: []metric.Point{p("a", "v", 1.5)}},
		{name: "a number became a string", before: []metric.Point{a}, next: []metric.Point{p("a", "v", "1")}, want: []string{"end a{} [v]@20"}},
		{name: "a string became a number", before: []metric.Point{p("a", "v", "1")}, next: []metric.Point{a}},
		{name: "a point cannot be encoded any more", before: []metric.Point{pointOf("a", 1), b}, next: []metric.Point{pointOf("a", -1), b},
			want: []string{"end a{} [value]@20"}},
		{name: "a point that could not be encoded is missing", before: []metric.Point{pointOf("a", -1), b}, next: []metric.Point{b}},
		{name: "filters drop the points", before: []metric.Point{a, b}, next: []metric.Point{b},
			filter: func(o *PushOptions) { o.NameDrop = []string{"a"} }},
		{name: "filters drop the fields", before: []metric.Point{p("a", "v", 1, "w", 1, "x", 1)}, next: []metric.Point{a},
			filter: func(o *PushOptions) { o.FieldExclude = []string{"x"} }, want: []string{"end a{} [w]@20"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := encodingOutput(t, &endingPusher{}, tt.filter).encoder
			e.step(10, tt.before...)
			got := e.step(20, tt.next...)
			ended := slices.DeleteFunc(slices.Clone(got), func(r string) bool { return !strings.HasPrefix(r, "end ") })
			wantRecords(t, "ended", ended, tt.want...)
			if !slices.Equal(ended, got[:len(ended)]) {
				t.Errorf("points precede what has ended: %q", got)
			}
			wantRecords(t, "next", e.step(30, tt.next...), encodeAgain(encodingOutput(t, &endingPusher{}, tt.filter)).step(30, tt.next...)...)
		})
	}
}

// A block that the queue drops is as if it had never been encoded.
func TestDroppedBlockEndsNothing(t *testing.T) {
	e := encodingOutput(t, &endingPusher{}, func(o *PushOptions) { o.MinInterval = plugin.Duration(time.Minute) }).encoder
	e.minInterval.phase = 0
	a, b, c := pointOf("a", 1), pointOf("b", 1), pointOf("c", 1)
	e.step(0, a, b)
	e.encode(offered{input: stepInput, batch: &metric.Batch{Source: "in", Time: at64(60), Points: []metric.Point{b, c}}}) // dropped
	wantRecords(t, "at once", e.step(70, b), "end a{} [value]@70", "b{} [{value 1}]@70")                                  // c was never queued
	e.encode(offered{input: inputNamed("in"), at: at64(80)})                                                              // dropped
	wantRecords(t, "another input", texts(e.encodeQueued(&metric.Batch{Source: "other", Time: at64(90), Points: []metric.Point{c}})),
		"end b{} [value]@80", "c{} [{value 1}]@90")
	wantRecords(t, "the failure again", e.fails("in", 100))
}

func TestFailureEndsTheSeriesOnce(t *testing.T) {
	e := encodingOutput(t, &endingPusher{}, nil).encoder
	a, b := pointOf("a", 1), pointOf("b", 1)
	e.step(10, a, b)
	wantRecords(t, "other input", e.fails("other", 15))
	wantRecords(t, "failed", e.fails("in", 20), "end a{} [value]@20", "end b{} [value]@20")
	wantRecords(t, "failed again", e.fails("in", 30))
	wantRecords(t, "recovered", e.step(40, b), "b{} [{value 1}]@40")
	wantRecords(t, "and lost", e.step(50), "end b{} [value]@50")
}

// The samples of a gather that was reported as failed and returned after all follow what
// the failure ended, and so do those of an input that was renamed.
func TestSamplesFollowWhatHasEnded(t *testing.T) {
	e := encodingOutput(t, &endingPusher{}, nil).encoder
	a := pointOf("a", 1)
	e.step(10, a)
	wantRecords(t, "failed", e.fails("in", 20), "end a{} [value]@20")
	p := e.serializer.pusher.(*endingPusher)
	p.take()
	b := &metric.Batch{Source: "in", Time: at64(20), Points: []metric.Point{a}}
	if got, want := e.live.timeOf(b), at64(20.001); !got.Equal(want) {
		t.Errorf("the late batch has the time %v, want %v", got, want)
	}
	renamed := &metric.Batch{Source: "renamed", Time: at64(19.5), Points: []metric.Point{a}}
	if got, want := e.live.timeOf(renamed), at64(20.001); !got.Equal(want) {
		t.Errorf("the renamed input's batch has the time %v, want %v", got, want)
	}
	other := &metric.Batch{Source: "other", Time: at64(30), Points: []metric.Point{pointOf("b", 1)}}
	e.encodeQueued(other)
	e.fails("other", 40)
	if got, want := e.live.timeOf(b), at64(20.001); !got.Equal(want) {
		t.Errorf("after another failure the late batch has the time %v, want %v", got, want)
	}
	// Another source may have ended a series that this one has now.
	e.step(50, a)
	e.encodeQueued(&metric.Batch{Source: "other", Time: at64(50), Points: []metric.Point{pointOf("b", 1)}})
	e.fails("other", 60)
	if got, want := e.live.timeOf(&metric.Batch{Source: "in", Time: at64(60)}), at64(60.001); !got.Equal(want) {
		t.Errorf("the batch of the same millisecond has the time %v, want %v", got, want)
	}
	old := &metric.Batch{Source: "in", Time: at64(10), Points: []metric.Point{a}}
	if got := e.live.timeOf(old); !got.Equal(old.Time) {
		t.Errorf("a batch from before has the time %v, want its own", got)
	}
}

// An input that was removed and comes back, under its old name, with the series of one that is
// removed while it gathers: they continue after their end.
func TestSamplesOfAnInputThatIsBackFollowWhatHasEnded(t *testing.T) {
	e := encodingOutput(t, &endingPusher{}, nil).encoder
	a := pointOf("a", 1)
	e.step(10, a)
	e.fails("in", 20)
	e.encodeQueued(&metric.Batch{Source: "renamed", Time: at64(30), Points: []metric.Point{a}})
	wantRecords(t, "removed", e.fails("renamed", 40), "end a{} [value]@40")
	back := &metric.Batch{Source: "in", Time: at64(39.995), Points: []metric.Point{a}}
	if got, want := e.live.timeOf(back), at64(40.001); !got.Equal(want) {
		t.Errorf("the batch of the input that is back has the time %v, want %v", got, want)
	}
}

func TestSeriesEndAfterTheirLastSample(t *testing.T) {
	tests := []struct {
		name      string
		last, end float64
		want      string
	}{
		{name: "later", last: 10, end: 20, want: "20"},
		{name: "in the same millisecond", last: 10, end: 10, want: "10.001"},
		{name: "clock set back a little", last: 10, end: 5, want: "10.001"},
		{name: "clock set back for longer than anybody looks", last: 1000, end: 5, want: "5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := encodingOutput(t, &endingPusher{}, nil).encoder
			e.step(tt.last, pointOf("a", 1))
			wantRecords(t, "failed", e.fails("in", tt.end), "end a{} [value]@"+tt.want)
			e.step(tt.last, pointOf("a", 1))
		})
	}
	e := encodingOutput(t, &endingPusher{}, nil).encoder
	own := pointOf("a", 1)
	own.Time = at64(15)
	e.step(10, own)
	wantRecords(t, "a point with a time of its own", e.step(12), "end a{} [value]@15.001")
}

// Two inputs may have the same series. It ends when the last of them loses it, after the
// last sample of either.
func TestSharedSeriesEndsWithItsLastSource(t *testing.T) {
	p := func(v int64) metric.Point {
		return metric.Point{Name: "a", Fields: []metric.Field{{Key: "v", Value: metric.Int(v)}, {Key: "w", Value: metric.Int(v)}}}
	}
	onlyV := metric.Point{Name: "a", Fields: p(1).Fields[:1]}
	e := encodingOutput(t, &endingPusher{}, nil).encoder
	other := func(at float64, points ...metric.Point) []string {
		return texts(e.encodeQueued(&metric.Batch{Source: "other", Time: at64(at), Points: points}))
	}
	e.step(10, p(1), pointOf("b", 1))
	other(11, onlyV)
	wantRecords(t, "the first loses it", e.step(20, pointOf("b", 1)), "end a{} [w]@20", "b{} [{value 1}]@20")
	e.step(30, p(1), pointOf("b", 1))
	wantRecords(t, "the first fails", e.fails("in", 40), "end a{} [w]@40", "end b{} [value]@40")
	wantRecords(t, "the other loses it, in a gather that began before", other(25), "end a{} [v]@30.001")

	e.step(50, p(1))
	other(50, p(1))
	e.live.begin()
	e.live.withdraw("in", at64(60))
	e.live.withdraw("other", at64(61))
	var got []string
	for _, end := range e.live.found() {
		got = append(got, fmt.Sprintf("%s %d@%s", end.point.Series(), len(end.point.Fields), seconds(end.time)))
	}
	wantRecords(t, "both fail", got, "a{} 2@61")
}

// After a restart an input that was renamed shortly before a crash keeps its series: the
// block that would end those of the old name brings them.
func TestRenamedInputKeepsItsSeriesAfterACrash(t *testing.T) {
	e := encodingOutput(t, &endingPusher{}, nil).encoder
	e.live.sources["before"] = &liveSource{points: []metric.Point{pointOf("a", 0), pointOf("b", 0)}}
	e.live.inputs = map[string]bool{"in": true}
	e.live.start()
	if got := len(e.live.withdrawn); got != 1 {
		t.Fatalf("%d sources withdrawn, want 1", got)
	}
	e.live.withdrawn["before"] = at64(10)
	wantRecords(t, "the first batch", e.step(10, pointOf("a", 1)), "end b{} [value]@10", "a{} [{value 1}]@10")
}

func TestSeriesThatCannotBeEncodedAsEndedAreLogged(t *testing.T) {
	r := newRig(t)
	push := &Push{Name: "out", Pusher: &endingPusher{endErr: errors.New("no")}, Options: DefaultPushOptions(plugin.Plugin{})}
	o, err := newOutput(r.agent, push, health.NewOutput(nil), &calls.Pending{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	o.encoder.step(10, pointOf("a", 1), pointOf("b", 1))
	wantRecords(t, "next", o.encoder.step(20, pointOf("b", 1)), "b{} [{value 1}]@20")
	wantRecords(t, "after it", o.encoder.step(30, pointOf("b", 1)), "b{} [{value 1}]@30")
	if log := r.log.String(); strings.Count(log, "cannot encode ended series") != 1 || !strings.Contains(log, "first=a{} error=no") {
		t.Errorf("the log:\n%s", log)
	}
}

// A settableInput returns the points that a test has set, or fails.
type settableInput struct {
	mu     sync.Mutex
	points []metric.Point
	err    error
	hang   time.Duration // before it returns, whatever its context says
}

func (s *settableInput) Gather(context.Context) (metric.Batch, error) {
	s.mu.Lock()
	b, err, hang := metric.Batch{Time: time.Now(), Points: s.points}, s.err, s.hang
	s.mu.Unlock()
	time.Sleep(hang)
	return b, err
}

func (s *settableInput) set(err error, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.points = err, nil
	for _, name := range names {
		s.points = append(s.points, pointOf(name, 1))
	}
}

// taken returns the records that were stored since the last call, without times and values.
func (e *endingPusher) taken() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	got := []string{}
	for _, record := range e.stored {
		record, _, _ = strings.Cut(record, "@")
		record = strings.TrimSuffix(record, " [value]")
		got = append(got, strings.TrimSuffix(record, " [{value 1}]"))
	}
	e.stored = nil
	return got
}

// series returns the records of the series with that prefix.
func seriesWith(prefix string, records []string) []string {
	return slices.DeleteFunc(records, func(r string) bool { return !strings.Contains(r, prefix) })
}

// withPush adds an output without the agent's own points.
func (a *Agent) withPush(p plugin.Pusher) *Push {
	push := a.push("out", p)
	push.Plugin.MemoryOnly = false
	push.Options.NameDrop = []string{"sockwatch_*"}
	return push
}

func TestRestartShowsWhatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.Options.StateDirectory = t.TempDir()
		in, removed, p := &settableInput{}, &settableInput{}, &endingPusher{}
		in.set(nil, "a", "b", "c")
		removed.set(nil, "d")
		first := r.agent
		first.input("in", in)
		first.input("removed", removed)
		first.withPush(p)
		r.start()
		after(25 * time.Second)
		p.taken()
		in.set(nil, "a", "b")
		after(10 * time.Second)
		wantRecords(t, "before the stop", slices.Sorted(slices.Values(p.taken())), "a{}", "b{}", "d{}", "end c{}")
		r.end()
		after(4 * time.Minute)
		wantRecords(t, "a clean stop", p.taken())

		in.set(nil, "a")
		r.agent = r.sibling()
		r.agent.input("in", in)
		r.agent.withPush(p)
		r.start()
		after(time.Second)
		wantRecords(t, "the first batch", p.taken(), "end b{}", "end d{}", "a{}")
		r.end()
		after(6 * time.Minute)

		in.set(nil, "e")
		r.agent = r.sibling()
		r.agent.input("in", in)
		r.agent.withPush(p)
		r.start()
		after(time.Second)
		wantRecords(t, "after a long stop", p.taken(), "e{}")
		r.end()
	})
}

// An input that fails from the start on ends what the last run left. A damaged file ends
// nothing.
func TestSeriesOfTheLastRun(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(in *settableInput, file string) error
		want    []string
		log     string
	}{
		{name: "the input fails", want: []string{"end a{}"},
			prepare: func(in *settableInput, _ string) error { in.set(errors.New("no")); return nil }},
		{name: "the file is damaged", want: []string{"b{}"},
			prepare: func(in *settableInput, file string) error {
				return errors.Join(os.WriteFile(file, []byte("x"), 0o600), os.Chtimes(file, time.Now(), time.Now()))
			},
			log: "cannot read which series were live, those that have ended since keep their last value for about five minutes"},
		{name: "the file is a directory", want: []string{"b{}"},
			prepare: func(in *settableInput, file string) error {
				return errors.Join(os.Remove(file), os.MkdirAll(filepath.Join(file, "x"), 0o700))
			},
			log: "cannot save which series are live"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.agent.Options.StateDirectory = t.TempDir()
				in, p := &settableInput{}, &endingPusher{}
				in.set(nil, "a")
				r.agent.input("in", in)
				r.agent.withPush(p)
				r.start()
				after(time.Second)
				r.end()
				p.taken()
				in.set(nil, "b")
				if err := tt.prepare(in, filepath.Join(r.agent.Options.StateDirectory, "out.series.json")); err != nil {
					t.Fatal(err)
				}
				r.start()
				after(time.Second)
				wantRecords(t, "the first batch", p.taken(), tt.want...)
				if log := r.log.String(); !strings.Contains(log, tt.log) {
					t.Errorf("the log, without %q:\n%s", tt.log, log)
				}
				r.end()
			})
		})
	}
}

func TestReloadEndsWhatItRemoves(t *testing.T) {
	tests := []struct {
		name   string
		change func(next *Agent, p *endingPusher) // next has an input "in" with the series a and b, and an output
		want   []string
	}{
		{name: "nothing changes", change: func(*Agent, *endingPusher) {}, want: []string{}},
		{name: "the input is removed", want: []string{"end a{}", "end b{}", "other{}"},
			change: func(next *Agent, _ *endingPusher) {
				next.Inputs = nil
				next.input("other", fakeInput(func(context.Context) (metric.Batch, error) { return batchOf(pointOf("other", 1)), nil }))
			}},
		{name: "the input is renamed", want: []string{"a{}", "b{}"},
			change: func(next *Agent, _ *endingPusher) { next.Inputs[0].Name = "renamed" }},
		{name: "the input and the output are replaced, the input is removed", want: []string{"end a{}", "end b{}", "other{}"},
			change: func(next *Agent, _ *endingPusher) {
				next.Inputs = nil
				next.input("other", fakeInput(func(context.Context) (metric.Batch, error) { return batchOf(pointOf("other", 1)), nil }))
				next.Push[0].Settings = &fakeSettings{Version: 2}
			}},
		{name: "the input filters", want: []string{"end a{}", "b{}"},
			change: func(next *Agent, _ *endingPusher) { next.Inputs[0].Options.NameDrop = []string{"a"} }},
		{name: "the input adds a tag", want: []string{"end a{}", "end b{}", `a{t="v"}`, `b{t="v"}`},
			change: func(next *Agent, _ *endingPusher) { next.Inputs[0].Options.Tags = map[string]string{"t": "v"} }},
		{name: "the output filters", want: []string{"end a{}", "b{}"},
			change: func(next *Agent, _ *endingPusher) { next.Push[0].Options.NameDrop = []string{"sockwatch_*", "a"} }},
		{name: "the output is replaced", want: []string{"a{}", "b{}"},
			change: func(next *Agent, _ *endingPusher) { next.Push[0].Settings = &fakeSettings{Version: 2} }},
		{name: "the queue moves to memory", want: []string{"end a{}", "b{}"},
			change: func(next *Agent, _ *endingPusher) {
				next.Push[0].Options.Buffer = "memory"
				next.Push[0].Options.NameDrop = []string{"sockwatch_*", "a"}
			}},
		{name: "min_interval does not hold back what has changed", want: []string{"end a{}", "b{}"},
			change: func(next *Agent, _ *endingPusher) {
				next.Push[0].Options.MinInterval = plugin.Duration(time.Minute)
				next.Inputs[0].Options.NameDrop = []string{"a"}
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.agent.Options.StateDirectory = t.TempDir()
				in, p := &settableInput{}, &endingPusher{}
				in.set(nil, "a", "b")
				configure := func() *Agent {
					a := r.sibling()
					a.input("in", in)
					a.withPush(p)
					return a
				}
				r.agent = configure()
				r.start()
				after(15 * time.Second)
				p.taken()
				next := configure()
				tt.change(next, p)
				r.reloadTo(next, nil)
				after(10 * time.Second) // a new instance gathers at once
				got := p.taken()
				switch tt.name {
				case "nothing changes": // the unchanged input goes on
					got = seriesWith("end", got)
				case "the input is renamed": // its first batch may come before the old one is withdrawn
					got = slices.Compact(slices.Sorted(slices.Values(seriesWith("{}", got))))
					got = slices.DeleteFunc(got, func(r string) bool { return strings.HasPrefix(r, "end") })
				case "the input is removed", "the input and the output are replaced, the input is removed":
					got = got[:min(len(tt.want), len(got))]
					slices.Sort(got) // the first batch of the other input may come before
				case "the output is replaced":
					got = got[:min(2, len(got))]
				default:
					got = got[:min(len(tt.want), len(got))]
				}
				wantRecords(t, "after the reload", got, tt.want...)
				p.taken()
				after(10 * time.Second)
				for _, record := range p.taken() {
					if strings.HasPrefix(record, "end ") {
						t.Errorf("%s in the batch after", record)
					}
				}
				r.end()
			})
		})
	}
}

// A gather that exceeds its timeout ends the series. Its late batch brings them back, with
// later times.
func TestLateBatchBringsItsSeriesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		in, p := &settableInput{}, &endingPusher{}
		in.set(nil, "a", "b")
		r.agent.input("in", in)
		r.agent.withPush(p).Options.MinInterval = plugin.Duration(time.Hour) // does not hold it back
		began := time.Now()
		r.start()
		after(time.Second)
		in.mu.Lock()
		in.hang = 15 * time.Second
		in.mu.Unlock()
		after(11 * time.Second) // the second gather, at 10 s, has 10 s
		p.mu.Lock()
		p.stored = nil
		p.mu.Unlock()
		in.mu.Lock()
		in.hang = 0
		in.mu.Unlock()
		after(15 * time.Second)
		p.mu.Lock()
		defer p.mu.Unlock()
		at := began.Truncate(10 * time.Second).Add(10 * time.Second)
		wantRecords(t, "late", p.stored[:min(4, len(p.stored))],
			"end a{} [value]@"+seconds(at), "end b{} [value]@"+seconds(at),
			fmt.Sprintf("a{} [{value 1}]@%d", at.Unix()), fmt.Sprintf("b{} [{value 1}]@%d", at.Unix()))
	})
}

// Once sends what it has gathered, and ends nothing: neither its own series nor those of a
// daemon that uses the same state directory.
func TestOnceEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.Options.StateDirectory = t.TempDir()
		in, p := &settableInput{}, &endingPusher{}
		in.set(nil, "a", "b")
		r.agent.input("in", in)
		r.agent.withPush(p)
		r.start()
		after(time.Second)
		r.end()
		p.taken()
		file := filepath.Join(r.agent.Options.StateDirectory, "out.series.json")
		before, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		in.set(nil, "b", "c")
		once := r.sibling()
		once.input("in", in)
		once.withPush(p).Options.MinInterval = plugin.Duration(time.Minute)
		if err := once.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantRecords(t, "once", p.taken(), "b{}", "c{}")
		if now, err := os.ReadFile(file); err != nil || !slices.Equal(now, before) {
			t.Errorf("once has changed %s: %v", file, err)
		}
	})
}

// A batch that the input has returned before costs no allocation, and neither does one in
// which only values have changed.
func TestBatchWithTheSameSeriesCostsNoAllocation(t *testing.T) {
	points := listenerPoints(1000).Points
	changed := slices.Clone(points)
	for i := range changed {
		changed[i].Fields = slices.Clone(changed[i].Fields)
		changed[i].Fields[0].Value = metric.Int(7)
	}
	for _, tt := range []struct {
		name string
		next []metric.Point
	}{{name: "same points", next: points}, {name: "other values", next: changed}} {
		l, at, batches := newLiveSeries(), time.Unix(1000, 0), [][]metric.Point{points, tt.next}
		observeQueued(l, points, at)
		allocs := testing.AllocsPerRun(10, func() {
			at = at.Add(time.Second)
			slices.Reverse(batches)
			if n := observeQueued(l, batches[0], at); n != 0 {
				t.Errorf("%s: %d series have ended", tt.name, n)
			}
		})
		if allocs > 0 {
			t.Errorf("%s: %v allocations", tt.name, allocs)
		}
	}
}

// While a disk hangs, the removal of an input is not lost: it waits behind the batches. A
// failure is offered again by the next gather that fails.
func TestRemovalWaitsForAQueueThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		q := &hangingQueue{Queue: buffer.NewMemory(1 << 20), appending: true, release: make(chan struct{})}
		p := &endingPusher{}
		o := newFilledOutput(t, r, q, p)
		in := inputNamed("in")
		for range inboxBatches + 10 {
			b := batchOf(pointOf("a", 1))
			b.Source = "in"
			o.offer(in, &b, nil)
			synctest.Wait()
			time.Sleep(10 * time.Second)
		}
		o.offerWithdrawal(in, time.Now(), false)
		if got := len(o.inbox); got != inboxBatches {
			t.Errorf("%d entries wait after a failure, want %d", got, inboxBatches)
		}
		o.offerWithdrawal(in, time.Now(), true)
		close(q.release)
		go o.leave(t.Context(), false)
		after(time.Minute)
		got := p.taken()
		if len(got) != inboxBatches+2 || got[len(got)-1] != "end a{}" {
			t.Errorf("%d records, the last are %q", len(got), got[max(0, len(got)-2):])
		}
	})
}

// A disk that is full for a while costs a batch, but not the end of what was missing from it.
func TestEndedSeriesWaitForADiskThatIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		q := &flakyQueue{Queue: buffer.NewMemory(1 << 20)}
		p := &endingPusher{}
		o := newFilledOutput(t, r, q, p)
		gathered := func(names ...string) {
			b := batchOf()
			b.Source = "in"
			for _, name := range names {
				b.Points = append(b.Points, pointOf(name, 1))
			}
			o.offer(inputNamed("in"), &b, nil)
			after(10 * time.Second)
		}
		gathered("a", "b")
		q.set(syscall.ENOSPC)
		gathered("a", "c")
		q.set(nil)
		gathered("a")
		go o.leave(t.Context(), false)
		after(time.Minute)
		wantRecords(t, "delivered", p.taken(), "a{}", "b{}", "end b{}", "a{}")
	})
}

// An input that a reload removes during a gather does not come back with its batch.
func TestBatchOfARemovedInputIsNotDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		in, p := &settableInput{}, &endingPusher{}
		in.set(nil, "a")
		r.agent.input("in", in)
		r.agent.withPush(p)
		r.start()
		after(time.Second)
		in.mu.Lock()
		in.hang = 5 * time.Second
		in.mu.Unlock()
		after(10 * time.Second)
		next := r.sibling()
		next.input("other", counting())
		next.withPush(p).Options.NameDrop = []string{"sockwatch_*", "count"}
		p.taken()
		r.reloadTo(next, nil)
		after(30 * time.Second)
		wantRecords(t, "after the removal", p.taken(), "end a{}")
		r.end()
	})
}

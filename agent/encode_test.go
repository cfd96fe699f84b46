package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A restampingPusher writes records as "NAME TAGS FIELDS@TIME". It records what it
// encodes, and cannot encode a negative value.
type restampingPusher struct {
	fakePusher
	encoded    []string // names and tags, since it was last taken
	restampErr error
}

func (r *restampingPusher) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	r.encoded = append(r.encoded, p.Series())
	if v, _ := p.Field("value"); v.AsInt() < 0 {
		return append(dst, "half a rec"...), errors.New("negative")
	}
	return fmt.Appendf(dst, "%s %v@%d", p.Series(), p.Fields, p.Time.Unix()), nil
}

func (r *restampingPusher) Restamp(dst, record []byte, t time.Time) ([]byte, error) {
	if r.restampErr != nil {
		return append(dst, "half a rec"...), r.restampErr
	}
	at := strings.LastIndexByte(string(record), '@')
	return fmt.Appendf(append(dst, record[:at]...), "@%d", t.Unix()), nil
}

func (r *restampingPusher) take() []string {
	encoded := r.encoded
	r.encoded = nil
	return encoded
}

// encodingOutput returns an output that encodes by p.
func encodingOutput(t testing.TB, p plugin.Pusher, change func(*PushOptions)) *runningOutput {
	t.Helper()
	push := &Push{Name: "out", Pusher: p, Options: DefaultPushOptions(plugin.Plugin{})}
	if change != nil {
		change(&push.Options)
	}
	o, err := newOutput(&Agent{Log: newRig(nil).agent.Log}, push, newOutputHealth(nil), &calls{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	o.encoder.phase = 0 // on every host
	return o
}

// encodeAgain returns an encoder for the same output that has not encoded anything.
func encodeAgain(o *runningOutput) *encoder {
	return newEncoder(o.Push, o.encoder.filter, &o.health.panics, o.log, o.rejectUnencoded)
}

// inputNamed returns an input for the inbox.
func inputNamed(name string) *runningInput {
	return &runningInput{Input: &Input{Name: name, RoundInterval: true}}
}

// encodeQueued encodes a batch for a queue that accepts it.
func (e *encoder) encodeQueued(b *metric.Batch) [][]byte {
	records := e.encode(offered{batch: b})
	e.queued()
	return records
}

func texts(records [][]byte) []string {
	texts := []string{}
	for _, r := range records {
		texts = append(texts, string(r))
	}
	return texts
}

func TestOnlyChangedPointsAreEncodedAgain(t *testing.T) {
	numbered := func(from, to int) (points []metric.Point) {
		for i := from; i < to; i++ {
			points = append(points, pointOf("p", 1, "n", fmt.Sprint(i)))
		}
		return points
	}
	abc := []metric.Point{pointOf("p", 1, "n", "a"), pointOf("p", 1, "n", "b"), pointOf("p", 1, "n", "c")}
	tests := []struct {
		name         string
		before, next []metric.Point
		filter       func(*PushOptions)
		want         []string // the points that were encoded again in the second batch
	}{
		{name: "nothing changed", before: abc, next: abc},
		{name: "other slices of the same content", before: abc, next: []metric.Point{
			pointOf("p", 1, "n", "a"), pointOf("p", 1, "n", "b"), pointOf("p", 1, "n", "c")}},
		{name: "a field changed", before: abc, next: []metric.Point{abc[0], pointOf("p", 2, "n", "b"), abc[2]}, want: []string{`p{n="b"}`}},
		{name: "a tag changed", before: abc, next: []metric.Point{abc[0], pointOf("p", 1, "n", "B"), abc[2]}, want: []string{`p{n="B"}`}},
		{name: "the name changed", before: abc, next: []metric.Point{abc[0], pointOf("q", 1, "n", "b"), abc[2]}, want: []string{`q{n="b"}`}},
		{name: "points removed", before: abc, next: abc[2:]},
		{name: "a point added in front", before: abc[1:], next: abc, want: []string{`p{n="a"}`}},
		{name: "a point added in between", before: []metric.Point{abc[0], abc[2]}, next: abc, want: []string{`p{n="b"}`}},
		{name: "a point added at the end", before: abc[:2], next: abc, want: []string{`p{n="c"}`}},
		{name: "as many removed in a row as are looked past", before: numbered(0, 100), next: numbered(lookAhead-1, 100)},
		{name: "a point that cannot be encoded", before: []metric.Point{abc[0], pointOf("p", -1, "n", "b"), abc[2]},
			next: []metric.Point{abc[0], pointOf("p", -1, "n", "b"), abc[2]}, want: []string{`p{n="b"}`}},
		{name: "behind filters that make other points", before: abc, next: []metric.Point{abc[0], pointOf("p", 2, "n", "b"), abc[2]},
			filter: func(o *PushOptions) { o.FieldExclude, o.TagExclude = []string{"none"}, []string{"none"} }, want: []string{`p{n="b"}`}},
		{name: "what filters leave out changed", before: []metric.Point{{Name: "p", Fields: []metric.Field{{Key: "a", Value: metric.Int(1)}, {Key: "b", Value: metric.Int(1)}}}},
			next:   []metric.Point{{Name: "p", Fields: []metric.Field{{Key: "a", Value: metric.Int(1)}, {Key: "b", Value: metric.Int(2)}}}},
			filter: func(o *PushOptions) { o.FieldExclude = []string{"b"} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &restampingPusher{}
			o := encodingOutput(t, p, tt.filter)
			e := o.encoder
			began := time.Unix(1000, 0)
			e.encodeQueued(&metric.Batch{Source: "in", Time: began, Points: tt.before})
			p.take()
			next := &metric.Batch{Source: "in", Time: began.Add(10 * time.Second), Points: tt.next}
			got := texts(e.encodeQueued(next))
			if diff := cmp.Diff(tt.want, p.take()); diff != "" {
				t.Errorf("encoded (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(texts(encodeAgain(o).encodeQueued(next)), got); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
		})
	}
}

// TestKeptRecordsAreThoseOfAFreshEncoder encodes batches of several sources whose points
// appear, disappear, change, move and cannot be encoded.
func TestKeptRecordsAreThoseOfAFreshEncoder(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		o := encodingOutput(t, &restampingPusher{}, nil)
		kept := encodeAgain(o)
		batches := map[string][]metric.Point{}
		for step := range 30 {
			source := fmt.Sprint("in", rnd.IntN(3))
			points := slices.Clone(batches[source])
			for range rnd.IntN(6) {
				i := rnd.IntN(len(points) + 1)
				switch rnd.IntN(5) {
				case 0, 1:
					points = slices.Insert(points, i, pointOf("p", int64(rnd.IntN(5)-1), "id", fmt.Sprint(step, "-", rnd.Int())))
				case 2:
					points = slices.Delete(points, i, min(i+1+rnd.IntN(3), len(points)))
				case 3:
					if i < len(points) {
						points[i] = pointOf("p", int64(rnd.IntN(5)-1), "id", points[i].Tag("id"))
					}
				case 4:
					rnd.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
				}
			}
			for i := range points {
				points[i].Time = time.Time{}
				if rnd.IntN(8) == 0 {
					points[i].Time = time.Unix(int64(rnd.IntN(100)), 0)
				}
			}
			batches[source] = points
			b := &metric.Batch{Source: source, Time: time.Unix(int64(1000+step), 0), Points: points}
			if rnd.IntN(3) == 0 {
				b.Events = []metric.Point{{Name: "event", Fields: pointOf("e", 1).Fields, Time: time.Unix(5, 0)}}
			}
			want := texts(encodeAgain(o).encodeQueued(b))
			if diff := cmp.Diff(want, texts(kept.encodeQueued(b))); diff != "" {
				t.Fatalf("seed %d, step %d (-want +got):\n%s", seed, step, diff)
			}
		}
	}
}

func TestRecordThatCannotBeRestampedIsEncoded(t *testing.T) {
	p := &restampingPusher{restampErr: errors.New("no")}
	o := encodingOutput(t, p, nil)
	e := o.encoder
	points := []metric.Point{pointOf("p", 1), pointOf("q", 1)}
	for _, want := range [][]string{
		{"p{} [{value 1}]@10", "q{} [{value 1}]@10"}, {"p{} [{value 1}]@20", "q{} [{value 1}]@20"},
	} {
		p.take()
		at := int64(10)
		if strings.HasSuffix(want[0], "20") {
			at = 20
		}
		got := texts(e.encodeQueued(&metric.Batch{Source: "in", Time: time.Unix(at, 0), Points: points}))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"p{}", "q{}"}, p.take()); diff != "" {
			t.Errorf("encoded (-want +got):\n%s", diff)
		}
	}
}

// TestEncoderKeepsOnlyTheLastBatches checks that neither removed sources nor shrunk
// batches keep memory.
func TestEncoderKeepsOnlyTheLastBatches(t *testing.T) {
	o := encodingOutput(t, &restampingPusher{}, nil)
	e := o.encoder
	began := time.Unix(1000, 0)
	large := listenerPoints(1000)
	for source := range 3 {
		e.encodeQueued(&metric.Batch{Source: fmt.Sprint(source), Time: began, Points: large.Points})
	}
	for _, removed := range []string{"1", "2"} {
		e.encode(offered{input: inputNamed(removed), at: began})
		e.queued()
	}
	for minutes := range 4 {
		e.encodeQueued(&metric.Batch{Source: "0", Time: began.Add(time.Duration(minutes) * time.Minute), Points: large.Points[:2]})
	}
	kept := 0
	for _, s := range e.sources {
		kept += cap(s.last.bytes)
	}
	if len(e.sources) != 1 || kept+cap(e.spare.bytes) > 10_000 || e.spare.points != nil {
		t.Errorf("%d sources, %d and %d spare bytes are kept for two points", len(e.sources), kept, cap(e.spare.bytes))
	}

	o = encodingOutput(t, &fakePusher{}, nil)
	o.encoder.encodeQueued(&metric.Batch{Source: "in", Time: began, Points: large.Points})
	if kept := o.encoder.sources["in"].last; kept.bytes != nil || kept.points != nil {
		t.Errorf("%d bytes are kept for an output that cannot restamp", len(kept.bytes))
	}
}

// A describedPusher writes the unit of a point's first field into its record.
type describedPusher struct {
	endingPusher
	units map[string]string
	calls int
}

func (d *describedPusher) UseDescs(descs []metric.Desc) {
	d.calls++
	d.units = map[string]string{}
	for _, desc := range descs {
		d.units[desc.Name] = desc.Unit
	}
}

func (d *describedPusher) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	return fmt.Appendf(dst, "%s in %s@%d", p.Name, d.units[p.Name], p.Time.Unix()), nil
}

func (d *describedPusher) EncodeEnded(dst []byte, p *metric.Point, t time.Time) ([]byte, error) {
	return fmt.Appendf(dst, "end %s in %s@%d", p.Name, d.units[p.Name], t.Unix()), nil
}

// Records are encoded with the Descs of their batch, and again if these have changed.
func TestRecordsUseTheDescsOfTheirBatch(t *testing.T) {
	p := &describedPusher{}
	o := encodingOutput(t, p, nil)
	meters, feet := []metric.Desc{{Name: "a", Unit: "m"}, {Name: "b", Unit: "m"}}, []metric.Desc{{Name: "a", Unit: "ft"}, {Name: "b", Unit: "ft"}}
	batch := func(source string, at int64, descs []metric.Desc, points ...metric.Point) []string {
		return texts(o.encoder.encodeQueued(&metric.Batch{Source: source, Time: time.Unix(at, 0), Descs: descs, Points: points}))
	}
	a, b := pointOf("a", 1), pointOf("b", 1)
	wantRecords(t, "first", batch("in", 10, meters, a, b), "a in m@10", "b in m@10")
	wantRecords(t, "restamped", batch("in", 20, slices.Clone(meters), a, b), "a in m@20", "b in m@20")
	if p.calls != 1 {
		t.Errorf("%d calls of UseDescs, want 1", p.calls)
	}
	wantRecords(t, "another source", batch("other", 20, feet, a), "a in ft@20")
	wantRecords(t, "the first again", batch("in", 30, meters, a, b), "a in m@30", "b in m@30")
	wantRecords(t, "other Descs", batch("in", 40, feet, a, b), "a in ft@40", "b in ft@40")
	wantRecords(t, "ended", batch("in", 50, meters, a), "end b in ft@50", "a in m@50")
	wantRecords(t, "events", texts(o.encoder.encodeEvents([]metric.Point{b}, feet, time.Unix(60, 0))), "b in ft@60")
}

func TestRecordWithAnotherStartIsEncodedAgain(t *testing.T) {
	p := &restampingPusher{}
	o := encodingOutput(t, p, nil)
	counter := pointOf("a", 1)
	for i, tt := range []struct {
		start time.Time
		want  []string
	}{
		{start: time.Unix(5, 0), want: []string{"a{}"}},
		{start: time.Unix(5, 0).UTC(), want: nil},
		{start: time.Unix(6, 0), want: []string{"a{}"}},
	} {
		counter.Start = tt.start
		o.encoder.encodeQueued(&metric.Batch{Source: "in", Time: time.Unix(int64(10*i+10), 0), Points: []metric.Point{counter}})
		if diff := cmp.Diff(tt.want, p.take()); diff != "" {
			t.Errorf("encoded with the start %v (-want +got):\n%s", tt.start, diff)
		}
	}
}

// passesAt returns the seconds at which the points of gathers at these seconds pass.
func passesAt(t *testing.T, minInterval, phase time.Duration, round bool, gathers ...float64) []float64 {
	o := encodingOutput(t, &fakePusher{}, func(o *PushOptions) { o.MinInterval = plugin.Duration(minInterval) })
	o.encoder.phase = phase
	in := inputNamed("in")
	in.RoundInterval, in.Options.Interval = round, plugin.Duration(10*time.Second)
	passed := []float64{}
	for i, at := range gathers {
		b := metric.Batch{Source: "in", Time: time.UnixMicro(int64(at * 1e6)), Points: []metric.Point{pointOf("a", int64(i))}}
		if len(o.encoder.encode(offered{input: in, batch: &b})) > 0 {
			passed = append(passed, at)
		}
		o.encoder.queued()
	}
	return passed
}

func TestPointsPassOncePerMinInterval(t *testing.T) {
	tests := []struct {
		name        string
		minInterval time.Duration
		phase       time.Duration
		free        bool // round_interval is off
		gathers     []float64
		want        []float64
	}{
		{name: "off", gathers: []float64{0, 10, 10.5, 20}, want: []float64{0, 10, 10.5, 20}},
		{name: "every sixth", minInterval: time.Minute,
			gathers: []float64{60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160, 170, 180, 190}, want: []float64{60, 120, 180}},
		{name: "every sixth, on another host", minInterval: time.Minute, phase: 20 * time.Second,
			gathers: []float64{60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160, 170, 180, 190}, want: []float64{60, 80, 140}},
		{name: "a phase between two gathers", minInterval: time.Minute, phase: 27 * time.Second,
			gathers: []float64{60, 70, 79.99, 90, 100, 110, 120, 130, 139.99, 150, 160, 170, 180, 190, 199.999}, want: []float64{60, 79.99, 139.99, 199.999}},
		{name: "the first after a start is early", minInterval: time.Minute,
			gathers: []float64{83.7, 90, 100, 110, 120, 130}, want: []float64{83.7, 120}},
		{name: "jitter", minInterval: time.Minute,
			gathers: []float64{64, 70, 81, 93, 104, 119, 120, 131, 149, 158, 160, 178, 189}, want: []float64{64, 120, 189}},
		{name: "a slow clock", minInterval: time.Minute,
			gathers: []float64{60, 70, 119.995, 130, 179.99, 190, 240.001}, want: []float64{60, 119.995, 179.99, 240.001}},
		{name: "equal to the interval", minInterval: 10 * time.Second, gathers: []float64{63.7, 70, 80, 90.001}, want: []float64{63.7, 70, 80, 90.001}},
		{name: "shorter than the interval", minInterval: time.Second, gathers: []float64{60, 70, 80}, want: []float64{60, 70, 80}},
		{name: "not a multiple of the interval", minInterval: 25 * time.Second,
			gathers: []float64{100, 110, 120, 130, 140, 150, 160, 170, 180, 190, 200}, want: []float64{100, 130, 150, 180, 200}},
		{name: "gathers in between", minInterval: time.Minute, gathers: []float64{60, 61, 62, 118, 120, 121, 180}, want: []float64{60, 120, 180}},
		{name: "clock set back", minInterval: time.Minute, gathers: []float64{600, 610, 300, 310, 360}, want: []float64{600, 300, 360}},
		{name: "not at multiples of the interval", minInterval: time.Minute, free: true,
			gathers: []float64{59, 69, 79, 89, 99, 109, 119.001, 129, 139, 149, 159, 169, 179.002, 189}, want: []float64{59, 119.001, 179.002}},
		{name: "not at multiples, with jitter", minInterval: time.Minute, free: true,
			gathers: []float64{59, 70, 79, 92, 99, 110, 116, 129, 140, 149, 162, 169, 180, 184, 199}, want: []float64{59, 116, 180}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, passesAt(t, tt.minInterval, tt.phase, !tt.free, tt.gathers...)); diff != "" {
				t.Errorf("passed (-want +got):\n%s", diff)
			}
		})
	}
}

// Points pass at once after a failure, after a reload has replaced the input, and if the
// queue has dropped those that passed.
func TestPointsPassAtOnceAfterAGap(t *testing.T) {
	o := encodingOutput(t, &fakePusher{}, func(o *PushOptions) { o.MinInterval = plugin.Duration(time.Minute) })
	in := inputNamed("in")
	passes := func(in *runningInput, at int64, queued bool) bool {
		b := metric.Batch{Source: "in", Time: time.Unix(at, 0), Points: []metric.Point{pointOf("a", at)}}
		records := o.encoder.encode(offered{input: in, batch: &b})
		if queued {
			o.encoder.queued()
		}
		return len(records) > 0
	}
	replaced := inputNamed("in")
	o.encoder.encode(offered{input: in, at: time.Unix(1, 0)})
	for _, tt := range []struct {
		name string
		got  bool
		want bool
	}{
		{name: "first", got: passes(in, 60, true), want: true},
		{name: "next", got: passes(in, 70, true)},
		{name: "replaced", got: passes(replaced, 80, true), want: true},
		{name: "next of the replaced", got: passes(replaced, 90, true)},
		{name: "dropped", got: passes(replaced, 120, false), want: true},
		{name: "after the dropped", got: passes(replaced, 130, true), want: true},
		{name: "next again", got: passes(replaced, 140, true)},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: passed is %v, want %v", tt.name, tt.got, tt.want)
		}
	}
	o.encoder.encode(offered{input: replaced, at: time.Unix(150, 0)})
	o.encoder.queued()
	if !passes(replaced, 160, true) {
		t.Error("points of an input that recovered do not pass")
	}
}

// What has ended passes at once. A series that no points of which passed does not end.
func TestEndedSeriesDoNotWaitForMinInterval(t *testing.T) {
	e := encodingOutput(t, &endingPusher{}, func(o *PushOptions) { o.MinInterval = plugin.Duration(time.Minute) }).encoder
	p := func(fields ...string) metric.Point {
		point := metric.Point{Name: "p"}
		for _, key := range fields {
			point.Fields = append(point.Fields, metric.Field{Key: key, Value: metric.Int(1)})
		}
		return point
	}
	a, b, c := pointOf("a", 1), pointOf("b", 1), pointOf("c", 1)
	wantRecords(t, "first", e.step(60, a, b, p("v", "w")), "a{} [{value 1}]@60", "b{} [{value 1}]@60", "p{} [{v 1} {w 1}]@60")
	wantRecords(t, "b and a field are missing", e.step(70, a, c, p("v", "x")), "end b{} [value]@70", "end p{} [w]@70")
	wantRecords(t, "b is back, c is missing", e.step(80, a, b, p("v", "w")))
	wantRecords(t, "b is missing again", e.step(90, a, p("v")))
	wantRecords(t, "a is missing", e.step(100, p("v")), "end a{} [value]@100")
	wantRecords(t, "next", e.step(120, b, p("v")), "b{} [{value 1}]@120", "p{} [{v 1}]@120")
	wantRecords(t, "failed", e.fails("in", 130), "end b{} [value]@130", "end p{} [v]@130")
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
		if diff := cmp.Diff([]string{"point 1", "point 7"}, p.got("point")); diff != "" {
			t.Errorf("points (-want +got):\n%s", diff)
		}
		r.end()
	})
}

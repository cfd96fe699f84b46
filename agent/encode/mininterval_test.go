package encode

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

// passesAt returns the seconds at which the points of gathers at these seconds pass.
func passesAt(t *testing.T, minInterval, phase time.Duration, round bool, gathers ...float64) []float64 {
	o := encodingOutput(t, storingPusher{}, func(o *testOptions) { o.MinInterval = minInterval })
	o.encoder.minInterval.phase = phase
	in := inputNamed("in")
	in.Round, in.Interval = round, 10*time.Second
	passed := []float64{}
	for i, at := range gathers {
		b := metric.Batch{Source: "in", Time: time.UnixMicro(int64(at * 1e6)), Points: []metric.Point{pointOf("a", int64(i))}}
		if len(o.encoder.Encode(Entry{Source: in, Batch: &b})) > 0 {
			passed = append(passed, at)
		}
		o.encoder.Queued()
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
		{name: "the first after a start is early", minInterval: time.Minute,
			gathers: []float64{83.7, 90, 100, 110, 120, 130}, want: []float64{83.7, 120}},
		{name: "jitter", minInterval: time.Minute,
			gathers: []float64{64, 70, 81, 93, 104, 119, 120, 131, 149, 158, 160, 178, 189}, want: []float64{64, 120, 189}},
		{name: "another host", minInterval: time.Minute, phase: 39 * time.Second,
			gathers: []float64{60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160}, want: []float64{60, 90, 150}},
		{name: "another host, with jitter", minInterval: time.Minute, phase: 39 * time.Second,
			gathers: []float64{60, 79, 85, 91, 109, 119, 120, 139, 149, 150, 168}, want: []float64{60, 91, 150}},
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
	o := encodingOutput(t, storingPusher{}, func(o *testOptions) { o.MinInterval = time.Minute })
	o.encoder.minInterval.phase = 0
	in := inputNamed("in")
	passes := func(in *Source, at int64, queued bool) bool {
		b := metric.Batch{Source: "in", Time: time.Unix(at, 0), Points: []metric.Point{pointOf("a", at)}}
		records := o.encoder.Encode(Entry{Source: in, Batch: &b})
		if queued {
			o.encoder.Queued()
		}
		return len(records) > 0
	}
	replaced := inputNamed("in")
	o.encoder.Encode(Entry{Source: in, At: time.Unix(1, 0)})
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
	o.encoder.Encode(Entry{Source: replaced, At: time.Unix(150, 0)})
	o.encoder.Queued()
	if !passes(replaced, 160, true) {
		t.Error("points of an input that recovered do not pass")
	}
}

// What has ended passes at once. A series that no points of which passed does not end.
func TestEndedSeriesDoNotWaitForMinInterval(t *testing.T) {
	e := encodingOutput(t, &endingPusher{}, func(o *testOptions) { o.MinInterval = time.Minute }).encoder
	e.minInterval.phase = 0
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

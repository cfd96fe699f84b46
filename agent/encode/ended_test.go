package encode

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sockwatch/agent/metric"
)

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
		filter       func(*testOptions)
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
			filter: func(o *testOptions) { o.NameDrop = []string{"a"} }},
		{name: "filters drop the fields", before: []metric.Point{p("a", "v", 1, "w", 1, "x", 1)}, next: []metric.Point{a},
			filter: func(o *testOptions) { o.FieldExclude = []string{"x"} }, want: []string{"end a{} [w]@20"}},
		{name: "filters make two points one series, one remains", before: []metric.Point{pointOf("a", 1, "t", "1"), pointOf("a", 1, "t", "2"), b},
			next: []metric.Point{pointOf("a", 1, "t", "2"), b}, filter: func(o *testOptions) { o.TagExclude = []string{"t"} }},
		{name: "filters make two points one series, one remains behind others", before: []metric.Point{pointOf("a", 1, "t", "1"), pointOf("a", 1, "t", "2"), b},
			next: []metric.Point{b, pointOf("a", 1, "t", "2")}, filter: func(o *testOptions) { o.TagExclude = []string{"t"} }},
		{name: "filters make two points one series, both are missing", before: []metric.Point{pointOf("a", 1, "t", "1"), pointOf("a", 1, "t", "2"), b},
			next: []metric.Point{b}, filter: func(o *testOptions) { o.TagExclude = []string{"t"} }, want: []string{"end a{} [value]@20", "end a{} [value]@20"}},
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
	e := encodingOutput(t, &endingPusher{}, func(o *testOptions) { o.MinInterval = time.Minute }).encoder
	e.minInterval.phase = 0
	a, b, c := pointOf("a", 1), pointOf("b", 1), pointOf("c", 1)
	e.step(0, a, b)
	e.Encode(Entry{Source: stepInput, Batch: &metric.Batch{Source: "in", Time: at64(60), Points: []metric.Point{b, c}}}) // dropped
	wantRecords(t, "at once", e.step(70, b), "end a{} [value]@70", "b{} [{value 1}]@70")                                 // c was never queued
	e.Encode(Entry{Source: inputNamed("in"), At: at64(80)})                                                              // dropped
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
	var log *strings.Builder
	e := encodingOutput(t, &endingPusher{endErr: errors.New("no")}, func(o *testOptions) { log = o.log }).encoder
	e.step(10, pointOf("a", 1), pointOf("b", 1))
	wantRecords(t, "next", e.step(20, pointOf("b", 1)), "b{} [{value 1}]@20")
	wantRecords(t, "after it", e.step(30, pointOf("b", 1)), "b{} [{value 1}]@30")
	if log := log.String(); strings.Count(log, "cannot encode ended series") != 1 || !strings.Contains(log, "first=a{} error=no") {
		t.Errorf("the log:\n%s", log)
	}
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

package encode

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

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
		filter       func(*testOptions)
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
			filter: func(o *testOptions) { o.FieldExclude, o.TagExclude = []string{"none"}, []string{"none"} }, want: []string{`p{n="b"}`}},
		{name: "what filters leave out changed", before: []metric.Point{{Name: "p", Fields: []metric.Field{{Key: "a", Value: metric.Int(1)}, {Key: "b", Value: metric.Int(1)}}}},
			next:   []metric.Point{{Name: "p", Fields: []metric.Field{{Key: "a", Value: metric.Int(1)}, {Key: "b", Value: metric.Int(2)}}}},
			filter: func(o *testOptions) { o.FieldExclude = []string{"b"} }},
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
		e.Encode(Entry{Source: inputNamed(removed), At: began})
		e.Queued()
	}
	for minutes := range 4 {
		e.encodeQueued(&metric.Batch{Source: "0", Time: began.Add(time.Duration(minutes) * time.Minute), Points: large.Points[:2]})
	}
	kept := 0
	for _, s := range e.kept {
		kept += cap(s.last.bytes)
	}
	if len(e.kept) != 1 || kept+cap(e.spare.bytes) > 10_000 || e.spare.points != nil {
		t.Errorf("%d sources, %d and %d spare bytes are kept for two points", len(e.kept), kept, cap(e.spare.bytes))
	}

	o = encodingOutput(t, storingPusher{}, nil)
	o.encoder.encodeQueued(&metric.Batch{Source: "in", Time: began, Points: large.Points})
	if kept := o.encoder.kept["in"].last; kept.bytes != nil || kept.points != nil {
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
	wantRecords(t, "events", texts(o.encoder.EncodeEvents([]metric.Point{b}, feet, time.Unix(60, 0))), "b in ft@60")
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

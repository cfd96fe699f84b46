package plugintest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// useDescs encodes points with different descriptions of their fields, one after another.
// What was described before must not show.
func useDescs(t *testing.T, out plugin.Pusher) {
	user := out.(plugin.DescUser)
	gauges, counters := describe(metric.Gauge), describe(metric.Counter)
	records := func(descs []metric.Desc) (all []string) {
		before := slices.Clone(descs)
		user.UseDescs(descs)
		for _, point := range Points() {
			record, err := out.Encode(nil, &point)
			if err != nil {
				record = []byte("not encoded")
			}
			all = append(all, string(record))
		}
		if diff := cmp.Diff(before, descs); diff != "" {
			t.Errorf("UseDescs or Encode changed the descriptions (-before +after):\n%s", diff)
		}
		return all
	}
	first := records(gauges)
	records(nil)
	records(counters)
	if diff := cmp.Diff(first, records(gauges)); diff != "" {
		t.Errorf("records with the same descriptions differ (-first +again):\n%s", diff)
	}
}

// describe describes the numbers of Points.
func describe(typ metric.Type) (descs []metric.Desc) {
	seen := map[string]bool{}
	for _, point := range Points() {
		for _, f := range point.Fields {
			if id := point.Name + "." + f.Key; !seen[id] && f.Value.Kind() != metric.KindString {
				seen[id] = true
				descs = append(descs, metric.Desc{Name: point.Name, Field: f.Key, Type: typ, Unit: "seconds", Help: "A number"})
			}
		}
	}
	return descs
}

// endSeries ends the series of all points that can be encoded, and pushes the records
// together with those of points.
func endSeries(t *testing.T, out plugin.Pusher) {
	encoder := out.(plugin.EndedEncoder)
	if user, ok := out.(plugin.DescUser); ok {
		user.UseDescs(describe(metric.Gauge))
	}
	var records [][]byte
	ended := 0
	for _, point := range Points() {
		record, err := out.Encode(nil, &point)
		if err != nil {
			continue
		}
		series := point
		series.Fields = slices.Clone(point.Fields)
		numbers := false
		for i, f := range series.Fields {
			series.Fields[i].Value = metric.Zero(f.Value.Kind())
			numbers = numbers || f.Value.Kind() != metric.KindString
		}
		before := clone(metric.Batch{Points: []metric.Point{series}})
		at := point.Time.Add(time.Minute)
		once, err := encoder.EncodeEnded([]byte("prefix"), &series, at)
		if err != nil {
			t.Errorf("EncodeEnded of %s, which Encode accepts: %v", point.Series(), err)
			continue
		}
		if !strings.HasPrefix(string(once), "prefix") {
			t.Errorf("EncodeEnded of %s does not append: %q", point.Series(), once)
			continue
		}
		again, err := encoder.EncodeEnded([]byte("prefix"), &series, at)
		if err != nil || string(again) != string(once) {
			t.Errorf("EncodeEnded of %s gives %q, then %q, %v", point.Series(), once, again, err)
		}
		if diff := cmp.Diff(before, metric.Batch{Points: []metric.Point{series}}, equalValues...); diff != "" {
			t.Errorf("EncodeEnded changed the series:\n%s", diff)
		}
		if end := once[len("prefix"):]; len(end) > 0 {
			records = append(records, end)
			ended++
		} else if numbers && len(record) > 0 {
			t.Errorf("EncodeEnded of %s ends nothing, but Encode gives %q", point.Series(), record)
		}
		if len(record) > 0 {
			records = append(records, record)
		}
		if next, err := out.Encode(nil, &point); err != nil || string(next) != string(record) {
			t.Errorf("Encode of %s after EncodeEnded gives %q, %v, want %q as before", point.Series(), next, err, record)
		}
	}
	if ended == 0 {
		t.Fatal("EncodeEnded ends no series")
	}
	if err := out.Push(t.Context(), records); err != nil {
		t.Errorf("Push of ended series and points: %v", err)
	}
}

// counterStarts checks that counters say since when they count.
func counterStarts(t *testing.T, p plugin.Plugin, b *metric.Batch) {
	t.Helper()
	for _, point := range b.Points {
		for _, d := range p.Descs {
			if _, ok := point.Field(d.Field); !ok || d.Name != point.Name || d.Type != metric.Counter {
				continue
			}
			if point.Start.IsZero() || point.Start.After(time.Now()) {
				t.Errorf("%s.%s is a counter, but the Start of its point is %v", point.Series(), d.Field, point.Start)
			}
		}
	}
}

package changes

import (
	"maps"
	"slices"
	"time"

	"sockwatch/agent/metric"
)

// totals count events.
type totals struct {
	counts map[string]map[string]uint64 // by the tags event and expected
}

func newTotals() totals {
	t := totals{counts: make(map[string]map[string]uint64)}
	for _, kind := range kinds() {
		t.counts[kind] = make(map[string]uint64)
	}
	return t
}

func (t *totals) add(kind, expected string) { t.counts[kind][expected]++ }

// points returns a point without the tag expected for each kind, so that adding the first rule
// does not rename a series. With rules it also returns one for each value of the tag. The sum
// is all events since the given time.
func (t *totals) points(o Options, since time.Time) []metric.Point {
	var points []metric.Point
	for _, kind := range kinds() {
		values := append([]string{""}, o.Expected...)
		values = slices.AppendSeq(values, maps.Keys(t.counts[kind]))
		slices.Sort(values)
		for _, expected := range slices.Compact(values) {
			points = append(points, metric.Point{
				Name:   o.Point + "_events",
				Tags:   metric.NewTags("event", kind, "expected", expected),
				Fields: []metric.Field{{Key: "total", Value: metric.Uint(t.counts[kind][expected])}},
				Start:  since,
			})
		}
	}
	return points
}

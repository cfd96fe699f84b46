package encode

import (
	"slices"
	"testing"
	"time"

	"sockwatch/agent/metric"
)

// BenchmarkEnded measures the search for ended series among 5,000 listeners: in a batch
// that the input has returned before, in one with other values, and in one of which every
// tenth listener has been replaced.
func BenchmarkEnded(b *testing.B) {
	points := listenerPoints(5000).Points
	values := func(change func(i int, p *metric.Point)) []metric.Point {
		next := slices.Clone(points)
		for i := range next {
			next[i].Tags, next[i].Fields = slices.Clone(next[i].Tags), slices.Clone(next[i].Fields)
			change(i, &next[i])
		}
		return next
	}
	for _, bb := range []struct {
		name string
		next []metric.Point
	}{
		{name: "same points", next: points},
		{name: "other values", next: values(func(i int, p *metric.Point) { p.Fields[3].Value = metric.Int(int64(i)) })},
		{name: "a tenth replaced", next: values(func(i int, p *metric.Point) {
			if i%10 == 0 {
				p.Tags[3].Value = "new"
			}
		})},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			l := newLiveSeries()
			batches := [2][]metric.Point{points, bb.next}
			for i := 0; b.Loop(); i++ {
				observeQueued(l, batches[i%2], time.Unix(int64(i), 0))
			}
		})
	}
}

// observeQueued finds what has ended with a batch whose points are all queued.
func observeQueued(l *liveSeries, points []metric.Point, at time.Time) (ended int) {
	queued := encoding{points: points, latest: at}
	l.begin()
	l.observe("in", nil, at, points, &queued, false)
	ended = len(l.found())
	l.commit()
	return ended
}

package encode

import (
	"slices"
	"time"

	"sockwatch/agent/metric"
)

// An encoding holds points and their records.
type encoding struct {
	points []metric.Point
	descs  []metric.Desc
	bytes  []byte    // the records, concatenated
	ends   []int     // where each point's record ends in bytes; empty for a rejected point
	empty  int       // how many points have no record
	latest time.Time // of the points
}

// fill encodes points and replaces the content of e. The records of points that are
// unchanged in last get a new time. e and last must not share buffers.
func (e *encoding) fill(s *serializer, points []metric.Point, descs []metric.Desc, at time.Time, last *encoding) {
	s.useDescs(descs)
	e.points, e.descs, e.latest, e.empty = points, descs, at, 0
	e.bytes = slices.Grow(e.bytes[:0], len(last.bytes))
	e.ends = slices.Grow(e.ends[:0], len(points))
	cursor := 0 // index into last
	for _, point := range points {
		if point.Time.IsZero() {
			point.Time = at
		} else if point.Time.After(e.latest) {
			e.latest = point.Time
		}
		var record []byte
		record, cursor = last.find(&point, cursor)
		before := len(e.bytes)
		e.bytes = s.appendPoint(e.bytes, &point, record)
		e.ends = append(e.ends, len(e.bytes))
		if len(e.bytes) == before {
			e.empty++
		}
	}
}

// find returns the record of p, or nil if p has changed, and the cursor for the next
// point. It searches from the cursor on, because sources keep the order of their points.
func (e *encoding) find(p *metric.Point, cursor int) ([]byte, int) {
	i := findSeries(e.points, p, cursor)
	if i < 0 {
		return nil, cursor
	}
	if q := &e.points[i]; !slices.Equal(q.Fields, p.Fields) || !q.Start.Equal(p.Start) {
		return nil, i + 1
	}
	return e.record(i), i + 1
}

// lookAhead is how many points findSeries looks at.
const lookAhead = 64

// findSeries returns the index of the point with the name and tags of p, or -1. It looks
// only at the points from the cursor on: if more were removed in a row, or points have
// changed their order, it does not find all.
func findSeries(points []metric.Point, p *metric.Point, cursor int) int {
	for i := cursor; i < min(cursor+lookAhead, len(points)); i++ {
		if q := &points[i]; q.Name == p.Name && slices.Equal(q.Tags, p.Tags) {
			return i
		}
	}
	return -1
}

func (e *encoding) record(i int) []byte {
	from := 0
	if i > 0 {
		from = e.ends[i-1]
	}
	return e.bytes[from:e.ends[i]:e.ends[i]]
}

// appendRecords appends the records of all points that have one.
func (e *encoding) appendRecords(records [][]byte) [][]byte {
	for i := range e.ends {
		if r := e.record(i); len(r) > 0 {
			records = append(records, r)
		}
	}
	return records
}

// encoded returns the points that have a record.
func (e *encoding) encoded() []metric.Point {
	if e.empty == 0 {
		return e.points
	}
	points := make([]metric.Point, 0, len(e.points)-e.empty)
	for i, p := range e.points {
		if len(e.record(i)) > 0 {
			points = append(points, p)
		}
	}
	return points
}

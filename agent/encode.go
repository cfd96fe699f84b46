package agent

import (
	"errors"
	"slices"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// An encoder turns batches into records for one output. It keeps the records of each
// source's last batch. If a point has not changed since, its record only gets a new
// time.
type encoder struct {
	last    map[string]encoding // by source; empty if the Pusher is not a Restamper
	spare   encoding            // an old encoding whose buffers can be reused
	records [][]byte
}

// keepEncoding is how long the records of a source are kept after its last batch: the
// source may have been removed. With a longer interval every batch is encoded in full.
const keepEncoding = time.Hour

// encode returns the records of the batch's points that pass the output's filter. They
// are valid until the next call. Points that cannot be encoded are rejected.
func (e *encoder) encode(o *runningOutput, b *metric.Batch) [][]byte {
	restamper, _ := o.Pusher.(plugin.Restamper)
	last, next := e.last[b.Source], e.spare
	next.fill(o, restamper, o.filter.Points(b.Points), b.Time, &last)
	e.records = next.appendRecords(e.records[:0])
	if restamper == nil {
		e.spare = next
		return e.records
	}
	if e.last == nil {
		e.last = map[string]encoding{}
	}
	e.last[b.Source], e.spare = next, encoding{}
	if cap(last.bytes) <= 2*len(next.bytes) { // else the batch has shrunk: release the large buffers
		e.spare = last
		e.spare.points = nil
	}
	for source, s := range e.last {
		if b.Time.Sub(s.time) > keepEncoding {
			delete(e.last, source)
		}
	}
	return e.records
}

// An encoding holds points and their records.
type encoding struct {
	time   time.Time // of the batch
	points []metric.Point
	bytes  []byte // the records, concatenated
	ends   []int  // where each point's record ends in bytes; empty for a rejected point
}

// fill encodes points and replaces the content of s. With a restamper, points that are
// unchanged in last are not encoded again. s and last must not share buffers.
func (s *encoding) fill(o *runningOutput, restamper plugin.Restamper, points []metric.Point, at time.Time, last *encoding) {
	s.time, s.points = at, points
	s.bytes = slices.Grow(s.bytes[:0], len(last.bytes))
	s.ends = slices.Grow(s.ends[:0], len(points))
	cursor := 0 // index into last
	for _, point := range points {
		if point.Time.IsZero() {
			point.Time = at
		}
		var record []byte
		record, cursor = last.find(&point, cursor)
		b, err := s.bytes, errUnknown
		if len(record) > 0 {
			b, err = o.callRestamp(restamper, s.bytes, record, point.Time)
		}
		if err != nil {
			b, err = o.callEncode(s.bytes, &point)
		}
		if err != nil {
			o.rejectUnencoded(point.Series(), err)
			b = s.bytes
		}
		s.bytes, s.ends = b, append(s.ends, len(b))
	}
}

var errUnknown = errors.New("the point was not in the last batch")

// lookAhead is how many points find may skip. If more were removed in a row, the points
// that follow are encoded once more.
const lookAhead = 64

// find returns the record of p, or nil if p has changed, and the cursor for the next
// point. It searches from the cursor on, because sources keep the order of their points.
func (s *encoding) find(p *metric.Point, cursor int) ([]byte, int) {
	for i := cursor; i < min(cursor+lookAhead, len(s.points)); i++ {
		switch q := &s.points[i]; {
		case q.Name != p.Name || !slices.Equal(q.Tags, p.Tags):
		case slices.Equal(q.Fields, p.Fields):
			return s.record(i), i + 1
		default:
			return nil, i + 1
		}
	}
	return nil, cursor
}

func (s *encoding) record(i int) []byte {
	from := 0
	if i > 0 {
		from = s.ends[i-1]
	}
	return s.bytes[from:s.ends[i]:s.ends[i]]
}

// appendRecords appends the records of all points that were not rejected.
func (s *encoding) appendRecords(records [][]byte) [][]byte {
	for i := range s.ends {
		if r := s.record(i); len(r) > 0 {
			records = append(records, r)
		}
	}
	return records
}

func (o *runningOutput) callEncode(dst []byte, point *metric.Point) (b []byte, err error) {
	defer o.health.panics.recover(&err, o.log)
	return o.Pusher.Encode(dst, point)
}

func (o *runningOutput) callRestamp(r plugin.Restamper, dst, record []byte, t time.Time) (b []byte, err error) {
	defer o.health.panics.recover(&err, o.log)
	return r.Restamp(dst, record, t)
}

package agent

import (
	"log/slog"
	"slices"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/filter"
	"sockwatch/agent/metric"
)

// An encoder turns what the inbox of one output holds into blocks of records: first those
// of the series that have ended, then those of the points. It is used by one goroutine,
// except for filter.
type encoder struct {
	serializer  *serializer
	filter      filter.Filter
	minInterval minInterval
	live        *liveSeries // nil: the Pusher is not an EndedEncoder
	sources     map[string]*source
	pending     pending  // of the block that encode returned last
	spare       encoding // an old encoding whose buffers can be reused
	ended       encoding // of the series that have ended
	records     [][]byte
}

// A source is what an encoder keeps of the batches of one input.
type source struct {
	raw, points []metric.Point // of the last batch, before and after the filter
	compared    bool           // the live series have been compared with points
	last        encoding       // of the last batch that passed; empty if the Pusher is not a Restamper
	slot        slot           // of the last batch that passed
}

// A pending is what takes effect when the queue has accepted a block.
type pending struct {
	source *source // nil: the block is not that of a batch
	slot   slot
}

func newEncoder(p *Push, f filter.Filter, panics *calls.Panics, log *slog.Logger, reject func(series string, cause error)) *encoder {
	e := &encoder{
		serializer: newSerializer(p.Pusher, panics, log, reject), filter: f,
		minInterval: minInterval{length: time.Duration(p.Options.MinInterval)}, sources: map[string]*source{},
	}
	if e.serializer.endedEncoder != nil {
		e.live = newLiveSeries()
	}
	return e
}

// encode returns the block of records for an entry of the inbox. It is valid until the
// next call. When the queue has accepted it, or if it is empty, the caller calls queued.
func (e *encoder) encode(next offered) [][]byte {
	e.pending, e.records = pending{}, e.records[:0]
	if e.live != nil {
		e.live.begin()
	}
	var points *encoding
	if next.batch != nil {
		points = e.encodeBatch(next)
	} else {
		delete(e.sources, next.input.Name)
		if e.live != nil {
			e.live.withdraw(next.input.Name, next.at)
		}
	}
	if e.live != nil {
		e.encodeEnded()
	}
	if points != nil {
		e.records = points.appendRecords(e.records)
	}
	return e.records
}

// queued is called when the queue has accepted the last block.
func (e *encoder) queued() {
	if s := e.pending.source; s != nil {
		s.slot, s.compared = e.pending.slot, true
	}
	if e.live != nil {
		e.live.commit()
	}
}

// encodeBatch encodes the points of a batch that pass the filter, and finds the series
// that have ended. It returns nil if the points have to wait for the next min_interval.
func (e *encoder) encodeBatch(next offered) *encoding {
	b := next.batch
	s := e.sources[b.Source]
	if s == nil {
		s = &source{}
		e.sources[b.Source] = s
	}
	if !same(b.Points, s.raw) {
		s.raw, s.points, s.compared = b.Points, e.filter.Points(b.Points), false
	}
	slot, passes := e.minInterval.next(s.slot, next.input, b.Time)
	e.pending = pending{source: s, slot: slot}
	at := b.Time
	if e.live != nil {
		at = e.live.timeOf(b)
	}
	var points *encoding
	if passes {
		points = e.encodePoints(s, b.Descs, at)
	}
	if e.live != nil {
		e.live.observe(b.Source, b.Descs, at, s.points, points, s.compared)
	}
	return points
}

// encodePoints encodes the points of a source. The records of points that have not
// changed since its last encoding only get a new time.
func (e *encoder) encodePoints(s *source, descs []metric.Desc, at time.Time) *encoding {
	last, next := s.last, e.spare
	if !sameDescs(last.descs, descs) {
		last.points = nil
	}
	next.fill(e.serializer, s.points, descs, at, &last)
	if e.serializer.restamper == nil {
		e.spare = next
		return &e.spare
	}
	s.last, e.spare = next, encoding{}
	if cap(last.bytes) <= 2*len(next.bytes) { // else the batch has shrunk: release the large buffers
		e.spare = last
		e.spare.points = nil
	}
	return &s.last
}

// encodeEnded appends the records of the series that have ended.
func (e *encoder) encodeEnded() {
	found := e.live.found()
	if len(found) == 0 {
		return
	}
	e.ended.bytes, e.ended.ends = e.ended.bytes[:0], e.ended.ends[:0]
	for i := range found {
		e.ended.bytes = e.serializer.appendEnded(e.ended.bytes, &found[i])
		e.ended.ends = append(e.ended.ends, len(e.ended.bytes))
	}
	e.records = e.ended.appendRecords(e.records)
}

// encodeEvents returns the records of the events of a batch, never nil. Events that cannot
// be encoded are rejected, and those that the Pusher leaves out have no record.
func (e *encoder) encodeEvents(events []metric.Point, descs []metric.Desc, at time.Time) [][]byte {
	e.serializer.useDescs(descs)
	records := make([][]byte, 0, len(events))
	for _, event := range events {
		if event.Time.IsZero() {
			event.Time = at
		}
		if record := e.serializer.appendEvent(nil, &event); len(record) > 0 {
			records = append(records, record)
		}
	}
	return records
}

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

package agent

import (
	"log/slog"
	"slices"
	"time"

	"sockwatch/agent/filter"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// An encoder turns what the inbox of one output holds into blocks of records: first those
// of the series that have ended, then those of the points. It is used by one goroutine,
// except for filter.
type encoder struct {
	serializer  *serializer
	filter      filter.Filter
	minInterval time.Duration
	phase       time.Duration // of the slots of min_interval
	live        *liveSeries   // nil: the Pusher is not an EndedEncoder
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

func newEncoder(p *Push, f filter.Filter, panics *counter, log *slog.Logger, reject func(series string, cause error)) *encoder {
	e := &encoder{
		serializer: newSerializer(p.Pusher, panics, log, reject), filter: f,
		minInterval: time.Duration(p.Options.MinInterval), sources: map[string]*source{},
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
	slot, passes := s.slot.next(next.input, b.Time, e.minInterval, e.phase)
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

// A slot is the span of min_interval in which points last passed. The zero slot is none.
type slot struct {
	input  *runningInput // whose points passed
	began  time.Time     // when the first points of this input passed
	number int64
}

// next returns the slot of a batch, and whether its points pass. That are the first ones
// in each slot, and the first ones of an input after a start, a reload or a failure. The
// slots of an input that gathers at whole multiples of its interval begin at multiples of
// min_interval plus a phase that differs from host to host, the others when the first
// points passed. They begin a little early, so that neither a slow clock nor jitter moves a
// gather to the slot before.
func (s slot) next(in *runningInput, at time.Time, minInterval, phase time.Duration) (slot, bool) {
	if minInterval == 0 {
		return s, true
	}
	first := s.began.IsZero() || s.input != in || at.Before(s.began)
	if first {
		s.input, s.began = in, at
	}
	number := s.number
	if in == nil || in.RoundInterval {
		if in != nil {
			phase = phase.Truncate(time.Duration(in.Options.Interval))
		}
		s.number = at.Add(min(minInterval/20, time.Second/4)-phase).UnixNano() / int64(minInterval)
	} else {
		s.number = int64((at.Sub(s.began) + minInterval/10) / minInterval)
	}
	return s, first || s.number != number
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

// A serializer calls the methods of a Pusher that encode. It recovers their panics.
type serializer struct {
	pusher       plugin.Pusher
	restamper    plugin.Restamper    // nil if the Pusher is not one
	eventEncoder plugin.EventEncoder // likewise
	descUser     plugin.DescUser     // likewise
	endedEncoder plugin.EndedEncoder // likewise
	descs        []metric.Desc       // that the Pusher uses
	reject       func(series string, cause error)
	panics       *counter
	log          *slog.Logger
	endedLog     throttle
}

func newSerializer(p plugin.Pusher, panics *counter, log *slog.Logger, reject func(series string, cause error)) *serializer {
	s := &serializer{pusher: p, panics: panics, log: log, reject: reject}
	s.restamper, _ = p.(plugin.Restamper)
	s.eventEncoder, _ = p.(plugin.EventEncoder)
	s.descUser, _ = p.(plugin.DescUser)
	s.endedEncoder, _ = p.(plugin.EndedEncoder)
	return s
}

// appendPoint appends the record of a point. If its last record is given, it only gets a
// new time. A point that cannot be encoded is rejected.
func (s *serializer) appendPoint(dst []byte, p *metric.Point, last []byte) []byte {
	if len(last) > 0 {
		if b, err := s.callRestamp(dst, last, p.Time); err == nil {
			return b
		}
	}
	b, err := s.callEncode(dst, p)
	if err != nil {
		s.reject(p.Series(), err)
		return dst
	}
	return b
}

// appendEvent appends the record of an event, if there is one. An event that cannot be
// encoded is rejected.
func (s *serializer) appendEvent(dst []byte, event *metric.Point) []byte {
	if s.eventEncoder == nil {
		return s.appendPoint(dst, event, nil)
	}
	b, err := s.callEncodeEvent(dst, event)
	if err != nil {
		s.reject(event.Series(), err)
		return dst
	}
	return b
}

// appendEnded appends the record that ends a series, if it can be encoded.
func (s *serializer) appendEnded(dst []byte, e *endedSeries) []byte {
	s.useDescs(e.descs)
	b, err := s.callEncodeEnded(dst, &e.point, e.time)
	if err != nil {
		if n := s.endedLog.add(1); n > 0 {
			s.log.Warn("ended series cannot be encoded, their last values remain for a while", "series", n, "first", e.point.Series(), "error", err)
		}
		return dst
	}
	return b
}

// useDescs tells the Pusher the documentation of the fields that it encodes next.
func (s *serializer) useDescs(descs []metric.Desc) {
	if s.descUser == nil || sameDescs(descs, s.descs) {
		return
	}
	s.descs = descs
	var err error // logged by recover
	defer s.panics.recover(&err, s.log)
	s.descUser.UseDescs(descs)
}

// sameDescs reports whether a and b are equal. Most often they are the same slice.
func sameDescs(a, b []metric.Desc) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

func (s *serializer) callEncode(dst []byte, p *metric.Point) (b []byte, err error) {
	defer s.panics.recover(&err, s.log)
	return s.pusher.Encode(dst, p)
}

func (s *serializer) callEncodeEvent(dst []byte, event *metric.Point) (b []byte, err error) {
	defer s.panics.recover(&err, s.log)
	return s.eventEncoder.EncodeEvent(dst, event)
}

func (s *serializer) callRestamp(dst, record []byte, t time.Time) (b []byte, err error) {
	defer s.panics.recover(&err, s.log)
	return s.restamper.Restamp(dst, record, t)
}

func (s *serializer) callEncodeEnded(dst []byte, series *metric.Point, t time.Time) (b []byte, err error) {
	defer s.panics.recover(&err, s.log)
	return s.endedEncoder.EncodeEnded(dst, series, t)
}

// Package encode turns the batches of inputs into records for the queue of one output.
//
// encode.go is the path of the data. It asks mininterval.go which points pass, keeps the records of
// unchanged points (encoding.go), and calls the Pusher (serializer.go). For an output that has to be
// told which series have ended, ended.go knows those that are live; seriesdiff.go compares two
// batches, and seriesfile.go keeps the series for the next start.
package encode

import (
	"context"
	"log/slog"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/filter"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A Config says how to encode for one output.
type Config struct {
	Name        string // of the output, such as "influxdb"
	Pusher      plugin.Pusher
	Filter      filter.Filter
	MinInterval time.Duration // 0: all points pass
	Phase       time.Duration // when spans of MinInterval begin; it differs from host to host, and is less than MinInterval

	// Reject is called for each point that cannot be encoded.
	Reject func(series string, cause error)
	Panics *calls.Panics
	Calls  *calls.Pending
	Log    *slog.Logger
}

// An Entry is a batch of an input, or its withdrawal if it has failed or was removed.
type Entry struct {
	Source *Source       // nil in one-shot commands
	Batch  *metric.Batch // nil: a withdrawal
	At     time.Time     // of the withdrawal
}

// A Source is an input as encoders see it. One that replaces another is not equal to it.
type Source struct {
	Name     string
	Interval time.Duration
	Round    bool // it gathers at multiples of Interval
}

// An Encoder turns entries into blocks of records: first those of the series that have ended,
// then those of the points. It is used by one goroutine, except for Filter.
type Encoder struct {
	Filter filter.Filter

	serializer  *serializer
	minInterval minInterval
	live        *liveSeries // nil: the Pusher is not an EndedEncoder
	file        *seriesFile // for live, once it has a path
	kept        map[string]*kept
	pending     pending  // of the block that encode returned last
	spare       encoding // an old encoding whose buffers can be reused
	ended       encoding // of the series that have ended
	records     [][]byte
}

// A kept is what an encoder keeps of the batches of one input.
type kept struct {
	raw, points []metric.Point // of the last batch, before and after the filter
	compared    bool           // the live series have been compared with points
	last        encoding       // of the last batch that passed; empty if the Pusher is not a Restamper
	slot        slot           // of the last batch that passed
}

// A pending is what takes effect when the queue has accepted a block.
type pending struct {
	source *kept // nil: the block is not that of a batch
	slot   slot
}

// New returns an Encoder that has not encoded anything.
func New(c Config) *Encoder {
	e := &Encoder{
		Filter:      c.Filter,
		serializer:  newSerializer(c.Pusher, c.Panics, c.Log, c.Reject),
		minInterval: minInterval{length: c.MinInterval, phase: c.Phase},
		file:        &seriesFile{title: "outputs." + c.Name, calls: c.Calls, log: c.Log}, kept: map[string]*kept{},
	}
	if e.serializer.endedEncoder != nil {
		e.live = newLiveSeries()
	}
	return e
}

// OpenSeries prepares the live series of an output that has to be told what has ended. inputs are
// the names of all inputs; path is where the series are kept, "" if nowhere. If load, they are
// those of the last run, unless the disk hangs.
func (e *Encoder) OpenSeries(ctx context.Context, path string, inputs map[string]bool, load bool) {
	if e.live == nil {
		return
	}
	e.live.inputs = inputs
	if path == "" {
		return
	}
	e.file.path = path
	e.live.file, e.live.changed = e.file, true
	if load {
		e.live.load(ctx)
	}
}

// TakeOver takes over the live series of the output that is being replaced.
func (e *Encoder) TakeOver(from *Encoder) {
	if e.live != nil && from.live != nil {
		e.live.takeOver(from.live)
	}
}

// Start is called before the first entry.
func (e *Encoder) Start() {
	if e.live != nil {
		e.live.start()
	}
}

// End is called when no more entries follow, unless another encoder takes over. It blocks while the
// disk hangs.
func (e *Encoder) End() {
	if e.live != nil {
		e.live.end()
	}
}

// Encode returns the block of records for an entry. It is valid until the next call. When the
// queue has accepted it, or if it is empty, the caller calls Queued.
func (e *Encoder) Encode(next Entry) [][]byte {
	e.pending, e.records = pending{}, e.records[:0]
	if e.live != nil {
		e.live.begin()
	}
	var points *encoding
	if next.Batch != nil {
		points = e.encodeBatch(next)
	} else {
		delete(e.kept, next.Source.Name)
		if e.live != nil {
			e.live.withdraw(next.Source.Name, next.At)
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

// Queued is called when the queue has accepted the last block.
func (e *Encoder) Queued() {
	if s := e.pending.source; s != nil {
		s.slot, s.compared = e.pending.slot, true
	}
	if e.live != nil {
		e.live.commit()
	}
}

// encodeBatch encodes the points of a batch that pass the filter, and finds the series
// that have ended. It returns nil if the points have to wait for the next min_interval.
func (e *Encoder) encodeBatch(next Entry) *encoding {
	b := next.Batch
	s := e.kept[b.Source]
	if s == nil {
		s = &kept{}
		e.kept[b.Source] = s
	}
	if !metric.Same(b.Points, s.raw) {
		s.raw, s.points, s.compared = b.Points, e.Filter.Points(b.Points), false
	}
	slot, passes := e.minInterval.next(s.slot, next.Source, b.Time)
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
func (e *Encoder) encodePoints(s *kept, descs []metric.Desc, at time.Time) *encoding {
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
func (e *Encoder) encodeEnded() {
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

// EncodeEvents returns the records of the events of a batch, never nil. Events that cannot
// be encoded are rejected, and those that the Pusher leaves out have no record.
func (e *Encoder) EncodeEvents(events []metric.Point, descs []metric.Desc, at time.Time) [][]byte {
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

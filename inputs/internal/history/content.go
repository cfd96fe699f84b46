package history

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sockwatch/agent/metric"
)

const (
	// maxWaiting is how many events may be not delivered.
	maxWaiting = 10_000
	// maxRecent is how many events are kept after they were handed out.
	maxRecent = 2_000
)

// A content is what a history holds.
type content struct {
	id       string // of the next event
	machine  string
	sequence int64 // of the last event
	isNew    bool  // no file had it
	records  map[string]json.RawMessage
	waiting  []*event // not delivered, by sequence
	recent   []*event // handed out, by sequence; twice maxRecent at most
}

// An event is a point with its number. The fields of the point are replaced, never
// changed.
type event struct {
	sequence int64
	point    metric.Point
	state    state
}

// A state is how far an event has come.
type state int

const (
	unwritten state = iota
	ready           // to be handed out
	handedOut
	finished // delivered or dropped
)

func newContent() content {
	c := content{isNew: true, records: map[string]json.RawMessage{}}
	c.newID()
	return c
}

// newID gives the history another id. Events that nobody has seen get it too.
func (c *content) newID() {
	var b [8]byte
	rand.Read(b[:])
	c.id = hex.EncodeToString(b[:])
	for _, e := range c.waiting {
		if e.state == unwritten {
			e.point.Fields = withID(e.point.Fields, c.id)
		}
	}
}

// set sets a record, or deletes it if it is null or not JSON. It returns the record, nil
// if it is deleted, and reports whether that changes anything.
func (c *content) set(key string, record json.RawMessage) (json.RawMessage, bool) {
	old, had := c.records[key]
	if string(record) == "null" || !json.Valid(record) {
		delete(c.records, key)
		return nil, had
	}
	if bytes.ContainsAny(record, "\n\r") { // a line has one end
		var compact bytes.Buffer
		if err := json.Compact(&compact, record); err != nil {
			panic(err) // it is valid
		}
		record = compact.Bytes()
	}
	c.records[key] = record
	return record, !had || !bytes.Equal(old, record)
}

func (c *content) copyRecords() map[string]json.RawMessage { return maps.Clone(c.records) }

// stamp adds an event that is the index-th of its gather, with the fields and the time
// that it is written and published with.
func (c *content) stamp(p metric.Point, index int) (*event, error) {
	if p.Time.IsZero() {
		return nil, errors.New(p.Series() + " without a time")
	}
	p.Time = p.Time.Add(time.Duration(index)).Round(0).UTC()
	fields := slices.Grow(slices.Clone(p.Fields), 2)
	p.Fields = append(fields,
		metric.Field{Key: "history", Value: metric.String(c.id)},
		metric.Field{Key: "sequence", Value: metric.Int(c.sequence + 1)},
	)
	if err := p.Check(); err != nil {
		return nil, err
	}
	if year := p.Time.Year(); year < 0 || year > 9999 { // which JSON cannot have
		return nil, fmt.Errorf("%s in the year %d", p.Series(), year)
	}
	c.sequence++
	e := &event{sequence: c.sequence, point: p}
	c.waiting = append(c.waiting, e)
	return e, nil
}

// withID returns the fields with another id of the history.
func withID(fields []metric.Field, id string) []metric.Field {
	fields = slices.Clone(fields)
	for i := range fields {
		if fields[i].Key == "history" {
			fields[i].Value = metric.String(id)
		}
	}
	return fields
}

// overLimit removes and returns the events that are too many: first those that were
// handed out, since outputs have them queued, then the oldest.
func (c *content) overLimit() []*event {
	var over []*event
	for _, most := range []state{handedOut, ready, unwritten} {
		for _, e := range c.waiting {
			if len(c.waiting)-len(over) > maxWaiting && e.state == most {
				over = append(over, e)
			}
		}
	}
	return c.finish(over)
}

// unwritten reports whether some event is not written.
func (c *content) unwritten() bool {
	n := len(c.waiting)
	return n > 0 && c.waiting[n-1].state == unwritten // they become written in order
}

// notWritten returns the events that are not written.
func (c *content) notWritten() (events []*event) {
	for _, e := range c.waiting {
		if e.state == unwritten {
			events = append(events, e)
		}
	}
	return events
}

// written notes that events can be handed out.
func (c *content) written(events []*event) {
	for _, e := range events {
		if e.state == unwritten {
			e.state = ready
		}
	}
}

// handOut returns the events that can be handed out and were not. They wait behind those
// that were, and before those that are not written.
func (c *content) handOut() []*event {
	end := len(c.waiting)
	for end > 0 && c.waiting[end-1].state == unwritten {
		end--
	}
	begin := end
	for begin > 0 && c.waiting[begin-1].state == ready {
		begin--
		c.waiting[begin].state = handedOut
	}
	out := slices.Clone(c.waiting[begin:end])
	c.remember(out)
	return out
}

// finish removes events that are delivered or dropped, and returns those that were not
// removed before.
func (c *content) finish(events []*event) []*event {
	var done []*event
	for _, e := range events {
		if e.state != finished {
			e.state = finished
			done = append(done, e)
		}
	}
	if len(done) > 0 {
		c.waiting = slices.DeleteFunc(c.waiting, func(e *event) bool { return e.state == finished })
	}
	return done
}

// remember adds events to the recent ones. Those that wait since before a restart are
// older than some of these.
func (c *content) remember(events []*event) {
	if len(events) == 0 {
		return
	}
	sorted := len(c.recent) == 0 || c.recent[len(c.recent)-1].sequence < events[0].sequence
	c.recent = append(c.recent, events...)
	if !sorted {
		slices.SortFunc(c.recent, func(a, b *event) int { return int(a.sequence - b.sequence) })
	}
	if len(c.recent) > 2*maxRecent {
		c.recent = slices.Clone(c.lastRecent())
	}
}

func (c *content) lastRecent() []*event { return c.recent[max(0, len(c.recent)-maxRecent):] }

// pending is what a content has that the file does not have.
type pending struct {
	all      bool // the whole content is to be written
	records  map[string]json.RawMessage
	events   []*event
	finished []int64 // sequences
}

func (p *pending) empty() bool {
	return !p.all && len(p.records) == 0 && len(p.events) == 0 && len(p.finished) == 0
}

func (p *pending) size() int { return len(p.records) + len(p.events) + len(p.finished) }

func (p *pending) set(key string, record json.RawMessage) {
	if p.records == nil {
		p.records = map[string]json.RawMessage{}
	}
	p.records[key] = record
}

func (p *pending) finish(events []*event) {
	for _, e := range events {
		p.finished = append(p.finished, e.sequence)
	}
}

// merge adds changes that came later.
func (p *pending) merge(later pending) {
	p.all = p.all || later.all
	if p.records == nil {
		p.records = map[string]json.RawMessage{}
	}
	maps.Copy(p.records, later.records)
	p.events = append(p.events, later.events...)
	p.finished = append(p.finished, later.finished...)
}

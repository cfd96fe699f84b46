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
	// maxWaiting is the maximum number of undelivered events.
	maxWaiting = 10_000
	// maxRecent is how many events are kept after they have been handed out.
	maxRecent = 2_000
)

// A content is the content of a history.
type content struct {
	id       string // of the history, for the next event
	machine  string
	sequence int64 // of the last event
	isNew    bool  // it was not read from a file
	records  map[string]json.RawMessage
	waiting  []*event // undelivered, by sequence
	recent   []*event // handed out, by sequence; at most 2*maxRecent
}

func newContent() content {
	c := content{isNew: true, records: map[string]json.RawMessage{}}
	c.newID()
	return c
}

// newID gives the history a new id. Unwritten events get it too.
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

// set sets a record, or deletes it if it is null or not JSON. It returns the record, or nil
// if it was deleted, and reports whether the content has changed.
func (c *content) set(key string, record json.RawMessage) (json.RawMessage, bool) {
	old, had := c.records[key]
	if string(record) == "null" || !json.Valid(record) {
		delete(c.records, key)
		return nil, had
	}
	if bytes.ContainsAny(record, "\n\r") { // a line must not contain newlines
		var compact bytes.Buffer
		if err := json.Compact(&compact, record); err != nil {
			panic(err) // cannot happen: it is valid
		}
		record = compact.Bytes()
	}
	c.records[key] = record
	return record, !had || !bytes.Equal(old, record)
}

func (c *content) copyRecords() map[string]json.RawMessage { return maps.Clone(c.records) }

// stamp adds the index-th event of a gather, with its final fields and time.
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
	if year := p.Time.Year(); year < 0 || year > 9999 { // JSON times cannot represent it
		return nil, fmt.Errorf("%s in the year %d", p.Series(), year)
	}
	c.sequence++
	e := &event{sequence: c.sequence, point: p}
	c.waiting = append(c.waiting, e)
	return e, nil
}

// withID returns the fields with the history's id replaced.
func withID(fields []metric.Field, id string) []metric.Field {
	fields = slices.Clone(fields)
	for i := range fields {
		if fields[i].Key == "history" {
			fields[i].Value = metric.String(id)
		}
	}
	return fields
}

// overLimit removes and returns the events beyond the limit. Events that were handed out go
// first, since outputs have them queued, then the oldest.
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

// unwritten reports whether any event has not been written.
func (c *content) unwritten() bool {
	n := len(c.waiting)
	return n > 0 && c.waiting[n-1].state == unwritten // events are written in order
}

// notWritten returns the events that have not been written.
func (c *content) notWritten() (events []*event) {
	for _, e := range c.waiting {
		if e.state == unwritten {
			events = append(events, e)
		}
	}
	return events
}

// written marks events as ready to be handed out.
func (c *content) written(events []*event) {
	for _, e := range events {
		if e.state == unwritten {
			e.state = ready
		}
	}
}

// handOut returns the events that are ready, and marks them as handed out. In waiting they
// come after the events that were handed out, and before the unwritten ones.
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

// finish removes events that were delivered or dropped, and returns those that had not
// already been removed.
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

// remember adds events to the recent ones. Events that have been waiting since before a
// restart may be older than some of these.
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

// pending is the part of a content that has not been written to the file yet.
type pending struct {
	all      bool // the whole content must be written
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

// merge adds later changes.
func (p *pending) merge(later pending) {
	p.all = p.all || later.all
	if p.records == nil {
		p.records = map[string]json.RawMessage{}
	}
	maps.Copy(p.records, later.records)
	p.events = append(p.events, later.events...)
	p.finished = append(p.finished, later.finished...)
}

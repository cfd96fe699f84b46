package changes

import (
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// A memory remembers closed endpoints.
type memory struct {
	closed map[Endpoint]int64 // Unix time
	oldest int64              // a time before which none has closed; 0: unknown
}

// A closedRecord is the record of a closed endpoint.
type closedRecord struct {
	Closed int64 `json:"closed"`
}

func newMemory() memory { return memory{closed: make(map[Endpoint]int64)} }

// add adds a closed endpoint, and returns its record.
func (m *memory) add(at Endpoint, when time.Time) json.RawMessage {
	m.closed[at] = when.Unix()
	m.oldest = min(m.oldest, when.Unix())
	return encode(&closedRecord{when.Unix()})
}

// remove removes an endpoint, and reports whether it closed after the given time.
func (m *memory) remove(at Endpoint, after int64) (known bool) {
	when, known := m.closed[at]
	delete(m.closed, at)
	return known && when > after
}

// forget drops endpoints that closed too long ago, and the first to close if there are too many.
func (m *memory) forget(l *scan) {
	drop := func(at Endpoint) {
		delete(m.closed, at)
		l.set[recordKey(at)] = nil
	}
	if until := l.forgotten(); m.oldest <= until {
		m.oldest = l.view.Time.Unix()
		for at, when := range m.closed {
			if when <= until {
				drop(at)
				continue
			}
			m.oldest = min(m.oldest, when)
		}
	}
	excess := len(m.closed) - l.options.MaxKnown
	if excess <= 0 {
		return
	}
	times := slices.Sorted(maps.Values(m.closed))
	last := times[excess-1]
	var ties []Endpoint // closed in the same second, perhaps too many to drop all
	for at, when := range m.closed {
		switch {
		case when < last:
			drop(at)
		case when == last:
			ties = append(ties, at)
		}
	}
	slices.SortFunc(ties, Endpoint.compare)
	for _, at := range ties[:len(m.closed)-l.options.MaxKnown] {
		drop(at)
	}
}

// forgotten returns the time before which closed endpoints are forgotten, in Unix time.
func (l *scan) forgotten() int64 { return l.view.Time.Add(-l.options.Remember).Unix() }

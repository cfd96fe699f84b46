package history

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"sockwatch/inputs/internal/jsonappend"
)

// The lines are encoded without encoding/json, which takes several times as long: a deploy
// that restarts thousands of services results in one line with thousands of records and
// events. The output can be decoded by encoding/json, and contains no newline.

// append appends the members of a line, without the enclosing braces.
func (l *line) append(b []byte) []byte {
	if s := l.Snapshot; s != nil {
		b = append(jsonappend.Key(b, "snapshot"), '{')
		b = append(strconv.AppendInt(jsonappend.Key(b, "version"), int64(s.Version), 10), ',')
		b = appendText(b, "machine_id", s.Machine)
		b = append(jsonappend.String(jsonappend.Key(b, "history"), s.ID), ',')
		b = append(strconv.AppendInt(jsonappend.Key(b, "sequence"), s.Sequence, 10), ',')
		b = appendRecords(b, "records", s.Records)
		b = appendEvents(b, "waiting", s.Waiting)
		b = appendEvents(b, "recent", s.Recent)
		b = jsonappend.End(b, '}')
	}
	b = appendText(b, "history", l.ID)
	if l.Sequence != 0 {
		b = append(strconv.AppendInt(jsonappend.Key(b, "sequence"), l.Sequence, 10), ',')
	}
	b = appendRecords(b, "set", l.Set)
	b = appendEvents(b, "events", l.Events)
	if len(l.Delivered) > 0 {
		b = append(jsonappend.Key(b, "delivered"), '[')
		for _, r := range l.Delivered {
			b = append(strconv.AppendInt(append(b, '['), r[0], 10), ',')
			b = append(strconv.AppendInt(b, r[1], 10), "],"...)
		}
		b = jsonappend.End(b, ']')
	}
	if n := len(b); n > 0 && b[n-1] == ',' {
		b = b[:n-1]
	}
	return b
}

// size estimates the length of the line, so that its buffer need not grow repeatedly.
func (l *line) size() int {
	const event = 1024
	n := 512 + event*len(l.Events)
	for key, record := range l.Set {
		n += len(key) + len(record) + 8
	}
	if s := l.Snapshot; s != nil {
		n += event * (len(s.Waiting) + len(s.Recent))
		for key, record := range s.Records {
			n += len(key) + len(record) + 8
		}
	}
	return n
}

func appendRecords(b []byte, key string, records map[string]json.RawMessage) []byte {
	if len(records) == 0 {
		return b
	}
	b = append(jsonappend.Key(b, key), '{')
	for _, name := range slices.Sorted(maps.Keys(records)) {
		b = append(jsonappend.String(b, name), ':')
		if record := records[name]; record != nil {
			b = append(b, record...)
		} else {
			b = append(b, "null"...)
		}
		b = append(b, ',')
	}
	return jsonappend.End(b, '}')
}

func appendEvents(b []byte, key string, events []savedEvent) []byte {
	if len(events) == 0 {
		return b
	}
	b = append(jsonappend.Key(b, key), '[')
	for i := range events {
		b = events[i].append(b)
	}
	return jsonappend.End(b, ']')
}

func (s *savedEvent) append(b []byte) []byte {
	b = append(strconv.AppendInt(append(b, `{"sequence":`...), s.Sequence, 10), `,"time":"`...)
	b = append(s.Time.AppendFormat(b, time.RFC3339Nano), `","name":`...)
	b = append(jsonappend.String(b, s.Name), ',')
	if len(s.Tags) > 0 {
		b = append(jsonappend.Key(b, "tags"), '{')
		for _, key := range slices.Sorted(maps.Keys(s.Tags)) {
			b = append(jsonappend.String(append(jsonappend.String(b, key), ':'), s.Tags[key]), ',')
		}
		b = jsonappend.End(b, '}')
	}
	b = append(b, `"fields":[`...)
	for i := range s.Fields {
		b = s.Fields[i].append(b)
	}
	return jsonappend.End(jsonappend.End(b, ']'), '}')
}

func (f *savedField) append(b []byte) []byte {
	b = append(jsonappend.String(append(b, `{"key":`...), f.Key), ',')
	if f.Float != nil {
		b = append(jsonappend.String(jsonappend.Key(b, "float"), *f.Float), ',')
	}
	if f.Int != nil {
		b = append(strconv.AppendInt(jsonappend.Key(b, "int"), *f.Int, 10), ',')
	}
	if f.Uint != nil {
		b = append(strconv.AppendUint(jsonappend.Key(b, "uint"), *f.Uint, 10), ',')
	}
	if f.Bool != nil {
		b = append(strconv.AppendBool(jsonappend.Key(b, "bool"), *f.Bool), ',')
	}
	if f.String != nil {
		b = append(jsonappend.String(jsonappend.Key(b, "string"), *f.String), ',')
	}
	return jsonappend.End(b, '}')
}

// appendText appends a member unless its value is "".
func appendText(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return append(jsonappend.String(jsonappend.Key(b, key), value), ',')
}
